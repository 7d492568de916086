"""Colours of a picture apart from its brightness, as pure functions."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

# style: as the network paints; content: the content's colours under the result's brightness;
# matched: the style gets the content's colours before the network sees it; only: the result's
# colours under the content's brightness
Colour = Literal["style", "content", "matched", "only"]
COLOURS: tuple[str, ...] = get_args(Colour)
LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as in YCbCr
# variance of rounding to 8 bits: no direction of colours has less, so a grey or a constant picture
# is not blown up to noise
FLOOR = 1 / (12 * 255**2)


def luminance(image: Tensor) -> Tensor:
    """The brightness Y of an image [..., 3, H, W], [..., 1, H, W]."""
    weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device)
    return (image * weights[:, None, None]).sum(-3, keepdim=True)


def recoloured(output: Tensor, content: Tensor, colour: str) -> Tensor:
    """A stylised piece with the colours of a choice in `Colour`.

    Both [..., 3, H, W] in [0, 1], the same pixels. The chroma R - Y and B - Y stays if all three
    channels change by one amount, so that is how one picture gets another's brightness.
    """
    if colour == "content":
        return (content + luminance(output) - luminance(content)).clamp(0, 1)
    if colour == "only":
        return (output + luminance(content) - luminance(output)).clamp(0, 1)
    return output


def matched(style: Tensor, content: Tensor) -> Tensor:
    """The style with the content's mean colour and covariance of colours (CORAL).

    Gatys et al. 2017 call it colour matching.

    style [3, h, w] and content [3, H, W] in [0, 1] -> [3, h, w].
    """
    pixels = style.cpu().double().flatten(1)  # [3, h * w]; mps has no float64
    mean, covariance = moments(style)
    target_mean, target_covariance = moments(content)
    change = power_of(target_covariance, 0.5) @ power_of(covariance, -0.5)
    result = change @ (pixels - mean) + target_mean
    return result.clamp(0, 1).reshape(style.shape).to(style)


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [3, 1] and covariance [3, 3] of the colours of an image [3, H, W], float64."""
    pixels = image.cpu().double().flatten(1)
    mean = pixels.mean(1, keepdim=True)
    centred = pixels - mean
    return mean, centred @ centred.T / pixels.shape[1] + FLOOR * torch.eye(3).double()


def power_of(covariance: Tensor, power: float) -> Tensor:
    """A power of a positive symmetric matrix."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values**power) @ vectors.T
