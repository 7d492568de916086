"""The learned decoder, which mirrors the encoder with upsampling in place of pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylenet.errors import UsageError, WeightsError
from stylenet.models.vgg import Padding, block_of, conv_shapes, pad

Norm = Literal["none", "instance", "batch"]
Upsampling = Literal["nearest", "bilinear"]
Init = Literal["uniform", "he"]


class Decoder(nn.Module):
    """A decoder from an encoder's tap to an image, [N, C, h, w] -> [N, 3, h * s, w * s].

    The factor s is the tap's stride, such as 8 for relu4_1. Each layer is named after the encoder's
    convolution that it mirrors. A decoder for relu4_1 starts with conv4_1 (512 to 256 channels) and
    ends with conv1_1 (64 to 3). As in the paper there is no normalisation by default (section 7.1).
    The last layer has neither normalisation nor ReLU.
    """

    def __init__(
        self,
        encoder_name: str,
        tap: str,
        norm: Norm = "none",
        padding: Padding = "reflect",
        upsampling: Upsampling = "nearest",
        init: Init = "uniform",
        generator: torch.Generator | None = None,
        widening: int = 1,
    ) -> None:
        """Build the layers and draw their start weights from `generator`.

        `widening` is the ratio of the input channels to the encoder's output channels. It is 2
        where a style is concatenated.
        """
        super().__init__()
        self.padding, self.upsampling = padding, upsampling
        # deepest first; inputs and outputs of each convolution change places
        mirrored = [
            (name, shape) for name, shape in reversed(conv_shapes(encoder_name, tap).items())
        ]
        self.convs = nn.ModuleDict(
            {name: nn.Conv2d(n_out, n_in, 3) for name, (n_in, n_out) in mirrored}
        )
        if widening > 1:
            first, (n_in, n_out) = mirrored[0]
            self.convs[first] = nn.Conv2d(widening * n_out, n_in, 3)
        self.norms = nn.ModuleDict(
            {name: make_norm(norm, n_in) for name, (n_in, _) in mirrored[:-1] if norm != "none"}
        )
        init_weights(self, init, generator)

    def train(self, mode: bool = True) -> Decoder:
        """Set the training mode, except for the normalisation of frozen layers.

        That keeps its running statistics.
        """
        super().train(mode)
        for norm in self.norms.values():
            norm.train(mode and norm.weight.requires_grad)
        return self

    def forward(self, features: Tensor) -> Tensor:
        x, names = features, list(self.convs)
        for name, following in zip(names, [*names[1:], None], strict=True):
            x = self.convs[name](pad(x, self.padding))
            x = self.norms[name](x) if name in self.norms else x  # [N, C, h, w]
            if following is None:
                return x
            x = F.relu_(x)
            if block_of(following) != block_of(name):
                x = upsample(x, self.upsampling)  # [N, C, 2h, 2w], where the encoder pools
        raise AssertionError("a decoder has at least one layer")


def upsample(x: Tensor, mode: Upsampling) -> Tensor:
    """The map at twice the size, [N, C, H, W] -> [N, C, 2H, 2W]."""
    return F.interpolate(
        x, scale_factor=2, mode=mode, align_corners=None if mode == "nearest" else False
    )


def make_norm(norm: Norm, n_channels: int) -> nn.Module:
    """A normalisation layer with learned scale and shift."""
    return {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}[norm](n_channels, affine=True)


@torch.no_grad()
def init_weights(decoder: Decoder, init: Init, generator: torch.Generator | None) -> None:
    """Draw the start weights from `generator` instead of the global state.

    `uniform` is the default of Torch 7 and PyTorch, from which the known implementations start:
    U(±1/sqrt(n)) for n inputs. The signal shrinks by 0.4 a layer, so the first output is an even
    grey. `he` keeps the signal's size (He et al. 2015, eq. 10) and starts at mid grey with a tenth
    of it. docs/log.md has both curves.
    """
    convs = list(decoder.convs.values())
    for conv in convs:
        n_inputs = conv.in_channels * 9  # of a 3x3 kernel
        bound = n_inputs**-0.5 if init == "uniform" else (6 / n_inputs) ** 0.5
        conv.weight.uniform_(-bound, bound, generator=generator)
        conv.bias.uniform_(-bound, bound, generator=generator)
        if init == "he":
            conv.bias.zero_()
    if init == "he":
        convs[-1].weight.mul_(0.1)
        convs[-1].bias.fill_(0.5)


def load_flat_decoder(decoder: Decoder, weights: Mapping[str, Tensor], origin: str) -> None:
    """Load pytorch-AdaIN's published decoder, a numbered flat Sequential, in place.

    Raises WeightsError if the layers do not match one by one.
    """
    # padding, ReLU and upsampling take numbers as well, but have no weights
    numbers = sorted({int(key.split(".")[0]) for key in weights if key.split(".")[0].isdigit()})
    shapes = [tuple(weights[f"{number}.weight"].shape) for number in numbers]
    expected = [tuple(conv.weight.shape) for conv in decoder.convs.values()]
    if shapes != expected or len(weights) != 2 * len(numbers):
        raise WeightsError(
            f"expected {len(expected)} convolutions {expected[0]} to {expected[-1]} in {origin}, "
            f"but {shapes} came"
        )
    for number, conv in zip(numbers, decoder.convs.values(), strict=True):
        conv.load_state_dict(
            {"weight": weights[f"{number}.weight"], "bias": weights[f"{number}.bias"]}
        )


def freeze_layers(decoder: Decoder, names: tuple[str, ...]) -> None:
    """Freeze the named layers, each a convolution with its normalisation.

    Raises UsageError for unknown names.
    """
    unknown = [name for name in names if name not in decoder.convs]
    if unknown:
        raise UsageError(
            f"expected decoder layers out of {', '.join(decoder.convs)}, but {', '.join(unknown)} "
            "came"
        )
    for name in names:
        for module in (
            decoder.convs[name],
            *([decoder.norms[name]] if name in decoder.norms else []),
        ):
            module.requires_grad_(False)
