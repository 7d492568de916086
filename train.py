"""Train a decoder for arbitrary style transfer on folders of contents and styles (Huang & Belongie 2017).

    python train.py --config configs/adain.yaml data.content=DIR data.style=DIR run.dir=runs/mine
    python train.py --resume runs/mine

The heavy imports stand inside the functions, so that --help and a wrong option answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylenet import config as configuration
from stylenet.config import Config
from stylenet.errors import NonFiniteLossError, Parser, UsageError, run_script

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stylenet.datasets import PairDataset
    from stylenet.losses import LossWeights
    from stylenet.models.stylenet import StyleNet

MAY_CHANGE = ("run.", "tracking.", "train.steps")  # what a resumed run may set anew


def main(arguments: list[str]) -> int:
    """Exit code of one training run."""
    options, overrides = make_parser().parse_known_args(arguments)
    if options.resume:
        config, state = load_resumed(options.resume, options.config, overrides)
    elif options.config:
        config, state = configuration.load_config(options.config, overrides), None
    else:
        raise UsageError("expected --config FILE or --resume DIR, but neither came; try --config configs/adain.yaml, or --help")
    return dry_run(config) if options.dry_run else train(config, state)


def make_parser() -> Parser:
    """The command line; every key=value is left to the configuration."""
    parser = Parser(
        prog="train.py",
        usage="python train.py (--config FILE | --resume DIR) [--dry-run] [key=value ...]",
        description=__doc__.split("\n\n")[0],
        epilog="options (key: type = default), as key=value or --key=value:\n" + configuration.format_options(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with what differs from the defaults")
    parser.add_argument("--resume", metavar="DIR", help="run folder to go on with, from its newest checkpoint")
    parser.add_argument(
        "--dry-run", action="store_true", help="print settings, sizes and loss weights, check data and weights, and stop"
    )
    return parser


def load_resumed(run_dir: str, config_file: str | None, overrides: list[str]) -> tuple[Config, dict[str, Any]]:
    """The stored configuration with the allowed changes, and the newest state. Raises UsageError naming forbidden ones."""
    from stylenet.checkpoint import latest_state, load_state

    path = latest_state(run_dir)
    state = load_state(path)
    stored = configuration.make_config(state["release"]["description"]["config"])
    chosen = configuration.read_yaml(config_file) if config_file else None
    base = configuration.to_flat(stored) if chosen is None else configuration.flatten(chosen, config_file)
    for override in overrides:
        base |= configuration.parse_override(override)
    config = configuration.make_config(base | {"run.dir": run_dir})
    changed = [key for key in configuration.differing_keys(stored, config) if not key.startswith(MAY_CHANGE)]
    if changed:
        raise UsageError(
            f"expected the configuration that {path} was made with, but {', '.join(changed)} differ; "
            "only train.steps, run.* and tracking.* may change, so start a new run with another run.dir"
        )
    return config, state


def dry_run(config: Config) -> int:
    """Print what a run would do and check what it needs."""
    from stylenet import build, losses

    data, encoder, decoder = build.make_data(config), build.make_raw_encoder(config), build.make_decoder(config)
    build.load_starting_point(config, encoder)
    build.make_optimizer(config, decoder)
    print(configuration.to_yaml(config), end="")
    print(f"content: {len(data.content.train)} images to train, {len(data.content.held_out)} held out")
    print(f"style: {len(data.style.train)} images to train, {len(data.style.held_out)} held out")
    print(f"encoder: {count(encoder.network):,} parameters, frozen; sha256 {encoder.sha256[:12]}")
    print(f"decoder: {count(decoder):,} parameters, {count(decoder, only_trained=True):,} trained")
    print("effective loss weights:\n" + losses.describe_weights(build.make_loss_weights(config), encoder.network.channels))
    return 0


def count(module: torch.nn.Module, only_trained: bool = False) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not only_trained)


def train(config: Config, state: dict[str, Any] | None) -> int:
    """Run the training to its end or to a stop; the exit code."""
    import torch

    from stylenet import runtime
    from stylenet.losses import describe_weights, weighted_total

    device = runtime.pick_device(config.run.device)
    runtime.keep_freed_memory()
    runtime.allow_tf32(config.train.tf32)
    with runtime.processes(device):
        run = Run(config, device, state)
        net, weights, optimizer, scaler = run.net, run.weights, run.optimizer, run.scaler
        run.say("effective loss weights:\n" + describe_weights(weights, net.encoder.channels))
        batches = run.make_batches()
        with runtime.StopRequest() as stop, run:
            while run.step < config.train.steps:
                for group in optimizer.param_groups:
                    group["lr"] = run.learning_rate(run.step)
                for part in range(config.train.accumulate):
                    batch = next(batches)
                    run.bad_files.report(batch)
                    content, style = (run.to_device(images) for images in (batch.content, batch.style))
                    with run.gradients_shared(is_last=part == config.train.accumulate - 1):
                        with runtime.autocast(device, config.train.precision):
                            stylised = net.stylise(content, style, list(weights.taps))  # t = AdaIN(f(c), f(s)), g(t)
                            terms = net.losses(stylised, content, style, weights)  # L = L_c + lambda L_s, eq. 11
                        total = weighted_total(terms, weights)
                        scaler.scale(total / config.train.accumulate).backward()
                    run.note(terms, total)
                if config.optim.clip_norm:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(run.decoder.parameters(), config.optim.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                if run.average:
                    run.average.update_parameters(run.decoder)
                run.finish_step()
                if stop.is_made() and run.step < config.train.steps:
                    return run.stop_early(stop.exit_code)
            return run.release()


class Run:
    """What a training run holds and writes; its loop stands in `train`."""

    def __init__(self, config: Config, device: torch.device, state: dict[str, Any] | None) -> None:
        import torch

        from stylenet import build, checkpoint, datasets, runtime

        self.config, self.device, self.dir = config, device, Path(config.run.dir)
        self.refuse_to_overwrite(state)
        self.layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self.data = build.make_data(config)
        raw = build.make_raw_encoder(config)
        start = None if state else build.load_starting_point(config, raw)
        self.decoder = build.make_decoder(config)
        self.learning_rate = build.make_schedule(config)
        self.weights: LossWeights = build.make_loss_weights(config)
        sources = build.make_sources(config, self.data, device)
        self.dataset: PairDataset = build.make_dataset(config, sources)
        self.bad_files = datasets.BadFiles(len(self.data.content.train) + len(self.data.style.train), config.data.max_bad)

        raw.network.to(device, memory_format=self.layout)
        if state:
            checkpoint.check_encoder(state["release"]["description"], raw.sha256, self.dir)
            mu = checkpoint.with_prefix(state["release"]["tensors"], "mu.")
        elif start:
            mu = start.mu
            self.decoder.load_state_dict(start.decoder)
        else:
            self.say("calibrating the encoder on the training images" if config.encoder.calibrate else "encoder not calibrated")
            mu = runtime.from_main(build.measure_mu(config, raw, sources) if runtime.is_main() else None)
        self.encoder = build.calibrate_encoder(raw, mu)
        self.decoder.to(device, memory_format=self.layout)
        self.average = build.make_average(config, self.decoder)
        self.optimizer = build.make_optimizer(config, self.decoder)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
        self.step, self.samples_seen, self.best, self.tracking_id = 0, 0, None, uuid.uuid4().hex[:8]
        if state:
            self.load(state)
        self.net = self.make_training_net()
        self.validation_pairs: list[tuple[Tensor, Tensor]] | None = None
        self.pending: list[tuple[int, int, dict[str, Tensor]]] = []  # (first sample, step, terms), not yet looked at
        self.window_start, self.last_saved, self.last_validated = time.perf_counter(), self.step, -1
        self.description = build.describe_run(config, self.encoder, self.data, device)

    def refuse_to_overwrite(self, state: dict[str, Any] | None) -> None:
        """Raise UsageError where a new run would write over another one."""
        from stylenet.checkpoint import list_states

        if not state and list_states(self.dir):
            raise UsageError(f"expected a new run.dir, but {self.dir} holds a run; go on with --resume {self.dir} or name another")

    def load(self, state: dict[str, Any]) -> None:
        """Take over a resume state."""
        self.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.step, self.samples_seen = state["step"], state["samples_seen"]
        self.best, self.tracking_id = state["best"], state["tracking_id"]

    def make_training_net(self) -> StyleNet:
        """The network of the loop: compiled, and with gradients averaged over the processes, where asked for."""
        from torch.nn.parallel import DistributedDataParallel

        from stylenet import build, runtime

        if self.config.train.compile:
            self.encoder.network.compile()
            self.decoder.compile()
        self.decoder.train()
        is_parallel = runtime.world_size() > 1
        return build.make_net(self.config, self.encoder, DistributedDataParallel(self.decoder) if is_parallel else self.decoder)

    def make_batches(self) -> Any:
        """The endless batches of this process, from the first sample not yet seen."""
        from stylenet import datasets, runtime

        options = self.config.data
        sampler = datasets.EndlessSampler(self.samples_seen, options.batch_size, runtime.rank(), runtime.world_size())
        is_cached = options.cache != "none"
        pin = self.device.type == "cuda" and options.cache != "device"
        return datasets.make_batches(self.dataset, sampler, 0 if is_cached else options.workers, pin)

    def to_device(self, pixels: Tensor) -> Tensor:
        """uint8 pixels as float32 in [0, 1] on the device, in the networks' layout."""
        from stylenet.images import to_unit

        return to_unit(pixels.to(self.device, non_blocking=True)).contiguous(memory_format=self.layout)

    def gradients_shared(self, is_last: bool) -> Any:
        """Context of a backward pass: processes exchange gradients at the last of the accumulated batches only."""
        from stylenet import runtime

        is_parallel = runtime.world_size() > 1
        return self.net.decoder.no_sync() if is_parallel and not is_last else contextlib.nullcontext()

    def __enter__(self) -> Run:
        from stylenet import runtime
        from stylenet.images import replaced_file
        from stylenet.tracking import Tracker, make_tracker

        options = self.config.tracking
        self.tracker, self.exit_code, self.bar = Tracker(), 1, None
        if not runtime.is_main():
            return self
        with replaced_file(self.dir / "config.yaml") as temporary:
            temporary.write_text(configuration.to_yaml(self.config), encoding="utf-8")
        self.trim_history()
        facts = {f"facts.{name}": self.description[name] for name in ("git_commit", "hardware", "versions", "data")}
        about = {"project": options.project, "entity": options.entity, "group": options.group, "notes": options.notes}
        about |= {"name": self.dir.name, "tags": list(options.tags)}
        flat = configuration.to_flat(self.config) | facts
        self.tracker = make_tracker(self.dir, options.mode, self.tracking_id, options.init_timeout_s, flat, "train", **about)
        self.bar = make_bar(self.step, self.config.train.steps)
        self.say(f"training from step {self.step} to {self.config.train.steps} on {self.description['hardware']}")
        self.window_start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        from stylenet.tracking import sync_command

        if self.bar is not None:
            self.bar.close()
        self.tracker.finish(self.exit_code)
        command = sync_command(self.dir)
        if command and self.config.tracking.mode != "disabled":
            self.say(f"to upload the offline run: {command}")

    def say(self, line: str) -> None:
        """Print in the main process only, above the progress bar if there is one."""
        from stylenet import runtime

        if runtime.is_main():
            bar = getattr(self, "bar", None)
            bar.write(line, file=sys.stdout) if bar is not None else print(line, flush=True)

    def note(self, terms: dict[str, Tensor], total: Tensor) -> None:
        """Keep a batch's losses without waiting for the device; `look_at_losses` reads them."""
        from stylenet import runtime

        part = len([1 for _, step, _ in self.pending if step == self.step])
        first = self.samples_seen + (part * runtime.world_size() + runtime.rank()) * self.config.data.batch_size
        detached = {name: value.detach() for name, value in terms.items()} | {"total": total.detach()}
        self.pending.append((first, self.step, detached))

    def finish_step(self) -> None:
        """Count the step; log, validate and save when they are due."""
        from stylenet import runtime

        config = self.config
        self.step += 1
        self.samples_seen += config.train.accumulate * config.data.batch_size * runtime.world_size()
        if self.step % config.train.log_every_steps == 0 or self.device.type == "cpu":
            self.look_at_losses(is_due=self.step % config.train.log_every_steps == 0)
        if self.step % config.val.every_steps == 0:
            self.validate()
        if self.step % config.checkpoint.every_steps == 0:
            self.save()

    def look_at_losses(self, is_due: bool = True) -> None:
        """Check the noted losses, and log their mean if that is due. Raises NonFiniteLossError."""
        import torch

        if not self.pending:
            return
        names = list(self.pending[0][2])
        rows = torch.stack([torch.stack([terms[name] for name in names]) for _, _, terms in self.pending]).cpu()
        for row, (first, step, _) in zip(rows, self.pending, strict=True):
            if not row.isfinite().all():
                self.report_non_finite(step, first, dict(zip(names, row.tolist(), strict=True)))
        if is_due:
            self.log(dict(zip(names, rows.mean(0).tolist(), strict=True)), n_steps=len({step for _, step, _ in self.pending}))
            self.pending = []

    def report_non_finite(self, step: int, first: int, losses: dict[str, float]) -> None:
        """Raise NonFiniteLossError with all that is needed to look at the case again."""
        indices = range(first, first + self.config.data.batch_size)
        pairs = "; ".join(f"{i}: {content} + {style}" for i, (content, style) in ((i, self.dataset.paths(i)) for i in indices))
        values = ", ".join(f"{name}={value:g}" for name, value in losses.items())
        raise NonFiniteLossError(
            f"expected finite losses, but at step {step + 1} came {values}; samples {indices[0]} to {indices[-1]} ({pairs}); "
            f"the last checkpoint is untouched: look at these images, or lower optim.lr, or set optim.clip_norm"
        )

    def log(self, losses: dict[str, float], n_steps: int) -> None:
        """One line of training losses: progress bar or plain line, history file, W&B."""
        from stylenet import runtime

        rate = n_steps / (time.perf_counter() - self.window_start)
        self.window_start = time.perf_counter()
        if not runtime.is_main():
            return
        values = losses | {"lr": self.learning_rate(self.step - 1), "steps_per_s": rate}
        self.write_history("train", values)
        self.tracker.log({f"train/{name}": value for name, value in values.items()}, self.step)
        kinds = dict.fromkeys(name.partition("/")[0] for name in losses)
        shown = {kind: f"{sum(v for name, v in losses.items() if name.partition('/')[0] == kind):.4g}" for kind in kinds}
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(self.step - self.bar.n)
            return
        left = time.strftime("%H:%M:%S", time.gmtime((self.config.train.steps - self.step) / rate))
        columns = "  ".join(f"{name} {value}" for name, value in shown.items())
        print(f"step {self.step}/{self.config.train.steps}  {columns}  {rate:.3g} steps/s  {left} left", flush=True)

    def write_history(self, kind: str, values: dict[str, float]) -> None:
        """One line of JSON in the run's history.jsonl."""
        with open(self.dir / "history.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, "kind": kind, **values}) + "\n")

    def trim_history(self) -> None:
        """Drop what an interrupted run logged after the checkpoint that is gone on from."""
        from stylenet.images import replaced_file

        path = self.dir / "history.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.step]
        with replaced_file(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def shown_decoder(self) -> torch.nn.Module:
        """The decoder that is validated and released: the averaged one if there is one."""
        return self.average.module if self.average else self.decoder

    def validate(self) -> None:
        """Losses on the held-out pairs and the grid of pictures, in the main process; the others wait."""
        from stylenet import runtime

        self.look_at_losses()
        self.last_validated = self.step
        if runtime.is_main():
            self.validate_here()
        runtime.barrier()
        self.window_start = time.perf_counter()

    def validate_here(self) -> None:
        """Validate, remember the best, and write the grid."""
        pairs = self.load_validation_pairs()
        if not pairs:
            return
        losses = self.validation_losses(pairs)
        if losses["total"] != losses["total"]:
            raise NonFiniteLossError(
                f"expected finite validation losses, but {losses} came at step {self.step}; the last checkpoint is untouched"
            )
        self.write_history("val", losses)
        self.tracker.log({f"val/{name}": value for name, value in losses.items()}, self.step)
        self.say(f"validation at step {self.step}: " + "  ".join(f"{name} {value:.4g}" for name, value in losses.items()))
        self.write_grid(pairs[: self.config.val.grid_pairs])
        if self.best is None or losses["total"] < self.best["total"]:
            self.best = losses | {"step": self.step}
            self.tracker.summarise({f"best/{name}": value for name, value in self.best.items()})
            self.write_state("best.pt", ["best"])

    def load_validation_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The held-out pairs, read once."""
        from stylenet import datasets

        if self.validation_pairs is None:
            options, held_out = self.config.data, (self.data.content.held_out, self.data.style.held_out)
            n = max(self.config.val.pairs, self.config.val.grid_pairs)
            self.validation_pairs = datasets.held_out_pairs(*held_out, n, options.crop_px, options.resize_px)
            if not self.validation_pairs:
                self.say(
                    "no held-out images of both kinds: no validation (set data.held_out, or give manifests with a held_out part)"
                )
        return self.validation_pairs

    def validation_losses(self, pairs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Mean losses over the pairs, by the names of the training losses."""
        import torch

        from stylenet import build, runtime
        from stylenet.losses import weighted_total

        decoder, size, pairs = self.shown_decoder().eval(), self.config.data.batch_size, pairs[: self.config.val.pairs]
        net, sums = build.make_net(self.config, self.encoder, decoder), {}
        with torch.no_grad():
            for start in range(0, len(pairs), size):
                images = [torch.stack(part).to(self.device) for part in zip(*pairs[start : start + size], strict=True)]
                content, style = (image.contiguous(memory_format=self.layout) for image in images)
                with runtime.autocast(self.device, self.config.train.precision):
                    terms = net.losses(net.stylise(content, style, list(self.weights.taps)), content, style, self.weights)
                terms["total"] = weighted_total(terms, self.weights)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(content)
        self.decoder.train()
        return {name: value / len(pairs) for name, value in sums.items()}

    def write_grid(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """The sample pairs, one a row: content, style, and the output at each strength."""
        import torch

        from stylenet import build, images, runtime

        net, rows = build.make_net(self.config, self.encoder, self.shown_decoder().eval()), []
        with torch.no_grad(), runtime.autocast(self.device, self.config.train.precision):
            for content, style in pairs:
                batch = content[None].to(self.device), style[None].to(self.device)
                rows.append([content, style, *(net(*batch, alpha)[0] for alpha in self.config.val.alphas)])
        self.decoder.train()
        path = self.dir / "samples" / f"step_{self.step:08d}.png"
        images.save_image(images.make_grid(rows), path)
        self.tracker.log_image("val/samples", path, self.step)

    def save(self) -> None:
        """Write the resume state, after the losses were seen to be finite."""
        from stylenet import checkpoint, runtime

        self.look_at_losses()
        if runtime.is_main() and self.last_saved != self.step:
            aliases = ["latest"] if self.config.tracking.artifacts == "all" else []
            self.write_state(checkpoint.state_path(self.dir, self.step).name, aliases)
            checkpoint.drop_old_states(self.dir, self.config.checkpoint.keep)
        self.last_saved = self.step
        runtime.barrier()

    def write_state(self, name: str, aliases: list[str]) -> None:
        """Write a resume state, and log it as an artifact if each one is wanted."""
        from stylenet import build, checkpoint

        path = self.dir / "checkpoints" / name
        tensors = build.release_tensors(self.config, self.encoder, self.shown_decoder())
        checkpoint.save_state(
            {
                "step": self.step,
                "samples_seen": self.samples_seen,
                "best": self.best,
                "tracking_id": self.tracking_id,
                "decoder": self.decoder.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "release": {"tensors": tensors, "description": self.description | {"step": self.step, "best": self.best}},
            },
            path,
        )
        if self.config.tracking.artifacts == "all" and aliases:
            self.tracker.log_checkpoint(path, aliases, {"step": self.step})

    def stop_early(self, exit_code: int) -> int:
        """Save because of a signal; the signal's exit code."""
        self.save()
        self.log_final_artifacts()
        self.exit_code = exit_code
        self.say(f"stopped at step {self.step}; go on with: python train.py --resume {self.dir}")
        return exit_code

    def release(self) -> int:
        """Validate, save and write the released model; exit code 0."""
        from stylenet import build, checkpoint, runtime

        self.look_at_losses()
        if self.last_validated != self.step:
            self.validate()
        self.save()
        if runtime.is_main():
            tensors = build.release_tensors(self.config, self.encoder, self.shown_decoder())
            checkpoint.save_model(
                tensors, self.description | {"step": self.step, "best": self.best}, self.dir / checkpoint.MODEL_FILE
            )
            self.log_final_artifacts()
            self.say(f"finished at step {self.step}: {self.dir / checkpoint.MODEL_FILE}")
        self.exit_code = 0
        return 0

    def log_final_artifacts(self) -> None:
        """The newest and the best state as artifacts, unless each one was logged already or none is wanted."""
        from stylenet import checkpoint, runtime

        if self.config.tracking.artifacts != "final" or not runtime.is_main():
            return
        files = {"latest": checkpoint.state_path(self.dir, self.step), "best": self.dir / "checkpoints" / checkpoint.BEST_FILE}
        for alias, path in sorted(files.items()):
            if path.exists():
                self.tracker.log_checkpoint(path, [alias], {"step": self.step})


def make_bar(start: int, n_steps: int) -> Any:
    """A progress bar on a terminal, None where the output is piped."""
    from tqdm import tqdm

    return tqdm(initial=start, total=n_steps, unit="step", dynamic_ncols=True) if sys.stderr.isatty() else None


if __name__ == "__main__":
    sys.exit(run_script(main))
