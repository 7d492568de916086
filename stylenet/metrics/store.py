"""The scores of an evaluation on disk, written as soon as they are known."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylenet import runtime
from stylenet.files import naming


class Store:
    """Scores as lines of `work/rows-*.jsonl`.

    Each process appends to a file of its own and reads all files.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder, self.settings = folder / "work", settings
        self.rows: dict[tuple, dict[str, Any]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read()

    def read(self) -> None:
        """Read every whole line that was written under these settings."""
        for file in sorted(self.folder.glob("rows-*.jsonl")):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                row = parse_row(line)
                # rows of other settings stay in the file for a return to them
                if row.get("settings") == self.settings:
                    self.rows[tuple(row["key"])] = row

    def add(self, key: tuple, **values: Any) -> None:
        """Add a row; the row is on disk when this returns."""
        row = {"settings": self.settings, "key": list(key), **values}
        self.rows[key] = row
        path = self.folder / f"rows-{runtime.rank()}.jsonl"
        with naming(path), open(path, "a", encoding="utf-8") as file:
            # A line break before the row cuts off the half line of a killed process.
            file.write(("\n" if needs_newline(file) else "") + json.dumps(row) + "\n")

    def __contains__(self, key: tuple) -> bool:
        return key in self.rows

    def __getitem__(self, key: tuple) -> dict[str, Any]:
        return self.rows[key]


def needs_newline(file: Any) -> bool:
    """Whether a killed process left half a line at the end."""
    if file.tell() == 0:
        return False
    with open(file.name, "rb") as same:
        same.seek(-1, 2)  # the last byte
        return same.read(1) != b"\n"


def parse_row(line: str) -> dict[str, Any]:
    """A row from its line; empty for a damaged line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    is_row = isinstance(row, dict) and isinstance(row.get("key"), list)
    # a key is compared and hashed: plain values only
    return row if is_row and not any(isinstance(x, (list, dict)) for x in row["key"]) else {}


def pack(vectors: Mapping[str, Tensor]) -> dict[str, str]:
    """float32 vectors as text, without loss."""
    return {
        name: base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
        for name, vector in vectors.items()
    }


def unpack(text: str) -> Tensor:
    """The float32 vector from its text."""
    # copy: frombuffer gives a read-only array, which torch warns about.
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype="<f4").copy())
