"""Saving and resuming: the resume state of a run, and the released model.

Each file appears whole or not at all (temporary file, sync, rename). A resume state is written by
`torch.save` and read with `weights_only=True`. A released model is one safetensors file with its
configuration in the metadata.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stylenet import hub
from stylenet.errors import DataError, UsageError, WeightsError, one_line
from stylenet.files import UNFINISHED, check_kind, check_regular, replaced_file

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
    folder = Path(run_dir)
    for place in (folder, folder / "checkpoints", folder / "samples"):
        for path in place.glob(f"{UNFINISHED}*"):
            if path.is_file():
                path.unlink(missing_ok=True)


def holds_run(run_dir: str | Path) -> bool:
    """Whether the folder holds a checkpoint or a released model of a run."""
    folder = Path(run_dir)
    return (
        bool(list_states(folder))
        or (folder / MODEL_FILE).exists()
        or (folder / "checkpoints" / BEST_FILE).exists()
    )


def load_state(
    path: str | Path, kind: str = FORMAT, part: str = "release", program: str = "train.py"
) -> dict[str, Any]:
    """A resume state from its file: of a training, or of another `kind` with a given part.

    Raises WeightsError for a damaged file, a pickle of code, or a file of another program.
    """
    try:
        check_regular(path, "a checkpoint")
        check_zip(path)
        # weights_only: a checkpoint from elsewhere must not run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DataError as error:
        raise WeightsError(str(error)) from None
    except FileNotFoundError:
        raise WeightsError(
            f"expected a checkpoint, but there is no {path}; check the path"
        ) from None
    except Exception as error:  # torch raises many kinds for damaged files
        reason = one_line(error).split(". ")[0][:160]  # without torch's advice
        raise WeightsError(
            f"expected a checkpoint of {program}, but {path} is truncated or a pickle of code "
            f"({reason})"
        ) from None
    if not isinstance(state, dict) or state.get("format") != kind or part not in state:
        raise WeightsError(
            f"expected a checkpoint of {program} ({kind}), but {path} holds something else"
        )
    return state


def check_zip(path: str | Path) -> None:
    """Raise ValueError for a checkpoint of which a part has another checksum than when written.

    torch.load does not look at the checksums in its archive.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")


def state_path(run_dir: str | Path, step: int) -> Path:
    """The path of the resume state after `step` steps."""
    return Path(run_dir) / "checkpoints" / f"step_{step:08d}.pt"


def list_states(run_dir: str | Path) -> list[Path]:
    """The run's resume states, oldest first, without `best.pt`."""
    folder = Path(run_dir) / "checkpoints"
    return sorted(path for path in folder.glob("step_*.pt") if STATE_PATTERN.fullmatch(path.name))


def load_latest(run_dir: str | Path) -> tuple[Path, dict[str, Any]]:
    """The newest whole resume state and its path, with a warning for each damaged newer one.

    Raises UsageError if there is none, and WeightsError if none is whole.
    """
    states = list_states(run_dir)
    if not states:
        raise UsageError(
            f"expected a run with checkpoints in {run_dir}, but there are none; start it with "
            "--config"
        )
    for path in reversed(states):
        try:
            return path, load_state(path)
        except WeightsError as error:
            last_error = error
            if path != states[0]:
                print(f"warning: {error}; trying the one before", file=sys.stderr)
    raise last_error


def run_dir_of(path: str | Path) -> Path:
    """The run folder of a checkpoint in it. Raises UsageError for a file that lies elsewhere."""
    folder = Path(path).resolve().parent
    if folder.name != "checkpoints":
        raise UsageError(
            f"expected a checkpoint in a run's folder checkpoints/, but {path} lies elsewhere; put "
            "it there, since the run continues in the folder above"
        )
    return folder.parent


def set_newer_aside(run_dir: str | Path, step: int) -> None:
    """Rename the resume states after a step, from which a run continues.

    They are of another course now, and must not count as the newest. The same goes for the best
    state.
    """
    best = Path(run_dir) / "checkpoints" / BEST_FILE
    newer = [path for path in list_states(run_dir) if path > state_path(run_dir, step)]
    newer += [best] if best.is_file() and step_of(best) > step else []
    for path in newer:
        path.replace(path.with_name(f"superseded_{path.name}"))


def step_of(path: Path) -> float:
    """The step of a resume state; infinite for a damaged one."""
    try:
        return load_state(path)["step"]
    except WeightsError:
        return math.inf


def finished_model(run_dir: str | Path, step: int) -> Path | None:
    """The released model in the folder, if it is that of a step."""
    path = Path(run_dir) / MODEL_FILE
    try:
        return path if load_model(path)[1]["step"] == step else None
    except (WeightsError, KeyError):
        return None


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
    metadata = {"format": FORMAT, "stylenet": json.dumps(description)}
    content = with_checksum(save(plain, metadata))
    with writing(path) as temporary:
        temporary.write_bytes(content)


HEADER_LENGTH = struct.Struct("<Q")  # the first bytes of a safetensors file
ALIGNMENT = 8  # of the tensors behind the header


def with_checksum(content: bytes) -> bytes:
    """A safetensors file with the sha256 of its contents in the metadata.

    The header's keys are sorted. The library orders them by chance, and equal models must be equal
    files.
    """
    header, data = split_file(content)
    header["__metadata__"]["sha256"] = checksum(header, data)
    text = canonical(header)
    text += b" " * (-len(text) % ALIGNMENT)
    return HEADER_LENGTH.pack(len(text)) + text + data


def split_file(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors of a safetensors file."""
    (length,) = HEADER_LENGTH.unpack_from(content)
    start = HEADER_LENGTH.size
    return json.loads(content[start : start + length]), content[start + length :]


def canonical(header: dict[str, Any]) -> bytes:
    """The header as JSON with sorted keys."""
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def checksum(header: dict[str, Any], data: bytes) -> str:
    """The sha256 of a file's header, without its own checksum, and tensors."""
    metadata = {key: value for key, value in header["__metadata__"].items() if key != "sha256"}
    return hashlib.sha256(canonical(header | {"__metadata__": metadata}) + data).hexdigest()


def check_checksum(content: bytes, path: str | Path) -> None:
    """Raise WeightsError if a file is not what was written.

    Files of earlier versions have no checksum.
    """
    header, data = split_file(content)
    stored = header.get("__metadata__", {}).get("sha256")
    if stored is not None and stored != checksum(header, data):
        raise WeightsError(
            f"expected the model that was written, but {path} has changed since then (its sha256 "
            "is another); take it from its source again"
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
    check_kind(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        check_checksum(Path(path).read_bytes(), path)
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
        description = json.loads(metadata["stylenet"])
    except (KeyError, ValueError, RecursionError):
        raise WeightsError(
            f"expected a model released by train.py, but the description in {path} is damaged"
        ) from None
    return tensors, description


# what making a network from its file needs, with the kinds
NEEDED = {"model": str, "transform": str, "encoder": dict, "decoder": dict}
NEEDED_OF_ENCODER = {
    "name": str,
    "tap": str,
    "padding": str,
    "pooling": str,
    "sha256": str,
    "is_carried": bool,
}


def check_description(description: Any, path: str | Path) -> None:
    """Raise WeightsError for a description that lacks what a network is made of."""
    missing = lacking(description, NEEDED) or lacking(description["encoder"], NEEDED_OF_ENCODER)
    if missing:
        raise WeightsError(
            f"expected a model released by train.py, but the description in {path} is damaged "
            f"({missing[0]} is missing or of another kind)"
        )


def lacking(table: Any, kinds: dict[str, type]) -> list[str]:
    """The names that a table lacks, or whose values are of another kind."""
    known = table if isinstance(table, dict) else {}
    return [name for name, kind in kinds.items() if not isinstance(known.get(name), kind)]


def check_finite(tensors: dict[str, Tensor], path: str | Path) -> None:
    """Raise WeightsError for a tensor with NaN or infinity: its pictures would be black."""
    broken = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise WeightsError(
            f"expected finite weights, but {broken[0]} in {path} is not; take a checkpoint from "
            "before the training diverged"
        )


ARTIFACT = "wandb:"


def artifact_folder(name: str) -> Path:
    """The folder of a downloaded W&B artifact, `wandb:entity/project/name:alias`.

    Raises WeightsError.
    """
    try:
        import wandb

        return Path(wandb.Api().artifact(name.removeprefix(ARTIFACT)).download())
    except Exception as error:  # not installed, no key, no network, no such artifact
        raise WeightsError(
            f"expected a W&B artifact {name}, but it cannot be had ({one_line(error)[:160]}); give "
            "wandb:entity/project/name:alias"
        ) from None


def find_release(path: str | Path) -> Path:
    """A model's file: `path` itself, or the file that a run folder offers.

    A run folder offers its released model, else its newest resume state. `wandb:...` is an artifact
    of W&B, `hf:owner/name` a model on the Hugging Face Hub. Raises WeightsError if there is
    neither.
    """
    if str(path).startswith(hub.HUB):
        return hub.fetch(str(path))
    location = artifact_folder(str(path)) if str(path).startswith(ARTIFACT) else Path(path)
    if not location.is_dir():
        return location
    released, states = location / MODEL_FILE, list_states(location)
    if not released.is_file() and not states:
        raise WeightsError(
            f"expected a run folder with {MODEL_FILE} or checkpoints, but {path} has neither; "
            "train one with train.py"
        )
    return released if released.is_file() else load_latest(location)[0]


def read_release(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description of a model.

    `path` is a released file, a resume state (.pt), or a run folder that holds either.
    """
    file = find_release(path)
    if file.suffix == ".pt":
        release = load_state(file)["release"]  # every state carries the model as released
        tensors, description = release["tensors"], release["description"]
    else:
        tensors, description = load_model(file)
    check_description(description, file)
    check_finite(tensors, file)
    return tensors, description


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
