"""Weights & Biases: online where a key is configured, else offline; a failure of it never stops a run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylenet.errors import one_line

STEP = "trainer/step"


class Tracker:
    """One W&B run, or nothing: every method returns quietly once W&B is off or has failed.

    The trainer owns the step: every scalar is logged with `trainer/step`, which all others are plotted against,
    since W&B's own counter starts anew when an offline run is resumed.
    """

    def __init__(self, run: Any = None) -> None:
        self.run = run

    def attempt(self, action: Callable[[Any], Any]) -> None:
        """Call `action(run)`; its first failure is reported and turns tracking off."""
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:  # whatever W&B throws, the training is worth more
            print(f"warning: W&B failed ({one_line(error)}); the run goes on without it", file=sys.stderr)
            self.run = None

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Scalars such as `train/content` at a step."""
        self.attempt(lambda run: run.log({**scalars, STEP: step}))

    def log_image(self, name: str, path: Path, step: int) -> None:
        """A picture file at a step."""

        def action(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path)), STEP: step})

        self.attempt(action)

    def log_checkpoint(self, path: Path, aliases: Sequence[str], facts: Mapping[str, Any]) -> None:
        """A file as a new version of this run's model artifact."""

        def action(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=dict(facts))
            artifact.add_file(str(path))
            run.log_artifact(artifact, aliases=list(aliases))

        self.attempt(action)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Values for the run's summary, such as the best losses."""
        self.attempt(lambda run: run.summary.update(dict(values)))

    def finish(self, exit_code: int) -> None:
        """End the run; waits no longer than the timeout it was started with."""
        self.attempt(lambda run: run.finish(exit_code=exit_code))
        self.run = None


def make_tracker(
    run_dir: Path, mode: str, run_id: str, timeout_s: float, config: Mapping[str, Any], job_type: str, **about: Any
) -> Tracker:
    """A tracker in the given mode; `about` goes to wandb.init (project, entity, group, name, tags, notes).

    `disabled` does not import wandb. A missing package, key or network is said in one line, and the run goes on:
    without a package untracked, else offline.
    """
    if mode == "disabled":
        return Tracker()
    # Artifacts are staged here, so that an offline run can be moved and synced with all that belongs to it.
    os.environ.setdefault("WANDB_DATA_DIR", str(run_dir / "wandb" / "data"))
    try:
        import wandb
    except ImportError:
        print("warning: W&B is not installed (pip install wandb); the run is not tracked", file=sys.stderr)
        return Tracker()
    chosen = choose_mode(mode)
    if chosen == "disabled":
        return Tracker()
    settings = {"init_timeout": timeout_s, "finish_timeout": timeout_s, "silent": True}
    common = {"dir": str(run_dir), "id": run_id, "config": dict(config), "job_type": job_type, "resume": "allow", **about}
    for attempted in dict.fromkeys([chosen, "offline"]):
        try:
            run = wandb.init(mode=attempted, settings=wandb.Settings(**settings), **common)
            run.define_metric(STEP, hidden=True)
            run.define_metric("*", step_metric=STEP)
            print(f"W&B: {attempted}, {run.url if attempted == 'online' else run.dir}")
            return Tracker(run)
        except Exception as error:  # a dead network, a refused key, a full disk
            print(f"warning: W&B cannot start {attempted} ({one_line(error)})", file=sys.stderr)
            wandb.teardown()  # its service would keep the run's id in use
    return Tracker()


def choose_mode(mode: str) -> str:
    """online, offline or disabled: WANDB_MODE where `auto` leaves it open, and offline where no key is configured."""
    import wandb

    wanted = os.environ.get("WANDB_MODE", "online") if mode == "auto" else mode
    if wanted != "online":
        return wanted if wanted in ("offline", "disabled") else "offline"
    try:
        has_key = wandb.login(prompt=False, verify=False)
    except Exception:  # a malformed key is as good as none
        has_key = False
    if not has_key and mode == "online":
        print("warning: tracking.mode=online, but no W&B key is configured (wandb login); going offline", file=sys.stderr)
    return "online" if has_key else "offline"


def sync_command(run_dir: Path) -> str | None:
    """The line that uploads the run's offline parts, None if there are none."""
    if not any((run_dir / "wandb").glob("offline-run-*")):
        return None
    return f"wandb sync {shlex.quote(str(run_dir))}/wandb/offline-run-*"
