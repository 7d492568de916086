"""Restyle pictures with a trained model.

python stylize.py --content photo.jpg --style painting.jpg --output out.png --model runs/mine
python stylize.py --content photos/ --style paintings/ --output out/ --model runs/mine --alpha 0.8
python stylize.py --content clip.mp4 --style painting.jpg --output out.mp4 --model runs/mine
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from stylenet.errors import DataError, Parser, UsageError, run_script

if TYPE_CHECKING:
    from torch import Tensor

    from stylenet.inference import Stylizer
    from stylenet.transforms import StyleCode


def main(arguments: list[str]) -> int:
    """Exit code of one call: 0, or 3 if a picture could not be read."""
    options = make_parser().parse_args(arguments)
    if not options.model:
        raise UsageError("expected --model PATH, but none came; train one with: python train.py --config configs/adain.yaml")
    from stylenet import images, inference, runtime
    from stylenet.clips import reading

    if reading.is_clip(options.content, options.video):
        return stylise_clip(options)
    if options.smooth is not None or options.fps:
        raise UsageError("expected a clip for --smooth and --fps, but pictures came; a folder of frames also needs --video")
    inference.check_alpha(options.alpha)
    if not options.output.strip():
        raise UsageError("expected a file or a folder as --output, but an empty name came")
    contents, styles = (list(images.iterate_images(paths)) for paths in (options.content, options.style))
    if options.weights is not None:
        inference.check_mixture(options.weights, len(styles))
    jobs = plan(contents, styles, Path(options.output), is_mixture=options.weights is not None)
    images.check_writable(next(iter(jobs.values())).parent)
    runtime.keep_freed_memory()
    stylizer = inference.Stylizer.load(options.model, options.device, options.precision, options.encoder, options.tile)
    return stylise_all(stylizer, jobs, options)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="stylize.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--content",
        nargs="+",
        required=True,
        metavar="PATH",
        help="pictures or folders to restyle; or a clip: a video file, - for standard input, camera:0",
    )
    parser.add_argument("--style", nargs="+", required=True, metavar="PATH", help="pictures or folders whose look is taken")
    parser.add_argument(
        "--output",
        required=True,
        metavar="OUT",
        help="a file for one picture, else a folder for <content>__<style>.png; of a clip a video, a folder, or -",
    )
    parser.add_argument(
        "--model", metavar="PATH", help="model.safetensors, a checkpoint, a run folder, or pytorch-AdaIN's decoder.pth"
    )
    parser.add_argument("--encoder", metavar="FILE", help="VGG weights, for a model that does not carry its encoder")
    parser.add_argument("--alpha", type=float, default=1.0, help="strength in [0, 1] (default 1)")
    parser.add_argument(
        "--size", type=size, default=512, metavar="PX", help="shortest side of the content; 0: as it is (default 512)"
    )
    parser.add_argument(
        "--style-size", type=size, default=512, metavar="PX", help="shortest side of the style; 0: as it is (default 512)"
    )
    parser.add_argument("--weights", type=weights, metavar="W,W", help="mix all styles into one picture, with these weights")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="arithmetic (default fp32)")
    parser.add_argument(
        "--tile",
        type=tile,
        default="auto",
        metavar="PX",
        help="large pictures go in tiles of this side, with the same result; or auto, off",
    )
    parser.add_argument("--video", action="store_true", help="the content is a folder with the frames of one clip")
    parser.add_argument(
        "--smooth", type=seconds, metavar="S", help="seconds over which a clip's statistics are averaged; 0: not (default 0.15)"
    )
    parser.add_argument(
        "--fps", type=rate, metavar="N", help="frames a second of a folder of frames (default 25), a pipe or a camera"
    )
    return parser


def tile(text: str) -> str | int:
    """auto, off, or a number of pixels, 64 or more."""
    if text in ("auto", "off"):
        return text
    if int(text) < 64:
        raise ValueError(text)
    return int(text)


def size(text: str) -> int:
    """A number of pixels, 0 or more."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def seconds(text: str) -> float:
    """A finite number of seconds, 0 or more."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number


def rate(text: str) -> Fraction:
    """A number above 0, also as a fraction (30000/1001)."""
    with contextlib.suppress(ZeroDivisionError):
        number = Fraction(text)
        if number > 0:
            return number
    raise ValueError(text)


def weights(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(part) for part in text.split(",")]


Job = tuple[Path, tuple[Path, ...]]  # a content and the styles of one picture


def plan(contents: Sequence[Path], styles: Sequence[Path], output: Path, is_mixture: bool) -> dict[Job, Path]:
    """Where each picture goes, no two to one place. Raises UsageError if OUT is a single file for several pictures."""
    from stylenet.images import SUFFIXES

    groups = [tuple(styles)] if is_mixture else [(style,) for style in styles]
    jobs = [(content, group) for content in contents for group in groups]
    if output.suffix.lower() in SUFFIXES:
        if len(jobs) > 1:
            raise UsageError(
                f"expected a folder as --output for {len(jobs)} pictures, but {output} is a file name; leave the suffix out"
            )
        return {jobs[0]: output}
    content_names, style_names = short_names(contents), short_names(styles)
    targets: dict[Job, Path] = {}
    taken: set[Path] = set()
    for content, group in jobs:
        name = f"{content_names[content][:100]}__{'+'.join(style_names[style] for style in group)[:100]}"
        endings = itertools.chain([""], (f"_{i}" for i in itertools.count(2)))
        free = (output / f"{name}{ending}.png" for ending in endings)
        targets[content, group] = next(path for path in free if path not in taken)
        taken.add(targets[content, group])
    return targets


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each file: its stem, with its folder before it where two stems are alike."""
    stems = Counter(path.stem for path in set(paths))
    return {path: path.stem if stems[path.stem] == 1 else f"{path.parent.name}_{path.stem}" for path in paths}


def stylise_all(stylizer: Stylizer, jobs: dict[Job, Path], options: argparse.Namespace) -> int:
    """Make and write every picture; a broken input is reported once and passed over. The exit code."""
    from tqdm import tqdm

    codes = StyleCodes(stylizer, options.style_size)
    broken: set[str] = set()
    n_written = 0
    with tqdm(total=len(jobs), unit="picture", disable=not sys.stderr.isatty()) as bar:
        for content, of_content in by_content(jobs).items():
            try:
                features, shape = stylizer.encode_content(load(content, options.size))
            except DataError as error:
                report(error, broken)
                bar.update(len(of_content))
                continue
            for group, target in of_content.items():
                n_written += stylise_one(stylizer, features, shape, codes, group, target, options, broken)
                bar.update()
    print(f"wrote {n_written} of {len(jobs)} pictures to {options.output}")
    return DataError.exit_code if broken else 0


def stylise_one(
    stylizer: Stylizer,
    features: Tensor,
    shape: Sequence[int],
    codes: StyleCodes,
    group: Sequence[Path],
    target: Path,
    options: argparse.Namespace,
    broken: set[str],
) -> bool:
    """Write one picture; False if one of its styles cannot be read."""
    from stylenet.images import save_image

    try:
        mixture = [codes[path] for path in group]
    except DataError as error:
        report(error, broken)
        return False
    save_image(stylizer.render_pixels(features, shape, mixture, options.alpha, options.weights), target)
    return True


def report(error: DataError, broken: set[str]) -> None:
    """Say of a broken input, once, that it is skipped."""
    if str(error) not in broken:
        print(f"error: {error}; skipped", file=sys.stderr)
    broken.add(str(error))


def by_content(jobs: dict[Job, Path]) -> dict[Path, dict[tuple[Path, ...], Path]]:
    """{content: {styles: target}}, so that every content is encoded once."""
    grouped: dict[Path, dict[tuple[Path, ...], Path]] = {}
    for (content, group), target in jobs.items():
        grouped.setdefault(content, {})[group] = target
    return grouped


class StyleCodes:
    """Every style by its path, read and encoded once; an unreadable one raises its DataError each time."""

    def __init__(self, stylizer: Stylizer, size_px: int) -> None:
        self.stylizer, self.size_px = stylizer, size_px
        self.known: dict[Path, StyleCode | DataError] = {}

    def __getitem__(self, path: Path) -> StyleCode:
        if path not in self.known:
            try:
                self.known[path] = self.stylizer.encode_style(load(path, self.size_px))
            except DataError as error:
                self.known[path] = error
        found = self.known[path]
        if isinstance(found, DataError):
            raise found
        return found


def stylise_clip(options: argparse.Namespace) -> int:
    """Make one video; the exit code, 3 if a part of the clip could not be read."""
    from stylenet import images, inference, runtime, video
    from stylenet.clips import reading, writing

    inference.check_alpha(options.alpha)
    paths = list(images.iterate_images(options.style))
    if options.weights is None and len(paths) > 1:
        raise UsageError(f"expected one style for a clip, but {len(paths)} came; give one, or mix them with --weights")
    inference.check_mixture(options.weights, len(paths))
    source = reading.open_source(options.content[0], options.size, options.fps)
    with writing.open_target(options.output, source) as target:
        runtime.keep_freed_memory()
        stylizer = inference.Stylizer.load(options.model, options.device, options.precision, options.encoder, options.tile)
        styles = [stylizer.encode_style(load(path, options.style_size)) for path in paths]
        smooth_s = video.SMOOTH_S if options.smooth is None else options.smooth
        done = video.restyle(source, target, stylizer, styles, options.alpha, options.weights, smooth_s)
    # standard output may be the video itself
    print(f"wrote {options.output}: {done}", file=sys.stderr if options.output == reading.PIPE else sys.stdout)
    if source.damage:
        print(f"error: {source.damage}; what could be decoded is kept", file=sys.stderr)
    return DataError.exit_code if source.damage else 0


def load(path: Path, size_px: int) -> Tensor:
    """The picture with its shortest side at `size_px`, or at its own size for 0."""
    from stylenet.images import load_bytes

    return load_bytes(path, size_px or None)


if __name__ == "__main__":
    sys.exit(run_script(main))
