"""The scores of an evaluation on the disk, as soon as they are known."""

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


class Store:
    """Scores as lines of `work/rows-*.jsonl`: each process appends to a file of its own and reads
    all of them.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder, self.settings = folder / "work", settings
        self.rows: dict[tuple, dict[str, Any]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read()

    def read(self) -> None:
        """Take in every whole line that was written under these settings."""
        for file in sorted(self.folder.glob("rows-*.jsonl")):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                row = parse_row(line)
                if row.get("settings") == self.settings:
                    self.rows[tuple(row["key"])] = row

    def add(self, key: tuple, **values: Any) -> None:
        """Keep a row; it is on the disk when this returns."""
        row = {"settings": self.settings, "key": list(key), **values}
        self.rows[key] = row
        with open(self.folder / f"rows-{runtime.rank()}.jsonl", "a", encoding="utf-8") as file:
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
        same.seek(-1, 2)
        return same.read(1) != b"\n"


def parse_row(line: str) -> dict[str, Any]:
    """A row, empty for a damaged line."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) and isinstance(row.get("key"), list) else {}


def pack(vectors: Mapping[str, Tensor]) -> dict[str, str]:
    """float32 vectors as text, exactly."""
    return {
        name: base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
        for name, vector in vectors.items()
    }


def unpack(text: str) -> Tensor:
    """The vector again."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype="<f4").copy())
