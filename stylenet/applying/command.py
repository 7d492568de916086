"""The stylise command for pictures, data sets and clips.

    stylenet --content photo.jpg --style painting.jpg --output out.png
    stylenet --content photos/ --style paintings/ --output out/ --model runs/mine --alpha 0.8
    stylenet --content photos/ --style paintings/ --output set/ --pairs random:2 --keep-folders
    stylenet --content clip.mp4 --style painting.jpg --output out.mp4 --model runs/mine

Without --model the command uses the small model that stylenet includes. With --method gatys it
optimises the pixels instead, which takes minutes a picture and no trained model:

    stylenet --method gatys --content photo.jpg --style painting.jpg --output out.png --size 256

With --pairs the folder is a data set with a manifest.csv. The same command again makes what is
missing. Other settings are refused. torchrun shares the pictures among processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylenet.errors import DataError, Parser, UsageError, lasting_imports

if TYPE_CHECKING:
    from stylenet.applying.pictures import Outcome
    from stylenet.applying.plan import Pictures, Plan
    from stylenet.applying.record import Record
    from stylenet.applying.stylizer import Stylizer


def main(arguments: list[str], program: str = "stylenet") -> int:
    """Exit code of one call: 0, or 3 if a picture or a part of a clip could not be read."""
    parser = make_parser(program)
    options, options.overrides = parser.parse_known_args(arguments)
    if options.overrides and options.method is None:
        parser.error(f"unrecognized arguments: {' '.join(options.overrides)}")
    with lasting_imports():
        import torch

        from stylenet import looks, runtime
        from stylenet.applying import pictures, stylizer  # noqa: F401 - heavy
        from stylenet.applying.clips import reading

    if options.method:
        check_method(options)
    if options.model is None:
        options.model = stylizer.SHIPPED_MODEL
    if not str(options.model).strip():
        raise UsageError(
            "expected a model as --model, but an empty name came; leave it out for the small one "
            "included"
        )
    looks.check_alpha(options.alpha)
    if not options.output.strip():
        raise UsageError("expected a file or a folder as --output, but an empty name came")
    runtime.keep_freed_memory()
    runtime.allow_tf32(options.precision == "tf32")
    is_clip = reading.is_clip(options.content, options.video)
    if is_clip and options.method:
        raise UsageError(
            f"expected pictures with --method {options.method}, but a clip came, whose frames "
            "would flicker; stylise it with a model"
        )
    try:
        return stylise_clip(options) if is_clip else stylise_pictures(options)
    except torch.OutOfMemoryError:
        raise UsageError(
            "expected pictures that fit the GPU's memory, but one does not, even in tiles where "
            "they are possible; give a smaller "
            "--size or --style-size, --precision bf16, or --device cpu"
        ) from None


def make_parser(program: str) -> Parser:
    """The parser of the command line."""
    parser = Parser(
        prog=program,
        description=__doc__.replace("stylenet --", f"{program} --"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--content",
        nargs="+",
        required=True,
        metavar="PATH",
        help="pictures or folders to stylise; or a clip: a video file, - for standard input, "
        "camera:0",
    )
    parser.add_argument(
        "--style",
        nargs="+",
        metavar="PATH",
        help="pictures or folders whose look is taken; left out with a model for one style",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="OUT",
        help="a file for one picture, else a folder for <content>__<style>.png; of a clip a "
        "video, a folder, or -",
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
            default=512,
            metavar="PX",
            help=f"shortest side of the {what}; 0: as it is (default 512)",
        )
    add_method_options(parser.add_argument_group("optimisation of the pixels"))
    add_data_set_options(parser.add_argument_group("many pictures"))
    add_clip_options(parser.add_argument_group("clips"))
    add_arithmetic_options(parser.add_argument_group("arithmetic"))
    return parser


def add_method_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for stylising without a trained network."""
    group.add_argument(
        "--method",
        choices=("gatys",),
        help="gatys: optimise the pixels of each picture (Gatys et al. 2016); docs/gatys.md "
        "lists its options, which follow as key=value",
    )
    group.add_argument(
        "--config", metavar="FILE", help="YAML file with options of the method: configs/gatys.yaml"
    )


def check_method(options: argparse.Namespace) -> None:
    """Raise UsageError for options that a method without a trained network does not have."""
    names = ("model", "encoder", "batch", "workers", "compile", "smooth", "fps", "video")
    given = [f"--{name}" for name in names if getattr(options, name)]
    changed = {"alpha": 1.0, "precision": "fp32", "tile": "auto"}
    given += [f"--{name}" for name, value in changed.items() if getattr(options, name) != value]
    if given:
        raise UsageError(
            f"expected no {', '.join(given)} with --method {options.method}, which optimises the "
            "pixels of one picture after the other without a trained model; leave it out"
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
        help="seconds over which a clip's statistics are averaged; 0: not (default 0.15)",
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
    """A number of pixels, 0 or more."""
    number = int(text)
    if number < 0:
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


def stylise_pictures(options: argparse.Namespace) -> int:
    """Exit code after all pictures are stylised: 0, or 3 if inputs were skipped."""
    from stylenet import files, looks
    from stylenet.applying.pictures import Sizes, make_pictures
    from stylenet.applying.plan import Pictures

    if options.smooth is not None or options.fps:
        raise UsageError(
            "expected a clip for --smooth and --fps, but pictures came; a folder of frames also "
            "needs --video"
        )
    # a model for one style, or a mistake: only the model tells
    stylizer = load_stylizer(options) if options.style is None and not options.method else None
    check_styles(options, stylizer)
    contents, styles = Pictures(options.content), Pictures(options.style or [])
    note_passed_over([*options.content, *(options.style or [])])
    if options.weights is not None:
        looks.check_mixture(options.weights, len(styles))
    plan, folder = plan_of(contents, styles, options)
    files.check_writable(folder)
    if options.method:
        return optimise_pictures(plan, folder, contents, styles, options)
    if stylizer is None:
        stylizer = load_stylizer(options)
        check_styles(options, stylizer)
    note_resizing(contents.paths[0], options.size)
    note_animations(contents.paths[:NOTED])
    record = open_record(folder, contents, styles, options) if options.pairs else None
    sizes = Sizes(options.size, options.style_size, options.crop)
    outcome = make_pictures(
        stylizer,
        plan,
        folder,
        record,
        sizes,
        options.weights,
        options.batch,
        options.workers,
        options.keep_metadata,
    )
    print(summary(outcome, options.output))
    return DataError.exit_code if outcome.n_skipped else 0


def check_styles(options: argparse.Namespace, stylizer: Stylizer | None) -> None:
    """Raise UsageError unless styles came where the model takes some, and none else."""
    if stylizer is None and options.style is None:
        raise UsageError(
            f"expected --style with --method {options.method}, but none came; give one"
        )
    if stylizer is not None and stylizer.family.takes_styles and options.style is None:
        raise UsageError("expected --style, but none came; give a picture or a folder")
    if stylizer is not None and not stylizer.family.takes_styles and options.style is not None:
        raise UsageError(
            f"expected no --style with {options.model}, which has the one style that it was "
            "trained on; leave --style out"
        )


def optimise_pictures(
    plan: Plan, folder: Path, contents: Pictures, styles: Pictures, options: argparse.Namespace
) -> int:
    """Exit code after all pictures are optimised: 0, or 3 if inputs were skipped."""
    from stylenet import build
    from stylenet.applying import optimised
    from stylenet.applying.optimise import Gatys
    from stylenet.applying.pictures import Sizes

    config = build.read_optimisation(options.config, options.overrides)
    gatys = Gatys.make(config, options.device)
    note_resizing(contents.paths[0], options.size)
    record = None
    if options.pairs:
        free = ("tracking.", "snapshots.", "network.weights")
        values = {k: v for k, v in config.to_flat().items() if not k.startswith(free)}
        maker = {"gatys": values | {"network": gatys.sha256}}
        record = open_record(folder, contents, styles, options, maker)
    outcome = optimised.optimise_pictures(
        gatys,
        config,
        plan,
        folder,
        record,
        Sizes(options.size, options.style_size, options.crop),
        options.weights,
        options.keep_metadata,
    )
    print(summary(outcome, options.output))
    return DataError.exit_code if outcome.n_skipped else 0


def note_passed_over(places: list[str]) -> None:
    """Print which files of the folders are no pictures."""
    from stylenet import images, runtime

    folders = [place for place in places if Path(place).is_dir()]
    for note in filter(None, map(images.passed_over, dict.fromkeys(folders))):
        if runtime.is_main():
            print(note, file=sys.stderr)


def note_resizing(path: Path, size_px: int) -> None:
    """Print to what size the first content is brought."""
    from stylenet import images, runtime

    with contextlib.suppress(DataError):  # a broken picture is reported when its turn comes
        size = images.shown_size(path)
        small = [round(side * size_px / min(size)) for side in size]
        is_possible = 0 < small[0] * small[1] <= images.MAX_PIXELS
        if is_possible and size_px != min(size) and runtime.is_main():
            before, after = (f"{width}x{height}" for width, height in (size, small))
            print(f"{path.name}: {before} -> {after} (--size 0 keeps the size)", file=sys.stderr)


NOTED = 100  # contents whose headers are looked at


def note_animations(paths: Sequence[Path]) -> None:
    """Print which contents are animated, of which a picture shows the first frame only."""
    from stylenet import images, runtime
    from stylenet.applying.clips.reading import ANIMATED_SUFFIXES

    for path in paths:
        is_candidate = path.suffix.lower() in ANIMATED_SUFFIXES and path.is_file()
        if is_candidate and images.is_animated(path) and runtime.is_main():
            print(
                f"note: {path} is animated; this is its first frame (--video: all of them)",
                file=sys.stderr,
            )


def load_stylizer(options: argparse.Namespace) -> Stylizer:
    """The stylizer that the options describe."""
    from stylenet.applying.stylizer import Stylizer

    return Stylizer.load(
        options.model,
        options.device,
        options.precision,
        options.encoder,
        options.tile,
        options.compile,
    )


def summary(outcome: Outcome, output: str) -> str:
    """One line with the counts of written, present and skipped pictures."""
    from stylenet import runtime

    who = (
        f"process {runtime.rank() + 1} of {runtime.world_size()} "
        if runtime.world_size() > 1
        else ""
    )
    counts = ((outcome.n_kept, "there before"), (outcome.n_skipped, "skipped"))
    rest = "".join(f", {n} {what}" for n, what in counts if n)
    return f"{who}wrote {outcome.n_made} of {outcome.n_jobs} pictures to {output}{rest}"


def plan_of(contents: Pictures, styles: Pictures, options: argparse.Namespace) -> tuple[Plan, Path]:
    """The jobs, and the folder of their pictures.

    Raises UsageError for options that exclude each other.
    """
    from stylenet import images
    from stylenet.applying.plan import make_plan

    output, is_mixture = Path(options.output), options.weights is not None
    is_file = output.suffix.lower() in images.SUFFIXES
    if is_mixture and options.pairs not in (None, "all"):
        raise UsageError(
            "expected --pairs all with --weights, which mix all styles into one, but "
            f"{options.pairs} came"
        )
    if is_file and options.pairs:
        raise UsageError(
            f"expected a folder as --output with --pairs, but {output} is a file name; leave the "
            "suffix out"
        )
    plan = make_plan(
        contents,
        styles,
        options.pairs,
        options.seed,
        options.alpha,
        is_mixture,
        options.keep_folders,
        f".{options.format or 'png'}",
        output.name if is_file else None,
        name_of_model(options.model) if options.style is None else "",
    )
    folder = output.parent if is_file else output
    check_place(output, folder, options)
    if is_file and len(plan) > 1:
        raise UsageError(
            f"expected a folder as --output for {len(plan)} pictures, but {output} is a file "
            "name; leave the suffix out"
        )
    return plan, folder


def name_of_model(path: str) -> str:
    """A model's name: that of its run folder, else its file's stem."""
    place = Path(path).resolve()
    return place.parent.name if place.name == "model.safetensors" else place.stem


def check_place(output: Path, folder: Path, options: argparse.Namespace) -> None:
    """Raise UsageError for an output that would replace an input or become one.

    Single pictures are also refused in a folder that holds a data set.
    """
    from stylenet import images
    from stylenet.applying.clips.reading import INPUT_SUFFIXES, PIPE
    from stylenet.applying.record import SETTINGS

    if str(output) == PIPE or output.suffix.lower() in INPUT_SUFFIXES:
        raise UsageError(
            f"expected a picture or a folder as --output for pictures, but {output} came; only a "
            "clip becomes a clip"
        )
    looks_like_file = re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{1,4}", output.suffix)
    is_folder = options.output.endswith(("/", os.sep)) or output.is_dir()
    if looks_like_file and not is_folder and output.suffix.lower() not in images.SUFFIXES:
        raise UsageError(
            f"expected a picture ({', '.join(images.SUFFIXES)}) or a folder as --output, but "
            f"{output} came; end a folder's name with /"
        )
    keeps_names = bool(options.pairs or options.keep_folders)
    for place in map(Path, (*options.content, *(options.style or []))):
        if keeps_names and place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
            raise UsageError(
                f"expected a folder outside the inputs, but {folder} lies in {place}; give "
                "another --output"
            )
        if place.is_file() and output.exists() and output.samefile(place):
            raise UsageError(
                f"expected another name than an input's as --output, but {output} is one; give "
                "another"
            )
    if not options.pairs and (folder / SETTINGS).exists():
        raise UsageError(
            f"expected --pairs for {folder}, which holds a data set; give --pairs or another "
            "--output"
        )


# the options that a data set's pictures depend on; its record refuses other values
SETTLED = (
    "pairs",
    "seed",
    "alpha",
    "weights",
    "size",
    "style_size",
    "crop",
    "precision",
    "format",
    "keep_folders",
)


def open_record(
    folder: Path,
    contents: Pictures,
    styles: Pictures,
    options: argparse.Namespace,
    maker: dict[str, Any] | None = None,
) -> Record:
    """The data set's record. Raises UsageError if the folder holds something else.

    `maker` identifies what makes the pictures: by default the model.
    """
    from stylenet import runtime
    from stylenet.applying import stylizer
    from stylenet.applying.record import Record
    from stylenet.models.vgg_files import sha256_of_file

    settings: dict[str, Any] = {name: getattr(options, name) for name in SETTLED}
    if Path(options.pairs).is_file():
        settings["pairs"] = sha256_of_file(options.pairs)
    settings["format"] = options.format or "png"
    settings |= maker or {"model": stylizer.identify(options.model, options.encoder)}
    settings |= {"content": contents.describe(), "style": styles.describe()}
    return Record(folder, settings, runtime.rank(), runtime.world_size())


def stylise_clip(options: argparse.Namespace) -> int:
    """Exit code after one clip is stylised: 0, or 3 if a part could not be read."""
    from stylenet import images, looks
    from stylenet.applying import video
    from stylenet.applying.clips import reading, writing

    useless = ("pairs", "keep_folders", "keep_metadata", "format", "crop", "batch", "workers")
    conflicts = [f"--{name.replace('_', '-')}" for name in useless if getattr(options, name)]
    if conflicts:
        raise UsageError(
            f"expected pictures for {', '.join(conflicts)}, but a clip came; leave that out"
        )
    stylizer = load_stylizer(options)
    check_styles(options, stylizer)
    paths = list(images.iterate_images(options.style or []))
    if options.weights is None and len(paths) > 1:
        raise UsageError(
            f"expected one style for a clip, but {len(paths)} came; give one, or mix them with "
            "--weights"
        )
    if paths:
        looks.check_mixture(options.weights, len(paths))
    source = reading.open_source(options.content[0], options.size, options.fps)
    with writing.open_target(options.output, source) as target:
        codes = [
            stylizer.encode_style(images.load_bytes(path, options.style_size or None))
            for path in paths
        ] or [()]
        smooth_s = video.SMOOTH_S if options.smooth is None else options.smooth
        result = video.stylise(
            source,
            target,
            stylizer,
            looks.make_look(codes, options.weights, options.alpha),
            smooth_s,
        )
    # the summary goes to stderr where standard output is the video itself
    print(
        f"wrote {options.output}: {result}",
        file=sys.stderr if options.output == reading.PIPE else sys.stdout,
    )
    if source.damage:
        print(f"error: {source.damage}; what could be decoded is kept", file=sys.stderr)
    return DataError.exit_code if source.damage else 0
