"""Two encoders, a fusion of their features, and a decoder, without a VGG at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylenet.looks import Look
from stylenet.models.compact import DownConv, ResidualBlock, SameConv, UpConv
from stylenet.models.learning import repeated, rolled
from stylenet.transforms import StyleCode, align, blend, channel_stats

Kind = Literal["adain", "concat", "attention"]
STRIDE = 4  # of the features, in pixels
TOKENS = 16  # the style's map for the attention has 16 x 16 places, whatever its size


class FusionNet(nn.Module):
    """A content encoder, a style encoder, a fusion of their features, and a decoder.

    Images are RGB in [0, 1], [N, 3, H, W], of any size. The fusion is AdaIN (Huang & Belongie
    2017), the style's mean features beside the content's and a convolution, or attention of every
    content position to a small map of the style (Park & Lee 2019; here without its second layer).
    """

    has_content_stats = False

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 4,
        fusion: Kind = "adain",
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the layers and draw their start weights from `generator`.

        `channels` are those at the full size, at 1/2 and at 1/4. `blocks` residual blocks decode.
        """
        super().__init__()
        full, half, quarter = channels
        self.content_encoder = make_encoder(full, half, quarter)
        self.style_encoder = make_encoder(full, half, quarter)
        self.fusion = FUSIONS[fusion](quarter)
        self.blocks = nn.Sequential(*(ResidualBlock(quarter) for _ in range(blocks)))
        self.from_quarter, self.from_half = UpConv(quarter, half), UpConv(half, full)
        self.to_pixels = SameConv(full, 3)
        init_weights(self, generator)

    def forward(
        self, content: Tensor, style: Tensor, alpha: float = 1.0, n_styles: int = 1
    ) -> Tensor:
        """The content stylised with the style, at a strength in [0, 1].

        In training each content meets `n_styles` of the styles, [n_styles * N, 3, H, W].
        """
        code = tuple(rolled(part, n_styles) for part in self.encode_style(style))
        features = repeated(self.encode(content), n_styles)
        return self.render(features, content.shape, Look((code,), alpha=alpha))[0]

    def encode(self, image: Tensor) -> Tensor:
        """A content's features [N, C, ceil(H / 4), ceil(W / 4)]."""
        return self.content_encoder(padded(image.to(self.to_pixels.weight.dtype)))

    def style_code(self, features: Tensor) -> StyleCode:
        """What the fusion keeps of a style's features."""
        return self.fusion.code(features)

    def encode_style(self, style: Tensor) -> StyleCode:
        """The style code of a picture, by the style encoder."""
        return self.style_code(self.style_encoder(padded(style.to(self.to_pixels.weight.dtype))))

    def render(
        self, features: Tensor, shape: Sequence[int], look: Look
    ) -> tuple[Tensor, StyleCode | None]:
        """The stylised content, computed from its features and its shape."""
        fused = sum(
            share * self.fusion(features, code)
            for share, code in zip(look.mixture, look.codes, strict=True)
        )
        x = self.blocks(blend(features, fused, look.alpha))
        x = self.from_half(F.relu(self.from_quarter(F.relu(x))))
        return self.to_pixels(F.relu(x))[..., : shape[-2], : shape[-1]], None


def make_encoder(full: int, half: int, quarter: int) -> nn.Sequential:
    """Convolutions to a quarter of the size, and a residual block."""
    return nn.Sequential(
        SameConv(3, full),
        nn.ReLU(),
        DownConv(full, half, 3),
        nn.ReLU(),
        DownConv(half, quarter, 3),
        ResidualBlock(quarter),
    )


def padded(image: Tensor) -> Tensor:
    """The image with repeated pixels at the right and the bottom, to whole features."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")


class AdainFusion(nn.Module):
    """The content's features with the style's means and deviations."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()

    def code(self, style: Tensor) -> StyleCode:
        """Means and deviations, two of [N, C, 1, 1]."""
        return channel_stats(style)

    def forward(self, content: Tensor, code: StyleCode) -> Tensor:
        return align(content, code, channel_stats(content))


class ConcatFusion(nn.Module):
    """The style's mean features beside the content's at every position, and a convolution."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.merge = SameConv(2 * n_channels, n_channels)

    def code(self, style: Tensor) -> StyleCode:
        """Means [N, C, 1, 1]."""
        return (style.mean((2, 3), keepdim=True),)

    def forward(self, content: Tensor, code: StyleCode) -> Tensor:
        mean = code[0].to(content.dtype).expand(len(content), -1, *content.shape[-2:])
        return self.merge(torch.cat([content, mean], 1))


class AttentionFusion(nn.Module):
    """Every content position takes the style's features from where they resemble it.

    Queries and keys are normalised per channel, so that they compare shapes and not colours.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (
            nn.Conv2d(n_channels, n_channels, 1) for _ in range(4)
        )

    def code(self, style: Tensor) -> StyleCode:
        """A small map of the style, [N, C, 16, 16]."""
        return (F.adaptive_avg_pool2d(style, TOKENS),)

    def forward(self, content: Tensor, code: StyleCode) -> Tensor:
        style = code[0].to(content.dtype).expand(len(content), -1, -1, -1)
        query = self.query(normalised(content)).flatten(2).transpose(1, 2)  # [N, HW, C]
        key, value = (
            conv(x).flatten(2).transpose(1, 2)  # [N, 256, C]
            for conv, x in ((self.key, normalised(style)), (self.value, style))
        )
        seen = F.scaled_dot_product_attention(query, key, value)  # [N, HW, C]
        return content + self.out(seen.transpose(1, 2).reshape(content.shape))


FUSIONS = {"adain": AdainFusion, "concat": ConcatFusion, "attention": AttentionFusion}


def normalised(features: Tensor) -> Tensor:
    """The features with mean 0 and deviation 1 in each channel."""
    mean, std = channel_stats(features)
    return ((features.float() - mean) / std).to(features.dtype)


@torch.no_grad()
def init_weights(net: FusionNet, generator: torch.Generator | None) -> None:
    """Draw the start weights from `generator` (He et al. 2015). The first output is mid grey."""
    for conv in (module for module in net.modules() if isinstance(module, nn.Conv2d)):
        bound = (6 / conv.weight[0].numel()) ** 0.5
        conv.weight.uniform_(-bound, bound, generator=generator)
        conv.bias.zero_()
    for block in (module for module in net.modules() if isinstance(module, ResidualBlock)):
        block.second.weight.mul_(0.3)  # every block starts near the identity
    net.to_pixels.weight.mul_(0.1)
    net.to_pixels.bias.fill_(0.5)
