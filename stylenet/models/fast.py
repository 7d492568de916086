"""The fast form of a StyleNet: the same function, arranged for the processor it runs on.

It is derived from the same weights at load time. Checkpoints and the plain modules stay as in the
paper, and a property test compares the two forms. docs/results/speed.md and benchmarks/ show what
each step brings.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylenet.models.decoder import Decoder, upsample
from stylenet.models.stylenet import StyleNet
from stylenet.models.vgg import VGG, Padding, block_of, pad

# input channels from which Winograd is faster on the CPU; below, its transforms cost more than it
# saves
WINOGRAD_CHANNELS = 256
TILES_PER_BLOCK = 256  # of Winograd: the transforms of so many tiles stay in the cache


def make_fast(net: StyleNet, device: torch.device, dtype: torch.dtype = torch.float32) -> StyleNet:
    """The network with fast encoder and decoder, for inference on the device in the dtype."""
    use_winograd = device.type == "cpu" and dtype == torch.float32
    encoder, decoder = (
        FastEncoder(net.encoder, use_winograd),
        FastDecoder(net.decoder, use_winograd),
    )
    fast = StyleNet(encoder, net.transform, decoder, net.tap).eval().requires_grad_(False)
    return fast.to(device, dtype, memory_format=torch.channels_last)


class FastEncoder(nn.Module):
    """A VGG with its preprocessing folded into conv1_1 where the padding allows it."""

    def __init__(self, vgg: VGG, use_winograd: bool) -> None:
        super().__init__()
        self.pooling, self.padding = vgg.pooling, vgg.padding
        self.convs = nn.ModuleDict(
            {name: make_conv(conv, vgg.padding, use_winograd) for name, conv in vgg.convs.items()}
        )
        self.register_buffer("mean", vgg.mean.clone())
        # zero padding surrounds the image with the mean image, which no bias can express
        self.subtracts = vgg.padding == "zeros"
        if not self.subtracts:
            # W * (x - mean) + b = W * x + (b - sum(W) mean)
            first = self.convs["conv1_1"]
            first.bias = nn.Parameter(
                first.bias
                - (first.weight.double().sum((2, 3)) @ vgg.mean.double().flatten()).float()
            )

    pool, walk = VGG.pool, VGG.walk

    def forward(self, image: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """The features of VGG.forward."""
        x = image.to(self.mean.dtype)
        return self.walk(x - self.mean if self.subtracts else x, taps)

    def convolve(self, conv: nn.Module, x: Tensor) -> Tensor:
        """A convolution, which includes its padding here."""
        return conv(x)


class FastDecoder(nn.Module):
    """A decoder whose nearest-neighbour upsampling is part of the convolution that follows it."""

    def __init__(self, decoder: Decoder, use_winograd: bool) -> None:
        super().__init__()
        self.upsampling, self.padding, self.norms = (
            decoder.upsampling,
            decoder.padding,
            copy.deepcopy(decoder.norms),
        )
        names, steps = list(decoder.convs), {}
        for name, before in zip(names, [None, *names[:-1]], strict=True):
            follows_upsampling = before is not None and block_of(before) != block_of(name)
            is_merged = follows_upsampling and decoder.upsampling == "nearest"
            conv = decoder.convs[name]
            steps[name] = (
                SubPixelConv(conv, decoder.padding)
                if is_merged
                else make_conv(conv, decoder.padding, use_winograd)
            )
            steps[name].upsamples_first = follows_upsampling and not is_merged
        self.convs = nn.ModuleDict(steps)

    def forward(self, features: Tensor) -> Tensor:
        """The image of Decoder.forward."""
        x, last = features, list(self.convs)[-1]
        for name, conv in self.convs.items():
            x = conv(upsample(x, self.upsampling) if conv.upsamples_first else x)
            x = self.norms[name](x) if name in self.norms else x
            if name != last:
                x = F.relu_(x)
        return x


def make_conv(conv: nn.Conv2d, padding: Padding, use_winograd: bool) -> nn.Module:
    """The fastest form of a 3x3 convolution with its padding."""
    kind = WinogradConv if use_winograd and conv.in_channels >= WINOGRAD_CHANNELS else PaddedConv
    return kind(conv, padding)


class PaddedConv(nn.Module):
    """A 3x3 convolution with its padding, computed by PyTorch."""

    def __init__(self, conv: nn.Conv2d, padding: Padding) -> None:
        super().__init__()
        self.weight, self.bias, self.padding = (
            nn.Parameter(conv.weight.clone()),
            nn.Parameter(conv.bias.clone()),
            padding,
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.padding == "zeros":
            return F.conv2d(x, self.weight, self.bias, padding=1)
        return F.conv2d(pad(x, self.padding), self.weight, self.bias)


class SubPixelConv(nn.Module):
    """Nearest upsampling by two and a 3x3 convolution, as one transposed convolution.

    It works on the small map and needs 16 products instead of 36. An output position sees only two
    different values of the small map in each direction, so the three taps of the kernel reduce to
    two: even positions have (w0, w1 + w2), odd ones (w0 + w1, w2). The border of the upsampled map,
    reflected, is the border of the small map, replicated.
    """

    def __init__(self, conv: nn.Conv2d, padding: Padding) -> None:
        super().__init__()
        # [4, 3]: which taps of the 3x3 kernel each row of the 4x4 kernel adds up
        merge = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)
        kernel = torch.einsum("ak,oikl,bl->ioab", merge, conv.weight.double(), merge)  # 4x4
        self.weight = nn.Parameter(kernel.float())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.clone())
        self.mode = {"reflect": "replicate", "zeros": "constant", "circular": "circular"}[padding]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(
            F.pad(x, (1, 1, 1, 1), mode=self.mode), self.weight, self.bias, stride=2, padding=3
        )


# Winograd's F(4x4, 3x3) with the points 0, ±1, ±2 (Lavin & Gray 2016, section 4.3)
INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
KERNEL = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
BIAS_POINT = 7  # at the points (1, 1): a term added there reaches all 16 positions
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


class WinogradConv(nn.Module):
    """A 3x3 convolution as 36 matrix products per 4x4 outputs instead of 144.

    It works in blocks of tiles that fit the cache.
    """

    def __init__(self, conv: nn.Conv2d, padding: Padding) -> None:
        super().__init__()
        kernel = torch.tensor(KERNEL, dtype=torch.float64)
        # [6, 6, in, out]
        spread = torch.einsum("ak,oikl,bl->abio", kernel, conv.weight.double(), kernel)
        self.weight = nn.Parameter(
            spread.reshape(36, conv.in_channels, conv.out_channels).float().contiguous()
        )
        self.bias, self.padding = nn.Parameter(conv.bias.clone()), padding
        # kron(m, m) applies m to both directions of a flattened tile
        both = [
            torch.kron(torch.tensor(m, dtype=torch.float64), torch.tensor(m, dtype=torch.float64))
            for m in (INPUT, OUTPUT)
        ]
        self.register_buffer("spread_input", both[0].float())  # [36, 36]
        self.register_buffer("gather_output", both[1].float())  # [16, 36]

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        rows, columns = -(-height // 4), -(-width // 4)  # of 4x4 outputs, rounded up
        padded = pad(x, self.padding)
        if (height, width) != (4 * rows, 4 * columns):
            padded = F.pad(padded, (0, 4 * columns - width, 0, 4 * rows - height))
        # a view [n, rows, columns, c, 6, 6]: neighbouring tiles overlap by two pixels
        tiles = padded.permute(0, 2, 3, 1).unfold(1, 6, 4).unfold(2, 6, 4)
        out = x.new_empty(n, rows, 4, columns, 4, len(self.bias))
        step = max(1, TILES_PER_BLOCK // columns)
        for i in range(n):
            for row in range(0, rows, step):
                out[i, row : row + step] = self.block(tiles[i, row : row + step])
        whole = out.reshape(n, 4 * rows, 4 * columns, -1)[:, :height, :width]
        return whole.permute(0, 3, 1, 2)  # [n, out, height, width]

    def block(self, tiles: Tensor) -> Tensor:
        """Outputs [rows, 4, columns, 4, out] of tiles [rows, columns, in, 6, 6]."""
        rows, columns, c = tiles.shape[:3]
        spread = self.spread_input @ tiles.permute(3, 4, 0, 1, 2).reshape(36, -1)
        # one matrix product for each of the 36 points: [36, rows * columns, out]
        product = torch.bmm(spread.reshape(36, rows * columns, c), self.weight)
        product[BIAS_POINT] += self.bias
        gathered = self.gather_output @ product.reshape(36, -1)  # [16, rows * columns * out]
        return gathered.reshape(4, 4, rows, columns, -1).permute(2, 0, 3, 1, 4)
