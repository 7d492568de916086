"""Gatys' normalisation: an encoder whose channels have the mean activation 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from stylenet.models.vgg import VGG

NEAR_DEAD = 0.02  # of the layer's mean: less active channels are scaled as if they were this active


@torch.no_grad()
def mean_activations(vgg: VGG, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean activation of every channel over images and positions, {convolution: float64 [C]} (Gatys
    et al. 2016).

    batches: images [N, 3, H, W] in [0, 1]. Sums are taken per image in float64.
    """
    sums = {
        name: torch.zeros(conv.out_channels, dtype=torch.float64)
        for name, conv in vgg.convs.items()
    }
    n_images = 0
    for batch in batches:
        features = vgg(batch, list(vgg.channels))
        for name in sums:
            sums[name] += (
                features[name.replace("conv", "relu")].cpu().double().mean(dim=(2, 3)).sum(0)
            )  # mps has no float64
        n_images += len(batch)
    return {name: total / n_images for name, total in sums.items()}


@torch.no_grad()
def calibrate(vgg: VGG, mu: Mapping[str, Tensor]) -> None:
    """Rescale in place so that the mean activation of every channel becomes 1, given the present
    means `mu`.

    W[o,i] <- W[o,i] mu_prev[i] / mu[o], b[o] <- b[o] / mu[o]. ReLU and both poolings commute with a
    positive factor per channel, so nothing changes but the scale. Dead channels (mean 0) keep their
    scale; near-dead ones are treated as having NEAR_DEAD of their layer's mean activation, lest
    rare noise is blown up.
    """
    previous = torch.ones(3, dtype=torch.float64)
    for name, conv in vgg.convs.items():
        means = mu[name].cpu().double()
        scale = torch.where(
            means > 0, means.clamp(min=NEAR_DEAD * float(means.mean())), torch.ones_like(means)
        )
        weight = (
            conv.weight.cpu().double() * previous[None, :, None, None] / scale[:, None, None, None]
        )
        conv.bias.copy_((conv.bias.cpu().double() / scale).float())
        conv.weight.copy_(weight.float())
        previous = scale
