"""What a training run holds and writes. Its loop, the algorithm itself, stands in train.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylenet import build, checkpoint, files, runtime
from stylenet.datasets import Batch
from stylenet.errors import NonFiniteLossError, UsageError
from stylenet.losses import describe_weights
from stylenet.runtime import StopRequest
from stylenet.tracking import Journal, Tracker
from stylenet.training import parts
from stylenet.training.saving import Progress, Saver, new_tracking_id, start_tracking
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
        begun = (state[name] for name in Progress._fields) if state else (0, 0, None)
        self.step, self.samples_seen, self.best = begun
        self.last_saved, self.last_validated = self.step if state else -1, -1
        if runtime.is_main():
            files.check_writable(self.dir)
            self.lock = runtime.lock_folder(self.dir)
        self.setup = Setup(config, device, state, self.dir)
        self.window = LossWindow(config.data.batch_size, self.setup.dataset.paths)

    def __enter__(self) -> Run:
        self.exit_code, folder, setup = 1, self.dir if runtime.is_main() else None, self.setup
        tracker = (
            start_tracking(setup, folder, self.tracking_id, self.step) if folder else Tracker()
        )
        self.journal = Journal(folder, tracker, self.step, self.config.train.steps)
        self.saver = Saver(setup, self.dir, self.tracking_id, tracker)
        self.validation = Validation(
            self.config, setup.data, setup.objective, self.device, setup.layout, self.journal.say
        )
        weights, channels = setup.objective.weights, setup.encoder.network.channels
        self.journal.say("effective loss weights:\n" + describe_weights(weights, channels))
        n_steps, hardware = self.config.train.steps, setup.description["hardware"]
        self.journal.say(f"training from step {self.step} to {n_steps} on {hardware}")
        self.window.restart()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *_: object) -> None:
        if isinstance(error, NonFiniteLossError):
            self.journal.tracker.alert("training diverged", str(error))
        self.journal.close(self.exit_code)
        if runtime.is_main():
            self.lock.release()

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return Progress(self.step, self.samples_seen, self.best)

    def make_batches(self, stop: StopRequest) -> Iterator[Batch]:
        """The endless batches of this process, from the first sample not yet seen.

        A request to stop while a batch is awaited saves the run, and raises SystemExit. Several
        processes stop together, after a step.
        """
        is_alone = runtime.world_size() == 1
        yield from self.setup.make_batches(
            self.samples_seen, lambda: is_alone and stop.exit_code > 0
        )
        raise SystemExit(self.stop_early(stop.exit_code))

    def note_losses(self, i: int, terms: dict[str, Tensor], total: Tensor) -> None:
        """Keep the losses of the step's i-th batch without waiting for the device."""
        n_before = i * runtime.world_size() + runtime.rank()  # batches of this step
        first = self.samples_seen + n_before * self.config.data.batch_size
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
            facts = {"lr": self.setup.learning_rate(self.step - 1), "steps_per_s": rate}
            self.journal.write("train", self.step, losses | facts)
            self.journal.show_training(self.step, losses, rate)

    def validate(self) -> None:
        """Losses and pictures of the held-out pairs, in the main process; the others wait."""
        self.look_at_losses()
        if runtime.is_main() and self.validation.pairs:
            self.validate_here()
        self.last_validated = self.step
        self.best = runtime.from_main(self.best)  # which all processes wait for
        self.window.restart()

    def validate_here(self) -> None:
        """Validate, write the grid, and keep the state if it is the best."""
        net = self.setup.make_shown()
        losses = self.validation.losses(net)
        grid = self.dir / "samples" / f"step_{self.step:08d}.png"
        self.validation.write_grid(net, grid)
        self.setup.network.module.train()
        if not math.isfinite(losses["total"]):
            came = f"{losses} came at step {self.step}; lower optim.lr"
            raise NonFiniteLossError(f"expected finite validation losses, but {came}")
        caption = self.validation.grid_caption
        self.journal.tracker.log_image("val/samples", grid, self.step, caption)
        self.journal.write("val", self.step, losses)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self.journal.say(f"validation at step {self.step}: {shown}")
        if self.best is None or losses["total"] < self.best["total"]:
            self.best = losses | {"step": self.step}
            summary = {f"best/{name}": value for name, value in self.best.items()}
            self.journal.tracker.summarise(summary)
            self.saver.write_state(self.progress, checkpoint.BEST_FILE, "best")

    @property
    def is_settled(self) -> bool:
        """Whether train.patience validations have passed since the best one."""
        return is_settled(self.config, self.step, self.best)

    def save(self) -> None:
        """Write the resume state, after the losses were seen to be finite."""
        self.look_at_losses()
        if runtime.is_main() and self.last_saved != self.step:
            self.check_weights()
            name = checkpoint.state_path(self.dir, self.step).name
            self.saver.write_state(self.progress, name, "latest")
            checkpoint.drop_old_states(self.dir, self.config.checkpoint.keep)
        self.last_saved = self.step
        runtime.barrier()
        self.window.restart()

    def check_weights(self) -> None:
        """Raise NonFiniteLossError unless the weights give finite losses on the last batch.

        The noted losses are older than the last update. Weights that this update ruined must not
        replace good ones.
        """
        if self.setup.last_batch is None:  # stopped before the first one: no update yet
            return
        losses = self.validation.losses_of(self.setup.make_present(), *self.setup.last_batch)
        self.setup.network.module.train()
        n_batch = self.config.data.batch_size * runtime.world_size()
        self.window.check(losses, self.step - 1, self.samples_seen - n_batch)

    def stop_early(self, exit_code: int) -> int:
        """Save because of a signal; the signal's exit code."""
        self.save()
        if runtime.is_main():
            self.saver.log_final_artifacts(self.progress)
        self.exit_code = exit_code
        remedy = f"continue with: python train.py --resume {self.dir}"
        self.journal.say(f"stopped at step {self.step}; {remedy}")
        return exit_code

    def release(self) -> int:
        """Validate, save and write the released model; exit code 0."""
        self.look_at_losses()
        if self.last_validated != self.step:
            self.validate()
        self.save()
        if runtime.is_main():
            if self.config.train.patience and self.best:
                is_there = self.saver.best_state.is_file()
                lost = "" if is_there else f", which is gone: this is that of step {self.step}"
                self.journal.say(f"the best model is that of step {self.best['step']}{lost}")
            target = self.saver.write_model(self.progress)
            self.saver.log_final_artifacts(self.progress)
            self.saver.log_model(target, self.progress)
            self.journal.say(f"finished at step {self.step}: {target}")
        self.exit_code = 0
        return 0


def is_settled(config: Config, step: int, best: dict[str, float] | None) -> bool:
    """Whether train.patience validations have passed since the best one."""
    patience = config.train.patience * config.val.every_steps
    return bool(patience and best and step - best["step"] >= patience)


def finished_before(config: Config, state: dict[str, Any]) -> Path | None:
    """The released model of a run that a state ends; None if the run is to go on.

    With train.patience the model is that of the best step.
    """
    step, best = state["step"], state["best"]
    if step < config.train.steps and not is_settled(config, step, best):
        return None
    steps = [best["step"], step] if config.train.patience and best else [step]
    found = (checkpoint.finished_model(config.run.dir, number) for number in steps)
    return next(filter(None, found), None)
