"""What a training run holds and writes. Its loop, the algorithm itself, stands in train.py."""

from __future__ import annotations

import contextlib
import math
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylenet import build, checkpoint, datasets, images, runtime
from stylenet.datasets import Batch
from stylenet.errors import NonFiniteLossError, UsageError
from stylenet.losses import describe_weights
from stylenet.tracking import Journal, Tracker, make_tracker
from stylenet.training import parts
from stylenet.training.saving import Progress, Saver
from stylenet.training.setup import Setup
from stylenet.training.validation import Validation
from stylenet.training.window import LossWindow

if TYPE_CHECKING:
    from stylenet.config.training import Config


class Run:
    """The objects of a run, and its bookkeeping.

    A context: within it the run is tracked, at its end all is closed.
    """

    def __init__(self, config: Config, device: torch.device, state: dict[str, Any] | None) -> None:
        build.check_config(config)
        self.config, self.device = config, device
        self.tracking_id = state["tracking_id"] if state else runtime.from_main(new_tracking_id())
        self.dir = Path(config.run.dir.replace("{id}", self.tracking_id))
        if not state and checkpoint.holds_run(self.dir):
            raise UsageError(
                f"expected a new run.dir, but {self.dir} holds a run; continue it with --resume "
                f"{self.dir} or name another"
            )
        self.step, self.samples_seen, self.best = (
            (state[name] for name in Progress._fields) if state else (0, 0, None)
        )
        self.last_saved, self.last_validated = self.step if state else -1, -1
        if runtime.is_main():
            images.check_writable(self.dir)
            self.lock = runtime.lock_folder(self.dir)
        self.setup = Setup(config, device, state, self.dir)
        self.window = LossWindow(config.data.batch_size, self.setup.dataset.paths)

    def __enter__(self) -> Run:
        self.exit_code, folder, setup = 1, self.dir if runtime.is_main() else None, self.setup
        tracker = self.make_tracker(folder) if folder else Tracker()
        self.journal = Journal(folder, tracker, self.step, self.config.train.steps)
        self.saver = Saver(setup, self.dir, self.tracking_id, tracker)
        self.validation = Validation(
            self.config, setup.data, setup.objective, self.device, setup.layout, self.journal.say
        )
        channels = setup.encoder.network.channels
        self.journal.say(
            "effective loss weights:\n" + describe_weights(setup.objective.weights, channels)
        )
        self.journal.say(
            f"training from step {self.step} to {self.config.train.steps} on "
            f"{setup.description['hardware']}"
        )
        self.window.restart()
        return self

    def make_tracker(self, folder: Path) -> Tracker:
        """Write the configuration and begin to track the run."""
        options = self.config.tracking
        checkpoint.remove_unfinished(folder)
        with images.replaced_file(folder / checkpoint.CONFIG_FILE) as temporary:
            temporary.write_text(self.config.to_yaml(), encoding="utf-8")
        facts = {
            f"facts.{name}": self.setup.description[name]
            for name in ("git_commit", "hardware", "versions", "data")
        }
        about = {
            "project": options.project,
            "entity": options.entity,
            "group": options.group,
            "notes": options.notes,
        }
        about |= {"name": folder.name, "tags": list(options.tags)}
        values = self.setup.description["config"] | facts
        return make_tracker(
            folder, options.mode, self.tracking_id, options.init_timeout_s, values, "train", **about
        )

    def __exit__(self, *_: object) -> None:
        self.journal.close(self.exit_code)
        if runtime.is_main():
            self.lock.release()

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return Progress(self.step, self.samples_seen, self.best)

    def make_batches(self) -> Iterator[Batch]:
        """The endless batches of this process, from the first sample not yet seen."""
        return self.setup.make_batches(self.samples_seen)

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Contents and styles as float32 in [0, 1] on the device, in the networks' layout.

        Raises DataError.
        """
        self.setup.bad_files.report(batch)
        on_device = (
            pixels.to(self.device, non_blocking=True) for pixels in (batch.content, batch.style)
        )
        self.last_batch = tuple(
            images.to_unit(pixels).contiguous(memory_format=self.setup.layout)
            for pixels in on_device
        )
        return self.last_batch

    def shift(self) -> tuple[int, int]:
        """The pixels by which the shift loss moves this step's contents."""
        return datasets.shift_of(self.config.run.seed, self.step)

    def gradients_shared(self, is_last: bool) -> contextlib.AbstractContextManager:
        """Context of a backward pass: processes exchange gradients at the last of the accumulated
        batches only.
        """
        return (
            self.setup.spread.no_sync()
            if self.setup.spread and not is_last
            else contextlib.nullcontext()
        )

    def clip_gradients(self) -> None:
        """Scale the gradients down to optim.clip_norm where they are above it."""
        if self.config.optim.clip_norm:
            parts.clip_gradients(self.setup.parts, self.setup.scaler, self.config.optim.clip_norm)

    def note_losses(self, i: int, terms: dict[str, Tensor], total: Tensor) -> None:
        """Keep the losses of the step's i-th batch without waiting for the device."""
        first = (
            self.samples_seen
            + (i * runtime.world_size() + runtime.rank()) * self.config.data.batch_size
        )
        self.window.note(self.step, first, terms | {"total": total})

    def finish_step(self) -> None:
        """Count the step and average the weights; log, validate and save when they are due."""
        config = self.config
        parts.update_averages(self.setup.parts)
        self.step += 1
        self.samples_seen += config.train.accumulate * config.data.batch_size * runtime.world_size()
        if self.step % config.train.log_every_steps == 0:
            self.look_at_losses()
        if self.step % config.val.every_steps == 0:
            self.validate()
        if self.step % config.checkpoint.every_steps == 0:
            self.save()

    def look_at_losses(self) -> None:
        """Log the mean of the losses since the last look.

        Raises NonFiniteLossError if one is not finite.
        """
        if self.window.noted:
            losses, rate = self.window.read()
            self.journal.write(
                "train",
                self.step,
                losses | {"lr": self.setup.learning_rate(self.step - 1), "steps_per_s": rate},
            )
            self.journal.show_training(self.step, losses, rate)

    def validate(self) -> None:
        """Losses on the held-out pairs and the grid of pictures, in the main process; the others
        wait.
        """
        self.look_at_losses()
        if runtime.is_main() and self.validation.pairs:
            self.validate_here()
        self.last_validated = self.step
        runtime.barrier()
        self.window.restart()

    def validate_here(self) -> None:
        """Validate, write the grid, and keep the state if it is the best."""
        net = self.setup.make_shown()
        losses = self.validation.losses(net)
        grid = self.dir / "samples" / f"step_{self.step:08d}.png"
        self.validation.write_grid(net, grid)
        self.setup.network.module.train()
        if not math.isfinite(losses["total"]):
            raise NonFiniteLossError(
                f"expected finite validation losses, but {losses} came at step {self.step}; lower "
                "optim.lr"
            )
        self.journal.tracker.log_image("val/samples", grid, self.step)
        self.journal.write("val", self.step, losses)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self.journal.say(f"validation at step {self.step}: {shown}")
        if self.best is None or losses["total"] < self.best["total"]:
            self.best = losses | {"step": self.step}
            self.journal.tracker.summarise(
                {f"best/{name}": value for name, value in self.best.items()}
            )
            self.saver.write_state(self.progress, checkpoint.BEST_FILE, "best")

    def save(self) -> None:
        """Write the resume state, after the losses were seen to be finite."""
        self.look_at_losses()
        if runtime.is_main() and self.last_saved != self.step:
            self.check_weights()
            self.saver.write_state(
                self.progress, checkpoint.state_path(self.dir, self.step).name, "latest"
            )
            checkpoint.drop_old_states(self.dir, self.config.checkpoint.keep)
        self.last_saved = self.step
        runtime.barrier()
        self.window.restart()

    def check_weights(self) -> None:
        """Raise NonFiniteLossError if the weights to be saved give no finite loss on the last
        batch.

        The noted losses are older than the last update: weights that this update ruined must not
        replace good ones.
        """
        losses = self.validation.losses_of(self.setup.make_present(), *self.last_batch)
        self.setup.network.module.train()
        self.window.check(
            losses,
            self.step - 1,
            self.samples_seen - self.config.data.batch_size * runtime.world_size(),
        )

    def stop_early(self, exit_code: int) -> int:
        """Save because of a signal; the signal's exit code."""
        self.save()
        if runtime.is_main():
            self.saver.log_final_artifacts(self.progress)
        self.exit_code = exit_code
        self.journal.say(
            f"stopped at step {self.step}; continue with: python train.py --resume {self.dir}"
        )
        return exit_code

    def release(self) -> int:
        """Validate, save and write the released model; exit code 0."""
        self.look_at_losses()
        if self.last_validated != self.step:
            self.validate()
        self.save()
        if runtime.is_main():
            target = self.saver.write_model(self.progress)
            self.saver.log_final_artifacts(self.progress)
            self.journal.say(f"finished at step {self.step}: {target}")
        self.exit_code = 0
        return 0


def new_tracking_id() -> str:
    """The id of a new run: a W&B sweep agent's choice, else eight random hex digits."""
    return os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8]
