"""The metrics of a pair, each a function with its name in the catalogue.

Pure: descriptions in, tensors out.

A function takes the descriptions of output, content and style, and the options of the protocol. It
returns a scalar, or one scalar per layer. The networks have already run: see `Description`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stylenet.losses import content_loss, stats_distance
from stylenet.metrics import functional
from stylenet.transforms import StyleCode, align

PerTap = dict[str, Tensor]


class Description(NamedTuple):
    """What the metrics need of a picture, be it a content, a style or an output.

    It is small enough to stay in memory.
    """

    image: Tensor  # [1, 3, H, W]
    features: dict[str, Tensor]  # at the content and target layers
    stats: dict[str, StyleCode]  # at the style and target layers
    grams: dict[str, Tensor]  # at the style layers
    structure: Tensor | None  # features for CFSD
    perception: Sequence[Tensor] | None  # features for LPIPS
    perception_heads: Sequence[Tensor] | None  # LPIPS's weight of each channel
    vectors: dict[str, Tensor]  # [D] for each network of the set metrics


def content(output: Description, content: Description, style: Description, options: Any) -> PerTap:
    """The plain content loss."""
    return {
        tap: content_loss(output.features[tap], content.features[tap])
        for tap in options.content_taps
    }


def content_norm(
    output: Description, content: Description, style: Description, options: Any
) -> PerTap:
    """The content loss on features normalised per channel."""
    return {
        tap: functional.content_norm(output.features[tap], content.features[tap])
        for tap in options.content_taps
    }


def target(output: Description, content: Description, style: Description, options: Any) -> Tensor:
    """The content loss of training: the distance to the AdaIN output."""
    tap = options.target_tap
    return content_loss(output.features[tap], align(content.features[tap], style.stats[tap]))


def style(output: Description, content: Description, style: Description, options: Any) -> PerTap:
    """The style loss."""
    return {
        tap: stats_distance(output.stats[tap], style.stats[tap], options.style_reduction)
        for tap in options.style_taps
    }


def style_relative(
    output: Description, content: Description, style: Description, options: Any
) -> Tensor:
    """The style loss relative to that of the content copy."""
    own, copied = (
        [
            stats_distance(picture.stats[tap], style.stats[tap], options.style_reduction)
            for tap in options.style_taps
        ]
        for picture in (output, content)
    )
    return torch.stack(own).mean() / torch.stack(copied).mean().clamp(min=1e-12)


def gram(output: Description, content: Description, style: Description, options: Any) -> PerTap:
    """The relative distance of Gram matrices."""
    return {
        tap: functional.relative_distance(output.grams[tap], style.grams[tap])
        for tap in options.style_taps
    }


def ssim(output: Description, content: Description, style: Description, options: Any) -> Tensor:
    """The structural similarity with the content."""
    return functional.ssim(output.image, content.image, options.ssim_window)


def lpips(output: Description, content: Description, style: Description, options: Any) -> Tensor:
    """The perceptual distance to the content."""
    return functional.lpips(content.perception, output.perception, output.perception_heads)


def cfsd(output: Description, content: Description, style: Description, options: Any) -> Tensor:
    """The content feature structural distance."""
    return functional.cfsd(content.structure, output.structure, options.cfsd_reduction)


def colour(output: Description, content: Description, style: Description, options: Any) -> Tensor:
    """The distance of the colour histograms of output and style."""
    return functional.colour_distance(output.image, style.image, options.colour_bins)
