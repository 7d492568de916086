"""Measure how much a stylised clip flickers with and without smoothing.

    python benchmarks/flicker.py --model runs/mine --content photos/ --style paintings/ --pairs 6

Every scene is filmed from a photo (sub-pixel pan and zoom, 8-bit frames) with what makes real
footage flicker. So the flow is known. The warping error is the root mean square difference, in
levels of 255, between each stylised frame and the one before it, warped by the flow. It is that of
Lai et al. 2018 without occlusion, which is masked here. Smoothing 0 is off, the others are seconds.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import rounds  # noqa: F401 - makes the package importable
import torch
import torch.nn.functional as F
from torch import Tensor

from stylenet import images
from stylenet.applying.stylizer import Encoded, Stylizer
from stylenet.applying.video import Smoother
from stylenet.looks import make_look

FPS = 25
COARSE_PX = 16  # means over such squares show the flicker of tone without that of texture
MARGIN_PX = 16  # left out around what is no part of the photo


class Scene(NamedTuple):
    """The events while a photo is filmed."""

    pan_px: float = 0.0  # a frame
    zoom: float = 0.0  # a frame
    flicker: float = 0.0  # deviation of the exposure from frame to frame, relative
    drift: float = 0.0  # amplitude of an exposure that swings once a second, relative
    noise: float = 0.0  # deviation, of 255
    has_object: bool = False  # a piece of another photo passes by
    has_lamp: bool = False  # a part of the picture changes its light


SCENES = {
    "still, an object passes": Scene(has_object=True),
    "still, a lamp flickers": Scene(has_lamp=True),
    "still, exposure flickers": Scene(flicker=0.03),
    "still, exposure swings": Scene(drift=0.2),
    "still, noise": Scene(noise=6),
    "pan and zoom": Scene(0.7, 0.001),
    "pan and zoom, all of these": Scene(0.7, 0.001, 0.02, 0.1, 3, True, True),
}


def view(scene: Scene, i: int, px: int) -> tuple[float, float, float]:
    """Centre (x, y) and side of frame i's view of the photo, in the photo's pixels."""
    return 0.7 * px + scene.pan_px * i, 0.7 * px + 0.6 * scene.pan_px * i, px * (1 + scene.zoom * i)


def grid(x: Tensor, y: Tensor) -> Tensor:
    """Positions in [-1, 1] as grid_sample takes them, [1, H, W, 2]."""
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns, rows], -1)[None]


def sample(image: Tensor, where: Tensor) -> Tensor:
    """The image [3, H, W] at the positions [1, h, w, 2]."""
    return F.grid_sample(
        image[None], where, mode="bicubic", padding_mode="border", align_corners=False
    )[0]


def film(
    photo: Tensor, other: Tensor, scene: Scene, n: int, px: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The frames uint8 [3, px, px], each with a mask of what is no part of the photo."""
    generator = torch.Generator().manual_seed(0)
    steps = (torch.arange(px) + 0.5) / px - 0.5
    for i in range(n):
        x, y, side = view(scene, i, px)
        frame = sample(
            photo,
            grid(
                (x + steps * side) / photo.shape[2] * 2 - 1,
                (y + steps * side) / photo.shape[1] * 2 - 1,
            ),
        )
        foreign = torch.zeros(1, px, px)
        if scene.has_lamp:
            lamp, light = (
                (..., slice(px // 10, px // 3), slice(px // 2, 4 * px // 5)),
                torch.rand(1, generator=generator),
            )
            frame[lamp], foreign[lamp] = torch.lerp(frame[lamp], torch.ones(()), light), 1
        if scene.has_object:
            left = int((1.5 * i / n - 0.25) * px)
            place = (
                ...,
                slice(px // 4, 3 * px // 4),
                slice(max(0, left), max(0, left + 2 * px // 5)),
            )
            frame[place], foreign[place] = other[:, :px, :px][place], 1
        frame *= (1 + scene.flicker * torch.randn(1, generator=generator)) * (
            1 + scene.drift * math.sin(2 * math.pi * i / FPS)
        )
        frame += scene.noise / 255 * torch.randn(frame.shape, generator=generator)
        # the network's receptive field carries foreign pixels beyond their borders
        near = F.max_pool2d(foreign, 2 * MARGIN_PX + 1, 1, MARGIN_PX)[0] > 0
        yield frame.clamp(0, 1).mul(255).round().to(torch.uint8), near


def warping_errors(
    frames: Sequence[Tensor], masks: Sequence[Tensor], scene: Scene, px: int
) -> tuple[float, float]:
    """A clip's errors in levels of 255: of its pixels, and of means over squares.

    Each frame is [3, px, px] in [0, 1].
    """
    steps, fine, coarse = (torch.arange(px) + 0.5) / px - 0.5, [], []
    for i in range(1, len(frames)):
        (x0, y0, side0), (x1, y1, side1) = view(scene, i - 1, px), view(scene, i, px)
        where = grid((x1 - x0 + steps * side1) / side0 * 2, (y1 - y0 + steps * side1) / side0 * 2)
        # left out: what the frame before did not show, and what is no part of the photo
        valid = (where[0].abs().amax(-1) < 1 - 4 / px) & ~masks[i] & ~masks[i - 1]
        difference = (frames[i] - sample(frames[i - 1], where)) * 255 * valid
        fine.append(float(difference.square().sum() / valid.sum() / 3))
        whole = F.avg_pool2d(valid[None].float(), COARSE_PX)[0] == 1
        coarse.append(float(F.avg_pool2d(difference, COARSE_PX)[:, whole].square().mean()))
    return statistics.fmean(fine) ** 0.5, statistics.fmean(coarse) ** 0.5


def encoded(stylizer: Stylizer, frames: Sequence[Tensor], is_evened: bool) -> list[Encoded]:
    """Every frame as the network sees it, as it is or at its shot's usual brightness."""
    smoother, contents = Smoother(0.0), []
    for i, frame in enumerate(frames):
        smoother.see(frame, i / FPS)
        contents.append(stylizer.encode_content(smoother.evened(frame) if is_evened else frame))
    return contents


def stylised(
    stylizer: Stylizer,
    frames: Sequence[Tensor],
    contents: Sequence[Encoded],
    style: Tensor,
    smooth_s: float,
) -> list[Tensor]:
    """The clip as stylize.py makes it, [3, px, px] in [0, 1]."""
    smoother, pictures, look = Smoother(smooth_s), [], make_look([stylizer.encode_style(style)])
    for i, (frame, content) in enumerate(zip(frames, contents, strict=True)):
        smoother.see(frame, i / FPS)
        pixels, stats = stylizer.render_frame(content, smoother.steady(look) if smooth_s else look)
        smoother.note(stats)
        pictures.append(images.to_unit(pixels[0].permute(2, 0, 1)))
    return pictures


def measure(
    stylizer: Stylizer,
    scene: Scene,
    photos: Sequence[Tensor],
    styles: Sequence[Tensor],
    options: argparse.Namespace,
) -> dict:
    """Measurements of a scene: {"input" or smoothing: a list over the pairs}.

    Each measurement is (error, coarse error, distance to the frame-wise pictures).
    """
    rows: dict = {key: [] for key in ("input", *options.smooth)}
    for i, style in enumerate(styles):
        filmed = film(photos[i], photos[(i + 1) % len(photos)], scene, options.frames, options.size)
        frames, masks = zip(*filmed, strict=True)
        rows["input"].append(
            (
                *warping_errors(
                    [images.to_unit(frame) for frame in frames], masks, scene, options.size
                ),
                0.0,
            )
        )
        contents, plain = {key: encoded(stylizer, frames, key) for key in (False, True)}, None
        for smooth_s in options.smooth:
            clip = stylised(stylizer, frames, contents[smooth_s > 0], style, smooth_s)
            plain = plain or clip
            distance = statistics.fmean(
                255 * float((a - b).square().mean().sqrt())
                for a, b in zip(clip, plain, strict=True)
            )
            rows[smooth_s].append((*warping_errors(clip, masks, scene, options.size), distance))
    return rows


def cells(rows: dict, column: int, smooth: Sequence[float]) -> str:
    """One row's cells: the input's error, the first setting's, and ratios of the others to it.

    All are medians over the pairs.
    """
    first = [row[column] for row in rows[smooth[0]]]
    ratios = [
        statistics.median(row[column] / off for row, off in zip(rows[s], first, strict=True))
        for s in smooth[1:]
    ]
    of_input = statistics.median(row[column] for row in rows["input"])
    start = f"{of_input:>8.2f}{statistics.median(first):>8.2f}"
    return start + "".join(f"{ratio:>8.2f}" for ratio in ratios)


def main() -> None:
    """Print the table of the scenes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--content", required=True, help="a folder of photos")
    parser.add_argument("--style", required=True, help="a folder of paintings")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument(
        "--smooth",
        type=float,
        nargs="+",
        default=[0, 0.05, 0.15, 0.4],
        help="the first is what the others are compared with",
    )
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--only", choices=tuple(SCENES), help="leave the other scenes out")
    options = parser.parse_args()
    stylizer = Stylizer.load(options.model, precision=options.precision)
    folders = [images.list_images(folder) for folder in (options.content, options.style)]
    selection = [
        [paths[(2 * i + 1) * len(paths) // (2 * options.pairs)] for i in range(options.pairs)]
        for paths in folders
    ]
    photos = [images.load_image(path, 2 * options.size) for path in selection[0]]
    styles = [images.load_image(path, 2 * options.size) for path in selection[1]]
    print(
        f"{options.pairs} pairs, {options.frames} frames of {options.size}², {options.precision}, "
        f"torch {torch.__version__}"
    )
    header = f"{'':>8}{'input':>8}{options.smooth[0]:>8g}" + "".join(
        f"{s:>6g} x" for s in options.smooth[1:]
    )
    print(
        f"{'warping error, median':<28}{header}{header[8:]} (squares of {COARSE_PX})   distance "
        "to frame-wise"
    )
    for name in [options.only] if options.only else SCENES:
        rows = measure(stylizer, SCENES[name], photos, styles, options)
        lag = "".join(
            f"{statistics.median(row[2] for row in rows[s]):>8.2f}" for s in options.smooth[1:]
        )
        print(
            f"{name:<28}{'':>8}{cells(rows, 0, options.smooth)}"
            f"{cells(rows, 1, options.smooth)}{'':>16}{lag}",
            flush=True,
        )


if __name__ == "__main__":
    main()
