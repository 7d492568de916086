"""A network in training: its input, and how the loop calls it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stylenet.transforms import StyleCode


class Observed(NamedTuple):
    """A batch of N contents and N styles in a training step, without gradients.

    Each content meets R styles.
    """

    content: Tensor  # [N, 3, H, W]
    style: Tensor  # [N, 3, H, W]
    n_styles: int  # R
    # {tap: [N, C, h, w]} of the network's tap and those that are compared with the content's
    content_features: dict[str, Tensor]
    style_features: Tensor  # [N, C, h, w] at the tap
    style_stats: dict[str, StyleCode]  # two of [R * N, C, 1, 1] at the style taps
    # [R * N, C, C] at the style taps, where the Gram loss has a weight
    style_grams: dict[str, Tensor]
    # [R * N, C, P] at the style taps, where the sliced Wasserstein loss has a weight
    style_slices: dict[str, Tensor]
    target: Tensor  # [R * N, C, h, w] at the tap


def repeated(contents: Tensor, times: int) -> Tensor:
    """The batch `times` times over, [N, ...] -> [times * N, ...]."""
    return contents.repeat(times, *[1] * (contents.ndim - 1)) if times > 1 else contents


def rolled(styles: Tensor, times: int) -> Tensor:
    """The batch `times` times over, each time rolled by one more, [times * N, ...].

    `repeated` contents thus meet other styles each time.
    """
    return torch.cat([styles.roll(-k, 0) for k in range(times)]) if times > 1 else styles


class PairLearner:
    """A whole network of contents and styles while it learns.

    `net(content, style, alpha, n_styles)` may be distributed over processes, which average its
    gradients. Each content meets `n_styles` of the styles, and the network encodes each once.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
        """The output of the network."""
        return self.net(content, style, alpha)

    def learn(self, seen: Observed) -> Tensor:
        """The outputs of a training step, [R * N, 3, H, W]."""
        return self.net(seen.content, seen.style, n_styles=seen.n_styles)

    def restore(self, seen: Observed) -> Tensor:
        """Contents, then styles, each stylised with itself: [2 * N, 3, H, W]."""
        images = torch.cat([seen.content, seen.style])
        return self.net(images, images)
