"""The frozen VGG encoder, with named taps and with its preprocessing inside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylenet.errors import UsageError, WeightsError

Padding = Literal["reflect", "zeros", "circular"]
Pooling = Literal["max", "avg"]
CONVS_PER_BLOCK = {"vgg19": (2, 2, 4, 4, 4), "vgg16": (2, 2, 3, 3, 3)}
BLOCK_CHANNELS = (64, 128, 256, 512, 512)


def conv_names(network: str) -> list[str]:
    """The convolutions in order: conv1_1, conv1_2, conv2_1 and so on."""
    return [
        f"conv{b}_{i}"
        for b, n in enumerate(CONVS_PER_BLOCK[network], start=1)
        for i in range(1, n + 1)
    ]


def tap_names(network: str) -> list[str]:
    """The layers that can be tapped: the ReLU after each convolution."""
    return [name.replace("conv", "relu") for name in conv_names(network)]


def block_of(name: str) -> int:
    """The block number of a layer: 4 for relu4_1 or conv4_1."""
    return int(re.match(r"(?:conv|relu)(\d)_", name).group(1))


def conv_shapes(network: str, deepest_tap: str) -> dict[str, tuple[int, int]]:
    """The convolutions up to the tap, {convolution: (channels in, channels out)}.

    Raises UsageError for an unknown tap.
    """
    check_taps(network, [deepest_tap])
    names = conv_names(network)
    names = names[: names.index(deepest_tap.replace("relu", "conv")) + 1]
    # of the image, then of every convolution's output
    channels = [3, *(BLOCK_CHANNELS[block_of(name) - 1] for name in names)]
    return dict(zip(names, zip(channels, channels[1:], strict=False), strict=True))


def check_taps(network: str, taps: Iterable[str]) -> None:
    """Raise UsageError for a tap that the network does not have."""
    unknown = [tap for tap in taps if tap not in tap_names(network)]
    if unknown:
        raise UsageError(
            f"expected taps of {network} ({', '.join(tap_names(network))}), but "
            f"{', '.join(unknown)} came"
        )


def deepest(network: str, taps: Iterable[str]) -> str:
    """The last of the taps in the network's order.

    Raises UsageError for an unknown tap.
    """
    candidates = list(taps)
    check_taps(network, candidates)
    return max(candidates, key=tap_names(network).index)


def pad(x: Tensor, mode: Padding) -> Tensor:
    """The map with one more pixel on every side, [N, C, H, W] -> [N, C, H + 2, W + 2].

    A side of one pixel has nothing to reflect and is replicated instead.
    """
    if mode == "zeros":
        return F.pad(x, (1, 1, 1, 1))
    if mode == "reflect" and min(x.shape[-2:]) < 2:
        wide = F.pad(x, (1, 1, 0, 0), mode="reflect" if x.shape[-1] > 1 else "replicate")
        return F.pad(wide, (0, 0, 1, 1), mode="reflect" if x.shape[-2] > 1 else "replicate")
    return F.pad(x, (1, 1, 1, 1), mode=mode)


class VGG(nn.Module):
    """A frozen VGG up to its deepest tap (Simonyan & Zisserman 2015).

    Images are RGB in [0, 1], [N, 3, H, W]. The preprocessing is inside. The network subtracts
    `mean`, so that zero padding pads with the mean image, as in the original. All scaling and
    channel order is folded into conv1_1. Pooling rounds up, so that no row or column of an image is
    lost. For multiples of 16 it equals torchvision's.
    """

    def __init__(
        self, network: str, deepest_tap: str, padding: Padding = "reflect", pooling: Pooling = "max"
    ) -> None:
        super().__init__()
        self.network, self.padding, self.pooling = network, padding, pooling
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        shapes = conv_shapes(network, deepest_tap)
        self.convs = nn.ModuleDict(
            {name: nn.Conv2d(n_in, n_out, 3) for name, (n_in, n_out) in shapes.items()}
        )
        self.requires_grad_(False)

    @property
    def reach(self) -> str:
        """The deepest tap."""
        return list(self.convs)[-1].replace("conv", "relu")

    @property
    def channels(self) -> dict[str, int]:
        """The number of channels at every tap, {tap: C}."""
        return {
            name.replace("conv", "relu"): conv.out_channels for name, conv in self.convs.items()
        }

    def forward(self, image: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Features after the named ReLUs, {tap: [N, C, h, w]}.

        The network computes no further than the deepest of them. Raises WeightsError for a tap
        beyond its reach.
        """
        missing = [tap for tap in taps if tap not in self.channels]
        if missing:
            raise WeightsError(
                f"expected taps up to {self.reach}, where this encoder ends, but "
                f"{', '.join(missing)} came"
            )
        return self.walk(image - self.mean, taps)

    def walk(self, x: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """The features at the taps, computed layer by layer up to the deepest one."""
        features: dict[str, Tensor] = {}
        block = 1
        for name, conv in self.convs.items():
            if block_of(name) != block:
                x, block = self.pool(x), block_of(name)  # [N, C, ceil(h / 2), ceil(w / 2)]
            x = F.relu_(self.convolve(conv, x))  # a new tensor, so no stored tap is changed
            tap = name.replace("conv", "relu")
            if tap in taps:
                features[tap] = x
            if len(features) == len(set(taps)):  # the deepest one is reached
                break
        return features

    def convolve(self, conv: nn.Module, x: Tensor) -> Tensor:
        """A convolution that keeps the size."""
        return conv(pad(x, self.padding))

    def pool(self, x: Tensor) -> Tensor:
        """The map at half the size, rounded up."""
        pool = F.max_pool2d if self.pooling == "max" else F.avg_pool2d
        return pool(x, kernel_size=2, stride=2, ceil_mode=True)
