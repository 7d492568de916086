"""The objective: a frozen loss network, what it observes of a batch, the target, and the terms.

The training of every family, the oracle of the evaluation and the optimisation of pixels use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from stylenet.losses import (
    LossWeights,
    content_loss,
    gram,
    identity_loss,
    matrix_distance,
    normalised_content_loss,
    resampled,
    shift_loss,
    sliced_distance,
    sliced_values,
    stats_distance,
    total_variation,
)
from stylenet.models.learning import Observed, repeated, rolled
from stylenet.models.vgg import VGG
from stylenet.motion import Motion, motion_loss
from stylenet.transforms import FeatureTransform, StyleCode, adain, channel_stats


class Learner(Protocol):
    """A network in training, as the identity and shift terms call it."""

    def __call__(self, content: Tensor, style: Tensor) -> Tensor:
        """The content stylised with the style."""

    def restore(self, seen: Observed) -> Tensor:
        """Contents, then styles, each stylised with itself: [2 * N, 3, H, W]."""


class Objective:
    """The losses of Huang & Belongie 2017 on a frozen network's features, and optional terms."""

    def __init__(
        self, teacher: VGG, tap: str, transform: FeatureTransform, weights: LossWeights
    ) -> None:
        """Set the loss network, its tap, the target's transform and the loss weights.

        `teacher` reaches the tap and all taps of the weights. `transform` makes the target at the
        tap.
        """
        self.teacher, self.tap, self.transform, self.weights = teacher, tap, transform, weights

    @torch.no_grad()
    def observe(self, content: Tensor, style: Tensor, n_styles: int = 1) -> Observed:
        """The features f(c) and f(s) of a batch, and the target t = AdaIN(f(c), f(s)) (eq. 9).

        content, style [N, 3, H, W]. Each content meets `n_styles` of the batch's styles: its own,
        the next one's and so on.
        """
        weights = self.weights
        content_features = self.teacher(content, [*weights.content_taps, self.tap])
        style_features = self.teacher(style, [*weights.taps, self.tap])
        target = self.target(
            repeated(content_features[self.tap], n_styles),
            rolled(style_features[self.tap], n_styles),
        )
        # empty where no term with a weight needs them
        stats = {
            tap: self.rolled_stats(style_features[tap], n_styles)
            for tap in weights.taps
            if weights.style
        }
        grams = {
            tap: rolled(gram(style_features[tap]), n_styles) for tap in weights.taps if weights.gram
        }
        slices = {
            tap: rolled(sliced_values(style_features[tap]), n_styles)
            for tap in weights.taps
            if weights.sliced
        }
        return Observed(
            content,
            style,
            n_styles,
            content_features,
            style_features[self.tap],
            stats,
            grams,
            slices,
            target,
        )

    def target(self, contents: Tensor, styles: Tensor) -> Tensor:
        """The target of the content loss, [R * N, C, h, w].

        It is the transform's output, or AdaIN's where the transform only concatenates.
        """
        if self.transform.widening > 1:  # as in the paper's baseline
            return adain(contents, styles)
        return self.transform.apply(contents, self.transform.describe(styles), None)

    @staticmethod
    def rolled_stats(features: Tensor, n_styles: int) -> StyleCode:
        """The statistics of the styles that the contents meet, two of [R * N, C, 1, 1]."""
        return tuple(rolled(part, n_styles) for part in channel_stats(features))

    def terms(
        self,
        output: Tensor,
        seen: Observed,
        learner: Learner | None = None,
        shift: tuple[int, int] = (1, 2),
        motion: Motion | None = None,
    ) -> dict[str, Tensor]:
        """The terms that have a weight, unweighted: content, style, Gram and others.

        output [R * N, 3, H, W]. Style and Gram terms have an entry for each tap. The identity,
        shift and motion terms (`losses.LAZY_TERMS`) need passes of the `learner`, and are left out
        without one; `shift` is in pixels, down and right. There is no motion term without a
        `motion`.
        """
        terms = self.feature_terms(output, seen) if self.weights.needs_features else {}
        if self.weights.tv:
            terms["tv"] = total_variation(output)
        if learner is None:
            return terms
        if self.weights.identity or self.weights.identity_features:
            restored = learner.restore(seen)
        if self.weights.identity:
            terms["identity"] = identity_loss(restored, torch.cat([seen.content, seen.style]))
        if self.weights.identity_features:
            features = self.teacher(restored[: len(seen.content)], self.weights.content_norm_taps)
            terms["identity_features"] = self.content_norm(features, seen.content_features)
        if self.weights.shift:
            shifted_output = learner(seen.content.roll(shift, (2, 3)), seen.style)
            # the first N outputs are those in each content's own style
            terms["shift"] = shift_loss(output[: len(seen.content)], shifted_output, shift)
        if self.weights.motion and motion:
            next_output = learner(motion.film(seen.content), seen.style)
            terms["motion"] = motion_loss(output[: len(seen.content)], next_output, motion)
        return terms

    def content_norm(self, features: dict[str, Tensor], contents: dict[str, Tensor]) -> Tensor:
        """The normalised content loss, as a mean over its layers."""
        taps = self.weights.content_norm_taps
        losses = [normalised_content_loss(features[tap], contents[tap]) for tap in taps]
        return torch.stack(losses).mean()

    def feature_terms(self, output: Tensor, seen: Observed) -> dict[str, Tensor]:
        """The terms on the loss network's features of the output (eq. 12 and 13)."""
        weights, terms = self.weights, {}
        # {tap: [R * N, C, h, w]}
        features = self.teacher(output, [*weights.taps, *weights.content_taps, self.tap])
        if weights.content:
            terms["content"] = content_loss(features[self.tap], seen.target)
        if weights.content_norm:
            targets = {
                tap: repeated(seen.content_features[tap], seen.n_styles)
                for tap in weights.content_norm_taps
            }
            terms["content_norm"] = self.content_norm(features, targets)
        for tap in weights.feature_taps if weights.features else ():
            target = repeated(seen.content_features[tap], seen.n_styles)
            terms[f"features/{tap}"] = content_loss(features[tap], target)
        for tap in weights.taps:
            if weights.style:
                own = channel_stats(features[tap])
                terms[f"style/{tap}"] = stats_distance(
                    own, seen.style_stats[tap], weights.reduction, weights.balance
                )
            if weights.gram:
                terms[f"gram/{tap}"] = matrix_distance(
                    gram(features[tap]), seen.style_grams[tap], weights.gram_balance
                )
            if weights.sliced:
                values = sliced_values(features[tap])
                terms[f"sliced/{tap}"] = sliced_distance(values, seen.style_slices[tap])
        return terms


def mixed(seen: Sequence[Observed], mixture: Sequence[float]) -> Observed:
    """What was observed of one content with several styles, as that of their mixture.

    The weights are positive and sum to 1. Statistics, Gram matrices, sorted values and targets are
    averaged.
    """

    def average(values: Sequence[Tensor]) -> Tensor:
        weighted = [share * value for share, value in zip(mixture, values, strict=True)]
        return torch.stack(weighted).sum(0)

    first = seen[0]
    stats = {
        tap: tuple(average(parts) for parts in zip(*(item.style_stats[tap] for item in seen)))
        for tap in first.style_stats
    }
    grams = {tap: average([item.style_grams[tap] for item in seen]) for tap in first.style_grams}
    slices = {}
    for tap in first.style_slices:
        n = min(item.style_slices[tap].shape[2] for item in seen)
        slices[tap] = average([resampled(item.style_slices[tap], n) for item in seen])
    return first._replace(
        style_stats=stats,
        style_grams=grams,
        style_slices=slices,
        target=average([item.target for item in seen]),
    )
