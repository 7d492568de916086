"""Motion drawn at random: how a picture could look in a clip's next frame.

A network that follows such motion flickers less, and needs no optical flow to do so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PAN_PX = 8.0  # the largest shift of the whole picture in each direction
BEND_PX = 3.0  # deviation of the smooth flow around it
KNOTS = 4  # of the smooth flow in each direction, before it is interpolated
EXPOSURE = 0.1  # deviation of the logarithm of the brightness
NOISE = 0.02  # the largest deviation of a camera's noise
MARGIN_PX = 16  # at the border, where a network sees its own padding; in small crops a sixth


class Motion(NamedTuple):
    """A motion of pictures [N, 3, H, W]."""

    flow: Tensor  # [1, 2, H, W]: how far, in pixels, each pixel's source lies to the right and down
    exposure: float  # factor of the brightness
    noise: Tensor  # [1, 3, H, W], added

    def film(self, image: Tensor) -> Tensor:
        """The next frame of a clip: moved, brightened and noisy, in [0, 1]."""
        noise = self.noise.to(image)
        return (self.warp(image) * self.exposure + noise).clamp(0, 1)

    def warp(self, image: Tensor) -> Tensor:
        """The image [N, 3, H, W] moved by the flow; outside it is reflected."""
        return warp(image, self.flow)

    def inside(self) -> Tensor:
        """Where the flow's source lies well within the picture, bool [1, 1, H, W]."""
        *_, height, width = self.flow.shape
        x, y = positions(self.flow)
        margin = margin_px(height, width)
        return (
            ((x >= margin) & (x < width - margin))
            & ((y >= margin) & (y < height - margin))
            & inner(height, width, self.flow.device)
        )[:, None]


def margin_px(height: int, width: int) -> int:
    """The width of the border that does not count."""
    return min(MARGIN_PX, min(height, width) // 6)


def inner(height: int, width: int, device: torch.device) -> Tensor:
    """The pixels that are no margin, bool [H, W]."""
    margin = margin_px(height, width)
    mask = torch.zeros(height, width, dtype=torch.bool, device=device)
    mask[margin : height - margin, margin : width - margin] = True
    return mask


def draw_motion(generator: np.random.Generator, height: int, width: int) -> Motion:
    """A pan with a smooth flow, a change of exposure, and noise."""
    pan = generator.uniform(-PAN_PX, PAN_PX, (1, 2, 1, 1))
    knots = torch.tensor(generator.normal(0, BEND_PX, (1, 2, KNOTS, KNOTS)) + pan)
    flow = F.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
    exposure = float(np.exp(generator.normal(0, EXPOSURE)))
    noise = generator.uniform(0, NOISE) * generator.standard_normal((1, 3, height, width))
    return Motion(flow.float(), exposure, torch.tensor(noise, dtype=torch.float32))


def positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row in pixels of each pixel's source, two of [N, H, W]."""
    *_, height, width = flow.shape
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    return flow[:, 0] + columns, flow[:, 1] + rows[:, None]


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """The image [N, C, H, W] whose pixels come from where the flow [N or 1, 2, H, W] says.

    Bicubic, which blurs little; outside the image it is reflected.
    """
    x, y = positions(flow.to(image.device, torch.float32))
    height, width = image.shape[-2:]
    # grid_sample counts from -1 to 1 over the pixels' outer edges
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return F.grid_sample(
        image.float(),
        grid.expand(len(image), -1, -1, -1),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )


def motion_loss(output: Tensor, next_output: Tensor, motion: Motion) -> Tensor:
    """Mean squared difference of the moved output and the output of the next frame.

    Both [N, 3, H, W]. Only where the motion keeps away from the borders. The exposure is not
    applied: a style's brightness does not follow the camera's.
    """
    mask = motion.inside().to(output.device).expand(len(output), 3, -1, -1)
    squared = (motion.warp(output) - next_output.float()).square()
    return (squared * mask).sum() / mask.sum().clamp(min=1)
