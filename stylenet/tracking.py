"""What a run says: to the terminal, to its history file, and to Weights & Biases.

W&B is online where a key is configured, else offline; a failure of it never stops or hangs a run.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylenet.errors import one_line
from stylenet.images import replaced_file, to_pil
from stylenet.progress import duration, make_bar

HISTORY_FILE = "history.jsonl"

STEP = "trainer/step"


class Tracker:
    """One W&B run, or nothing: every method returns quietly once W&B is off or has failed.

    The trainer owns the step: every scalar is logged with `trainer/step`, which all others are
    plotted against, since W&B's own counter starts anew when an offline run is resumed.
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
            print(
                f"warning: W&B failed ({one_line(error)}); the run goes on without it",
                file=sys.stderr,
            )
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

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; its cells may be pictures [1, 3, H, W] in [0, 1]."""

        def action(run: Any) -> None:
            import torch
            import wandb

            def shown(cell: Any) -> Any:
                return wandb.Image(to_pil(cell[0])) if isinstance(cell, torch.Tensor) else cell

            run.log(
                {
                    name: wandb.Table(
                        columns=list(header), data=[[shown(cell) for cell in row] for row in rows]
                    )
                }
            )

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
    run_dir: Path,
    mode: str,
    run_id: str,
    timeout_s: float,
    config: Mapping[str, Any],
    job_type: str,
    **about: Any,
) -> Tracker:
    """A tracker in the given mode; `about` goes to wandb.init (project, entity, group, name, tags,
    notes).

    `disabled` does not import wandb. A missing package, key or network is said in one line, and the
    run goes on: without a package untracked, else offline.
    """
    if mode == "disabled":
        return Tracker()
    # Artifacts are staged here, so that an offline run can be moved and synced with all that
    # belongs to it.
    os.environ["WANDB_DATA_DIR"] = str(run_dir / "wandb" / "data")
    try:
        import wandb

        chosen = choose_mode(mode)
    except Exception as error:  # not installed, or broken, as by a clash of its own dependencies
        print(
            f"warning: W&B cannot be imported ({one_line(error)}); the run is not tracked",
            file=sys.stderr,
        )
        return Tracker()
    if chosen == "disabled":
        return Tracker()
    settings = {"init_timeout": timeout_s, "finish_timeout": timeout_s, "silent": True}
    common = {
        "dir": str(run_dir),
        "id": run_id,
        "config": dict(config),
        "job_type": job_type,
        "resume": "allow",
        **about,
    }
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
    """online, offline or disabled: WANDB_MODE where `auto` leaves it open, and offline where no key
    is configured.
    """
    import wandb

    wanted = os.environ.get("WANDB_MODE", "online") if mode == "auto" else mode
    if wanted != "online":
        return wanted if wanted in ("offline", "disabled") else "offline"
    try:
        has_key = wandb.login(prompt=False, verify=False)
    except Exception:  # a malformed key is as good as none
        has_key = False
    if not has_key and mode == "online":
        print(
            "warning: tracking.mode=online, but no W&B key is configured (wandb login); going "
            "offline",
            file=sys.stderr,
        )
    return "online" if has_key else "offline"


def sync_command(run_dir: Path) -> str | None:
    """The line that uploads the run's offline parts, None if there are none."""
    if not any((run_dir / "wandb").glob("offline-run-*")):
        return None
    return f"wandb sync {shlex.quote(str(run_dir))}/wandb/offline-run-*"


class Journal:
    """The lines of a run: a progress bar or plain lines, `history.jsonl`, and the tracker.

    Quiet without a folder.
    """

    def __init__(self, run_dir: Path | None, tracker: Tracker, step: int, n_steps: int) -> None:
        self.dir, self.tracker, self.n_steps = run_dir, tracker, n_steps
        bar = make_bar(n_steps, "step", initial=step, is_shown=run_dir is not None)
        self.bar = None if bar.disable else bar
        if run_dir:
            trim_history(run_dir / HISTORY_FILE, step)

    def say(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self.bar is not None:
            self.bar.write(line, file=sys.stdout)
        elif self.dir:
            print(line, flush=True)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Values under `train/` or `val/` to the history file and the tracker."""
        if not self.dir:
            return
        with open(self.dir / HISTORY_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self.tracker.log({f"{kind}/{name}": value for name, value in values.items()}, step)

    def show_training(self, step: int, losses: Mapping[str, float], steps_per_s: float) -> None:
        """The losses by kind, the rate and the time left."""
        kinds = dict.fromkeys(name.partition("/")[0] for name in losses)
        sums = {
            kind: sum(value for name, value in losses.items() if name.partition("/")[0] == kind)
            for kind in kinds
        }
        shown = {kind: f"{value:.4g}" for kind, value in sums.items()}
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(step - self.bar.n)
            return
        columns = "  ".join(f"{kind} {value}" for kind, value in shown.items())
        self.say(
            f"step {step}/{self.n_steps}  {columns}  {steps_per_s:.3g} steps/s  "
            f"{duration((self.n_steps - step) / steps_per_s)} left"
        )

    def close(self, exit_code: int) -> None:
        """End bar and tracker, and say how to upload what was tracked offline."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        self.tracker.finish(exit_code)
        command = (
            sync_command(self.dir) if self.dir else None
        )  # also what was tracked until W&B failed
        if command:
            self.say(f"to upload the offline run: {command}")


def trim_history(path: Path, step: int) -> None:
    """Drop what an interrupted run logged after the checkpoint that is gone on from, and a
    half-written last line.
    """
    lines = (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    )
    kept = [line for line in lines if 0 <= step_of(line) <= step]
    with replaced_file(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def step_of(line: str) -> int:
    """The step of a history line, -1 for a damaged one."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1
