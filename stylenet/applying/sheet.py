"""Labelled sheets: one picture in several looks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stylenet import images
from stylenet.errors import UsageError
from stylenet.progress import shown

SWEEPS = ("styles", "corners", "alpha")
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
CORNERS = 5  # pictures in each direction between four styles
CELL_PX = 320  # the longest side of a picture on the sheet
LABEL_PX, GAP_PX = 20, 6


class Cell(NamedTuple):
    """A picture of a sheet: shares of the styles, strength, label."""

    mixture: tuple[float, ...]
    alpha: float
    label: str


def cells(kind: str, names: Sequence[str], alpha: float) -> list[list[Cell]]:
    """The rows of a sheet. Raises UsageError for a number of styles that does not fit."""
    n = len(names)
    if kind == "corners":
        if n != 4:
            raise UsageError(f"expected four styles for --sweep corners, but {n} came")
        return [[corner(i, j, names, alpha) for j in range(CORNERS)] for i in range(CORNERS)]
    if kind == "alpha":
        return [
            [Cell(one_of(n, k), a, f"{names[k]}, alpha {a:g}") for a in ALPHAS] for k in range(n)
        ]
    n_columns = math.ceil(math.sqrt(n))
    flat = [Cell(one_of(n, k), alpha, names[k]) for k in range(n)]
    return [flat[start : start + n_columns] for start in range(0, n, n_columns)]


def one_of(n: int, k: int) -> tuple[float, ...]:
    """The mixture of n styles that is the k-th alone."""
    return tuple(float(i == k) for i in range(n))


def corner(i: int, j: int, names: Sequence[str], alpha: float) -> Cell:
    """The cell in row i and column j between four styles."""
    down, right = i / (CORNERS - 1), j / (CORNERS - 1)
    shares = tuple(a * b for a, b in itertools.product((1 - down, down), (1 - right, right)))
    label = next((name for name, share in zip(names, shares, strict=True) if share == 1), "")
    return Cell(shares, alpha, label)


def make_sheet(rows: Sequence[Sequence[Cell]], draw: Callable[[Cell], Tensor]) -> Image.Image:
    """The sheet of the pictures [3, H, W] in [0, 1] that `draw` makes."""
    n = sum(map(len, rows))
    flat = (cell for row in rows for cell in row)
    made = [(cell, small(draw(cell))) for cell in shown(flat, n, "picture")]
    width, height = made[0][1].size
    n_columns = max(map(len, rows))
    size = (
        n_columns * (width + GAP_PX) + GAP_PX,
        len(rows) * (height + LABEL_PX + GAP_PX) + GAP_PX,
    )
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    places = ((i, j) for i, row in enumerate(rows) for j in range(len(row)))
    for (i, j), (cell, picture) in zip(places, made, strict=True):
        left = GAP_PX + j * (width + GAP_PX)
        top = GAP_PX + i * (height + LABEL_PX + GAP_PX)
        sheet.paste(picture, (left, top))
        label = fitting(cell.label, lambda text: font.getlength(text) <= width)
        pen.text((left + 2, top + height + 2), label, fill="black", font=font)
    return sheet


def small(picture: Tensor) -> Image.Image:
    """A picture within CELL_PX."""
    made = images.to_pil(picture)
    made.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
    return made


def fitting(label: str, fits: Callable[[str], bool]) -> str:
    """The label, cut to what fits."""
    while label and not fits(label):
        label = label[:-2] + "…" if len(label) > 2 else ""
    return label
