"""Saving and resuming: the resume state of a run, and the released model.

Each file appears whole or not at all (temporary file, sync, rename). A resume state is written by
`torch.save` and read with `weights_only=True`. A released model is one safetensors file with its
configuration in the metadata.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stylenet.errors import UsageError, WeightsError, one_line
from stylenet.images import UNFINISHED, replaced_file

FORMAT = "stylenet 1"  # in every file; another number means another layout
STATE_PATTERN = re.compile(r"step_(\d{8})\.pt")
MODEL_FILE, BEST_FILE, CONFIG_FILE = "model.safetensors", "best.pt", "config.yaml"


def save_state(state: dict[str, Any], path: str | Path) -> None:
    """Write a resume state, which holds only tensors and plain Python values."""
    with writing(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A context manager: `replaced_file` for the libraries that save tensors.

    Raises UsageError if writing fails, for instance on a full disk.
    """
    try:
        with replaced_file(path) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"expected to write {path}, but it failed ({one_line(error)[:160]}); is the disk full?"
        ) from None


def remove_unfinished(run_dir: str | Path) -> None:
    """Delete what a killed process left half-written."""
    for path in Path(run_dir).rglob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def holds_run(run_dir: str | Path) -> bool:
    """Whether the folder holds a checkpoint or a released model of a run."""
    folder = Path(run_dir)
    return (
        bool(list_states(folder))
        or (folder / MODEL_FILE).exists()
        or (folder / "checkpoints" / BEST_FILE).exists()
    )


def load_state(path: str | Path) -> dict[str, Any]:
    """A resume state from its file.

    Raises WeightsError for a damaged file, a pickle of code, or a file of another program.
    """
    try:
        # weights_only: a checkpoint from elsewhere must not run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(
            f"expected a checkpoint, but there is no {path}; check the path"
        ) from None
    except Exception as error:  # torch raises many kinds for damaged files
        reason = one_line(error).split(". ")[0][:160]  # without torch's advice
        raise WeightsError(
            f"expected a checkpoint of train.py, but {path} is truncated or a pickle of code "
            f"({reason})"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or "release" not in state:
        raise WeightsError(
            f"expected a checkpoint of train.py ({FORMAT}), but {path} holds something else"
        )
    return state


def state_path(run_dir: str | Path, step: int) -> Path:
    """The path of the resume state after `step` steps."""
    return Path(run_dir) / "checkpoints" / f"step_{step:08d}.pt"


def list_states(run_dir: str | Path) -> list[Path]:
    """The run's resume states, oldest first, without `best.pt`."""
    folder = Path(run_dir) / "checkpoints"
    return sorted(path for path in folder.glob("step_*.pt") if STATE_PATTERN.fullmatch(path.name))


def latest_state(run_dir: str | Path) -> Path:
    """The path of the newest resume state. Raises UsageError if there is none."""
    states = list_states(run_dir)
    if not states:
        raise UsageError(
            f"expected a run with checkpoints in {run_dir}, but there are none; start it with "
            "--config"
        )
    return states[-1]


def drop_old_states(run_dir: str | Path, keep: int) -> None:
    """Delete all but the newest `keep` resume states."""
    for path in list_states(run_dir)[:-keep]:  # keep is above 0, or the slice would be empty
        path.unlink()


def save_model(tensors: dict[str, Tensor], description: dict[str, Any], path: str | Path) -> None:
    """Write a released model: tensors by name, and a description.

    The description is JSON in the file's metadata.
    """
    # safetensors takes contiguous tensors only.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with writing(path) as temporary:
        save_file(
            plain, temporary, metadata={"format": FORMAT, "stylenet": json.dumps(description)}
        )


def load_model(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description of a released model.

    Raises WeightsError for a missing, truncated or foreign file. Nothing in the file is ever
    executed.
    """
    if not Path(path).is_file():
        raise WeightsError(
            f"expected a released model ({MODEL_FILE}), but there is no file {path}; train one "
            "with train.py"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        reason = one_line(error)
        raise WeightsError(
            f"expected a released model (safetensors), but {path} is truncated, a pickle or of "
            f"another kind ({reason})"
        ) from None
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"expected a model released by train.py ({FORMAT}), but {path} is another safetensors "
            "file"
        )
    try:
        return tensors, json.loads(metadata["stylenet"])
    except (KeyError, ValueError):
        raise WeightsError(
            f"expected a model released by train.py, but the description in {path} is damaged"
        ) from None


def find_release(path: str | Path) -> Path:
    """A model's file: `path` itself, or the file that a run folder offers.

    A run folder offers its released model, else its newest resume state. Raises WeightsError if it
    has neither.
    """
    location = Path(path)
    if not location.is_dir():
        return location
    released, states = location / MODEL_FILE, list_states(location)
    if not released.is_file() and not states:
        raise WeightsError(
            f"expected a run folder with {MODEL_FILE} or checkpoints, but {path} has neither; "
            "train one with train.py"
        )
    return released if released.is_file() else states[-1]


def read_release(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description of a model.

    `path` is a released file, a resume state (.pt), or a run folder that holds either.
    """
    file = find_release(path)
    if file.suffix != ".pt":
        return load_model(file)
    release = load_state(file)["release"]  # every state carries the model as released
    return release["tensors"], release["description"]


def check_encoder(description: dict[str, Any], sha256: str, origin: str | Path) -> None:
    """Raise WeightsError unless a model was trained with the encoder of this hash."""
    original = description["encoder"]["sha256"]
    if original != sha256:
        raise WeightsError(
            f"expected the encoder that {origin} was trained with (sha256 {original[:12]}…), but "
            f"one with {sha256[:12]}… came"
        )


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with the prefix, under names without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
