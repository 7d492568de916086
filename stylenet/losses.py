"""The terms of the objective, as pure functions.

All are computed in float32, whatever the features' dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stylenet.transforms import StyleCode, channel_stats, full_precision

Reduction = Literal["mean", "sum"]
# terms that need passes of the network of their own
LAZY_TERMS = ("identity", "identity_features", "shift", "motion")


class LossWeights(NamedTuple):
    """The loss weights of the objective's terms.

    `taps` maps each style layer to its own weight, `feature_taps` each layer that is compared with
    the content itself, as Gatys and Johnson do, rather than with the AdaIN output.
    """

    content: float
    style: float
    taps: Mapping[str, float]
    reduction: Reduction = "mean"
    gram: float = 0.0
    tv: float = 0.0
    identity: float = 0.0
    identity_features: float = 0.0
    balance: float = 0.0
    gram_balance: float = 0.0
    content_norm: float = 0.0
    content_norm_taps: tuple[str, ...] = ()
    shift: float = 0.0
    motion: float = 0.0
    features: float = 0.0
    feature_taps: Mapping[str, float] = MappingProxyType({})
    sliced: float = 0.0
    adversarial: float = 0.0

    @property
    def needs_features(self) -> bool:
        """Whether a term compares features, so that the output has to go through the encoder."""
        per_feature = (self.content, self.content_norm, self.features)
        return any((*per_feature, self.style, self.gram, self.sliced))

    @property
    def content_taps(self) -> tuple[str, ...]:
        """The layers whose features are compared with the content's own."""
        is_compared = self.content_norm or self.identity_features
        normalised = self.content_norm_taps if is_compared else ()
        plain = tuple(self.feature_taps) if self.features else ()
        return tuple(dict.fromkeys((*normalised, *plain)))


def content_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of features [N, C, H, W] (eq. 12 of the paper).

    Like the paper's code it takes the mean and no root.
    """
    return F.mse_loss(output.float(), target.float())


def normalised_content_loss(output: Tensor, content: Tensor) -> Tensor:
    """Mean squared difference of features normalised to mean 0 and deviation 1 per channel.

    It is 0 for equal features and about 2 for unrelated ones. Unlike `content_loss` against the
    AdaIN output, it weighs every channel alike, whatever the style's deviations.
    """
    (mean, std), (content_mean, content_std) = channel_stats(output), channel_stats(content)
    return F.mse_loss((output.float() - mean) / std, (content.float() - content_mean) / content_std)


def style_loss(
    output: Tensor, style: Tensor, reduction: Reduction = "mean", balance: float = 0.0
) -> Tensor:
    """Squared difference of channel means plus that of deviations at one layer (eq. 13).

    output [N, C, H, W], style [N, C, h, w] -> scalar, averaged over N. Over channels, `sum` is the
    Lua original's (its style weight is 1e-2), `mean` is pytorch-AdaIN's (its style weight is 10):
    the first is C times the second. `balance`: see `stats_distance`.
    """
    return stats_distance(channel_stats(output), channel_stats(style), reduction, balance)


def stats_distance(
    output: StyleCode, style: StyleCode, reduction: Reduction = "mean", balance: float = 0.0
) -> Tensor:
    """The style loss from channel means and deviations, two of [N, C, 1, 1] each.

    A share `balance` of it is divided by each sample's magnitude, the mean square of both sides'
    statistics without gradient. Pale and sparse styles, whose statistics are small, then count as
    much as strong ones.
    """
    (mean, std), (style_mean, style_std) = output, style
    squared = (mean - style_mean).square() + (std - style_std).square()  # [N, C, 1, 1]
    per_image = squared.flatten(1)  # [N, C]
    # [N]
    distances = per_image.sum(1) if reduction == "sum" else per_image.mean(1)
    if not balance:
        return distances.mean()
    squares = [
        part.detach().square().mean((1, 2, 3)) for part in (mean, std, style_mean, style_std)
    ]
    magnitude = (sum(squares) / 2).clamp_min(1e-6)  # [N]; two sides of two statistics each
    return (distances * ((1 - balance) + balance / magnitude)).mean()


def gram(features: Tensor) -> Tensor:
    """Channel Gram matrices over the number of positions, [N, C, H, W] -> [N, C, C].

    Gatys et al. 2016, eq. 3.
    """
    flat = features.float().flatten(2)  # [N, C, H*W]
    with full_precision(flat):
        return flat @ flat.transpose(1, 2) / flat.shape[2]


def gram_loss(output: Tensor, style: Tensor) -> Tensor:
    """Mean squared difference of the Gram matrices at one layer.

    The spatial sizes may differ.
    """
    return matrix_distance(gram(output), gram(style))


def matrix_distance(output: Tensor, style: Tensor, balance: float = 0.0) -> Tensor:
    """The Gram loss from matrices [N, C, C].

    A share `balance` of it is divided by the mean square of each style's matrix. The squares of
    squared features differ by far more between styles than the features do.
    """
    distances = (output - style).square().mean((1, 2))  # [N]
    if not balance:
        return distances.mean()
    magnitude = style.detach().square().mean((1, 2)).clamp_min(1e-6)
    return (distances * ((1 - balance) + balance / magnitude)).mean()


def directions_of(n_channels: int) -> Tensor:
    """Orthonormal directions in the space of C channels, [C, C], always the same ones."""
    draws = torch.randn(n_channels, n_channels, generator=torch.Generator().manual_seed(n_channels))
    return torch.linalg.qr(draws)[0]


def sliced_values(features: Tensor) -> Tensor:
    """Features projected on C directions, sorted over positions, [N, C, H, W] -> [N, C, H*W]."""
    flat = features.float().flatten(2)
    with full_precision(flat):
        projected = directions_of(flat.shape[1]).to(flat) @ flat
    return projected.sort(dim=2).values


def sliced_distance(output: Tensor, style: Tensor) -> Tensor:
    """The squared sliced Wasserstein distance from sorted values [N, C, P] and [N, C, Q].

    The style's are interpolated to P positions (Heitz et al. 2021, whose directions are random in
    each step; fixed ones keep the objective the same for L-BFGS).
    """
    return F.mse_loss(output, resampled(style, output.shape[2]))


def resampled(values: Tensor, n: int) -> Tensor:
    """Sorted values at n positions, [N, C, P] -> [N, C, n]."""
    return values if values.shape[2] == n else F.interpolate(values, size=n, mode="linear")


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, [N, C, H, W] -> scalar.

    It is anisotropic: the sum of the vertical and the horizontal mean.
    """
    exact = image.float()
    down = (exact[..., 1:, :] - exact[..., :-1, :]).abs()
    right = (exact[..., :, 1:] - exact[..., :, :-1]).abs()
    return _mean_or_zero(down) + _mean_or_zero(right)


def _mean_or_zero(values: Tensor) -> Tensor:
    # the mean of nothing would be NaN: a picture of one row has no neighbours below
    return values.mean() if values.numel() else values.sum()


def identity_loss(output: Tensor, image: Tensor) -> Tensor:
    """Mean squared difference of an image and its output in its own style, in pixel values.

    Park & Lee 2019, eq. 7.
    """
    return F.mse_loss(output.float(), image.float())


# pixels at the border, and where the rolled picture's ends meet, that the shift loss omits
SHIFT_MARGIN = 16


def shift_loss(output: Tensor, moved_output: Tensor, shift: tuple[int, int]) -> Tensor:
    """Mean squared difference of the shifted output and the shifted content's output.

    Both [N, 3, H, W], compared in pixel values away from the borders. The content was rolled by
    `shift` pixels (down, right), which keeps its statistics.
    """
    # the rolled rows and columns come in at the top and the left
    expected = output.float().roll(shift, (2, 3))
    inner = [
        slice(SHIFT_MARGIN + step, size - SHIFT_MARGIN)
        for step, size in zip(shift, output.shape[2:], strict=True)
    ]
    return _mean_or_zero((expected - moved_output.float())[..., inner[0], inner[1]].square())


def adversarial_loss(scores: Tensor) -> Tensor:
    """What the network loses by a critic's scores of its outputs (Lim & Ye 2017, eq. 5)."""
    return -scores.float().mean()


def hinge_loss(painted: Tensor, made: Tensor) -> Tensor:
    """What a critic loses by its scores of paintings and of outputs (Lim & Ye 2017, eq. 4).

    A painting should score 1 or more, an output -1 or less.
    """
    return F.relu(1 - painted.float()).mean() + F.relu(1 + made.float()).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Half the squared gradient of the scores by the paintings, a mean over them (R1).

    Mescheder et al. 2018, eq. 9. `images` [N, 3, H, W] need a gradient.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2


def weighted_total(
    terms: Mapping[str, Tensor], weights: LossWeights, lazy_factor: float = 1.0
) -> Tensor:
    """The objective from its terms; those of LAZY_TERMS count `lazy_factor` times.

    The terms are `content`, `style/<tap>`, and any of `content_norm`, `features/<tap>`,
    `gram/<tap>`, `sliced/<tap>`, `tv`, `identity`, `identity_features`, `shift`, `motion`,
    `adversarial`.
    """
    factors = {
        name: effective_weight(name, weights) * (lazy_factor if name in LAZY_TERMS else 1.0)
        for name in terms
    }
    return torch.stack([factors[name] * value for name, value in terms.items()]).sum()


def effective_weight(term: str, weights: LossWeights) -> float:
    """The factor of a term in the objective."""
    kind, _, tap = term.partition("/")
    per_tap = weights.feature_taps if kind == "features" else weights.taps
    return getattr(weights, kind) * (per_tap[tap] if tap else 1.0)


def term_names(weights: LossWeights) -> Sequence[str]:
    """The terms that have a weight, which are the ones that are computed."""
    per_tap = [
        f"{kind}/{tap}"
        for kind in ("style", "gram", "sliced")
        if getattr(weights, kind)
        for tap in weights.taps
    ]
    first = [name for name in ("content", "content_norm") if getattr(weights, name)]
    if weights.features:
        first += [f"features/{tap}" for tap in weights.feature_taps]
    others = [
        name
        for name in ("tv", "identity", "identity_features", "shift", "motion", "adversarial")
        if getattr(weights, name)
    ]
    return [*first, *per_tap, *others]


def describe_weights(weights: LossWeights, channels: Mapping[str, int]) -> str:
    """The effective weight of every term, one a line.

    A style term also has its weight under the other reduction.
    """
    lines = []
    for name in term_names(weights):
        weight, tap = effective_weight(name, weights), name.partition("/")[2]
        line = f"  {name:<16} {weight:g}"
        if name.startswith("style/"):
            # `sum` over C channels is C times `mean`, so the equal weight is C times smaller
            other, factor = (
                ("sum", 1 / channels[tap])
                if weights.reduction == "mean"
                else ("mean", channels[tap])
            )
            line += (
                f"  (reduction {weights.reduction} over {channels[tap]} channels; as {other}: "
                f"{weight * factor:g})"
            )
        lines.append(line)
    return "\n".join(lines)
