"""How well a model gives a picture back in its own look, and what repeated passes in one style do to a picture.

python benchmarks/identity.py --content photos/ --style paintings/ --held-out 0.02

Identity: PSNR in dB of pictures restyled by themselves at full strength. Passes: the output is restyled again and again;
after each, normalised content loss against the photo and style loss against the painting, means over the pairs, judged
by the VGG-19 of STYLENET_VGG19. Pictures are cut square.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import rounds  # noqa: F401 - makes the package importable
import torch
from torch import Tensor

from stylenet import images
from stylenet.inference import SHIPPED_MODEL, Stylizer
from stylenet.losses import style_loss
from stylenet.metrics.functional import content_norm
from stylenet.metrics.pairs import evaluated_part
from stylenet.models.vgg import VGG, find_weights, load_vgg

TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


def load_square(path: Path, px: int) -> Tensor:
    """The middle of a picture, [3, px, px] in [0, 1]."""
    return images.to_tensor(images.cut_centre(images.resize_shortest(images.open_rgb(path), px)))


def psnr(output: Tensor, image: Tensor) -> float:
    """In dB, of values in [0, 1]."""
    return -10 * float(torch.log10((output - image).square().mean()))


def passes(stylizer: Stylizer, vgg: VGG, content: Tensor, style: Tensor, n: int) -> list[tuple[float, float]]:
    """(normalised content loss, mean style loss over the taps) after each pass."""
    wanted, aim, output, found = vgg(content[None], TAPS), vgg(style[None], TAPS), content, []
    for _ in range(n):
        output = stylizer(output, style)
        features = vgg(output[None], TAPS)
        styles = [float(style_loss(features[tap], aim[tap])) for tap in TAPS]
        found.append((float(content_norm(features["relu4_1"], wanted["relu4_1"])), statistics.fmean(styles)))
    return found


def spread(values: Sequence[float]) -> str:
    """Mean, median and worst."""
    return (
        f"mean {statistics.fmean(values):.2f}   median {statistics.median(values):.2f}   worst {min(values):.2f}   of {len(values)}"
    )


@torch.inference_mode()
def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SHIPPED_MODEL, help="the shipped one if not given")
    parser.add_argument("--content", required=True, help="a folder of photos")
    parser.add_argument("--style", required=True, help="a folder of paintings")
    parser.add_argument("--held-out", type=float, default=0.0, help="the share that training left out; 0: all pictures")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=8, help="for the repeated passes")
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    stylizer, vgg = Stylizer.load(options.model), load_vgg("vgg19", find_weights("vgg19", None), TAPS)
    parts = {name: evaluated_part(getattr(options, name), options.held_out, f"--{name}").paths for name in ("content", "style")}
    print(f"{options.size}², torch {torch.__version__}")
    for name, paths in parts.items():
        pictures = (load_square(path, options.size) for path in paths)
        print(f"identity, {name:<8} {spread([psnr(stylizer(x, x), x) for x in pictures])} dB", flush=True)
    chosen = [[paths[(2 * i + 1) * len(paths) // (2 * options.pairs)] for i in range(options.pairs)] for paths in parts.values()]
    pairs = ([load_square(path, options.size) for path in pair] for pair in zip(*chosen, strict=True))
    courses = [passes(stylizer, vgg, *pair, options.passes) for pair in pairs]
    for i, course in enumerate(zip(*courses, strict=True), 1):
        content, style = (statistics.fmean(column) for column in zip(*course, strict=True))
        print(f"pass {i}: content norm {content:.3f}   style {style:.3f}")


if __name__ == "__main__":
    main()
