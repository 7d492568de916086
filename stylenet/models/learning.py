"""What a network is given while it learns: a batch, and what the objective has observed of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stylenet.transforms import StyleCode


class Observed(NamedTuple):
    """A batch of N contents and N styles as a training step sees it, without gradient.

    Each content meets R styles.
    """

    content: Tensor  # [N, 3, H, W]
    style: Tensor  # [N, 3, H, W]
    n_styles: int  # R
    content_features: dict[
        str, Tensor
    ]  # [N, C, h, w] at the tap, and at those of the normalised content loss
    style_features: Tensor  # [N, C, h, w] at the tap
    style_stats: dict[str, StyleCode]  # of [R * N, C, 1, 1] at the style taps
    style_grams: dict[
        str, Tensor
    ]  # [R * N, C, C] at the style taps, where a Gram loss has a weight
    target: Tensor  # [R * N, C, h, w] at the tap


def repeated(contents: Tensor, times: int) -> Tensor:
    """The batch over and over, [N, C, H, W] -> [times * N, C, H, W]."""
    return contents.repeat(times, *[1] * (contents.ndim - 1)) if times > 1 else contents


def rolled(styles: Tensor, times: int) -> Tensor:
    """The batch over and over, each time moved by one more, so that `repeated` contents meet other
    styles.
    """
    return torch.cat([styles.roll(-k, 0) for k in range(times)]) if times > 1 else styles
