"""What a run leaves on the disk: resume states, the released model, and their artifacts in W&B."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from stylenet import build, checkpoint, files
from stylenet.tracking import Tracker, labels_of, make_tracker
from stylenet.training import parts
from stylenet.training.setup import Setup


def new_tracking_id() -> str:
    """The id of a new run: a W&B sweep agent's choice, else eight random hex digits."""
    return os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8]


def start_tracking(setup: Setup, folder: Path, tracking_id: str, step: int) -> Tracker:
    """Write the configuration and begin to track the run, from a step on."""
    options = setup.config.tracking
    checkpoint.remove_unfinished(folder)
    checkpoint.set_newer_aside(folder, step)
    with files.replaced_file(folder / checkpoint.CONFIG_FILE) as temporary:
        temporary.write_text(setup.config.to_yaml(), encoding="utf-8")
    facts = {
        f"facts.{name}": setup.description[name]
        for name in ("git_commit", "hardware", "versions", "data")
    }
    labels = labels_of(options, folder.name)
    values = setup.description["config"] | facts
    tracker = make_tracker(
        folder, options.mode, tracking_id, options.init_timeout_s, values, "train", **labels
    )
    tracker.use_images(setup.description["data"])
    return tracker


class Progress(NamedTuple):
    """How far a run has come."""

    step: int
    samples_seen: int
    best: dict[str, float] | None  # validation losses and step of the best state


class Saver:
    """Writes the files of a run's folder."""

    def __init__(self, setup: Setup, folder: Path, tracking_id: str, tracker: Tracker) -> None:
        self.setup, self.folder, self.tracking_id, self.tracker = (
            setup,
            folder,
            tracking_id,
            tracker,
        )
        self.options = setup.config.tracking
        self.best_state = folder / "checkpoints" / checkpoint.BEST_FILE

    def write_state(self, progress: Progress, name: str, alias: str) -> None:
        """Write a resume state, and log it as an artifact if each one is wanted."""
        path = self.folder / "checkpoints" / name
        release = {
            "tensors": self.release_tensors(),
            "description": self.release_description(progress),
        }
        state = progress._asdict() | {"tracking_id": self.tracking_id, "release": release}
        state["working_dir"] = str(Path.cwd())  # relative paths of the data start there
        state |= {"parts": parts.states(self.setup.parts), "scaler": self.setup.scaler.state_dict()}
        checkpoint.save_state(state, path)
        if self.options.artifacts == "all":
            self.tracker.log_checkpoint(path, [alias], {"step": progress.step})

    def release_tensors(self) -> dict[str, Any]:
        """The tensors of the model as it would be released now."""
        return build.release_tensors(
            self.setup.config, self.setup.encoder, self.setup.network.shown
        )

    def release_description(self, progress: Progress) -> dict[str, Any]:
        """The description of the model as it would be released now."""
        labels = labels_of(self.options, self.folder.name)
        wandb_run = {name: labels[name] for name in ("project", "entity")}
        wandb_run["id"] = self.tracking_id
        about = self.setup.description | {
            "step": progress.step,
            "best": progress.best,
            "wandb_run": wandb_run,
        }
        return about | {"training_sha256": build.describe_training(about)["training_sha256"]}

    def write_model(self, progress: Progress) -> Path:
        """Write the released model, or the best one where train.patience is set; its path."""
        target = self.folder / checkpoint.MODEL_FILE
        if self.setup.config.train.patience and self.best_state.is_file():
            release = checkpoint.load_state(self.best_state)["release"]
            checkpoint.save_model(release["tensors"], release["description"], target)
        else:
            tensors, description = self.release_tensors(), self.release_description(progress)
            checkpoint.save_model(tensors, description, target)
        return target

    def log_model(self, path: Path, progress: Progress) -> None:
        """Log the released model with its metrics, unless tracking.artifacts=none."""
        if self.options.artifacts != "none":
            best = {f"best/{name}": value for name, value in (progress.best or {}).items()}
            self.tracker.log_model(path, {"step": progress.step} | best)

    def log_final_artifacts(self, progress: Progress) -> None:
        """Log the newest and the best state as artifacts, if tracking.artifacts=final."""
        if self.options.artifacts != "final":
            return
        if progress.best and self.best_state.is_file():
            facts = {"step": progress.best["step"]}
            self.tracker.log_checkpoint(self.best_state, ["best"], facts)
        self.tracker.log_checkpoint(
            checkpoint.state_path(self.folder, progress.step), ["latest"], {"step": progress.step}
        )
