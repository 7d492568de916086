"""Transforms that align content features with a style, their blend and their mixture.

AdaIN is the default; ablations replace it with the others. All functions are pure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5
# values: a larger map that needs no gradient is measured in strips of its rows, which saves a whole
# copy
STRIP = 2**23

StyleCode = tuple[Tensor, ...]


def channel_stats(features: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel over positions, always float32.

    They are float64 for float64 features. features [N, C, H, W] -> two of [N, C, 1, 1]. The
    variance is biased and `eps` is inside the root. A constant channel and a 1x1 map thus have the
    deviation sqrt(eps) and a finite gradient. The Lua original takes the unbiased deviation of the
    style but the biased one of the output.
    """
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    height = features.shape[2]
    # an exported graph has any size, so no number of strips
    is_whole = features.requires_grad or torch.compiler.is_exporting()
    rows = None if is_whole else max(1, STRIP * height // features.numel())
    strips = features.split(rows, dim=2) if rows else [features]
    n = features[0, 0].numel()
    # two passes; the second also corrects the first one's rounding. This is as exact as
    # torch.var_mean in a fraction of its time on the CPU
    first = sum(strip.to(dtype).sum((2, 3), keepdim=True) for strip in strips) / n
    centred = (strip.to(dtype) - first for strip in strips)
    sums = [
        (part.sum((2, 3), keepdim=True), part.square().sum((2, 3), keepdim=True))
        for part in centred
    ]
    rest, square = (sum(parts) / n for parts in zip(*sums, strict=True))
    return first + rest, ((square - rest.square()).clamp_min(0) + eps).sqrt()


def area_stats(features: Tensor, areas: Tensor | None, eps: float = EPS) -> StyleCode:
    """Means and deviations of every channel in each area, one after the other.

    features [N, C, H, W], areas [A, 1, H, W] of weights in [0, 1] -> 2 * A of [N, C, 1, 1]. An
    empty area has the mean 0 and the deviation sqrt(eps). None is one area, the whole.
    """
    if areas is None:
        return channel_stats(features, eps)
    stats: list[Tensor] = []
    exact = features.float()
    for area in areas.to(features.device).unbind():  # [1, H, W]
        total = area.sum().clamp(min=1e-12)
        first = (exact * area).sum((2, 3), keepdim=True) / total
        centred = exact - first
        # as in channel_stats, the second pass corrects the first one's rounding
        rest = (centred * area).sum((2, 3), keepdim=True) / total
        square = (centred.square() * area).sum((2, 3), keepdim=True) / total
        stats += [first + rest, ((square - rest.square()).clamp_min(0) + eps).sqrt()]
    return tuple(stats)


def align_areas(
    content: Tensor, codes: Sequence[StyleCode], areas: Tensor, own: StyleCode
) -> Tensor:
    """Content features [N, C, H, W] with a style's statistics in each of the areas [A, 1, H, W].

    `codes` has a mean and a deviation for each area, `own` is the content's `area_stats`. Where
    areas overlap softly, the aligned features are blended.
    """
    weights = shares(areas).to(content.device)[:, None]  # [A, 1, 1, H, W]
    parts = [
        align(content, code, own[2 * k : 2 * k + 2]).float() * weights[k]
        for k, code in enumerate(codes)
    ]
    return torch.stack(parts).sum(0).to(content.dtype)


def shares(areas: Tensor) -> Tensor:
    """The weights of areas [A, 1, H, W] over their sum at each position."""
    return areas / areas.sum(0, keepdim=True)


def joined_stats(
    means: Sequence[Tensor], deviations: Sequence[Tensor], sizes: Sequence[float], eps: float = EPS
) -> tuple[Tensor, Tensor]:
    """The `channel_stats` of a map from those of its pieces, of sizes in this proportion."""
    shares = [size / max(sum(sizes), 1e-12) for size in sizes]
    exact = [mean.double() for mean in means]
    mean = sum(share * part for share, part in zip(shares, exact, strict=True))
    # E[x^2] - E[x]^2, about the common mean
    variance = sum(
        share * (deviation.double().square() - eps + (part - mean).square())
        for share, deviation, part in zip(shares, deviations, exact, strict=True)
    )
    return mean.to(means[0].dtype), (variance.clamp_min(0) + eps).sqrt().to(means[0].dtype)


def align(
    content: Tensor, style: StyleCode, own: StyleCode | None = None, eps: float = EPS
) -> Tensor:
    """Content features with a style's channel means and deviations.

    content [N, C, H, W], style two of [N or 1, C, 1, 1] -> [N, C, H, W] in the content's dtype.
    `own` holds the content's mean and deviation where it is a piece of a larger map.
    """
    style_mean, style_std = style
    mean, std = own or channel_stats(content, eps)
    return ((content.to(mean.dtype) - mean) * (style_std / std) + style_mean).to(content.dtype)


def adain(content: Tensor, style: Tensor, eps: float = EPS) -> Tensor:
    """Content features with the style's channel statistics (Huang & Belongie 2017, eq. 8).

    content [N, C, H, W], style [N or 1, C, h, w] -> [N, C, H, W]; the spatial sizes may differ.
    """
    return align(content, channel_stats(style, eps), eps=eps)


def blend(content: Tensor, aligned: Tensor, alpha: float | Tensor) -> Tensor:
    """Features between the content's (alpha 0) and the aligned ones (alpha 1), eq. 14.

    A strength that is a tensor [] is an input of an exported graph.
    """
    if isinstance(alpha, Tensor):
        return content + alpha * (aligned - content)
    return aligned if alpha == 1 else torch.lerp(content, aligned, alpha)


class FeatureTransform(NamedTuple):
    """A transform in two halves: one describes a style, the other applies it to contents.

    A style is thus described once and applied to many contents, whole or in pieces.
    """

    # style features [N, C, H, W] -> style code
    describe: Callable[[Tensor], StyleCode]
    # content, style code, survey -> the decoder's input
    apply: Callable[[Tensor, StyleCode, StyleCode | None], Tensor]
    # what `apply` needs of a whole content to work on a piece of it; None where it cannot
    survey: Callable[[Tensor], StyleCode] | None = None
    # the decoder's input for an unchanged content, in `blend` and in the identity loss
    unchanged: Callable[[Tensor], Tensor] = lambda content: content
    widening: int = 1  # ratio of the decoder's input channels to the encoder's output channels


def align_mean(content: Tensor, style: StyleCode, own: StyleCode | None = None) -> Tensor:
    """Content features shifted to the style's channel means.

    The deviations stay the content's.
    """
    mean = (own or channel_stats(content))[0]
    return (content.to(mean.dtype) - mean + style[0]).to(content.dtype)


def align_std(content: Tensor, style: StyleCode, own: StyleCode | None = None) -> Tensor:
    """Content features scaled to the style's channel deviations.

    The means stay the content's.
    """
    own = own or channel_stats(content)
    return align(content, (own[0], style[1]), own)


def sorted_values(features: Tensor) -> StyleCode:
    """Every channel's values in ascending order, [N, C, H, W] -> [N, C, H * W].

    They are the channel's empirical distribution.
    """
    exact = features if features.dtype == torch.float64 else features.float()
    return (exact.flatten(2).sort(dim=2).values,)


def match_ranks(content: Tensor, style: StyleCode, _: StyleCode | None = None) -> Tensor:
    """Content features whose k-th smallest value is the style's (Zhang et al. 2022, eq. 5).

    This is exact feature distribution matching. content [N, C, H, W], style sorted values [N or 1,
    C, M]. Where M differs from H * W, the style's quantiles are interpolated linearly; the paper
    resizes the style image instead.
    """
    # the second argsort inverts the permutation: [N, C, H * W], each value's rank
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
    """Content features after classical histogram matching with the style.

    Every value becomes the style's value at the same cumulative share. content [N, C, H, W], style
    sorted values [N or 1, C, M]. Unlike `match_ranks`, equal values stay equal. That matters after
    a ReLU: all the zeros of a channel become one value.
    """
    values = content.to(style[0].dtype).flatten(2)  # [N, C, L]
    ordered = (own or sorted_values(content))[0].contiguous()
    reference = style[0].expand(len(content), -1, -1).contiguous()
    # cumulative shares in (0, 1]: the part of the values that are no larger
    share = torch.searchsorted(ordered, values.contiguous(), right=True) / ordered.shape[2]
    style_share = torch.searchsorted(reference, reference, right=True) / reference.shape[2]
    # the style's values on both sides of each share, and where the share lies between them
    above = torch.searchsorted(style_share.contiguous(), share).clamp(max=reference.shape[2] - 1)
    below = (above - 1).clamp(min=0)
    low, high = reference.gather(2, below), reference.gather(2, above)
    low_share, high_share = style_share.gather(2, below), style_share.gather(2, above)
    weight = torch.where(
        above > below, (share - low_share) / (high_share - low_share).clamp(min=1e-12), 1.0
    )
    return torch.lerp(low, high, weight.clamp(0, 1)).reshape(content.shape).to(content.dtype)


def full_precision(features: Tensor) -> torch.autocast:
    """A context in which matrix products keep their inputs' precision under autocast."""
    return torch.autocast(features.device.type, enabled=False)


def covariance_root(centred: Tensor, power: float) -> Tensor:
    """A power of the channel covariance of centred features [N, C, L], symmetric [N, C, C].

    Directions with less than 1e-5 of the largest variance are omitted: with fewer positions than
    channels the covariance has no inverse. (The authors' code omits variances below 1e-5 itself,
    whatever the layer's scale.)
    """
    with full_precision(centred):
        covariance = centred @ centred.transpose(1, 2) / centred.shape[2]
    values, vectors = torch.linalg.eigh(covariance.cpu().double())  # mps has no float64
    is_kept = values > 1e-5 * values[:, -1:].clamp(min=torch.finfo(torch.float32).tiny)
    powers = torch.where(is_kept, values.clamp(min=torch.finfo(torch.float32).tiny) ** power, 0.0)
    return ((vectors * powers[:, None]) @ vectors.transpose(1, 2)).to(centred)


def mean_and_root(features: Tensor, power: float) -> StyleCode:
    """Channel means [N, C, 1, 1] and a power of the channel covariance [N, C, C].

    The power 0.5 colours and -0.5 whitens.
    """
    exact = features if features.dtype == torch.float64 else features.float()
    mean = exact.mean(dim=(2, 3), keepdim=True)
    return mean, covariance_root((exact - mean).flatten(2), power)


def whiten_and_colour(content: Tensor, style: StyleCode, own: StyleCode | None = None) -> Tensor:
    """Content features with the style's channel means and covariance (WCT).

    Li et al. 2017, eq. 1 and 2. content [N, C, H, W], style from `mean_and_root` with the power
    0.5, `own` with -0.5.
    """
    mean, whitening = own or mean_and_root(content, -0.5)
    centred = (content.to(mean.dtype) - mean).flatten(2)
    with full_precision(centred):
        coloured = style[1] @ (whitening @ centred)
    return (coloured.reshape(content.shape) + style[0]).to(content.dtype)


def concatenate(content: Tensor, style: StyleCode, _: StyleCode | None = None) -> Tensor:
    """Content and style features side by side, [N, 2C, H, W].

    The style's are resampled to the content's size. This is the paper's baseline without an
    alignment (section 7.1, Enc-Concat-Dec): the decoder has to learn one.
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
    """Weighted sum of the content aligned with each style (section 7.2 of the paper).

    `own` is the transform's survey of the whole content, where `content` is a piece of it. The
    shares of the mixture sum to 1.
    """
    parts = [
        transform.apply(content, code, own) * share
        for code, share in zip(codes, mixture, strict=True)
        if share > 0
    ]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
