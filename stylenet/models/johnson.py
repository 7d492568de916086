"""A network for one style: the image transformation network of Johnson et al. 2016."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylenet.looks import Look
from stylenet.models.decoder import Norm, make_norm
from stylenet.models.learning import repeated
from stylenet.transforms import StyleCode

STRIDE = 4  # of the deepest layers, in pixels


class JohnsonNet(nn.Module):
    """A network that stylises a picture in the one style that it was trained on.

    Images are RGB in [0, 1], [N, 3, H, W], of any size. As in the paper's supplement a 9x9
    convolution, two with stride 2, residual blocks, two that upsample, and a 9x9 convolution; each
    but the last is normalised. Differences: reflection padding throughout (the paper pads the
    picture once and lets the blocks shrink it), no tanh at the end, pixels in [0, 1], and by
    default instance normalisation (Ulyanov et al. 2017) and a resize in place of the transposed
    convolution (Odena et al. 2016).
    """

    has_content_stats = False

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 5,
        norm: Norm = "instance",
        upsampling: str = "nearest",
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the layers and draw their start weights from `generator`.

        `channels` are those at the full size, at 1/2 and at 1/4. `upsampling`: nearest, bilinear,
        or transposed, a transposed convolution as in the paper.
        """
        super().__init__()
        full, half, quarter = channels
        self.down = nn.Sequential(
            Layer(3, full, 9, norm), Layer(full, half, 3, norm, 2), Layer(half, quarter, 3, norm, 2)
        )
        self.blocks = nn.Sequential(*(Block(quarter, norm) for _ in range(blocks)))
        up = Transposed if upsampling == "transposed" else Resized
        self.up = nn.Sequential(
            up(quarter, half, norm, upsampling), up(half, full, norm, upsampling)
        )
        self.to_pixels = nn.Conv2d(full, 3, 9, padding=4, padding_mode="reflect")
        init_weights(self, generator)

    def forward(
        self,
        content: Tensor,
        style: Tensor | None = None,
        alpha: float = 1.0,
        n_styles: int = 1,
    ) -> Tensor:
        """The content in the network's own style; `style` is not looked at.

        The network has one strength, so alpha mixes the picture with the content pixel by pixel.
        """
        content = repeated(content, n_styles)
        output = self.paint(content)
        return output if alpha == 1 else torch.lerp(content.to(output.dtype), output, alpha)

    def paint(self, content: Tensor) -> Tensor:
        """The content in the network's style at its full strength."""
        height, width = content.shape[-2:]
        # at least nine pixels, since a border of four is reflected
        bottom, right = (max(9, side) + -max(9, side) % STRIDE - side for side in (height, width))
        x = F.pad(content.to(self.to_pixels.weight.dtype), (0, right, 0, bottom), mode="replicate")
        return self.to_pixels(self.up(self.blocks(self.down(x))))[..., :height, :width]

    def encode(self, image: Tensor) -> Tensor:
        """The picture itself, which `render` takes."""
        return image

    def style_code(self, features: Tensor) -> StyleCode:
        """Nothing: the weights hold the style."""
        return ()

    def encode_style(self, style: Tensor) -> StyleCode:
        """Nothing: the weights hold the style."""
        return ()

    def render(
        self, features: Tensor, shape: Sequence[int], look: Look
    ) -> tuple[Tensor, StyleCode | None]:
        """The picture at a look's strength; the look's styles are not looked at."""
        return self(features, alpha=look.alpha), None


class Layer(nn.Module):
    """A convolution with reflection padding, normalisation and ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel_px: int, norm: Norm, stride: int = 1) -> None:
        super().__init__()
        border = kernel_px // 2
        self.conv = nn.Conv2d(n_in, n_out, kernel_px, stride, border, padding_mode="reflect")
        self.norm = nn.Identity() if norm == "none" else make_norm(norm, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Block(nn.Module):
    """Two normalised convolutions whose output is added to the unchanged features."""

    def __init__(self, n_channels: int, norm: Norm) -> None:
        super().__init__()
        self.first = Layer(n_channels, n_channels, 3, norm)
        self.second = Layer(n_channels, n_channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second.norm(self.second.conv(self.first(x)))


class Resized(Layer):
    """A Layer after upsampling by two."""

    def __init__(self, n_in: int, n_out: int, norm: Norm, mode: str) -> None:
        super().__init__(n_in, n_out, 3, norm)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode=self.mode))


class Transposed(nn.Module):
    """A transposed convolution with stride 2, normalisation and ReLU, as in the paper.

    Its kernel of 3 covers the pixels unevenly, which shows as a checkerboard (Odena et al. 2016).
    """

    def __init__(self, n_in: int, n_out: int, norm: Norm, _: str) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(n_in, n_out, 3, 2, 1, output_padding=1)
        self.norm = nn.Identity() if norm == "none" else make_norm(norm, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


@torch.no_grad()
def init_weights(net: JohnsonNet, generator: torch.Generator | None) -> None:
    """Draw the start weights from `generator` (He et al. 2015). The first output is mid grey."""
    for conv in (m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))):
        n_inputs = conv.weight[0].numel()
        if isinstance(conv, nn.ConvTranspose2d):  # a pixel gets a quarter of the kernel's places
            n_inputs = conv.in_channels * 9 / 4
        bound = (6 / n_inputs) ** 0.5
        conv.weight.uniform_(-bound, bound, generator=generator)
        conv.bias.zero_()
    net.to_pixels.weight.mul_(0.1)
    net.to_pixels.bias.fill_(0.5)
