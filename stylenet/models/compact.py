"""The compact network: an encoder and a decoder of its own, small enough for a laptop, with AdaIN
at three depths.

It has no VGG at run time. A VGG teaches it: it learns with the losses of AdaIN on the VGG's
features, as if the VGG's own decoder were trained.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylenet.looks import Look
from stylenet.models.fast import SubPixelConv
from stylenet.models.learning import Observed, repeated, rolled
from stylenet.models.vgg import pad
from stylenet.transforms import StyleCode, align, channel_stats

STRIDE = 8  # pixels a side that one of the deepest features stands for

Maps = tuple[Tensor, ...]  # features at 1/2, 1/4 and 1/8 of the size


class CompactNet(nn.Module):
    """Contents restyled with styles.

    Images are RGB in [0, 1], [N, 3, H, W], any size; the output has the content's size.

    Most of a convolutional network's time goes into its layers at full size. Here the first
    convolution has stride 2, and the last one, which alone works at full size, has three outputs. A
    style is known by the channel means and deviations of its features at every depth, and the
    decoder's own features are brought to them on their way up.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 4,
        encoder_blocks: int = 1,
        antialias: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """`blocks` residual blocks work at 1/8 of the size, `encoder_blocks` of them in the
        encoder.

        With `antialias` the network blurs before each stride and upsamples bilinearly, so that its
        texture hangs less on the grid of its strides (Zhang 2019).
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
        # in the decoder AdaIN follows, which takes out any bias
        self.decoder_blocks = nn.ModuleList(
            ResidualBlock(eighth, bias=False) for _ in range(blocks - encoder_blocks)
        )
        self.from_eighth = up(eighth, quarter, bias=False)
        self.quarter_block = ResidualBlock(quarter, bias=False)
        self.from_quarter = up(quarter, half, bias=False)
        self.half_conv = SameConv(half, half)
        self.to_pixels = UpConv(half, 3)
        init_weights(self, generator)

    def forward(self, content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
        """The content [N, 3, H, W] in the look of the style [N or 1, 3, h, w], at strength alpha in
        [0, 1].
        """
        return self.stylise(content, Look((self.encode_style(style),), alpha=alpha))

    def encode(self, image: Tensor) -> Maps:
        """The image's features at the three depths.

        Sides are filled up to multiples of 8 with their last pixels.
        """
        height, width = image.shape[-2:]
        x = F.pad(
            image.to(self.to_half.weight.dtype),
            (0, -width % STRIDE, 0, -height % STRIDE),
            mode="replicate",
        )
        half = F.relu(self.to_half(x))
        quarter = self.to_quarter(half)
        eighth = self.encoder_block(self.to_eighth(F.relu(quarter)))
        for block in self.more_encoder_blocks:
            eighth = block(eighth)
        return half, quarter, eighth

    def style_code(self, maps: Maps) -> StyleCode:
        """Channel means and deviations at the three depths: six of [N, C, 1, 1], whose weighted
        sums are styles as well.
        """
        return tuple(part for features in maps for part in channel_stats(features))

    has_content_stats = False

    def content_stats(self, maps: Maps) -> None:
        """Nothing could stand for a whole content: the network measures the decoder's features as
        well.
        """

    def encode_style(self, style: Tensor) -> StyleCode:
        """What the network keeps of a style image. It serves any number of contents."""
        return self.style_code(self.encode(style))

    def stylise(self, content: Tensor, look: Look) -> Tensor:
        """The content [N, 3, H, W] in a look."""
        return self.render(self.encode(content), content.shape, look)

    def render(self, maps: Maps, shape: Sequence[int], look: Look) -> Tensor:
        """The same from the features of a content of the given shape; they serve any number of
        looks.

        AdaIN is linear in the style's statistics, so the network mixes and weakens these, once for
        all depths.
        """
        code = mean_code(look.codes, look.mixture)
        if look.alpha != 1:
            code = mean_code([self.style_code(maps), code], [1 - look.alpha, look.alpha])
        return self.decode(maps, code)[..., : shape[-2], : shape[-1]]

    def decode(self, maps: Maps, code: StyleCode) -> Tensor:
        """A content's features brought to a style's statistics, as an image."""
        half, quarter, eighth = maps
        to_half, to_quarter, to_eighth = (partial(align, style=code[i : i + 2]) for i in (0, 2, 4))
        x = to_eighth(eighth)
        for block in self.decoder_blocks:
            x = to_eighth(block(x))
        x = to_quarter(self.from_eighth(F.relu(x))) + to_quarter(quarter)
        x = to_quarter(self.quarter_block(x))
        x = to_half(self.from_quarter(F.relu(x))) + to_half(half)
        x = F.relu_(self.half_conv(F.relu(x)))
        return self.to_pixels(x)


def mean_code(codes: Sequence[StyleCode], shares: Sequence[float]) -> StyleCode:
    """The weighted mean of style codes; the shares sum to 1."""
    return tuple(
        sum(share * part for share, part in zip(shares, parts, strict=True))
        for parts in zip(*codes, strict=True)
    )


class DownConv(nn.Conv2d):
    """A convolution with stride 2 and reflection padding."""

    def __init__(self, n_in: int, n_out: int, kernel_px: int) -> None:
        super().__init__(n_in, n_out, kernel_px, stride=2)

    def kernel(self) -> Tensor:
        """What the map is convolved with."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel()
        return F.conv2d(reflected(x, kernel.shape[-1] // 2), kernel, self.bias, stride=2)


class BlurredConv(DownConv):
    """The same behind a blur by the binomial (1, 2, 1) / 4, which is part of the kernel: two pixels
    wider, no pass more.
    """

    def kernel(self) -> Tensor:
        taps = torch.tensor([0.25, 0.5, 0.25], dtype=self.weight.dtype, device=self.weight.device)
        blur = torch.outer(taps, taps)[None, None]
        n_out, n_in, side, _ = self.weight.shape
        return F.conv_transpose2d(self.weight.reshape(-1, 1, side, side), blur).reshape(
            n_out, n_in, side + 2, side + 2
        )


def reflected(x: Tensor, n_px: int) -> Tensor:
    """The map with a border of reflected pixels; one too narrow for that repeats its outermost
    pixels.
    """
    return F.pad(x, (n_px,) * 4, mode="reflect" if min(x.shape[-2:]) > n_px else "replicate")


class SameConv(nn.Conv2d):
    """A 3x3 convolution that keeps the size: reflection padding."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True) -> None:
        super().__init__(n_in, n_out, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, "reflect"))


class UpConv(SameConv):
    """Twice the size by nearest neighbours, and a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class SmoothUpConv(SameConv):
    """Twice the size by bilinear interpolation, and a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="bilinear"))


class ResidualBlock(nn.Module):
    """Two convolutions, the second with or without bias, beside a path that leaves the features as
    they are.
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
    """Start weights drawn from `generator`: He's, small in what is added to a residual path, and a
    first output near mid grey.
    """
    for conv in (module for module in net.modules() if isinstance(module, nn.Conv2d)):
        bound = (6 / conv.weight[0].numel()) ** 0.5  # He et al. 2015, eq. 10
        conv.weight.uniform_(-bound, bound, generator=generator)
        if conv.bias is not None:
            conv.bias.zero_()
    for block in (module for module in net.modules() if isinstance(module, ResidualBlock)):
        block.second.weight.mul_(0.3)
    net.to_pixels.weight.mul_(0.1)
    net.to_pixels.bias.fill_(0.5)


@torch.no_grad()
def grown(net: CompactNet, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Start weights of the network from those of one with fewer blocks: the blocks that it has more
    change nothing at first.
    """
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()} | tensors
    for name in start.keys() - tensors.keys():
        if ".second." in name:
            start[name].zero_()
    return start


class CompactLearner:
    """A compact network while it learns.

    `net` may be spread over processes, which average its gradients.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
        """As CompactNet."""
        return self.net(content, style, alpha)

    def learn(self, seen: Observed) -> Tensor:
        """The outputs of a training step, [R * N, 3, H, W]."""
        return self.net(repeated(seen.content, seen.n_styles), rolled(seen.style, seen.n_styles))

    def restore(self, seen: Observed) -> Tensor:
        """Contents, then styles, each stylised with itself: [2 * N, 3, H, W]."""
        images = torch.cat([seen.content, seen.style])
        return self.net(images, images)


def make_fast(
    net: CompactNet, device: torch.device, dtype: torch.dtype = torch.float32
) -> CompactNet:
    """The network with its upsampling and its blurs merged into convolutions, for inference on the
    device in the dtype.
    """
    fast = copy.deepcopy(net)
    for name, module in net.named_children():
        if isinstance(module, UpConv):
            setattr(fast, name, SubPixelConv(module, "reflect"))
        if isinstance(module, BlurredConv):
            setattr(fast, name, unblurred(module))
    return fast.eval().requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)


def unblurred(conv: BlurredConv) -> DownConv:
    """The same convolution with the blur in its kernel once and for all."""
    kernel = conv.kernel()
    plain = DownConv(conv.in_channels, conv.out_channels, kernel.shape[-1])
    plain.load_state_dict({"weight": kernel, "bias": conv.bias})
    return plain
