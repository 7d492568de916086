"""The critic of the adversarial loss: does a patch look painted?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2  # of the leaky ReLU
SMALLEST_PX = 16  # a smaller picture has no score


class Critic(nn.Module):
    """A patch discriminator (Isola et al. 2017) with spectral normalisation (Miyato et al. 2018).

    Images are RGB in [0, 1], [N, 3, H, W]. A score [N, 1, h, w] belongs to a patch of 46 pixels:
    above 0 it is taken for a painting.
    """

    def __init__(self, channels: int = 32, seed: int = 0) -> None:
        """Build the layers and draw their start weights by the seed, not from the global state."""
        super().__init__()
        widths = [3, channels, 2 * channels, 4 * channels]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            convs = [
                nn.Conv2d(n_in, n_out, 4, stride=2, padding=1)
                for n_in, n_out in zip(widths, widths[1:], strict=False)
            ]
            convs.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
            self.convs = nn.ModuleList(spectral_norm(conv) for conv in convs)

    def forward(self, image: Tensor) -> Tensor:
        x = 2 * image - 1
        for conv in list(self.convs)[:-1]:
            x = F.leaky_relu(conv(x), SLOPE)
        return self.convs[-1](x)
