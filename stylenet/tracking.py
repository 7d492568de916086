"""The output of a run: the terminal, its history file, and Weights & Biases.

W&B is online if a key is configured, else offline. A failure of W&B never stops or hangs a run.
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
from stylenet.files import naming, replaced_file
from stylenet.images import to_pil
from stylenet.progress import duration, make_bar

HISTORY_FILE = "history.jsonl"

STEP = "trainer/step"


class Tracker:
    """One W&B run, or nothing: once W&B is off or has failed, every method does nothing.

    The trainer owns the step. Every scalar is logged with `trainer/step`, and all others are
    plotted against it: W&B's own counter starts again at 0 when an offline run is resumed.
    """

    def __init__(self, run: Any = None) -> None:
        self.run = run

    def attempt(self, action: Callable[[Any], Any]) -> None:
        """Call `action(run)`; the first failure is reported and turns tracking off."""
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:  # any kind: W&B must not end a training
            print(
                f"warning: W&B failed ({one_line(error)}); the run continues without it",
                file=sys.stderr,
            )
            self.run = None

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars such as `train/content` at a step."""
        self.attempt(lambda run: run.log({**scalars, STEP: step}))

    def log_image(self, name: str, path: Path, step: int, caption: str | None = None) -> None:
        """Log a picture file at a step."""

        def action(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path), caption=caption), STEP: step})

        self.attempt(action)

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table; its cells may be pictures [1, 3, H, W] in [0, 1]."""

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
        """Log a file as a new version of this run's model artifact."""

        def action(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=dict(facts))
            artifact.add_file(str(path))
            run.log_artifact(artifact, aliases=list(aliases))

        self.attempt(action)

    def log_model(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Log the released model as an artifact of type model, with its metrics."""

        def action(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(f"release-{run.id}", type="model", metadata=dict(facts))
            artifact.add_file(str(path))
            run.log_artifact(artifact, aliases=["latest"])

        self.attempt(action)

    def use_images(self, sets: Mapping[str, Mapping[str, Any]]) -> None:
        """Note the image sets as inputs, by reference: origin, counts and hash; no picture is sent.

        An offline run cannot name inputs, so they are artifacts that it logs.
        """

        def action(run: Any) -> None:
            import wandb

            for kind, facts in sets.items():
                digest = facts["list_sha256"][:12]
                run.log_artifact(wandb.Artifact(f"{kind}-{digest}", "images", metadata=dict(facts)))

        self.attempt(action)

    def alert(self, title: str, text: str) -> None:
        """Send an alert to the user, as W&B does it."""
        self.attempt(lambda run: run.alert(title=title, text=text))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Write values such as the best losses to the run's summary."""
        self.attempt(lambda run: run.summary.update(dict(values)))

    def finish(self, exit_code: int) -> None:
        """End the run; the wait is at most the timeout of its start."""
        self.attempt(lambda run: run.finish(exit_code=exit_code))
        self.run = None


def labels_of(options: Any, name: str, tags: Sequence[str] = ()) -> dict[str, Any]:
    """wandb.init's project, entity, name, group, tags and notes.

    An explicit option comes first, then W&B's own environment variable, then our default: `name`
    and `tags`.
    """
    environ = os.environ
    named_tags = [tag for tag in environ.get("WANDB_TAGS", "").split(",") if tag]
    return {
        "project": options.project or environ.get("WANDB_PROJECT") or "stylenet",
        "entity": options.entity or environ.get("WANDB_ENTITY") or None,
        "name": options.name or environ.get("WANDB_NAME") or name,
        "group": options.group or environ.get("WANDB_RUN_GROUP") or None,
        "tags": [*(options.tags or named_tags), *tags],
        "notes": options.notes or environ.get("WANDB_NOTES") or None,
    }


def is_off() -> bool:
    """Whether WANDB_DISABLED turns W&B off."""
    return os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on")


def make_tracker(
    run_dir: Path,
    mode: str,
    run_id: str,
    timeout_s: float,
    config: Mapping[str, Any],
    job_type: str,
    **init_options: Any,
) -> Tracker:
    """A tracker in the given mode.

    `init_options` go to wandb.init: project, entity, group, name, tags, notes. `disabled` does not
    import wandb. A missing package, key or network gives a one-line warning, and the run continues:
    untracked without the package, else offline.
    """
    if mode == "disabled" or (mode == "auto" and is_off()):
        return Tracker()
    # W&B stages artifacts here, so that an offline run can be moved and synced as a whole.
    os.environ["WANDB_DATA_DIR"] = str(run_dir / "wandb" / "data")
    try:
        import wandb

        chosen = choose_mode(mode)
    except Exception as error:  # not installed, or broken by a clash of dependencies
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
        **init_options,
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
    """The mode of the run: online, offline or disabled.

    `auto` follows WANDB_MODE. Without a configured key `online` becomes offline.
    """
    import wandb

    target_mode = (os.environ.get("WANDB_MODE") or "online") if mode == "auto" else mode
    if target_mode != "online":
        return target_mode if target_mode in ("offline", "disabled") else "offline"
    try:
        has_key = wandb.login(prompt=False, verify=False)
    except Exception:  # a malformed key counts as none
        has_key = False
    if not has_key and mode == "online":
        print(
            "warning: tracking.mode=online, but no W&B key is configured (wandb login); going "
            "offline",
            file=sys.stderr,
        )
    return "online" if has_key else "offline"


def sync_command(run_dir: Path) -> str | None:
    """The command that uploads the run's offline parts; None if there are none."""
    if not any((run_dir / "wandb").glob("offline-run-*")):
        return None
    return f"wandb sync {shlex.quote(str(run_dir))}/wandb/offline-run-*"


class Journal:
    """The lines of a run: a progress bar or plain lines, `history.jsonl`, and the tracker.

    Without a folder it writes nothing.
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
        """Write values under `train/` or `val/` to the history file and the tracker."""
        if not self.dir:
            return
        path = self.dir / HISTORY_FILE
        with naming(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self.tracker.log({f"{kind}/{name}": value for name, value in values.items()}, step)

    def show_training(self, step: int, losses: Mapping[str, float], steps_per_s: float) -> None:
        """Show the losses by kind, the rate and the time left."""
        # "style/relu1_1" and its siblings are shown as one sum, "style".
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
        """End bar and tracker, and show the command that uploads an offline run."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        self.tracker.finish(exit_code)
        # This includes what was tracked before W&B failed.
        command = sync_command(self.dir) if self.dir else None
        if command:
            self.say(f"to upload the offline run: {command}")


def trim_history(path: Path, step: int) -> None:
    """Drop the history lines after a step, and a half-written last line.

    An interrupted run may have logged beyond the checkpoint that it continues from.
    """
    lines = (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    )
    valid_lines = [line for line in lines if 0 <= step_of(line) <= step]
    with replaced_file(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in valid_lines), encoding="utf-8")


def step_of(line: str) -> int:
    """The step of a history line; -1 for a damaged one."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1
