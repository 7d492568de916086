"""What aligns content features with a style: AdaIN and others, blending, mixing. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5
STRIP = (
    2**23
    # values: a larger map that needs no gradient is measured in strips of its rows, so that no
    # whole
    # copy is made
)

StyleCode = tuple[Tensor, ...]


def channel_stats(features: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel over positions, in float32 or float64.

    features [N, C, H, W] -> two of [N, C, 1, 1]. The variance is biased and `eps` is inside the
    root, so that a constant channel and a 1x1 map have the deviation sqrt(eps) and a finite
    gradient. The Lua original takes the unbiased deviation of the style but the biased one of the
    output.
    """
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    height = features.shape[2]
    rows = height if features.requires_grad else max(1, STRIP * height // features.numel())
    strips, n = features.split(rows, dim=2), features[0, 0].numel()
    # two passes, and what the first one's rounding left: as exact as torch.var_mean in a fraction
    # of its time on the CPU
    first = sum(strip.to(dtype).sum((2, 3), keepdim=True) for strip in strips) / n
    centred = (strip.to(dtype) - first for strip in strips)
    sums = [
        (part.sum((2, 3), keepdim=True), part.square().sum((2, 3), keepdim=True))
        for part in centred
    ]
    rest, square = (sum(parts) / n for parts in zip(*sums, strict=True))
    return first + rest, ((square - rest.square()).clamp_min(0) + eps).sqrt()


def align(
    content: Tensor, style: StyleCode, own: StyleCode | None = None, eps: float = EPS
) -> Tensor:
    """Content features brought to a style's channel mean and deviation.

    content [N, C, H, W], style two of [N or 1, C, 1, 1] -> [N, C, H, W] in the content's dtype.
    `own` are the content's mean and deviation where it is a piece of a larger map.
    """
    style_mean, style_std = style
    mean, std = own or channel_stats(content, eps)
    return ((content.to(mean.dtype) - mean) * (style_std / std) + style_mean).to(content.dtype)


def adain(content: Tensor, style: Tensor, eps: float = EPS) -> Tensor:
    """Content features with the style's channel statistics (Huang & Belongie 2017, eq. 8).

    content [N, C, H, W], style [N or 1, C, h, w] -> [N, C, H, W]; the spatial sizes may differ.
    """
    return align(content, channel_stats(style, eps), eps=eps)


def blend(content: Tensor, aligned: Tensor, alpha: float) -> Tensor:
    """Features between the content's (alpha 0) and the aligned ones (alpha 1), eq. 14."""
    return aligned if alpha == 1 else torch.lerp(content, aligned, alpha)


class FeatureTransform(NamedTuple):
    """A transform in two halves: a style is described once, and applied to many contents."""

    describe: Callable[
        [Tensor], StyleCode
    ]  # style features [N, C, H, W] -> what is kept of the style
    apply: Callable[
        [Tensor, StyleCode, StyleCode | None], Tensor
    ]  # content, style code, survey -> what the decoder inverts
    # what `apply` needs to know of a whole content in order to work on a piece of it; None: it
    # cannot
    survey: Callable[[Tensor], StyleCode] | None = None
    # what the decoder sees of a content left as it is: the start of `blend`, and the input of the
    # identity loss
    unchanged: Callable[[Tensor], Tensor] = lambda content: content
    widening: int = 1  # the decoder's input channels over the encoder's output channels


def align_mean(content: Tensor, style: StyleCode, own: StyleCode | None = None) -> Tensor:
    """Content features shifted to the style's channel means; the deviations stay the content's."""
    mean = (own or channel_stats(content))[0]
    return (content.to(mean.dtype) - mean + style[0]).to(content.dtype)


def align_std(content: Tensor, style: StyleCode, own: StyleCode | None = None) -> Tensor:
    """Content features scaled to the style's channel deviations; the means stay the content's."""
    own = own or channel_stats(content)
    return align(content, (own[0], style[1]), own)


def sorted_values(features: Tensor) -> StyleCode:
    """Every channel's values in ascending order, [N, C, H, W] -> [N, C, H * W]."""
    exact = features if features.dtype == torch.float64 else features.float()
    return (exact.flatten(2).sort(dim=2).values,)


def match_ranks(content: Tensor, style: StyleCode, _: StyleCode | None = None) -> Tensor:
    """Exact feature distribution matching (Zhang et al. 2022, eq. 5).

    The content's k-th smallest value becomes the style's.

    content [N, C, H, W], style sorted values [N or 1, C, M]. Where M differs from H * W the style's
    quantiles are interpolated linearly; the paper resizes the style image instead.
    """
    ranks = content.flatten(2).argsort(dim=2, stable=True).argsort(dim=2)
    n = ranks.shape[2]
    quantiles = (
        F.interpolate(style[0], size=n, mode="linear", align_corners=True)
        if style[0].shape[2] != n
        else style[0]
    )
    matched = quantiles.expand(len(content), -1, -1).gather(2, ranks)
    return matched.reshape(content.shape).to(content.dtype)


def match_histogram(content: Tensor, style: StyleCode, own: StyleCode | None = None) -> Tensor:
    """Classical histogram matching: the style's value at the same cumulative share.

    content [N, C, H, W], style sorted values [N or 1, C, M]. Unlike `match_ranks`, equal values
    stay equal, which matters after a ReLU: all the zeros of a channel go to one value.
    """
    values = content.to(style[0].dtype).flatten(2)  # [N, C, L]
    ordered = (own or sorted_values(content))[0].contiguous()
    reference = style[0].expand(len(content), -1, -1).contiguous()
    share = (
        torch.searchsorted(ordered, values.contiguous(), right=True) / ordered.shape[2]
    )  # in (0, 1]
    style_share = torch.searchsorted(reference, reference, right=True) / reference.shape[2]
    above = torch.searchsorted(style_share.contiguous(), share).clamp(max=reference.shape[2] - 1)
    below = (above - 1).clamp(min=0)
    low, high = reference.gather(2, below), reference.gather(2, above)
    low_share, high_share = style_share.gather(2, below), style_share.gather(2, above)
    weight = torch.where(
        above > below, (share - low_share) / (high_share - low_share).clamp(min=1e-12), 1.0
    )
    return torch.lerp(low, high, weight.clamp(0, 1)).reshape(content.shape).to(content.dtype)


def full_precision(features: Tensor) -> torch.autocast:
    """Context in which matrix products keep their inputs' precision under autocast."""
    return torch.autocast(features.device.type, enabled=False)


def covariance_root(centred: Tensor, power: float) -> Tensor:
    """A power of the channel covariance of centred features [N, C, L] -> symmetric [N, C, C].

    Directions with less than 1e-5 of the largest variance are left out: with fewer positions than
    channels the covariance has no inverse. (The authors' code leaves out variances below 1e-5
    itself, whatever the layer's scale.)
    """
    with full_precision(centred):
        covariance = centred @ centred.transpose(1, 2) / centred.shape[2]
    values, vectors = torch.linalg.eigh(covariance.cpu().double())  # mps has no float64
    is_kept = values > 1e-5 * values[:, -1:].clamp(min=torch.finfo(torch.float32).tiny)
    powers = torch.where(is_kept, values.clamp(min=torch.finfo(torch.float32).tiny) ** power, 0.0)
    return ((vectors * powers[:, None]) @ vectors.transpose(1, 2)).to(centred)


def mean_and_root(features: Tensor, power: float) -> StyleCode:
    """Channel means [N, C, 1, 1] and a power of the channel covariance [N, C, C].

    The power 0.5 colours, -0.5 whitens.
    """
    exact = features if features.dtype == torch.float64 else features.float()
    mean = exact.mean(dim=(2, 3), keepdim=True)
    return mean, covariance_root((exact - mean).flatten(2), power)


def whiten_and_colour(content: Tensor, style: StyleCode, own: StyleCode | None = None) -> Tensor:
    """Content features with the style's channel means and covariance.

    WCT, Li et al. 2017, eq. 1 and 2.
    """
    mean, whitening = own or mean_and_root(content, -0.5)
    centred = (content.to(mean.dtype) - mean).flatten(2)
    with full_precision(centred):
        coloured = style[1] @ (whitening @ centred)
    return (coloured.reshape(content.shape) + style[0]).to(content.dtype)


def concatenate(content: Tensor, style: StyleCode, _: StyleCode | None = None) -> Tensor:
    """Content and style features side by side, [N, 2C, H, W].

    The style's are resampled to the content's size.

    The paper's baseline without an alignment (section 7.1, Enc-Concat-Dec): the decoder has to find
    one.
    """
    resampled = F.interpolate(style[0], size=content.shape[-2:], mode="bilinear", antialias=True)
    return torch.cat([content, resampled.to(content.dtype).expand(len(content), -1, -1, -1)], dim=1)


ADAIN = FeatureTransform(channel_stats, align, channel_stats)
TRANSFORMS = {
    "adain": ADAIN,
    "mean": FeatureTransform(channel_stats, align_mean, channel_stats),
    "std": FeatureTransform(channel_stats, align_std, channel_stats),
    "none": FeatureTransform(
        lambda style: (), lambda content, style, own: content, lambda content: ()
    ),
    "efdm": FeatureTransform(sorted_values, match_ranks),
    "histogram": FeatureTransform(sorted_values, match_histogram, sorted_values),
    "wct": FeatureTransform(
        functools.partial(mean_and_root, power=0.5),
        whiten_and_colour,
        functools.partial(mean_and_root, power=-0.5),
    ),
    "concat": FeatureTransform(
        lambda style: (style.float(),),
        concatenate,
        None,
        lambda content: torch.cat([content, content], 1),
        widening=2,
    ),
}


def mix(
    transform: FeatureTransform,
    content: Tensor,
    codes: Sequence[StyleCode],
    mixture: Sequence[float],
    own: StyleCode | None = None,
) -> Tensor:
    """Weighted sum of the content aligned with each style (the paper's section 7.2).

    `own` is the transform's survey of the whole content, where `content` is a piece of it. The
    shares of the mixture sum to 1.
    """
    parts = [
        transform.apply(content, code, own) * share
        for code, share in zip(codes, mixture, strict=True)
        if share > 0
    ]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
