"""Measure what no metric of eval.py sees: identity, passes, shifts, scales, the grid of strides.

    python benchmarks/behaviour.py --content photos/ --style paintings/ --held-out 0.02

Identity: PSNR in dB of pictures that are stylised by themselves at full strength.

Passes: the output is stylised again and again. Each pass has a normalised content loss against the
photo and a style loss against the painting. They are means over the pairs, judged by the VGG-19 of
STYLENET_VGG19. The grid is how much the output repeats itself every 8 pixels. Pictures are cut
square.

Shifts: how far the output of a moved content is from the moved output, rms in levels of 255.

Scales: how far the outputs at half, the whole and twice the size are apart, seen at the smallest,
rms in levels of 255, and how far the photos are.

Strokes: the style loss of outputs whose style had half, the whole and twice the size, against the
style at each of these. Where strokes follow the style's size, the diagonal is the least of its row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import rounds  # noqa: F401 - makes the package importable
import torch
import torch.nn.functional as F
from torch import Tensor

from stylenet import images
from stylenet.applying.stylizer import SHIPPED_MODEL, Stylizer
from stylenet.errors import Parser, UsageError, run_script
from stylenet.losses import style_loss
from stylenet.metrics.functional import content_norm
from stylenet.metrics.pairs import evaluated_part
from stylenet.models.vgg import VGG
from stylenet.models.vgg_files import find_weights, load_vgg

TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
PERIOD_PX = 8  # the stride of the deepest features
WINDOW_PX = 64
BLUR_PX = 25
SHIFTS_PX = (1, 2, 4, 8)
BORDER_PX = 16
SCALES = (0.5, 1.0, 2.0)


class Pass(NamedTuple):
    """The measurements after one pass."""

    content_norm: float
    style: float
    grid: float


def load_square(path: Path, px: int) -> Tensor:
    """The middle of a picture, [3, px, px] in [0, 1]."""
    return images.to_tensor(images.cut_centre(images.resize_shortest(images.open_rgb(path), px)))


def psnr(output: Tensor, image: Tensor) -> float:
    """The PSNR in dB of values in [0, 1]."""
    return -10 * float(torch.log10((output - image).square().mean()))


def grid(image: Tensor) -> float:
    """How much the fine detail of an image [3, H, W] repeats one 8-pixel tile.

    In windows of 64 pixels it is the energy of the mean tile over the window's, times the number of
    tiles. White noise has 1 in the mean, and a tile that repeats exactly 64. Detail that is wider
    than a tile has less than 1. The result is the mean over the windows.
    """
    blurred = F.avg_pool2d(F.pad(image[None], (BLUR_PX // 2,) * 4, mode="reflect"), BLUR_PX, 1)[0]
    windows = (
        (image - blurred)
        .unfold(1, WINDOW_PX, WINDOW_PX)
        .unfold(2, WINDOW_PX, WINDOW_PX)
        .flatten(1, 2)
    )  # [3, windows, 64, 64]
    n = WINDOW_PX // PERIOD_PX
    tiles = windows.unflatten(3, (n, PERIOD_PX)).unflatten(2, (n, PERIOD_PX))
    tile = tiles.mean((2, 4))  # [3, windows, 8, 8]
    locked = (tile - tile.mean((2, 3), keepdim=True)).square().mean((0, 2, 3))
    return n * n * float((locked / (windows.square().mean((0, 2, 3)) + 1e-6)).mean())


def shift_error(stylizer: Stylizer, content: Tensor, style: Tensor, shift_px: int) -> float:
    """The rms in levels of 255 by which the output depends on where the content lies.

    The content's left and top edge move by `shift_px`. A border of the output is left out.
    """
    moved = stylizer(content[:, shift_px:, shift_px:], style)
    output = stylizer(content[:, :-shift_px, :-shift_px], style)
    difference = output[:, shift_px:, shift_px:] - moved[:, :-shift_px, :-shift_px]
    inner = difference[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    return 255 * float(inner.square().mean().sqrt())


def scale_errors(outputs: Sequence[Tensor]) -> list[float]:
    """The rms in levels of 255 between the smallest output and each other one at its size."""
    smallest, *others = outputs
    px = smallest.shape[-1]
    shrunk = [F.interpolate(x[None], (px, px), mode="area")[0] for x in others]
    return [255 * float((x - smallest).square().mean().sqrt()) for x in shrunk]


def style_distance(features: dict[str, Tensor], style_features: dict[str, Tensor]) -> float:
    """The style loss as a mean over the taps."""
    return statistics.fmean(float(style_loss(features[tap], style_features[tap])) for tap in TAPS)


def strokes(
    stylizer: Stylizer, vgg: VGG, content: Tensor, styles: Sequence[Tensor]
) -> list[list[float]]:
    """The style distances of outputs in each of the styles (rows) from each of them (columns)."""
    outputs = [vgg(stylizer(content, style)[None], TAPS) for style in styles]
    targets = [vgg(style[None], TAPS) for style in styles]
    return [[style_distance(output, target) for target in targets] for output in outputs]


def passes(stylizer: Stylizer, vgg: VGG, content: Tensor, style: Tensor, n: int) -> list[Pass]:
    """The measurements after each pass."""
    content_features, style_features = vgg(content[None], TAPS), vgg(style[None], TAPS)
    output, measurements = content, []
    for _ in range(n):
        output = stylizer(output, style)
        features = vgg(output[None], TAPS)
        measurements.append(
            Pass(
                float(content_norm(features["relu4_1"], content_features["relu4_1"])),
                style_distance(features, style_features),
                grid(output),
            )
        )
    return measurements


def spread(values: Sequence[float]) -> str:
    """Mean, median and worst of the values, as text."""
    return (
        f"mean {statistics.fmean(values):.2f}   median {statistics.median(values):.2f}   worst "
        f"{min(values):.2f}   of {len(values)}"
    )


def print_identities(stylizer: Stylizer, parts: dict[str, Sequence[Path]], size: int) -> None:
    """Print how well pictures in their own style come back."""
    for name, paths in parts.items():
        pictures = (load_square(path, size) for path in paths)
        values = [psnr(stylizer(x, x), x) for x in pictures]
        print(f"identity, {name:<8} {spread(values)} dB", flush=True)


def print_shifts(stylizer: Stylizer, pairs: Sequence[Sequence[Tensor]]) -> None:
    """Print the grids of the inputs, and how far outputs depend on the content's place."""
    for name, pictures in zip(("content", "style"), zip(*pairs, strict=True), strict=True):
        print(f"grid, {name:<8} {statistics.fmean(map(grid, pictures)):.2f}")
    for shift_px in SHIFTS_PX:
        errors = [shift_error(stylizer, *pair, shift_px) for pair in pairs]
        print(f"shift by {shift_px} px: {statistics.fmean(errors):.1f}", flush=True)


def print_scales(
    stylizer: Stylizer, vgg: VGG, pairs: Sequence[Sequence[Path]], sizes: Sequence[int]
) -> None:
    """Print how alike outputs of three sizes are, and whether strokes follow the style's size."""
    errors, tables = [], []
    for pair in pairs:
        contents, styles = ([load_square(path, px) for px in sizes] for path in pair)
        outputs = [stylizer(*scaled) for scaled in zip(contents, styles, strict=True)]
        errors.append((scale_errors(outputs), scale_errors(contents)))
        tables.append(strokes(stylizer, vgg, contents[1], styles))
    for k, px in enumerate(sizes[1:]):
        output, photo = (statistics.fmean(pair[i][k] for pair in errors) for i in (0, 1))
        print(f"scales {sizes[0]} and {px} px: {output:.1f}   photos {photo:.1f}")
    for px, rows in zip(sizes, zip(*tables, strict=True), strict=True):
        means = [f"{statistics.fmean(values):.3f}" for values in zip(*rows, strict=True)]
        print(f"strokes, style of {px} px: {', '.join(means)}", flush=True)


def print_passes(stylizer: Stylizer, vgg: VGG, pairs: Sequence[Sequence[Tensor]], n: int) -> None:
    """Print the mean measurements after each pass."""
    courses = [passes(stylizer, vgg, *pair, n) for pair in pairs]
    for i, course in enumerate(zip(*courses, strict=True), 1):
        mean = Pass(*map(statistics.fmean, zip(*course, strict=True)))
        print(
            f"pass {i}: content norm {mean.content_norm:.3f}   style {mean.style:.3f}   grid "
            f"{mean.grid:.2f}"
        )


def make_parser(description: str | None) -> Parser:
    """The options that say which model paints which pairs."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SHIPPED_MODEL, help="the shipped one if not given")
    parser.add_argument("--content", required=True, help="a folder of photos")
    parser.add_argument("--style", required=True, help="a folder of paintings")
    parser.add_argument("--size", type=int, default=512, help="side of the pictures in pixels")
    parser.add_argument("--pairs", type=int, default=8, help="pairs to judge")
    return parser


@torch.inference_mode()
def main(arguments: list[str]) -> int:
    """Print identities, shifts, scales, strokes and passes."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.0,
        help="the share that training left out; 0: all pictures",
    )
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.size < WINDOW_PX or min(options.pairs, options.passes) < 1:
        came = f"--size {options.size} --pairs {options.pairs} --passes {options.passes}"
        raise UsageError(
            f"expected --size of at least {WINDOW_PX}, --pairs and --passes of at least 1, but "
            f"{came} came"
        )
    stylizer, vgg = (
        Stylizer.load(options.model),
        load_vgg("vgg19", find_weights("vgg19", None), TAPS),
    )
    parts = {
        name: evaluated_part(getattr(options, name), options.held_out, f"--{name}").paths
        for name in ("content", "style")
    }
    print(f"{options.size}², torch {torch.__version__}")
    print_identities(stylizer, parts, options.size)
    selection = [
        [paths[(2 * i + 1) * len(paths) // (2 * options.pairs)] for i in range(options.pairs)]
        for paths in parts.values()
    ]
    chosen = list(zip(*selection, strict=True))
    pairs = [[load_square(path, options.size) for path in pair] for pair in chosen]
    print_shifts(stylizer, pairs)
    print_scales(stylizer, vgg, chosen, [round(scale * options.size) for scale in SCALES])
    print_passes(stylizer, vgg, pairs, options.passes)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
