"""Every metric once: its name, its meaning, and what it needs.

Nothing here imports torch.

The function of the same name computes a metric: in `formulas.py` for a pair, in `set_formulas.py`
for a set. Configuration, scorer, tables and reports are built from these entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One entry of the catalogue."""

    name: str
    title: str
    meaning: str
    higher_is_better: bool = False
    digits: int = 3  # after the point
    of: Literal["pair", "set", "model"] = "pair"  # what a value belongs to
    taps: str | None = None  # the option of a protocol that names the judge's layers
    needs: tuple[str, ...] = ()  # networks besides the judge: lpips, inception, art_inception
    vectors: str | None = None  # for a set: the network whose vectors are compared

    @property
    def heading(self) -> str:
        """The title with an arrow in the direction of better values."""
        return f"{self.title} {'↑' if self.higher_is_better else '↓'}"


# The order is that of the columns in every table.
ENTRIES = (
    Metric(
        "content_norm",
        "content norm",
        "How far the output's features are from the content's, each channel brought to mean 0 and "
        "deviation 1.",
        taps="content_taps",
    ),
    Metric(
        "content",
        "content",
        "How far the output's features are from the content's, as they are.",
        taps="content_taps",
    ),
    Metric(
        "target",
        "AdaIN target",
        "How far the output's features are from the AdaIN output, as the content loss of training "
        "measures it.",
        taps="target_tap",
    ),
    Metric(
        "style",
        "style",
        "How far the means and deviations of the output's features are from the style's.",
        taps="style_taps",
    ),
    Metric(
        "style_relative",
        "style / copy",
        "The style loss over that of the content left as it is: 1 means that nothing was stylised.",
        taps="style_taps",
    ),
    Metric(
        "gram",
        "Gram",
        "How far the output's Gram matrices are from the style's, relative to these.",
        taps="style_taps",
    ),
    Metric(
        "ssim",
        "SSIM",
        "How much of the content's local structure the pixels keep.",
        higher_is_better=True,
    ),
    Metric(
        "lpips",
        "LPIPS",
        "The perceptual distance of the output to the content; to do nothing is best here.",
        needs=("lpips",),
    ),
    Metric(
        "cfsd",
        "CFSD",
        "How far the similarities of the content's parts to each other have changed.",
        digits=4,
        taps="cfsd_tap",
    ),
    Metric("colour", "colour", "How far the output's colour histogram is from the style's."),
    Metric(
        "vgg_frechet",
        "VGG Fréchet (not FID)",
        "The Fréchet distance of outputs and styles on mean VGG features; not comparable with FID.",
        of="set",
        taps="frechet_tap",
        vectors="vgg",
    ),
    Metric(
        "fid",
        "FID",
        "The Fréchet distance of outputs and styles on Inception features.",
        digits=2,
        of="set",
        needs=("inception",),
        vectors="inception",
    ),
    Metric(
        "kid",
        "KID",
        "The kernel distance of outputs and styles on Inception features; unbiased for few "
        "pictures.",
        digits=4,
        of="set",
        needs=("inception",),
        vectors="inception",
    ),
    Metric(
        "artfid",
        "ArtFID",
        "LPIPS to the contents and FID to the styles in one number.",
        digits=2,
        of="set",
        needs=("lpips", "art_inception"),
        vectors="art",
    ),
    Metric(
        "efficiency", "cost", "Parameters, products, latency and memory of one picture.", of="model"
    ),
)
CATALOGUE = {entry.name: entry for entry in ENTRIES}


def names_of(kind: Literal["pair", "set", "model"]) -> list[str]:
    """The names of the metrics whose values belong to a pair, a set or a model."""
    return [entry.name for entry in CATALOGUE.values() if entry.of == kind]


def needing(network: str) -> list[str]:
    """The names of the metrics that need a network besides the judge."""
    return [entry.name for entry in CATALOGUE.values() if network in entry.needs]


def best_of(name: str) -> Callable:
    """`max` or `min`, whichever picks the better value of a metric."""
    return max if CATALOGUE[name].higher_is_better else min
