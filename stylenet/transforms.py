"""What aligns content features with a style: adain, blend and mixing. Pure: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EPS = 1e-5

StyleCode = tuple[Tensor, ...]


def channel_stats(features: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel over positions, always float32 (or float64 for float64).

    features [N, C, H, W] -> two of [N, C, 1, 1]. The variance is biased and `eps` is inside the root, so that a
    constant channel and a 1x1 map have the deviation sqrt(eps) and a finite gradient. The Lua original takes the
    unbiased deviation of the style but the biased one of the output.
    """
    exact = features if features.dtype == torch.float64 else features.float()
    variance, mean = torch.var_mean(exact, dim=(2, 3), correction=0, keepdim=True)
    return mean, (variance + eps).sqrt()


def align(content: Tensor, style: StyleCode, eps: float = EPS) -> Tensor:
    """Content features brought to a style's channel mean and deviation.

    content [N, C, H, W], style two of [N or 1, C, 1, 1] -> [N, C, H, W] in the content's dtype.
    """
    style_mean, style_std = style
    mean, std = channel_stats(content, eps)
    return ((content.to(mean.dtype) - mean) * (style_std / std) + style_mean).to(content.dtype)


def adain(content: Tensor, style: Tensor, eps: float = EPS) -> Tensor:
    """Content features with the style's channel statistics (Huang & Belongie 2017, eq. 8).

    content [N, C, H, W], style [N or 1, C, h, w] -> [N, C, H, W]; the spatial sizes may differ.
    """
    return align(content, channel_stats(style, eps), eps)


def blend(content: Tensor, aligned: Tensor, alpha: float) -> Tensor:
    """Features between the content's (alpha 0) and the aligned ones (alpha 1), eq. 14 of the paper."""
    return aligned if alpha == 1 else torch.lerp(content, aligned, alpha)


class FeatureTransform(NamedTuple):
    """A transform in two halves, so that a style is described once and applied to many contents."""

    describe: Callable[[Tensor], StyleCode]  # style features [N, C, H, W] -> what is kept of the style
    apply: Callable[[Tensor, StyleCode], Tensor]  # content features, style code -> aligned features


ADAIN = FeatureTransform(channel_stats, align)


def mix(transform: FeatureTransform, content: Tensor, styles: Sequence[StyleCode], weights: Sequence[float]) -> Tensor:
    """Weighted sum of the content aligned with each style (the paper's section 7.2, style interpolation).

    The weights are normalised to sum to 1. Raises ValueError unless there is one weight of 0 or more per style
    and one of them is above 0.
    """
    if len(weights) != len(styles) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"expected {len(styles)} weights of 0 or more, one of them above 0, but {list(weights)} came")
    total = float(sum(weights))
    parts = [transform.apply(content, code) * (w / total) for code, w in zip(styles, weights, strict=True) if w > 0]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
