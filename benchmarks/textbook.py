"""The textbook implementation that ours is measured against.

It is written from the paper and the usual descriptions. It is a flat Sequential in NCHW float32. A
1x1 convolution in front does the preprocessing, and padding has layers of its own. Statistics take
two passes, every call encodes the style, and the memory allocator is the default one.

    python benchmarks/textbook.py --content A --style B --output C --vgg FILE --decoder FILE
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stylenet.models.decoder import Decoder, load_flat_decoder
from stylenet.models.vgg import VGG, block_of
from stylenet.models.vgg_files import load_vgg

TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


class Textbook(nn.Module):
    """AdaIN as it is usually written, with the weights of our encoder and decoder."""

    def __init__(self, encoder: VGG, decoder: Decoder) -> None:
        super().__init__()
        layers, self.stages, block = [preprocessing(encoder.mean)], [], 1
        for name, conv in encoder.convs.items():
            if block_of(name) != block:
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
                block = block_of(name)
            layers += [nn.ReflectionPad2d(1), copy_of(conv), nn.ReLU()]
            if name.replace("conv", "relu") in TAPS:
                self.stages.append(nn.Sequential(*layers))
                layers = []
        self.encoder = nn.ModuleList(self.stages).requires_grad_(False)
        self.decoder = nn.Sequential(*decoder_layers(decoder))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Features at all four taps."""
        features = []
        for stage in self.encoder:
            x = stage(x)
            features.append(x)
        return features

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """The stylised content."""
        return self.decoder(two_pass_adain(self.encode(content)[-1], self.encode(style)[-1]))

    def training_loss(self, content: Tensor, style: Tensor, style_weight: float = 10.0) -> Tensor:
        """One training loss: three encodings, mean reduction."""
        style_features = self.encode(style)
        target = two_pass_adain(self.encode(content)[-1], style_features[-1])
        output_features = self.encode(self.decoder(target))
        loss = F.mse_loss(output_features[-1], target)
        for ours, theirs in zip(output_features, style_features, strict=True):
            for a, b in zip(two_pass_stats(ours), two_pass_stats(theirs), strict=True):
                loss = loss + style_weight * F.mse_loss(a, b)
        return loss


def preprocessing(mean: Tensor) -> nn.Conv2d:
    """The 1x1 convolution in front."""
    conv = nn.Conv2d(3, 3, 1)
    conv.weight.data.copy_(torch.eye(3)[:, :, None, None])
    conv.bias.data.copy_(-mean.flatten())
    return conv


def copy_of(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution with its own contiguous copy of the weights."""
    copy = nn.Conv2d(conv.in_channels, conv.out_channels, 3)
    copy.weight.data.copy_(conv.weight.detach().contiguous())
    copy.bias.data.copy_(conv.bias.detach())
    return copy


def decoder_layers(decoder: Decoder) -> list[nn.Module]:
    """The decoder as flat layers."""
    names, layers = list(decoder.convs), []
    for name, following in zip(names, [*names[1:], None], strict=True):
        layers += [nn.ReflectionPad2d(1), copy_of(decoder.convs[name])]
        if following is not None:
            layers.append(nn.ReLU())
            if block_of(following) != block_of(name):
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
    return layers


def two_pass_stats(x: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by two reductions over a flattened copy."""
    flat = x.reshape(*x.shape[:2], -1)
    std = (flat.var(dim=2, correction=0) + eps).sqrt()
    return flat.mean(dim=2)[..., None, None], std[..., None, None]


def two_pass_adain(content: Tensor, style: Tensor) -> Tensor:
    """AdaIN with expanded statistics."""
    (c_mean, c_std), (s_mean, s_std) = two_pass_stats(content), two_pass_stats(style)
    normalised = (content - c_mean.expand_as(content)) / c_std.expand_as(content)
    return normalised * s_std.expand_as(content) + s_mean.expand_as(content)


def main() -> None:
    """Stylise one picture as the usual script does.

    It uses torchvision's transforms, and weights from two .pth files.
    """
    from PIL import Image
    from torchvision import transforms
    from torchvision.utils import save_image

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("content", "style", "output", "vgg", "decoder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    decoder = Decoder("vgg19", "relu4_1")
    load_flat_decoder(decoder, torch.load(options.decoder, weights_only=True), options.decoder)
    net = Textbook(load_vgg("vgg19", options.vgg, ["relu4_1"]), decoder).eval()
    prepare = transforms.Compose([transforms.Resize(options.size), transforms.ToTensor()])
    content, style = (
        prepare(Image.open(path).convert("RGB"))[None] for path in (options.content, options.style)
    )
    with torch.no_grad():
        save_image(net(content, style), options.output)


if __name__ == "__main__":
    main()
