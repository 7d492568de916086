"""A look: the styles, their mixture and the strength of one picture, in one frozen value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stylenet.errors import UsageError
from stylenet.transforms import StyleCode


@dataclass(frozen=True)
class Look:
    """A mixture of style codes with a strength.

    `codes` are a network's style codes, each part [N or 1, ...]: one row serves all contents of a
    batch. `mixture` has one share for each code, and the shares sum to 1. `alpha` is the strength:
    0 keeps the content, 1 is the full style.

    `content_stats` are those of a clip's past. They replace what the network measures of the
    content, but for the share `own_share`. Each part is [N or 1, ...].
    """

    codes: tuple[StyleCode, ...]
    mixture: tuple[float, ...] = (1.0,)
    alpha: float = 1.0
    content_stats: StyleCode | None = None
    own_share: float = 0.0

    def with_stats(self, content_stats: StyleCode | None, own_share: float = 0.0) -> Look:
        """The same look with these statistics, and the share of the content's own in them."""
        return dataclasses.replace(self, content_stats=content_stats, own_share=own_share)

    def settled(self, own: StyleCode) -> StyleCode:
        """The statistics to align a content with, where the network measured `own`."""
        return (
            own if self.content_stats is None else averaged(self.content_stats, own, self.own_share)
        )


def averaged(past: StyleCode, own: StyleCode, own_share: float) -> StyleCode:
    """The statistics of a clip's past with a share of a frame's own."""
    return tuple(torch.lerp(old, new, own_share) for old, new in zip(past, own, strict=True))


def make_look(
    codes: Sequence[StyleCode], mixture: Sequence[float] | None = None, alpha: float = 1.0
) -> Look:
    """A look of style codes mixed in any positive proportion, or equally for None.

    Raises UsageError for a mixture that does not match the codes, and for a strength outside [0,
    1].
    """
    check_alpha(alpha)
    return Look(tuple(codes), shares_of(mixture, len(codes)), float(alpha))


def shares_of(mixture: Sequence[float] | None, n_styles: int) -> tuple[float, ...]:
    """The weights of a mixture, or equal ones for None, divided by their sum.

    Raises UsageError if weights and styles do not match.
    """
    weights = check_mixture(mixture, n_styles)
    total = float(sum(weights))
    return tuple(weight / total for weight in weights)


def stack(looks: Sequence[Look]) -> Look:
    """Looks of one mixture and strength as one look with a row for each.

    Their codes have the same shapes.
    """
    first = looks[0]
    if len(looks) == 1:
        return first
    # outer: the styles of the mixture; inner: the parts of a code, [1, ...] each -> [n_looks, ...]
    codes = [
        [torch.cat(parts) for parts in zip(*rows, strict=True)]
        for rows in zip(*(look.codes for look in looks), strict=True)
    ]
    return dataclasses.replace(first, codes=tuple(map(tuple, codes)))


def check_alpha(alpha: float) -> None:
    """Raise UsageError for a strength outside [0, 1]."""
    if not 0 <= alpha <= 1:
        raise UsageError(f"expected alpha in [0, 1], but {alpha} came")


def check_mixture(mixture: Sequence[float] | None, n_styles: int) -> list[float]:
    """One weight per style, or equal ones for None.

    Raises UsageError if weights and styles do not match.
    """
    weights = [1.0] * n_styles if mixture is None else list(mixture)
    if not n_styles:
        raise UsageError("expected at least one style, but none came")
    if len(weights) != n_styles or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise UsageError(
            f"expected {n_styles} weights of 0 or more, one per style, not all 0, but {weights} "
            "came"
        )
    return weights
