"""Gatys' normalisation: an encoder whose channels all have a mean activation of 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from stylenet.models.vgg import VGG

# share of the layer's mean: less active channels are scaled as if they were this active
NEAR_DEAD = 0.02


@torch.no_grad()
def mean_activations(vgg: VGG, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean activation of every channel, {convolution: float64 [C]} (Gatys et al. 2016).

    batches: images [N, 3, H, W] in [0, 1]. The mean is over images and positions. Sums are taken
    per image in float64.
    """
    sums = {
        name: torch.zeros(conv.out_channels, dtype=torch.float64)
        for name, conv in vgg.convs.items()
    }
    n_images = 0
    for batch in batches:
        features = vgg(batch, list(vgg.channels))
        for name in sums:
            activation = features[name.replace("conv", "relu")].cpu().double()  # mps has no float64
            sums[name] += activation.mean(dim=(2, 3)).sum(0)  # [C]
        n_images += len(batch)
    return {name: total / n_images for name, total in sums.items()}


@torch.no_grad()
def calibrate(vgg: VGG, mu: Mapping[str, Tensor]) -> None:
    """Rescale `vgg` in place so that every channel's mean activation becomes 1.

    `mu` holds the present means, {convolution: [C]}.

    W[o,i] <- W[o,i] mu_prev[i] / mu[o], b[o] <- b[o] / mu[o]. ReLU and both poolings commute with a
    positive factor per channel, so only the scale changes. Dead channels (mean 0) keep their scale.
    Near-dead ones are treated as having NEAR_DEAD of their layer's mean activation, since a larger
    factor would amplify rare noise.
    """
    previous = torch.ones(3, dtype=torch.float64)  # the image itself keeps its scale
    for name, conv in vgg.convs.items():
        means = mu[name].cpu().double()
        scale = torch.where(
            means > 0, means.clamp(min=NEAR_DEAD * float(means.mean())), torch.ones_like(means)
        )
        # [out, in, k, k]: undo the previous layer's scale, apply this layer's
        weight = (
            conv.weight.cpu().double() * previous[None, :, None, None] / scale[:, None, None, None]
        )
        conv.bias.copy_((conv.bias.cpu().double() / scale).float())
        conv.weight.copy_(weight.float())
        previous = scale
