"""Train a decoder for arbitrary style transfer (Huang & Belongie 2017).

    python train.py --config configs/adain.yaml data.content=DIR data.style=DIR run.dir=runs/mine
    python train.py --resume runs/mine

The training reads two folders, contents and styles. The heavy imports stand inside the functions,
so that --help and a wrong option answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stylenet.config import options as machinery
from stylenet.config.training import Config
from stylenet.errors import Parser, UsageError, run_script

if TYPE_CHECKING:
    import torch

# what a resumed run may change
MAY_CHANGE = (
    "run.",
    "tracking.",
    "checkpoint.",
    "train.steps",
    "train.log_every_steps",
    "val.every_steps",
    "data.content",
    "data.style",
    "data.workers",
    "data.cache",
    "encoder.weights",
)
PLACES = ("data.content", "data.style", "encoder.weights")  # paths, relative to where one stood
WARM_STEPS, TIMED_STEPS = 3, 8  # of an estimate


def main(arguments: list[str]) -> int:
    """Exit code of one training run."""
    options, overrides = make_parser().parse_known_args(arguments)
    if options.resume:
        config, state = load_resumed(options.resume, options.config, overrides)
    elif options.config:
        config, state = Config.load(options.config, overrides), None
    else:
        raise UsageError(
            "expected --config FILE or --resume DIR, but neither came; try --config "
            "configs/adain.yaml, or --help"
        )
    if options.estimate and not options.dry_run:
        raise UsageError("expected --dry-run beside --estimate, which trains nothing; add it")
    if options.dry_run:
        return dry_run(config, state["step"] if state else 0, options.estimate)
    return train(config, state)


def make_parser() -> Parser:
    """The parser of the command line; every key=value belongs to the configuration."""
    parser = Parser(
        prog="train.py",
        usage="python train.py (--config FILE | --resume DIR) [--dry-run] [key=value ...]",
        description=__doc__.split("\n\n")[0],
        epilog="options (key: type = default), as key=value or --key=value:\n"
        + machinery.format_options(Config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with what differs from the defaults"
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="run folder to continue, from its newest whole checkpoint, or a checkpoint in it",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print settings, sizes and loss weights, check data and weights, and stop",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help=f"with --dry-run: time {TIMED_STEPS} steps, and say how long the training takes",
    )
    return parser


def load_resumed(
    place: str, config_file: str | None, overrides: list[str]
) -> tuple[Config, dict[str, Any]]:
    """The stored configuration with the allowed changes, and the state.

    `place` is a run folder, whose newest whole checkpoint counts, or a checkpoint in it. Raises
    UsageError that names forbidden changes.
    """
    from stylenet import checkpoint

    if Path(place).is_dir():
        run_dir, (path, state) = place, checkpoint.load_latest(place)
    else:
        path, state = Path(place), checkpoint.load_state(place)
        run_dir = str(checkpoint.run_dir_of(place))
    stored = Config.from_flat(state["release"]["description"]["config"])
    chosen = machinery.read_yaml(config_file) if config_file else None
    base = stored.to_flat() if chosen is None else machinery.flatten(chosen, config_file, Config)
    for override in overrides:
        base |= machinery.parse_override(override, Config)
    if any("run.dir" in machinery.parse_override(override, Config) for override in overrides):
        raise UsageError(
            f"expected a run to continue where it is, but run.dir came beside --resume {place}; "
            "leave it out, or move the folder"
        )
    config = Config.from_flat(found_again(base, state) | {"run.dir": run_dir})
    changed = [
        key for key in machinery.differing_keys(stored, config) if not key.startswith(MAY_CHANGE)
    ]
    if changed:
        raise UsageError(
            f"expected the configuration that {path} was made with, but {', '.join(changed)} "
            f"differ; only {', '.join(name + '*' * name.endswith('.') for name in MAY_CHANGE)} may "
            "change, so start a new run with another run.dir"
        )
    return config, state


def found_again(values: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The values with paths that were relative to the folder where the run was started."""
    start = state.get("working_dir")
    moved = {
        key: str(Path(start, values[key]))
        for key in PLACES
        if start
        and values.get(key)
        and not Path(values[key]).exists()
        and Path(start, values[key]).exists()
    }
    return values | moved


def dry_run(config: Config, first_step: int, is_timed: bool) -> int:
    """Print what a run would do from a step on, and check what it needs; exit code 0."""
    from stylenet import build, datasets, losses, runtime

    data, encoder, trained = (
        build.make_data(config),
        build.make_raw_encoder(config),
        build.make_trained(config),
    )
    for split in data:
        datasets.check_presence(split)
    if not first_step:
        build.load_starting_point(config, encoder)
    build.add_adapters(config, trained)
    build.make_optimizer(config, trained)
    if not runtime.is_main():  # it only takes part in the timed steps
        if is_timed:
            measure(config)
        return 0
    print(config.to_yaml(), end="")
    print(
        f"content: {len(data.content.train)} images to train, {len(data.content.held_out)} held out"
    )
    print(f"style: {len(data.style.train)} images to train, {len(data.style.held_out)} held out")
    a_step = config.train.accumulate * config.data.batch_size * runtime.world_size()
    n_outputs = config.train.steps * a_step * config.train.styles_per_content
    print(f"steps: {config.train.steps:,} of {a_step} pairs, {n_outputs:,} pictures in all")
    print(f"encoder: {count(encoder.network):,} parameters, frozen; sha256 {encoder.sha256[:12]}")
    print(f"trained: {count(trained):,} parameters, {count(trained, only_trained=True):,} trained")
    print(
        "effective loss weights:\n"
        + losses.describe_weights(build.make_loss_weights(config), encoder.network.channels)
    )
    if is_timed:
        timing = measure(config)
        print(f"estimate: {timing.text(max(0, config.train.steps - first_step))}")
    return 0


class Timing(NamedTuple):
    """What a run takes on this machine, without validation."""

    setup_s: float
    step_s: float

    def text(self, n_steps: int) -> str:
        """The time of a run of so many steps, in words."""
        hours = (self.setup_s + n_steps * self.step_s) / 3600
        return (
            f"{hours:,.2g} hours for {n_steps:,} steps of {self.step_s:.3g} s, after "
            f"{self.setup_s:.0f} s of preparation; validation is not counted"
        )


def measure(config: Config) -> Timing:
    """The time of a few steps of a real run, in a folder that is removed afterwards."""
    a_round = config.loss.lazy_every_steps  # which has each term
    n_rounds, first = -(-TIMED_STEPS // a_round), -(-WARM_STEPS // a_round) * a_round
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        parts = {
            "run": {"dir": f"{folder}/run"},
            "tracking": {"mode": "disabled"},
            "train": {
                "steps": first + n_rounds * a_round,
                "log_every_steps": 1,
                "patience": 0,
            },
            "val": {"pairs": 1, "grid_pairs": 1},
        }
        short = dataclasses.replace(
            config,
            **{
                name: dataclasses.replace(getattr(config, name), **values)
                for name, values in parts.items()
            },
        )
        start_s = time.perf_counter()
        exit_code = train(short, None)
        elapsed_s = time.perf_counter() - start_s
        history = Path(folder, "run", "history.jsonl")  # the main process's
        lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    if exit_code or not lines:
        raise SystemExit(exit_code)
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    times_s = [1 / row["steps_per_s"] for row in rows]
    rounds = [times_s[i : i + a_round] for i in range(first, len(times_s), a_round)]
    step_s = statistics.median(statistics.fmean(times) for times in rounds)
    return Timing(max(0.0, elapsed_s - sum(times_s)), step_s)


def count(module: torch.nn.Module, only_trained: bool = False) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not only_trained)


def train(config: Config, state: dict[str, Any] | None) -> int:
    """Run the training to its end or to a stop; returns the exit code."""
    from stylenet import runtime
    from stylenet.losses import weighted_total
    from stylenet.training.run import Run, finished_before

    finished = finished_before(config, state) if state else None
    if finished:
        print(f"finished before, at step {state['step']}: {finished}")
        return 0
    device = runtime.pick_device(config.run.device)
    runtime.keep_freed_memory()
    runtime.allow_tf32(config.train.tf32)
    with (
        runtime.processes(device),
        Run(config, device, state) as run,
        runtime.StopRequest() as stop,
    ):
        setup, batches = run.setup, run.make_batches(stop)
        net, objective, adversary = setup.net, setup.objective, setup.adversary
        optimizer, scaler = setup.network.optimizer, setup.scaler
        n_styles, lazy_steps = config.train.styles_per_content, config.loss.lazy_every_steps
        while run.step < config.train.steps and not run.is_settled:
            for group in optimizer.param_groups:
                group["lr"] = setup.learning_rate(run.step)
            for part in range(config.train.accumulate):
                content, style = setup.to_device(next(batches))
                with setup.gradients_shared(is_last=part == config.train.accumulate - 1):
                    with runtime.autocast(device, config.train.precision):
                        # t = AdaIN(f(c), f(s)), eq. 9, then g(t), eq. 10, then L_c and L_s
                        seen = objective.observe(content, style, n_styles)
                        output = net.learn(seen)
                        moves = setup.shift(run.step), setup.motion(run.step)
                        is_due = run.step % lazy_steps == 0
                        terms = objective.terms(output, seen, net if is_due else None, *moves)
                        if adversary:
                            terms["adversarial"] = adversary.term(output)
                    # L = L_c + lambda L_s, eq. 11
                    total = weighted_total(terms, objective.weights, lazy_steps)
                    scaler.scale(total / config.train.accumulate).backward()
                facts = adversary.learn(style, output) if adversary else {}
                run.note_losses(part, terms | facts, total)
            setup.clip_gradients()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            run.finish_step()  # average the weights; log, validate and save when due
            if stop.is_made() and run.step < config.train.steps:
                return run.stop_early(stop.exit_code)
        return run.release()


if __name__ == "__main__":
    sys.exit(run_script(main))
