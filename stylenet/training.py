"""What a training run holds and writes. Its loop, the algorithm itself, stands in train.py."""

from __future__ import annotations

import contextlib
import math
import os
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stylenet import build, checkpoint, datasets, images, runtime
from stylenet.build import Config
from stylenet.datasets import Batch
from stylenet.errors import DataError, NonFiniteLossError, UsageError
from stylenet.losses import describe_weights, weighted_total
from stylenet.models.stylenet import StyleNet
from stylenet.tracking import Journal, Tracker, make_tracker

Pairs = list[tuple[Tensor, Tensor]]


class BatchLosses(NamedTuple):
    """The losses of one batch, still on the device."""

    step: int
    first_sample: int
    terms: dict[str, Tensor]


def new_tracking_id() -> str:
    """The id of a new run: the one that a W&B sweep agent has chosen, else eight random hex digits."""
    return os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8]


class Run:
    """The objects of a run, and its bookkeeping. A context: within it the run is tracked, at its end all is closed."""

    def __init__(self, config: Config, device: torch.device, state: dict[str, Any] | None) -> None:
        self.config, self.device = config, device
        self.layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self.tracking_id = state["tracking_id"] if state else runtime.from_main(new_tracking_id())
        self.dir = Path(config.run.dir.replace("{id}", self.tracking_id))
        if not state and checkpoint.holds_run(self.dir):
            raise UsageError(f"expected a new run.dir, but {self.dir} holds a run; go on with --resume {self.dir} or name another")
        self.step, self.samples_seen, self.best = 0, 0, None
        self.recent: list[BatchLosses] = []
        if runtime.is_main():
            images.check_writable(self.dir)
            self.lock = runtime.FolderLock(self.dir)
        self.last_saved, self.last_validated = -1, -1
        self.make_data()
        self.make_networks(state)
        self.description = build.describe_run(config, self.encoder, self.data, device) | {"started_from": self.started_from}
        if state:
            self.load(state)
        self.net = self.make_training_net()

    def make_data(self) -> None:
        """Image sets, their caches, and the stream of samples."""
        self.data = build.make_data(self.config)
        self.sources = build.make_sources(self.config, self.data, self.device)
        self.dataset = build.make_dataset(self.config, self.sources)
        n_images = sum(len(source) for source in self.sources)
        self.bad_files = datasets.BadFiles(n_images, self.config.data.max_bad)

    def make_networks(self, state: dict[str, Any] | None) -> None:
        """The calibrated encoder, the decoder at its starting point, and what trains it."""
        config = self.config
        raw = build.make_raw_encoder(config)
        raw.network.to(self.device, memory_format=self.layout)
        self.trained = build.make_trained(config)
        self.encoder = build.calibrate_encoder(raw, self.find_mu(raw, state))
        self.trained.to(self.device, memory_format=self.layout)
        self.average = build.make_average(config, self.trained)
        self.optimizer = build.make_optimizer(config, self.trained)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.train.precision == "fp16")
        self.learning_rate, self.weights = build.make_schedule(config), build.make_loss_weights(config)

    def find_mu(self, raw: build.Encoder, state: dict[str, Any] | None) -> dict[str, Tensor]:
        """The calibration: the resumed run's, the starting point's, or newly measured.

        Takes over the starting point's weights, and notes in `started_from` how they were trained.
        """
        if state:
            before = state["release"]["description"]
            checkpoint.check_encoder(before, raw.sha256, self.dir)
            self.started_from = before["started_from"]
            return checkpoint.with_prefix(state["release"]["tensors"], "mu.")
        start = build.load_starting_point(self.config, raw)
        self.started_from = start.about if start else None
        if start:
            self.trained.load_state_dict(start.trained)
        if start and start.mu is not None:
            return start.mu
        # one process measures for all, lest rounding make the ranks' encoders differ
        return runtime.from_main(build.measure_mu(self.config, raw, self.sources) if runtime.is_main() else None)

    def load(self, state: dict[str, Any]) -> None:
        """Take over a resume state. Raises DataError if the sets are not those that it was trained on."""
        for kind, before in state["release"]["description"]["data"].items():
            now = self.description["data"][kind]
            if (now["train"], now["list_sha256"]) != (before["train"], before["list_sha256"]):
                raise DataError(
                    f"expected the {before['train']} {kind} images that the run began with, but {now['origin']} holds other files; "
                    f"put them back, or fine-tune a new run: train.init_from={self.dir}"
                )
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.step, self.samples_seen = state["step"], state["samples_seen"]
        self.best = state["best"]
        self.last_saved = self.step

    def make_training_net(self) -> StyleNet:
        """The network of the loop: compiled, and with gradients averaged over the processes, where asked for."""
        if self.config.train.compile:
            self.encoder.network.compile()
            self.trained.compile()
        self.trained.train()
        is_parallel = runtime.world_size() > 1
        if is_parallel and self.config.decoder.norm == "batch":
            if self.device.type != "cuda":
                raise UsageError(
                    "expected GPUs for decoder.norm=batch in several processes, since only there its statistics are shared; use one"
                )
            self.trained = nn.SyncBatchNorm.convert_sync_batchnorm(self.trained)
        return build.make_net(self.config, self.encoder, DistributedDataParallel(self.trained) if is_parallel else self.trained)

    def __enter__(self) -> Run:
        options, self.exit_code = self.config.tracking, 1
        tracker, folder = Tracker(), None
        if runtime.is_main():
            folder = self.dir
            checkpoint.remove_unfinished(folder)
            with images.replaced_file(folder / checkpoint.CONFIG_FILE) as temporary:
                temporary.write_text(build.to_yaml(self.config), encoding="utf-8")
            facts = {f"facts.{name}": self.description[name] for name in ("git_commit", "hardware", "versions", "data")}
            about = {"project": options.project, "entity": options.entity, "group": options.group, "notes": options.notes}
            about |= {"name": folder.name, "tags": list(options.tags)}
            values = self.description["config"] | facts
            tracker = make_tracker(folder, options.mode, self.tracking_id, options.init_timeout_s, values, "train", **about)
        self.journal = Journal(folder, tracker, self.step, self.config.train.steps)
        self.journal.say("effective loss weights:\n" + describe_weights(self.weights, self.encoder.network.channels))
        self.journal.say(f"training from step {self.step} to {self.config.train.steps} on {self.description['hardware']}")
        self.window_start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close(self.exit_code)
        if runtime.is_main():
            self.lock.release()

    def make_batches(self) -> Any:
        """The endless batches of this process, from the first sample not yet seen."""
        options = self.config.data
        sampler = datasets.EndlessSampler(self.samples_seen, options.batch_size, runtime.rank(), runtime.world_size())
        pin = self.device.type == "cuda" and options.cache != "device"
        return datasets.make_batches(self.dataset, sampler, options.workers if options.cache == "none" else 0, pin)

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Contents and styles as float32 in [0, 1] on the device, in the networks' layout. Raises DataError."""
        self.bad_files.report(batch)
        moved = (pixels.to(self.device, non_blocking=True) for pixels in (batch.content, batch.style))
        self.last_batch = tuple(images.to_unit(pixels).contiguous(memory_format=self.layout) for pixels in moved)
        return self.last_batch

    def gradients_shared(self, is_last: bool) -> contextlib.AbstractContextManager:
        """Context of a backward pass: processes exchange gradients at the last of the accumulated batches only."""
        return self.net.decoder.no_sync() if runtime.world_size() > 1 and not is_last else contextlib.nullcontext()

    def clip_gradients(self) -> None:
        """Scale the gradients down to optim.clip_norm where they are above it."""
        if self.config.optim.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.config.optim.clip_norm)

    def shift(self) -> tuple[int, int]:
        """The pixels by which the shift loss moves this step's contents."""
        return datasets.shift_of(self.config.run.seed, self.step)

    def note_losses(self, part: int, terms: dict[str, Tensor], total: Tensor) -> None:
        """Keep a batch's losses without waiting for the device; `look_at_losses` reads them."""
        first = self.samples_seen + (part * runtime.world_size() + runtime.rank()) * self.config.data.batch_size
        self.recent.append(BatchLosses(self.step, first, {name: v.detach() for name, v in (terms | {"total": total}).items()}))

    def finish_step(self) -> None:
        """Count the step and average the weights; log, validate and save when they are due."""
        config = self.config
        if self.average:
            self.average.update_parameters(self.trained)
        self.step += 1
        self.samples_seen += config.train.accumulate * config.data.batch_size * runtime.world_size()
        if self.step % config.train.log_every_steps == 0:
            self.look_at_losses()
        if self.step % config.val.every_steps == 0:
            self.validate()
        if self.step % config.checkpoint.every_steps == 0:
            self.save()

    def look_at_losses(self) -> None:
        """Log the mean of the losses noted since the last look. Raises NonFiniteLossError if one is not finite."""
        if not self.recent:
            return
        names = list(self.recent[0].terms)
        rows = torch.stack([torch.stack([batch.terms[name] for name in names]) for batch in self.recent]).cpu()
        for row, batch in zip(rows, self.recent, strict=True):
            if not row.isfinite().all():
                self.report_non_finite(batch, dict(zip(names, row.tolist(), strict=True)))
        n_steps = len({batch.step for batch in self.recent})
        rate = n_steps / max(1e-9, time.perf_counter() - self.window_start)
        losses = dict(zip(names, rows.mean(0).tolist(), strict=True))
        self.journal.write("train", self.step, losses | {"lr": self.learning_rate(self.step - 1), "steps_per_s": rate})
        self.journal.show_training(self.step, losses, rate)
        self.recent, self.window_start = [], time.perf_counter()

    def report_non_finite(self, batch: BatchLosses, losses: dict[str, float]) -> None:
        """Raise NonFiniteLossError with all that is needed to look at the case again."""
        indices = range(batch.first_sample, batch.first_sample + self.config.data.batch_size)
        pairs = "; ".join(f"{i}: {' + '.join(self.dataset.paths(i))}" for i in indices)
        values = ", ".join(f"{name}={value:g}" for name, value in losses.items())
        raise NonFiniteLossError(
            f"expected finite losses, but at step {batch.step + 1} came {values}; samples {indices[0]} to {indices[-1]} ({pairs}); "
            f"the last checkpoint is untouched: look at these images, or lower optim.lr, or set optim.clip_norm"
        )

    def shown(self) -> nn.Module:
        """The network that is validated and released: the averaged one if there is one."""
        return self.average.module if self.average else self.trained

    def validate(self) -> None:
        """Losses on the held-out pairs and the grid of pictures, in the main process; the others wait."""
        self.look_at_losses()
        if runtime.is_main():
            self.validate_here()
        self.last_validated = self.step
        runtime.barrier()
        self.window_start = time.perf_counter()

    def validate_here(self) -> None:
        """Validate, write the grid, and keep the state if it is the best."""
        pairs = self.held_out_pairs()
        if not pairs:
            return
        net = build.make_net(self.config, self.encoder, self.shown().eval())
        losses = self.validation_losses(net, pairs[: self.config.val.pairs])
        self.write_grid(net, pairs[: self.config.val.grid_pairs])
        self.trained.train()
        if not math.isfinite(losses["total"]):
            raise NonFiniteLossError(f"expected finite validation losses, but {losses} came at step {self.step}; lower optim.lr")
        self.journal.write("val", self.step, losses)
        self.journal.say(f"validation at step {self.step}: " + "  ".join(f"{name} {value:.4g}" for name, value in losses.items()))
        if self.best is None or losses["total"] < self.best["total"]:
            self.best = losses | {"step": self.step}
            self.journal.tracker.summarise({f"best/{name}": value for name, value in self.best.items()})
            self.write_state(checkpoint.BEST_FILE, "best")

    def held_out_pairs(self) -> Pairs:
        """The pairs of the validation, read once."""
        if not hasattr(self, "pairs"):
            options, sets = self.config.data, (self.data.content.held_out, self.data.style.held_out)
            n = max(self.config.val.pairs, self.config.val.grid_pairs)
            floor = options.crop_px if options.scales else None
            self.pairs: Pairs = datasets.held_out_pairs(*sets, n, options.crop_px, options.resize_px, floor)
            if not self.pairs:
                self.journal.say(
                    "no held-out images of both kinds: no validation (set data.held_out, or give manifests that hold some out)"
                )
        return self.pairs

    def validation_losses(self, net: StyleNet, pairs: Pairs) -> dict[str, float]:
        """Mean losses over the pairs, by the names of the training losses."""
        sums: dict[str, float] = {}
        size = self.config.data.batch_size
        for start in range(0, len(pairs), size):
            stacked = (torch.stack(part).to(self.device) for part in zip(*pairs[start : start + size], strict=True))
            content, style = (batch.contiguous(memory_format=self.layout) for batch in stacked)
            for name, value in self.losses_of(net, content, style).items():
                sums[name] = sums.get(name, 0.0) + value * len(content)
        return {name: value / len(pairs) for name, value in sums.items()}

    @torch.no_grad()
    def write_grid(self, net: StyleNet, pairs: Pairs) -> None:
        """The sample pairs, one a row: content, style, and the output at each strength."""
        rows = []
        for content, style in pairs:
            batch = content[None].to(self.device), style[None].to(self.device)
            with runtime.autocast(self.device, self.config.train.precision):
                rows.append([content, style, *(net(*batch, alpha)[0] for alpha in self.config.val.alphas)])
        path = self.dir / "samples" / f"step_{self.step:08d}.png"
        images.save_image(images.make_grid(rows), path)
        self.journal.tracker.log_image("val/samples", path, self.step)

    def save(self) -> None:
        """Write the resume state, after the losses were seen to be finite."""
        self.look_at_losses()
        if runtime.is_main() and self.last_saved != self.step:
            self.check_weights()
            self.write_state(checkpoint.state_path(self.dir, self.step).name, "latest")
            checkpoint.drop_old_states(self.dir, self.config.checkpoint.keep)
        self.last_saved = self.step
        runtime.barrier()
        self.window_start = time.perf_counter()

    def check_weights(self) -> None:
        """Raise NonFiniteLossError if the weights to be saved give no finite loss on the last batch.

        Its noted losses are older than the last update: weights that this update ruined must not replace good ones.
        """
        net = build.make_net(self.config, self.encoder, self.trained.eval())
        losses = self.losses_of(net, *self.last_batch)
        self.trained.train()
        if not all(math.isfinite(value) for value in losses.values()):
            batch = BatchLosses(self.step - 1, self.samples_seen - self.config.data.batch_size * runtime.world_size(), {})
            self.report_non_finite(batch, losses)

    @torch.no_grad()
    def losses_of(self, net: StyleNet, content: Tensor, style: Tensor) -> dict[str, float]:
        """The losses of a batch by name, and their total."""
        with runtime.autocast(self.device, self.config.train.precision):
            terms = net.losses(net.learn(content, style, self.weights), content, style, self.weights)
        return {name: float(value) for name, value in (terms | {"total": weighted_total(terms, self.weights)}).items()}

    def write_state(self, name: str, alias: str) -> None:
        """Write a resume state, and log it as an artifact if each one is wanted."""
        path = self.dir / "checkpoints" / name
        state = {name: getattr(self, name) for name in ("step", "samples_seen", "best", "tracking_id")}
        state |= {name: getattr(self, name).state_dict() for name in ("trained", "optimizer", "scaler")}
        state["average"] = self.average.state_dict() if self.average else None
        state["release"] = {"tensors": self.release_tensors(), "description": self.release_description()}
        checkpoint.save_state(state, path)
        if self.config.tracking.artifacts == "all":
            self.journal.tracker.log_checkpoint(path, [alias], {"step": self.step})

    def release_tensors(self) -> dict[str, Tensor]:
        """The tensors of the model as it would be released now."""
        return build.release_tensors(self.config, self.encoder, self.shown())

    def release_description(self) -> dict[str, Any]:
        """The description of the model as it would be released now."""
        options = self.config.tracking
        wandb_run = {"project": options.project, "entity": options.entity, "id": self.tracking_id}
        about = self.description | {"step": self.step, "best": self.best, "wandb_run": wandb_run}
        return about | {"training_sha256": build.describe_training(about)["training_sha256"]}

    def stop_early(self, exit_code: int) -> int:
        """Save because of a signal; the signal's exit code."""
        self.save()
        self.log_final_artifacts()
        self.exit_code = exit_code
        self.journal.say(f"stopped at step {self.step}; go on with: python train.py --resume {self.dir}")
        return exit_code

    def release(self) -> int:
        """Validate, save and write the released model; exit code 0."""
        self.look_at_losses()
        if self.last_validated != self.step:
            self.validate()
        self.save()
        if runtime.is_main():
            target = self.dir / checkpoint.MODEL_FILE
            checkpoint.save_model(self.release_tensors(), self.release_description(), target)
            self.log_final_artifacts()
            self.journal.say(f"finished at step {self.step}: {target}")
        self.exit_code = 0
        return 0

    def log_final_artifacts(self) -> None:
        """The newest and the best state as artifacts, unless each one was logged already or none is wanted."""
        if self.config.tracking.artifacts != "final" or not runtime.is_main():
            return
        if self.best:
            best = self.dir / "checkpoints" / checkpoint.BEST_FILE
            self.journal.tracker.log_checkpoint(best, ["best"], {"step": self.best["step"]})
        self.journal.tracker.log_checkpoint(checkpoint.state_path(self.dir, self.step), ["latest"], {"step": self.step})
