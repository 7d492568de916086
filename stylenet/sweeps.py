"""W&B's sweep files without W&B: reading them, expanding them to cells, and the command line of a cell.

The same file runs under `wandb sweep` and `wandb agent`; there is no sweep offline, so `ablate.py` does it here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from stylenet.errors import UsageError

SEED = "run.seed"
DEFAULT_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]  # W&B's own
PROTOCOL_LINE = re.compile(r"^protocol:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
SAMPLERS: dict[str, Callable[[np.random.Generator, float, float], float]] = {
    "uniform": lambda random, low, high: float(random.uniform(low, high)),
    "int_uniform": lambda random, low, high: int(random.integers(int(low), int(high) + 1)),
    "log_uniform_values": lambda random, low, high: float(math.exp(random.uniform(math.log(low), math.log(high)))),
}


class Sweep(NamedTuple):
    """A sweep file."""

    name: str
    program: str
    method: str
    command: list[str]
    parameters: dict[str, dict[str, Any]]
    run_cap: int | None
    protocol: str  # of eval.py, from the line `protocol: NAME` in the description: the format has no key for it


def read_sweep(path: str | Path) -> Sweep:
    """The file. Raises UsageError for one that is no sweep, or asks for what only a server can do."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"expected a sweep file in YAML, but {path} cannot be read ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise UsageError(f"expected a W&B sweep with parameters in {path}, but it has none")
    method = content.get("method")
    if method not in ("grid", "random"):
        raise UsageError(f"expected method grid or random in {path}, but {method!r} came; bayes needs W&B's server")
    found = PROTOCOL_LINE.search(content.get("description") or "")
    command = [str(part) for part in content.get("command", DEFAULT_COMMAND)]
    name, program = str(content.get("name", Path(path).stem)), str(content.get("program", ""))
    protocol = found.group(1) if found else "quick"
    sweep = Sweep(name, program, method, command, content["parameters"], content.get("run_cap"), protocol)
    check_sweep(sweep, path)
    return sweep


def check_sweep(sweep: Sweep, path: str | Path) -> None:
    """Raise UsageError for parameters that cannot be expanded."""
    if Path(sweep.program).name != "train.py":
        raise UsageError(f"expected program: train.py in {path}, but {sweep.program!r} came")
    if sweep.method == "random" and not isinstance(sweep.run_cap, int):
        raise UsageError(f"expected a run_cap in {path}, since method random has no end of its own, but {sweep.run_cap!r} came")
    for key, spec in sweep.parameters.items():
        if not isinstance(spec, dict) or not ("value" in spec or "values" in spec or {"min", "max"} <= spec.keys()):
            raise UsageError(
                f"expected value, values, or min and max for {key} in {path}, but {spec!r} came; keys are dotted, not nested"
            )
        if sweep.method == "grid" and "value" not in spec and "values" not in spec:
            raise UsageError(f"expected values for {key} in {path}, since a grid has no ranges, but {spec!r} came")
        if "min" in spec and distribution_of(spec) not in SAMPLERS:
            raise UsageError(
                f"expected a distribution out of {', '.join(SAMPLERS)} for {key} in {path}, but {distribution_of(spec)!r} came"
            )
        if not spec.get("values", [None]):
            raise UsageError(f"expected at least one of values for {key} in {path}, but there is none")


def distribution_of(spec: Mapping[str, Any]) -> str:
    """The distribution of a range: as named, else W&B's choice by the type of its ends."""
    is_whole = isinstance(spec["min"], int) and isinstance(spec["max"], int)
    return spec.get("distribution", "int_uniform" if is_whole else "uniform")


def expand(sweep: Sweep, seed: int = 0) -> list[dict[str, Any]]:
    """The cells: every combination of a grid, or `run_cap` draws that depend on the seed alone; no cell twice."""
    if sweep.method == "grid":
        choices = [spec.get("values", [spec.get("value")]) for spec in sweep.parameters.values()]
        cells = [dict(zip(sweep.parameters, chosen, strict=True)) for chosen in itertools.product(*choices)]
    else:
        random = np.random.default_rng(seed)
        cells = [{key: draw(spec, random) for key, spec in sweep.parameters.items()} for _ in range(sweep.run_cap)]
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
    names = [key for key, spec in sweep.parameters.items() if "value" not in spec and len(spec.get("values", [0, 1])) > 1]
    return [name for name in names if name != SEED] + [name for name in names if name == SEED]


def arguments_of(sweep: Sweep, cell: Mapping[str, Any]) -> list[str]:
    """What train.py is given for a cell, as W&B's agent would: the command behind the program, its macros replaced."""
    behind = sweep.command[sweep.command.index("${program}") + 1 :] if "${program}" in sweep.command else ["${args}"]
    macros = {
        "${args}": [f"--{key}={value}" for key, value in cell.items()],
        "${args_no_hyphens}": [f"{key}={value}" for key, value in cell.items()],
    }
    return [text for part in behind for text in macros.get(part, [part])]


def label(cell: Mapping[str, Any], names: Sequence[str]) -> str:
    """A cell by the parameters that distinguish it."""
    return ", ".join(f"{name}={cell[name]}" for name in names) or "all settings"
