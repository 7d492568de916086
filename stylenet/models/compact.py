"""The compact network: its own small encoder and decoder, with AdaIN at three depths.

It is small enough for a laptop and has no VGG at run time. A VGG teaches it: the network learns
with AdaIN's losses on the VGG's features, as the VGG's own decoder would.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylenet.errors import WeightsError
from stylenet.looks import Look, mean_code, pooled
from stylenet.models.fast import SubPixelConv
from stylenet.models.learning import repeated, rolled
from stylenet.models.vgg import pad
from stylenet.transforms import StyleCode, align, align_areas, area_stats, channel_stats

STRIDE = 8  # side in pixels of the square that one of the deepest features stands for

Maps = tuple[Tensor, ...]  # features at 1/2, 1/4 and 1/8 of the size


class CompactNet(nn.Module):
    """A network that stylises contents with styles and needs no VGG.

    Images are RGB in [0, 1], [N, 3, H, W], any size; the output has the content's size.

    Most of a convolutional network's time goes into its layers at full size. Here the first
    convolution has stride 2. Only the last one works at full size, and it has three outputs.

    A style code holds the channel means and deviations of the style's features at every depth. The
    decoder aligns its own features with them at every depth.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 4,
        encoder_blocks: int = 1,
        antialias: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the layers and draw their start weights from `generator`.

        `channels` are those at 1/2, 1/4 and 1/8 of the size. `blocks` residual blocks work at 1/8
        of the size, `encoder_blocks` of them in the encoder.

        With `antialias` the network blurs before each stride and upsamples bilinearly. Its texture
        then depends less on the grid of its strides (Zhang 2019).
        """
        super().__init__()
        half, quarter, eighth = channels
        down = BlurredConv if antialias else DownConv
        up = SmoothUpConv if antialias else UpConv
        self.to_half, self.to_quarter, self.to_eighth = (
            down(3, half, 5),
            down(half, quarter, 3),
            down(quarter, eighth, 3),
        )
        self.encoder_block = ResidualBlock(eighth)
        self.more_encoder_blocks = nn.ModuleList(
            ResidualBlock(eighth) for _ in range(encoder_blocks - 1)
        )
        # AdaIN follows in the decoder and subtracts any bias
        self.decoder_blocks = nn.ModuleList(
            ResidualBlock(eighth, bias=False) for _ in range(blocks - encoder_blocks)
        )
        self.from_eighth = up(eighth, quarter, bias=False)
        self.quarter_block = ResidualBlock(quarter, bias=False)
        self.from_quarter = up(quarter, half, bias=False)
        self.half_conv = SameConv(half, half)
        self.to_pixels = UpConv(half, 3)
        init_weights(self, generator)

    def forward(
        self, content: Tensor, style: Tensor, alpha: float = 1.0, n_styles: int = 1
    ) -> Tensor:
        """The content stylised with the style, [R * N, 3, H, W].

        content [N, 3, H, W], style [N or 1, 3, h, w]; `alpha` is the strength in [0, 1]. In
        training each content meets R = `n_styles` of the styles. Every image is encoded once.
        """
        maps = self.encode(content)
        code = self.style_code(maps) if style is content else self.encode_style(style)
        maps = tuple(repeated(x, n_styles) for x in maps)
        code = tuple(rolled(part, n_styles) for part in code)
        return self.render(maps, content.shape, Look((code,), alpha=alpha))[0]

    def encode(self, image: Tensor) -> Maps:
        """The image's features at the three depths.

        Sides are padded to multiples of 8 with their last pixels.
        """
        half, quarter = self.encode_shallow(image)
        return half, quarter, self.encode_deep(quarter)

    def encode_half(self, image: Tensor) -> Tensor:
        """The image's features at 1/2 of the size, [N, C, H / 2, W / 2]."""
        height, width = image.shape[-2:]
        x = F.pad(
            image.to(self.to_half.weight.dtype),
            (0, -width % STRIDE, 0, -height % STRIDE),
            mode="replicate",
        )
        return F.relu(self.to_half(x))

    def encode_shallow(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image's features at 1/2 and 1/4 of the size."""
        half = self.encode_half(image)
        return half, self.to_quarter(half)  # [N, C', H / 4, W / 4]

    def encode_deep(self, quarter: Tensor) -> Tensor:
        """The features at 1/8 of the size from those at 1/4, [N, C'', H / 8, W / 8]."""
        eighth = self.encoder_block(self.to_eighth(F.relu(quarter)))
        for block in self.more_encoder_blocks:
            eighth = block(eighth)
        return eighth

    def style_code(self, maps: Maps) -> StyleCode:
        """Channel means and deviations at the three depths, six of [N, C, 1, 1].

        Their weighted sums are style codes as well.
        """
        return tuple(part for features in maps for part in channel_stats(features))

    has_content_stats = True

    def encode_style(self, style: Tensor) -> StyleCode:
        """The style code of a style image, which serves any number of contents."""
        return self.style_code(self.encode(style))

    def stylise(self, content: Tensor, look: Look) -> Tensor:
        """The content [N, 3, H, W] stylised with a look."""
        return self.render(self.encode(content), content.shape, look)[0]

    def render(self, maps: Maps, shape: Sequence[int], look: Look) -> tuple[Tensor, StyleCode]:
        """The stylised content, computed from its features and its shape, and its statistics.

        The features serve any number of looks.
        """
        areas = areas_at_depths(look, shape)
        own = None
        if not look.is_full:
            own = [area_stats(x, areas[depth]) for x, depth in zip(maps, DEPTHS, strict=True)]
        image, stats = self.decode(maps, Alignment(look, own, areas))
        return image[..., : shape[-2], : shape[-1]], stats

    def decode(self, maps: Maps, aligned: Alignment) -> tuple[Tensor, StyleCode]:
        """An image from a content's features, and the statistics that aligned them.

        The decoder aligns with the style code at every depth, and again after every layer, since
        each one changes the statistics.
        """
        half, quarter, eighth = maps
        x = aligned(eighth, EIGHTH)
        for block in self.decoder_blocks:
            x = aligned(block(x), EIGHTH)
        # align both sides before the skip connection adds them
        x = aligned(self.grow_eighth(x), QUARTER) + aligned(quarter, QUARTER)
        x = aligned(self.quarter_block(x), QUARTER)
        x = aligned(self.grow_quarter(x), HALF) + aligned(half, HALF)
        return self.paint(x), tuple(aligned.stats)

    def grow_eighth(self, x: Tensor) -> Tensor:
        """Features at 1/4 of the size from those at 1/8."""
        return self.from_eighth(F.relu(x))

    def grow_quarter(self, x: Tensor) -> Tensor:
        """Features at 1/2 of the size from those at 1/4."""
        return self.from_quarter(F.relu(x))

    def paint(self, x: Tensor) -> Tensor:
        """The image [N, 3, H, W] from features at 1/2 of the size."""
        return self.to_pixels(F.relu_(self.half_conv(F.relu(x))))


HALF, QUARTER, EIGHTH = DEPTHS = (0, 2, 4)  # where a depth's two parts begin in a style code
STRIDES = {HALF: 2, QUARTER: 4, EIGHTH: 8}

Areas = dict[int, Tensor | None]  # a look's areas at each depth


def areas_at_depths(look: Look, shape: Sequence[int]) -> Areas:
    """The areas of a picture [..., H, W] at the three depths; None at each without regions."""
    height, width = (side + -side % STRIDE for side in shape[-2:])
    areas = look.areas(shape)
    if areas is None:
        return dict.fromkeys(DEPTHS)
    padded = F.pad(areas, (0, width - shape[-1], 0, height - shape[-2]), mode="replicate")
    return {depth: F.avg_pool2d(padded, STRIDES[depth]) for depth in DEPTHS}


class Alignment:
    """Aligns maps with a look, in the order of the decoder, and keeps their statistics.

    `own` holds the content's `area_stats` at each depth, for a strength below 1.
    """

    def __init__(self, look: Look, own: Sequence[StyleCode] | None, areas: Areas) -> None:
        self.areas, self.past, self.own_share = areas, look.content_stats, look.own_share
        self.codes = mixed_codes(look, own)  # of each area
        self.stats: list[Tensor] = []

    def __call__(self, x: Tensor, depth: int) -> Tensor:
        """The whole map aligned at a depth."""
        own = self.settle(area_stats(x, self.areas[depth]))
        return self.piece(x, depth, own, self.areas[depth])

    def settle(self, own: StyleCode) -> StyleCode:
        """The statistics to align the decoder's next map with, where it measured `own`."""
        if self.past is not None:
            past = self.past[len(self.stats) : len(self.stats) + len(own)]
            own = pooled(past, own, self.own_share)
        self.stats += own
        return own

    def piece(self, x: Tensor, depth: int, stats: StyleCode, areas: Tensor | None = None) -> Tensor:
        """A piece of a map aligned at a depth, by the whole map's statistics.

        `areas` are those of the piece.
        """
        codes = [code[depth : depth + 2] for code in self.codes]
        return align(x, codes[0], stats) if areas is None else align_areas(x, codes, areas, stats)


def mixed_codes(look: Look, own: Sequence[StyleCode] | None) -> list[StyleCode]:
    """The look's style codes as one for each area.

    `own` holds the content's statistics in the areas at each depth, for a strength below 1. AdaIN
    is linear in the style's statistics, so the network mixes and weakens these once for all depths.
    """
    codes = [mean_code(codes, mixture) for codes, mixture in look.mixtures]
    if look.is_full:
        return codes
    return [
        mean_code(
            [tuple(part for stats in own for part in stats[2 * k : 2 * k + 2]), code],
            [1 - look.alpha, look.alpha],
        )
        for k, code in enumerate(codes)
    ]


class DownConv(nn.Conv2d):
    """A convolution with stride 2 and reflection padding."""

    def __init__(self, n_in: int, n_out: int, kernel_px: int) -> None:
        super().__init__(n_in, n_out, kernel_px, stride=2)

    def kernel(self) -> Tensor:
        """The kernel of the convolution, [C_out, C_in, k, k]."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel()
        return F.conv2d(reflected(x, kernel.shape[-1] // 2), kernel, self.bias, stride=2)


class BlurredConv(DownConv):
    """A DownConv after a blur by the binomial (1, 2, 1) / 4.

    The blur is part of the kernel. The kernel is two pixels wider, but there is no second pass.
    """

    def kernel(self) -> Tensor:
        taps = torch.tensor([0.25, 0.5, 0.25], dtype=self.weight.dtype, device=self.weight.device)
        blur = torch.outer(taps, taps)[None, None]
        n_out, n_in, side, _ = self.weight.shape
        # a full convolution of kernel and blur: [n_out, n_in, side + 2, side + 2]
        return F.conv_transpose2d(self.weight.reshape(-1, 1, side, side), blur).reshape(
            n_out, n_in, side + 2, side + 2
        )


def reflected(x: Tensor, n_px: int) -> Tensor:
    """The map with a border of `n_px` reflected pixels.

    A map too narrow for that repeats its outermost pixels.
    """
    return F.pad(x, (n_px,) * 4, mode="reflect" if min(x.shape[-2:]) > n_px else "replicate")


class SameConv(nn.Conv2d):
    """A 3x3 convolution with reflection padding, which keeps the size."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True) -> None:
        super().__init__(n_in, n_out, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, "reflect"))


class UpConv(SameConv):
    """A SameConv after upsampling by two with nearest neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class SmoothUpConv(SameConv):
    """A SameConv after upsampling by two with bilinear interpolation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="bilinear"))


class ResidualBlock(nn.Module):
    """Two convolutions whose output is added to the unchanged features.

    `bias` is that of the second convolution.
    """

    def __init__(self, n_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.first, self.second = (
            SameConv(n_channels, n_channels),
            SameConv(n_channels, n_channels, bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu_(self.first(F.relu(x))))


@torch.no_grad()
def init_weights(net: CompactNet, generator: torch.Generator | None) -> None:
    """Draw the start weights from `generator` (He et al. 2015).

    They are small where a block adds to a residual path. The first output is near mid grey.
    """
    for conv in (module for module in net.modules() if isinstance(module, nn.Conv2d)):
        bound = (6 / conv.weight[0].numel()) ** 0.5  # He et al. 2015, eq. 10
        conv.weight.uniform_(-bound, bound, generator=generator)
        if conv.bias is not None:
            conv.bias.zero_()
    for block in (module for module in net.modules() if isinstance(module, ResidualBlock)):
        block.second.weight.mul_(0.3)  # every block starts near the identity
    net.to_pixels.weight.mul_(0.1)
    net.to_pixels.bias.fill_(0.5)


@torch.no_grad()
def grown(net: CompactNet, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Start weights of the network from those of one with fewer blocks.

    The additional blocks change nothing at first. Raises WeightsError where the network lacks
    blocks that the smaller one has, in the encoder or in the decoder.
    """
    lost = sorted(tensors.keys() - net.state_dict().keys())
    if lost:
        raise WeightsError(
            f"expected no fewer blocks than the model has, but there is no place for {lost[0]}; "
            "raise model.blocks together with model.encoder_blocks"
        )
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()} | tensors
    for name in start.keys() - tensors.keys():
        if ".second." in name:  # at zero a residual block is the identity
            start[name].zero_()
    return start


def make_fast(
    net: CompactNet, device: torch.device, dtype: torch.dtype = torch.float32
) -> CompactNet:
    """The network for inference on the device in the dtype.

    Its nearest upsampling and its blurs are merged into convolutions.
    """
    fast = copy.deepcopy(net)
    for name, module in net.named_children():
        if isinstance(module, UpConv):
            setattr(fast, name, SubPixelConv(module, "reflect"))
        if isinstance(module, BlurredConv):
            setattr(fast, name, unblurred(module))
    return fast.eval().requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)


def unblurred(conv: BlurredConv) -> DownConv:
    """A plain DownConv whose kernel includes the blur."""
    kernel = conv.kernel()
    plain = DownConv(conv.in_channels, conv.out_channels, kernel.shape[-1])
    plain.load_state_dict({"weight": kernel, "bias": conv.bias})
    return plain
