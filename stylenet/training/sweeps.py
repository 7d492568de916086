"""W&B's sweep files without W&B: their cells, and the command line of each.

The same file runs under `wandb sweep` and `wandb agent`; there is no sweep offline, so `ablate.py`
does it here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from stylenet.errors import UsageError, one_line
from stylenet.files import parse_yaml, read_yaml_text

SEED = "run.seed"
DEFAULT_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]  # W&B's own
PROTOCOL_LINE = re.compile(r"^protocol:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
SAMPLERS: dict[str, Callable[[np.random.Generator, float, float], float]] = {
    "uniform": lambda random, low, high: float(random.uniform(low, high)),
    "int_uniform": lambda random, low, high: int(random.integers(int(low), int(high) + 1)),
    "log_uniform_values": lambda random, low, high: float(
        math.exp(random.uniform(math.log(low), math.log(high)))
    ),
}


class Sweep(NamedTuple):
    """A sweep file."""

    name: str
    program: str
    method: str
    command: list[str]
    parameters: dict[str, dict[str, Any]]
    run_cap: int | None
    # of eval.py, from the line `protocol: NAME` in the description: the format has no key for it
    protocol: str
    about: dict[str, str]  # W&B's project and entity, where the file names them
    question: str = ""  # the first line of the description


def read_sweep(path: str | Path) -> Sweep:
    """The file.

    Raises UsageError for one that is no sweep, or asks for what only a server can do.
    """
    try:
        content = parse_yaml(read_yaml_text(path), yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(
            f"expected a sweep file in YAML, but {path} cannot be read ({one_line(error)})"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise UsageError(f"expected a W&B sweep with parameters in {path}, but it has none")
    method = content.get("method")
    if method not in ("grid", "random"):
        raise UsageError(
            f"expected method grid or random in {path}, but {method!r} came; bayes needs W&B's "
            "server"
        )
    found = PROTOCOL_LINE.search(str(content.get("description") or ""))
    command = content.get("command", DEFAULT_COMMAND)
    if not isinstance(command, list):
        raise UsageError(f"expected a list as command in {path}, but {command!r} came")
    name, program = str(content.get("name", Path(path).stem)), str(content.get("program", ""))
    about = {key: content[key] for key in ("project", "entity") if content.get(key)}
    protocol = found.group(1) if found else "quick"
    sweep = Sweep(
        name,
        program,
        method,
        [str(part) for part in command],
        content["parameters"],
        content.get("run_cap"),
        protocol,
        about,
        question_of(str(content.get("description") or "")),
    )
    check_sweep(sweep, path)
    return sweep


def question_of(description: str) -> str:
    """The first line of a description that says something to people; empty without one."""
    lines = (line.strip() for line in PROTOCOL_LINE.sub("", description).splitlines())
    return next(filter(None, lines), "")


def check_sweep(sweep: Sweep, path: str | Path) -> None:
    """Raise UsageError for parameters that cannot be expanded."""
    if Path(sweep.program).name != "train.py":
        raise UsageError(f"expected program: train.py in {path}, but {sweep.program!r} came")
    if sweep.method == "random" and not (isinstance(sweep.run_cap, int) and sweep.run_cap > 0):
        raise UsageError(
            f"expected a run_cap in {path}, since method random has no end of its own, but "
            f"{sweep.run_cap!r} came"
        )
    for key, spec in sweep.parameters.items():
        reason = fault_of(spec, sweep.method)
        if reason:
            raise UsageError(f"expected {reason} for {key} in {path}, but {spec!r} came")


def fault_of(spec: Any, method: str) -> str | None:
    """What is expected of a parameter and not fulfilled."""
    if not isinstance(spec, dict) or not (
        "value" in spec or "values" in spec or {"min", "max"} <= spec.keys()
    ):
        return "value, values, or min and max (keys are dotted, not nested)"
    if "value" in spec:
        return None
    if "values" in spec:
        chances = spec.get("probabilities", [1.0])
        if not isinstance(spec["values"], list) or not spec["values"]:
            return "a list of at least one value as values"
        is_whole = "probabilities" not in spec or (
            len(chances) == len(spec["values"]) and math.isclose(sum(chances), 1)
        )
        return None if is_whole else "one probability for each of values, together 1,"
    return fault_of_range(spec, method)


def fault_of_range(spec: Mapping[str, Any], method: str) -> str | None:
    """The same of a range."""
    if method == "grid":
        return "values, since a grid has no ranges,"
    if (
        not all(isinstance(spec[end], (int, float)) for end in ("min", "max"))
        or spec["min"] > spec["max"]
    ):
        return "two numbers, min no larger than max,"
    if distribution_of(spec) not in SAMPLERS:
        return f"a distribution out of {', '.join(SAMPLERS)}"
    return (
        "min above 0, since the distribution is logarithmic,"
        if "log" in distribution_of(spec) and spec["min"] <= 0
        else None
    )


def distribution_of(spec: Mapping[str, Any]) -> str:
    """The distribution of a range: as named, else W&B's choice by the type of its ends."""
    is_whole = isinstance(spec["min"], int) and isinstance(spec["max"], int)
    return spec.get("distribution", "int_uniform" if is_whole else "uniform")


def expand(sweep: Sweep, seed: int = 0) -> list[dict[str, Any]]:
    """The cells, none twice: a grid, or `run_cap` draws that depend on the seed alone."""
    if sweep.method == "grid":
        choices = [spec.get("values", [spec.get("value")]) for spec in sweep.parameters.values()]
        cells = [
            dict(zip(sweep.parameters, chosen, strict=True))
            for chosen in itertools.product(*choices)
        ]
    else:
        random = np.random.default_rng(seed)
        cells = [
            {key: draw(spec, random) for key, spec in sweep.parameters.items()}
            for _ in range(sweep.run_cap)
        ]
    return [cell for i, cell in enumerate(cells) if cell not in cells[:i]]


def draw(spec: Mapping[str, Any], random: np.random.Generator) -> Any:
    """One value of a parameter."""
    if "value" in spec:
        return spec["value"]
    if "values" in spec:
        return spec["values"][int(random.choice(len(spec["values"]), p=spec.get("probabilities")))]
    return SAMPLERS[distribution_of(spec)](random, spec["min"], spec["max"])


def varied(sweep: Sweep) -> list[str]:
    """The parameters with more than one value, the seed last."""
    names = [
        key
        for key, spec in sweep.parameters.items()
        if "value" not in spec and len(spec.get("values", [0, 1])) > 1
    ]
    return [name for name in names if name != SEED] + [name for name in names if name == SEED]


def arguments_of(sweep: Sweep, cell: Mapping[str, Any]) -> list[str]:
    """The arguments of train.py for a cell, as W&B's agent makes them from the command."""
    behind = (
        sweep.command[sweep.command.index("${program}") + 1 :]
        if "${program}" in sweep.command
        else ["${args}"]
    )
    macros = {
        "${args}": [f"--{key}={value}" for key, value in cell.items()],
        "${args_no_hyphens}": [f"{key}={value}" for key, value in cell.items()],
    }
    return [text for part in behind for text in macros.get(part, [part])]


def label(cell: Mapping[str, Any], names: Sequence[str]) -> str:
    """A cell by the parameters that distinguish it, as `norm=instance`.

    A parameter is called by its last name where no other one is called so.
    """
    last = Counter(name.rpartition(".")[2] for name in names)
    short = {name: name.rpartition(".")[2] for name in names}
    shown = {name: short[name] if last[short[name]] == 1 else name for name in names}
    return " ".join(f"{shown[name]}={cell[name]}" for name in names) or "all settings"
