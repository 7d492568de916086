"""The options of the stylise command."""

from __future__ import annotations

import argparse
import contextlib
from fractions import Fraction
from typing import Any

from stylenet.config.optimisation import Optimisation
from stylenet.config.options import format_options
from stylenet.errors import Parser

DEFAULT_PX = 512
MAX_PX = 1_000_000


def make_parser(program: str, description: str) -> Parser:
    """The parser of the command line."""
    parser = Parser(
        prog=program,
        description=description.replace("stylenet --", f"{program} --"),
        epilog="options of --method gatys (key: type = default), as key=value:\n"
        + format_options(Optimisation),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--content",
        nargs="+",
        metavar="PATH",
        help="pictures or folders to stylise; or a clip: a video file, - for standard input, "
        "camera:0; with --format - is one picture",
    )
    parser.add_argument(
        "--style",
        nargs="+",
        metavar="PATH",
        help="pictures, folders, style cards, or names of included cards (--list-styles); left "
        "out with a model for one style",
    )
    parser.add_argument(
        "--output",
        metavar="OUT",
        help="a file for one picture, else a folder for <content>__<style>.png; of a clip a "
        "video, a folder, or -; - is standard output",
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="model.safetensors, a checkpoint, a run folder, pytorch-AdaIN's decoder.pth, or "
        "BASE+ADAPTER (default: the small included model)",
    )
    parser.add_argument(
        "--encoder", metavar="FILE", help="VGG weights, for a model that does not carry its encoder"
    )
    parser.add_argument("--alpha", type=float, default=1.0, help="strength in [0, 1] (default 1)")
    parser.add_argument(
        "--weights",
        type=weights,
        metavar="W,W",
        help="mix all styles into one picture, with these weights",
    )
    for name, what in (("--size", "content"), ("--style-size", "style")):
        parser.add_argument(
            name,
            type=size,
            default=DEFAULT_PX,
            metavar="PX",
            help=f"shortest side of the {what}; 0: as it is (default 512)",
        )
    parser.set_defaults(aliases={})  # what users call the files of pipes
    add_control_options(parser.add_argument_group("controls"))
    add_method_options(parser.add_argument_group("optimisation of the pixels"))
    add_data_set_options(parser.add_argument_group("many pictures"))
    add_clip_options(parser.add_argument_group("clips"))
    add_arithmetic_options(parser.add_argument_group("arithmetic"))
    return parser


def add_control_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for colours, regions, strokes, cards and sheets."""
    group.add_argument(
        "--colour",
        choices=("style", "content", "matched", "only"),
        default="style",
        help="style: as painted (default); content: the photo's colours under the painting's "
        "brightness; matched: the painting gets the photo's colours first; only: the painting's "
        "colours under the photo's brightness",
    )
    group.add_argument(
        "--mask",
        action="append",
        type=region,
        metavar="MASK:STYLE",
        help="a style for the white part of a mask, any number of times; the rest has --style, or "
        "stays as it is without; MASK:STYLE:PART takes only that part of the painting",
    )
    group.add_argument("--style-mask", metavar="PART", help="a mask of the part of --style to take")
    group.add_argument(
        "--stroke",
        type=float,
        metavar="S",
        help="the painting's shortest side as a multiple of the picture's: larger strokes above "
        "1, and the same at every size (instead of --style-size)",
    )
    group.add_argument(
        "--seamless",
        action="store_true",
        help="the picture continues at the opposite side: a tileable texture stays tileable",
    )
    group.add_argument(
        "--sweep",
        choices=("styles", "corners", "alpha"),
        help="a labelled sheet as --output: the photo in all styles, between four styles, or at "
        "five strengths",
    )
    group.add_argument(
        "--save-style",
        metavar="FILE.style",
        help="keep --style (several: their mean) as a style card, and stop",
    )
    group.add_argument("--list-styles", action="store_true", help="print the included style cards")
    group.add_argument(
        "--json", action="store_true", help="print a line of JSON for each picture that was made"
    )


def region(text: str) -> Any:
    """A region: MASK:STYLE or MASK:STYLE:PART."""
    from stylenet.applying.styles import masking

    try:
        return masking(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected MASK:STYLE or MASK:STYLE:PART, but {text!r} came"
        ) from None


def add_method_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for stylising without a trained network."""
    group.add_argument(
        "--method",
        choices=("gatys",),
        help="gatys: optimise the pixels of each picture (Gatys et al. 2016); its options are at "
        "the end of this help",
    )
    group.add_argument(
        "--config", metavar="FILE", help="YAML file with options of the method: configs/gatys.yaml"
    )


def add_data_set_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for many pictures: pairs, names, formats and speed."""
    group.add_argument(
        "--pairs",
        metavar="P",
        help="make a data set of all pairs; random:K: each content with K styles; or a FILE.csv "
        "with the columns content, style "
        "(optional: output, alpha, which override the options)",
    )
    group.add_argument(
        "--seed", type=size, default=0, help="which styles random:K draws (default 0)"
    )
    group.add_argument(
        "--keep-folders",
        action="store_true",
        help="below OUT as the content is below its folder; its name if made only once",
    )
    group.add_argument(
        "--format", choices=("png", "jpg"), help="of pictures in a folder (default png)"
    )
    group.add_argument(
        "--keep-metadata",
        action="store_true",
        help="keep the content's EXIF block, and write the profile of sRGB",
    )
    group.add_argument(
        "--crop", action="store_true", help="only the square in the middle of each content"
    )
    group.add_argument(
        "--batch",
        type=number,
        metavar="N",
        help="pictures at a time, of one size (default 8 on cuda, else 1)",
    )
    group.add_argument(
        "--workers",
        type=number,
        metavar="N",
        help="threads that decode and encode (default: one per core)",
    )


def add_clip_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for clips."""
    group.add_argument(
        "--video", action="store_true", help="the content is a folder with the frames of one clip"
    )
    group.add_argument(
        "--smooth",
        type=seconds,
        metavar="S",
        help="seconds over which a clip's statistics are pooled; 0: not (default 0.15)",
    )
    group.add_argument(
        "--fps",
        type=rate,
        metavar="N",
        help="frames a second of a folder of frames (default 25), a pipe or a camera",
    )


def add_arithmetic_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for device, precision and tiles."""
    group.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)"
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "tf32", "bf16", "fp16"),
        default="fp32",
        help="arithmetic (default fp32; tf32: float32 whose products a GPU rounds)",
    )
    group.add_argument(
        "--tile",
        type=tile,
        default="auto",
        metavar="PX",
        help="large pictures go in tiles of this side, with the same result; or auto, off",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network: for many pictures of one size",
    )


def tile(text: str) -> str | int:
    """auto, off, or a number of pixels, 64 or more."""
    if text in ("auto", "off"):
        return text
    if int(text) < 64:
        raise ValueError(text)
    return int(text)


def size(text: str) -> int:
    """A number of pixels, from 0 to a million."""
    number = int(text)
    if not 0 <= number <= MAX_PX:
        raise ValueError(text)
    return number


def weights(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(part) for part in text.split(",")]


def number(text: str) -> int:
    """A number of 1 or more."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


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
        if number > 0 and max(number.as_integer_ratio()) < 2**31:  # what containers take
            return number
    raise ValueError(text)
