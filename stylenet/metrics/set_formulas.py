"""The metrics of a set, each a function with its name in the catalogue. Pure.

A function takes the vectors of outputs and of styles [N, D] and the metrics of the pairs. The
options of the protocol and the seed of the draws follow.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from stylenet.metrics import functional

Columns = Mapping[str, Sequence[float]]  # {metric: a value for each pair}


def vgg_frechet(outputs: Tensor, styles: Tensor, pairs: Columns, options: Any, seed: int) -> float:
    """The Fréchet distance on mean VGG features (not FID)."""
    return functional.frechet_distance(outputs, styles)


def fid(outputs: Tensor, styles: Tensor, pairs: Columns, options: Any, seed: int) -> float:
    """The Fréchet inception distance."""
    return functional.frechet_distance(outputs, styles)


def kid(outputs: Tensor, styles: Tensor, pairs: Columns, options: Any, seed: int) -> float:
    """The kernel inception distance, a mean over random subsets."""
    return functional.kernel_distance(
        outputs, styles, options.kid_subsets, options.kid_subset_size, seed
    )


def artfid(outputs: Tensor, styles: Tensor, pairs: Columns, options: Any, seed: int) -> float:
    """ArtFID (Wright & Ommer 2022)."""
    return functional.art_fid(
        statistics.fmean(pairs["lpips"]), functional.frechet_distance(outputs, styles)
    )
