"""Run an ablation: train every cell of a W&B sweep file, score all alike, and compare them.

    python ablate.py configs/ablations/transform.yaml data.content=DIR data.style=DIR --dry-run
    python ablate.py configs/ablations/transform.yaml data.content=DIR data.style=DIR
    python ablate.py configs/ablations/transform.yaml data.content=DIR data.style=DIR --resume

A cell is a real run of train.py in a folder named after what it computes. A finished cell is never
trained again, whichever ablation needs it. With a W&B server the same file runs under `wandb sweep`
and `wandb agent`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import eval as evaluation
import train
from stylenet.config.options import parse_override
from stylenet.config.protocol import Protocol
from stylenet.config.training import Config, name_of_computation
from stylenet.errors import Parser, StylenetError, UsageError, run_script
from stylenet.progress import shown
from stylenet.training.sweeps import SEED, Sweep, arguments_of, expand, label, read_sweep, varied

ROOT = Path(__file__).parent
# the sections of a protocol alone; tracking belongs to both scripts
JUDGING = {field.name for field in dataclasses.fields(Protocol)} - {"tracking"}
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
MODEL_FILE, STATES = "model.safetensors", "checkpoints/step_*.pt"


class Cell(NamedTuple):
    """One training run of the ablation."""

    parameters: dict[str, Any]
    config: Config
    command: list[str]  # of train.py
    folder: Path

    @property
    def is_finished(self) -> bool:
        """Whether the training has reached its end and its model is whole."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / MODEL_FILE, "numpy"):
                return True
        except (OSError, SafetensorError):
            return False

    @property
    def is_begun(self) -> bool:
        """Whether there is a checkpoint to continue from."""
        return any(self.folder.glob(STATES))


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 1 if a cell failed."""
    options, overrides = make_parser().parse_known_args(arguments)
    sweep = read_sweep(options.sweep)
    training, judging = split_overrides(overrides)
    cells = make_cells(sweep, training, Path(options.output))
    check_cells(cells, sweep)
    folder = Path(options.output) / sweep.name
    # a mistake in the scoring options shows before anything is trained
    evaluation.read_arguments(scoring_arguments(sweep, cells, folder, judging, options))
    if options.estimate and not options.dry_run:
        raise UsageError("expected --dry-run beside --estimate, which trains nothing; add it")
    if options.dry_run:
        return show_plan(sweep, cells, options.jobs if options.estimate else 0)
    begun = [cell for cell in cells if cell.is_finished or cell.is_begun]
    if begun and not options.resume:
        raise UsageError(
            f"expected a new ablation, but {len(begun)} of its {len(cells)} cells are begun; "
            "continue with --resume"
        )
    with Fleet() as fleet:
        failed = train_all(sweep, cells, options.jobs, folder, fleet)
        finished = [cell for cell in cells if cell.is_finished]
        if fleet.exit_code:
            return fleet.exit_code
        if not finished:
            raise StylenetError(
                f"expected at least one finished cell, but all {len(cells)} failed; see "
                f"{folder}/logs"
            )
        check_comparable(finished)
        command = [
            str(ROOT / "eval.py"),
            *scoring_arguments(sweep, finished, folder, judging, options),
        ]
        code = fleet.run(command, dict(os.environ))
    if code:
        return code
    compare(
        sweep, cells, finished, folder, [label(cell.parameters, varied(sweep)) for cell in failed]
    )
    return StylenetError.exit_code if failed else 0


def make_parser() -> Parser:
    """The parser of the command line.

    Every key=value goes to train.py, or to eval.py if it is an option of a protocol.
    """
    parser = Parser(
        prog="ablate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sweep", metavar="FILE", help="sweep file such as configs/ablations/transform.yaml"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="cells at once; GPUs or CPU threads are dealt out (default 1)",
    )
    parser.add_argument(
        "--output",
        default="runs/ablations",
        metavar="DIR",
        help="cells and results (default runs/ablations)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="list the cells and what is finished, and stop"
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="with --dry-run: time a few steps of each setting, and say how long all take",
    )
    parser.add_argument("--resume", action="store_true", help="do only what is missing")
    parser.add_argument(
        "--alpha",
        default="1",
        metavar="A,B",
        help="strengths at which the cells are scored (default 1)",
    )
    parser.add_argument(
        "--oracle", default="0", metavar="N", help="pairs of the oracle (default 0)"
    )
    parser.add_argument("--metrics", metavar="A,B", help="only these metrics")
    return parser


def split_overrides(overrides: list[str]) -> tuple[list[str], list[str]]:
    """The overrides of train.py and those of eval.py; tracking goes to both.

    Raises UsageError for an unknown key.
    """
    training, judging = [], []
    for text in overrides:
        section = text.removeprefix("--").partition("=")[0].partition(".")[0]
        if section in JUDGING or section == "tracking":
            judging.append(text)
        if section not in JUDGING:
            training.append(text)
    return training, judging


def make_cells(sweep: Sweep, overrides: list[str], output: Path) -> list[Cell]:
    """The cells with their resolved configurations.

    Raises UsageError for an override of a varied parameter, which would make cells alike.
    """
    conflicts = [
        name
        for name in varied(sweep)
        if any(name in parse_override(text, Config) for text in overrides)
    ]
    if conflicts:
        raise UsageError(
            f"expected {conflicts[0]} to be left to the ablation, but an override sets it; "
            "edit the sweep file instead"
        )
    cells = []
    description = [f"tracking.{name}={value}" for name, value in sweep.about.items()]
    for parameters in expand(sweep):
        command = [*description, *arguments_of(sweep, parameters), *overrides]
        config = resolve(command)
        folder = output / "cells" / name_of_computation(config)
        names = [name for name in varied(sweep) if name != SEED]
        name = f"{label(parameters, names)} seed={config.run.seed}"
        grouping = [
            f"tracking.name={name}",
            f"tracking.group={sweep.name}",
            f"tracking.tags={json.dumps(['ablation', sweep.name])}",
        ]
        # the labels and the folder do not belong to the name, so that ablations share cells
        cells.append(Cell(parameters, config, [*command, *grouping, f"run.dir={folder}"], folder))
    return cells


def resolve(command: list[str]) -> Config:
    """The configuration that train.py would make of its arguments."""
    parser = Parser(prog="ablate.py")
    parser.add_argument("--config")
    options, overrides = parser.parse_known_args(command)
    return Config.load(options.config, overrides)


def check_cells(cells: list[Cell], sweep: Sweep) -> None:
    """Raise UsageError unless the cells are different computations on the same data."""
    seen: dict[Path, Cell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.folder, cell)
        if twin is not cell:
            names = [label(c.parameters, varied(sweep)) for c in (twin, cell)]
            raise UsageError(
                f"expected cells that compute different things, but {names[0]} and {names[1]} are "
                "the same; leave one out"
            )
    for key in ("data.content", "data.style", "data.held_out"):
        values = {cell.config.to_flat()[key] for cell in cells}
        if len(values) > 1 or None in values:
            raise UsageError(
                f"expected one {key} for all cells, but {sorted(map(str, values))} came; give "
                f"{key}=… on the command line"
            )


def show_plan(sweep: Sweep, cells: list[Cell], n_timed_jobs: int = 0) -> int:
    """Print the cells and their states; exit code 0.

    With `n_timed_jobs`, also the time that the missing cells take, so many at once.
    """
    for cell in cells:
        state = "finished" if cell.is_finished else "begun" if cell.is_begun else "to do"
        print(
            f"{cell.folder}  {state:<8}  {label(cell.parameters, varied(sweep))}  "
            f"{cell.config.train.steps:,} steps"
        )
    left = [cell.config for cell in cells if not cell.is_finished]
    n_steps = sum(config.train.steps for config in left)
    n_pictures = sum(config.train.steps * outputs_of_step(config) for config in left)
    print(f"to train: {n_steps:,} steps, {n_pictures:,} pictures")
    if n_timed_jobs and left:
        print(f"estimate: {estimate(left, n_timed_jobs)}")
    print(
        f"{len(cells)} cells, {sum(cell.is_finished for cell in cells)} finished; protocol "
        f"{sweep.protocol}"
    )
    return 0


def estimate(configs: list[Config], n_jobs: int) -> str:
    """The time of the trainings, in words. Settings that differ in the seed are timed once."""
    timings: dict[str, train.Timing] = {}
    seconds = 0.0
    for config in shown(configs, len(configs), "cell"):
        setting = name_of_computation(
            dataclasses.replace(config, run=dataclasses.replace(config.run, seed=0))
        )
        if setting not in timings:
            timings[setting] = train.measure(config)
        seconds += timings[setting].setup_s + config.train.steps * timings[setting].step_s
    at_once = (
        f"; {n_jobs} at once share the machine, so a CPU gains little by it" if n_jobs > 1 else ""
    )
    return (
        f"{seconds / 3600:,.2g} hours of training one after the other, without validation and "
        f"scoring{at_once}"
    )


def outputs_of_step(config: Config) -> int:
    """The pictures that a training step of one process computes."""
    return config.train.accumulate * config.data.batch_size * config.train.styles_per_content


def train_all(
    sweep: Sweep, cells: list[Cell], n_jobs: int, folder: Path, fleet: Fleet
) -> list[Cell]:
    """Train the missing cells, `n_jobs` at once; returns those that failed.

    An interrupt lets the running cells save, and starts no other.
    """
    if n_jobs < 1:
        raise UsageError(f"expected --jobs of 1 or more, but {n_jobs} came")
    # each running cell holds a slot, which decides its GPU or its threads
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(n_jobs):
        slots.put(slot)
    failed = []

    def work(cell: Cell) -> None:
        slot = slots.get()
        try:
            name, log = (
                label(cell.parameters, varied(sweep)),
                folder / "logs" / f"{cell.folder.name}.log",
            )
            arguments = ["--resume", str(cell.folder)] if cell.is_begun else cell.command
            code = fleet.run(
                [str(ROOT / "train.py"), *arguments],
                environment(slot, n_jobs),
                log,
                f"cell {name}: {cell.folder}",
            )
            # after an interrupt a cell has stopped, not failed
            if code and not fleet.exit_code:
                failed.append(cell)
                print(
                    f"error: cell {name} failed with exit code {code}: {last_line(log)} ({log})",
                    file=sys.stderr,
                    flush=True,
                )
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(n_jobs) as pool:
        runs = [pool.submit(work, cell) for cell in cells if not cell.is_finished]
        for run in shown(runs, len(runs), "cell"):
            run.result()
    return failed


class Fleet:
    """The running processes of an ablation.

    Within its context a signal to end is passed on to them, and no new one starts.
    """

    SIGNALS = tuple(
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    )

    def __init__(self) -> None:
        self.running: set[subprocess.Popen] = set()
        self.exit_code = 0  # of the signal that came

    def __enter__(self) -> Fleet:
        self.previous = {number: signal.signal(number, self.stop) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def stop(self, number: int, _: object) -> None:
        """The signal handler: every training saves and ends."""
        self.exit_code = 128 + number
        for process in list(self.running):
            process.send_signal(signal.SIGTERM)

    def run(
        self,
        arguments: list[str],
        environ: dict[str, str],
        log: Path | None = None,
        title: str = "",
    ) -> int:
        """The exit code of a script of ours.

        Its output goes to the log, or without one to our own output.
        """
        if self.exit_code:
            return self.exit_code
        if title:
            print(title, flush=True)
        with open_log(log) as file:
            # in a process group of its own, so that Ctrl-C reaches it once, through stop()
            command = {
                "args": [sys.executable, *arguments],
                "stdout": file,
                "stderr": file,
                "env": environ,
            }
            process = subprocess.Popen(
                **command, start_new_session=True, preexec_fn=end_with_parent
            )
            self.running.add(process)
            if self.exit_code:  # a signal came while the process started
                process.send_signal(signal.SIGTERM)
            code = process.wait()
        self.running.discard(process)
        return code


def end_with_parent() -> None:
    """Ask Linux to send this process SIGTERM when its parent ends, even by SIGKILL.

    A training that goes on alone would hold its folder. Runs in the child, before the program.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def open_log(log: Path | None) -> contextlib.AbstractContextManager:
    """The log, open to append to.

    Without one the context is empty, so the process writes where we do.
    """
    if log is None:
        return contextlib.nullcontext()
    log.parent.mkdir(parents=True, exist_ok=True)
    return open(log, "a", encoding="utf-8")


def environment(slot: int, n_jobs: int) -> dict[str, str]:
    """The environment of a job: one of the GPUs, or its share of the CPU's threads."""
    import torch

    n_gpus = torch.cuda.device_count()
    if n_gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(i) for i in range(n_gpus)]
        return os.environ | {"CUDA_VISIBLE_DEVICES": names[slot % n_gpus]}
    n_threads = (
        max(1, len(os.sched_getaffinity(0)) // n_jobs) if hasattr(os, "sched_getaffinity") else 1
    )
    return os.environ | ({"OMP_NUM_THREADS": str(n_threads)} if n_jobs > 1 else {})


def last_line(log: Path) -> str:
    """The last line of a failed cell's log."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def scoring_arguments(
    sweep: Sweep, cells: list[Cell], folder: Path, judging: list[str], options: argparse.Namespace
) -> list[str]:
    """The arguments with which eval.py scores all cells on the same pairs.

    Data and tracking are those of the cells' own training.
    """
    config = cells[0].config
    arguments = [
        "--protocol",
        sweep.protocol,
        "--output",
        str(folder / "eval"),
        "--device",
        config.run.device,
    ]
    arguments += ["--content", config.data.content, "--style", config.data.style]
    arguments += [
        "--alpha",
        options.alpha,
        "--oracle",
        options.oracle,
        *(["--metrics", options.metrics] if options.metrics else []),
    ]
    arguments += [part for cell in cells for part in ("--model", str(cell.folder))]
    weights = config.encoder.weights
    arguments += (
        ["--encoder", weights, f"judge.name={config.encoder.name}", f"judge.weights={weights}"]
        if weights
        else []
    )
    tracking = {
        name: getattr(config.tracking, name)
        for name in ("mode", "project", "entity", "init_timeout_s")
    }
    arguments += [f"tracking.{name}={value}" for name, value in tracking.items()]
    return [
        *arguments,
        f"tracking.group={sweep.name}",
        f"pairs.held_out={config.data.held_out}",
        *judging,
    ]


def check_comparable(cells: list[Cell]) -> None:
    """Raise UsageError if cells differ in training pictures or encoder weights."""
    from stylenet.checkpoint import load_model

    seen: dict[Any, Path] = {}
    for cell in cells:
        description = load_model(cell.folder / MODEL_FILE)[1]
        encoder, data = (
            description["encoder"],
            {kind: facts["list_sha256"] for kind, facts in description["data"].items()},
        )
        for what, key, value in (
            ("encoder weights", (encoder["name"], encoder["tap"]), encoder["sha256"]),
            ("training pictures", "data", json.dumps(data)),
        ):
            known, first = seen.setdefault((what, key), (value, cell.folder))
            if known != value:
                raise UsageError(
                    f"expected the same {what} in all cells, but {first} and {cell.folder} "
                    "differ; move one away"
                )


def compare(
    sweep: Sweep, cells: list[Cell], finished: list[Cell], folder: Path, failed: list[str]
) -> None:
    """Write the comparison and send it to W&B."""
    from stylenet.metrics import comparison

    names = [name for name in varied(sweep) if name != SEED]
    runs = [
        comparison.Trained(label(cell.parameters, names), cell.config.run.seed, cell.folder)
        for cell in finished
    ]
    baseline = label(cells[0].parameters, names)
    print(comparison.write_all(runs, folder, sweep.name, baseline, failed, sweep.question))
    print(f"comparison: {folder / 'report.html'}")
    tracking = cells[0].config.tracking
    comparison.track(
        folder,
        sweep.name,
        tracking.mode,
        tracking.project,
        tracking.entity,
        tracking.init_timeout_s,
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
