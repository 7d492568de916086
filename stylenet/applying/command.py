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

Colours, regions, strokes, style cards and sheets: docs/controls.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylenet.applying.arguments import DEFAULT_PX, make_parser
from stylenet.errors import DataError, Parser, UsageError, lasting_imports

if TYPE_CHECKING:
    from torch import Tensor

    from stylenet.applying.pictures import Outcome
    from stylenet.applying.plan import Pictures, Plan
    from stylenet.applying.record import Record
    from stylenet.applying.stylizer import Stylizer
    from stylenet.looks import Look


def main(arguments: list[str], program: str = "stylenet") -> int:
    """Exit code of one call: 0, or 3 if a picture or a part of a clip could not be read."""
    parser = make_parser(program, __doc__)
    options, options.overrides = parser.parse_known_args(arguments)
    if options.overrides and options.method is None:
        parser.error(f"unrecognized arguments: {' '.join(options.overrides)}")
    with lasting_imports():
        import torch

        from stylenet import looks, runtime
        from stylenet.applying import pictures, styles, stylizer  # noqa: F401 - heavy
        from stylenet.applying.clips import reading

    if options.list_styles:
        return list_styles()
    check_required(parser, options)
    check_names(options)
    if options.method:
        check_method(options)
    if options.model is None:
        options.model = stylizer.SHIPPED_MODEL
    looks.check_alpha(options.alpha)
    options.style = options.style and [styles.found(name) for name in options.style]
    check_single(options, runtime.world_size())
    if options.save_style:
        return save_style(options)
    runtime.keep_freed_memory()
    runtime.allow_tf32(options.precision == "tf32")
    is_clip = not is_piped_picture(options) and reading.is_clip(options.content, options.video)
    if is_clip and options.method:
        raise UsageError(
            f"expected pictures with --method {options.method}, but a clip came, whose frames "
            "would flicker; stylise it with a model"
        )
    try:
        if is_clip:
            return stylise_clip(options)
        with piped(options):
            return sweep(options) if options.sweep else stylise_pictures(options)
    except torch.OutOfMemoryError:
        raise UsageError(
            "expected pictures that fit the GPU's memory, but one does not, even in tiles where "
            "they are possible; give a smaller "
            "--size or --style-size, --precision bf16, or --device cpu"
        ) from None


def check_required(parser: Parser, options: argparse.Namespace) -> None:
    """End with a line about what is missing: each use needs something else."""
    needs = ("style",) if options.save_style else ("content", "output")
    missing = [f"--{name}" for name in needs if getattr(options, name) is None]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")


NAMES = (
    *("content", "style", "output", "model", "encoder", "config"),
    *("style_mask", "save_style", "pairs"),
)


def check_names(options: argparse.Namespace) -> None:
    """Raise UsageError for an empty name, as of a variable that is not set."""
    for option in NAMES:
        value = getattr(options, option)
        if any(not str(name).strip() for name in (value if isinstance(value, list) else [value])):
            raise UsageError(
                f"expected a name as --{option.replace('_', '-')}, but an empty name came; give "
                "one or leave the option out"
            )


def check_single(options: argparse.Namespace, n_processes: int) -> None:
    """Raise UsageError for what makes one file, in several processes."""
    pipe = options.content == [PIPE] or options.output == PIPE
    kinds = {"--sweep": options.sweep, "--save-style": options.save_style, "a pipe": pipe}
    given = [name for name, value in kinds.items() if value]
    if given and n_processes > 1:
        raise UsageError(
            f"expected one process for {given[0]}, but {n_processes} came; leave torchrun out"
        )


def list_styles() -> int:
    """Print the included style cards: name, title, source."""
    from stylenet.applying.styles import included
    from stylenet.looks import StyleCard

    for path in included():
        card = StyleCard.load(path)
        print(f"{path.stem:<16}{card.title}  ({card.source})")
    return 0


def save_style(options: argparse.Namespace) -> int:
    """Exit code after a style card is written."""
    from stylenet import files, images
    from stylenet.applying import styles
    from stylenet.looks import CARD_SUFFIX

    target = Path(options.save_style)
    if target.suffix.lower() != CARD_SUFFIX:
        raise UsageError(
            f"expected a name ending in {CARD_SUFFIX} as --save-style, but {target} came"
        )
    check_unused(
        options,
        "--save-style, which keeps a style for later calls",
        ("content", "output", "mask", "stroke", "sweep", "seamless", *OF_DATA_SETS, *OF_CLIPS),
        {"alpha": 1.0, "colour": "style"},
    )
    files.check_writable(target.parent)
    paths = list(images.iterate_images(options.style))
    cards = [path.name for path in paths if styles.is_card(path)]
    if cards:
        raise UsageError(
            f"expected pictures with --save-style, but {cards[0]} is a style card; give the "
            "paintings"
        )
    controls_of(options, paths)
    stylizer = load_stylizer(options)
    check_styles(options, stylizer)
    source = ", ".join(path.name for path in paths[:3]) + (" …" if len(paths) > 3 else "")
    pictures: list[Any] = [images.load_bytes(path, options.style_size or None) for path in paths]
    card = stylizer.make_card(pictures, target.stem, source, options.weights, options.style_mask)
    card.save(target)
    line = f"wrote {target}: {target.stat().st_size / 1000:.1f} kB, {source}"
    tell(options, {"style": [str(path) for path in paths], "output": str(target)}, line)
    return 0


# options by what they are for
OF_DATA_SETS = ("pairs", "keep_folders", "format", "keep_metadata", "crop", "batch", "workers")
OF_CLIPS = ("video", "smooth", "fps")


def check_unused(
    options: argparse.Namespace,
    purpose: str,
    unused: Sequence[str],
    changed: dict[str, Any] | None = None,
) -> None:
    """Raise UsageError for options that would be ignored.

    They are `unused` where given, or `changed` where they are not as this says.
    """
    given = [name for name in unused if getattr(options, name) not in (None, False)]
    given += [name for name, usual in (changed or {}).items() if getattr(options, name) != usual]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"expected no {names} with {purpose}; leave that out")


PIPE = "-"


def is_piped_picture(options: argparse.Namespace) -> bool:
    """Whether standard input is one picture: --format or a picture's name as --output says so."""
    from stylenet import images

    suffix = Path(options.output).suffix.lower()
    return options.content == [PIPE] and bool(options.format or suffix in images.SUFFIXES)


@contextlib.contextmanager
def piped(options: argparse.Namespace) -> Iterator[None]:
    """Context in which pictures from and to pipes lie in files."""
    if options.content != [PIPE] and options.output != PIPE:
        yield
        return
    if options.pairs:
        raise UsageError("expected no --pairs with a pipe, which is one picture; leave that out")
    check_json(options)
    with tempfile.TemporaryDirectory(prefix="stylenet-") as folder:
        if options.content == [PIPE]:
            content = Path(folder) / "stdin.png"  # Pillow looks at the bytes, not at the name
            content.write_bytes(sys.stdin.buffer.read())
            options.content = [str(content)]
            options.aliases |= dict.fromkeys((str(content), content.name), "standard input")
        if options.output != PIPE:
            yield
            return
        target = Path(folder) / f"stdout.{options.format or 'png'}"
        options.output = str(target)
        options.aliases[str(target)] = "standard output"
        with contextlib.redirect_stdout(sys.stderr):
            yield
        if target.is_file():
            sys.stdout.buffer.write(target.read_bytes())
            sys.stdout.buffer.flush()


def check_json(options: argparse.Namespace) -> None:
    """Raise UsageError for --json where standard output is the picture or the video."""
    if options.json and options.output == PIPE:
        raise UsageError(
            "expected no --json with --output -, where standard output is the result itself; "
            "leave that out"
        )


def controls_of(options: argparse.Namespace, paths: Sequence[Path]) -> Any:
    """The controls that the options ask for, checked against the styles."""
    from stylenet.applying.styles import Controls

    if options.stroke is not None and options.style_size != DEFAULT_PX:
        raise UsageError(
            "expected --stroke or --style-size, but both came; --stroke gives the style a size "
            "by the content's"
        )
    part = Path(options.style_mask) if options.style_mask else None
    masks = tuple(options.mask or ())
    controls = Controls(options.colour, options.stroke, masks, part, options.seamless)
    controls.check(paths)
    return controls


def sweep(options: argparse.Namespace) -> int:
    """Exit code after a labelled sheet is written."""
    from stylenet import files, images
    from stylenet.applying import sheet
    from stylenet.applying.pictures import on_grid
    from stylenet.applying.plan import Pictures
    from stylenet.applying.styles import Looks, encode, read

    target = Path(options.output)
    unused = [name for name in (*OF_DATA_SETS, *OF_CLIPS) if name != "crop"]
    check_unused(options, "--sweep, which makes one sheet", ("weights", *unused))
    if target.suffix.lower() not in images.SUFFIXES:
        raise UsageError(f"expected one picture as --output with --sweep, but {target} came")
    stylizer = load_stylizer(options)
    if not stylizer.family.takes_styles:
        raise UsageError(
            f"expected a model for any style with --sweep, but {options.model} has one of its own; "
            "leave --sweep out"
        )
    contents, paths = Pictures(options.content), Pictures(options.style or [])
    if len(contents) != 1 or not len(paths):
        raise UsageError(
            f"expected one content and some styles with --sweep, but {len(contents)} and "
            f"{len(paths)} came"
        )
    check_place(target, target.parent, options)
    check_inputs_stay(target.parent, [target.name], contents, paths, options)
    files.check_writable(target.parent)
    rows = sheet.cells(options.sweep, paths.labels(), options.alpha)
    path = contents.paths[0]
    pixels = images.load_bytes(path, options.size or None, options.crop)
    pixels = on_grid(pixels) if options.seamless else pixels
    looks = Looks(controls_of(options, paths.paths), None, options.style_size, options.crop)
    wanted = looks.wanted(paths.paths, path, min(pixels.shape[-2:]))
    codes = [encode(stylizer, read(item, lambda _: pixels)) for item in wanted]
    content, n = stylizer.encode_content(pixels, options.seamless), len(paths)

    def draw(cell: sheet.Cell) -> Any:
        used = [k for k in range(n) if cell.mixture[k] > 0]
        looks.mixture = [cell.mixture[k] for k in used]
        look = looks.make(path, [*(codes[k] for k in used), *codes[n:]], cell.alpha)
        return stylizer.render(content, look)[0]

    made = sheet.make_sheet(rows, draw)
    images.save_image(images.to_bytes_tensor(made).permute(1, 2, 0), target)
    name, place = (options.aliases.get(str(file), str(file)) for file in (path, target))
    tell(options, {"content": name, "output": place}, f"wrote {place}")
    return 0


def print_facts(aliases: dict[str, str], facts: dict[str, Any]) -> None:
    """Print the facts of a picture as a line of JSON, with the names that users know."""
    named = {key: aliases.get(value, value) for key, value in facts.items()}
    print(json.dumps(named, ensure_ascii=False), flush=True)


def tell(options: argparse.Namespace, facts: dict[str, Any], line: str) -> None:
    """Print a summary for people; with --json the facts, and the summary to stderr."""
    if options.json:
        print(json.dumps(facts, ensure_ascii=False), flush=True)
    print(line, file=sys.stderr if options.json else sys.stdout)


def check_method(options: argparse.Namespace) -> None:
    """Raise UsageError for options that a method without a trained network does not have."""
    names = ("model", "encoder", "batch", "workers", "compile", "smooth", "fps", "video")
    names += ("mask", "style_mask", "stroke", "sweep", "save_style", "seamless", "json")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]
    changed = {"alpha": 1.0, "precision": "fp32", "tile": "auto", "colour": "style"}
    given += [f"--{name}" for name, value in changed.items() if getattr(options, name) != value]
    if given:
        raise UsageError(
            f"expected no {', '.join(given)} with --method {options.method}, which optimises the "
            "pixels of one picture after the other without a trained model; leave it out"
        )


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
    is_open = options.style is None and not options.method and not options.mask
    stylizer = load_stylizer(options) if is_open else None
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
    controls = controls_of(options, styles.paths)
    needs = {"a mask": controls.masks, "a style's own mask": controls.part}
    needs["a seamless texture"] = controls.is_seamless
    for need in (name for name, value in needs.items() if value):
        stylizer.check_masks(need)
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
        controls,
        functools.partial(print_facts, options.aliases) if options.json else None,
    )
    place = options.aliases.get(options.output, options.output)
    print(summary(outcome, place), file=sys.stderr if options.json else sys.stdout)
    return DataError.exit_code if outcome.n_skipped else 0


def check_styles(options: argparse.Namespace, stylizer: Stylizer | None) -> None:
    """Raise UsageError unless styles came where the model takes some, and none else."""
    if options.method and options.style is None:
        raise UsageError(
            f"expected --style with --method {options.method}, but none came; give one"
        )
    if stylizer is not None and not stylizer.family.takes_styles and options.mask:
        stylizer.check_masks()
    takes_styles = stylizer is not None and stylizer.family.takes_styles
    if takes_styles and options.style is None and not options.mask:
        raise UsageError("expected --style, but none came; give a picture or a folder")
    if stylizer is not None and not stylizer.family.takes_styles and options.style is not None:
        raise UsageError(
            f"expected no --style with {options.model}, which has the one style that it was "
            "trained on; leave --style out"
        )
    if stylizer is not None and not stylizer.family.takes_styles:
        purpose = f"{options.model}, which has the one style that it was trained on"
        changed = {"colour": "style"} if options.colour == "matched" else {}
        check_unused(options, purpose, ("stroke", "style_mask", "weights"), changed)


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
        "" if options.style else name_of_looks(options),
    )
    folder = output.parent if is_file else output
    check_place(output, folder, options)
    if options.output in options.aliases and len(plan) > 1:
        raise UsageError(
            f"expected one picture for --output -, standard output, but {len(plan)} came; give a "
            "folder"
        )
    if is_file and len(plan) > 1:
        raise UsageError(
            f"expected a folder as --output for {len(plan)} pictures, but {output} is a file "
            "name; leave the suffix out"
        )
    check_inputs_stay(folder, (job.output for job in plan.jobs()), contents, styles, options)
    return plan, folder


def name_of_looks(options: argparse.Namespace) -> str:
    """What pictures without --style are named by: the regions' styles, or the model's style."""
    if options.mask:
        return "+".join(dict.fromkeys(masking.style.stem for masking in options.mask))
    return name_of_model(options.model)


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
    for place in map(Path, (*options.content, *(options.style or []), *masks_of(options))):
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


def check_inputs_stay(
    folder: Path,
    outputs: Iterable[str],
    contents: Pictures,
    styles: Pictures,
    options: argparse.Namespace,
) -> None:
    """Raise UsageError if one of the outputs in the folder is a content, a style or a mask."""
    home, masks = folder.resolve(), [path.resolve() for path in masks_of(options)]
    roots = {*contents.roots, *styles.roots, *(path.parent for path in masks)}
    # most outputs lie apart from the inputs, and a data set has millions of both
    apart = [
        not (root.is_relative_to(home) or home.is_relative_to(root))
        for root in map(Path.resolve, roots)
    ]
    if all(apart):
        return
    inputs = [*contents.paths, *styles.paths, *masks]
    real = {parent: parent.resolve() for parent in {path.parent for path in inputs}}
    taken = {real[path.parent] / path.name for path in inputs}
    if not options.keep_folders and not options.pairs:  # names without folders
        taken = {path for path in taken if path.parent == home}
    if not taken:
        return
    replaced = next((output for output in outputs if home / output in taken), None)
    if replaced is not None:
        raise UsageError(
            f"expected inputs that no picture replaces, but {folder / replaced} is one and would "
            "be; give another --output"
        )


def masks_of(options: argparse.Namespace) -> list[Path]:
    """The files of masks and of their regions' styles."""
    files = [path for masking in options.mask or () for path in masking if path]
    return [*files, *([Path(options.style_mask)] if options.style_mask else [])]


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
    "colour",
    "stroke",
    "seamless",
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
    settings["masks"] = [
        [sha256_of_file(path) if path else None for path in masking]
        for masking in options.mask or ()
    ]
    # a record of an earlier version has no entry
    settings |= {"keep_metadata": True} if options.keep_metadata else {}
    settings["style_mask"] = sha256_of_file(options.style_mask) if options.style_mask else None
    settings |= maker or {"model": stylizer.identify(options.model, options.encoder)}
    settings |= {"content": contents.describe(), "style": styles.describe()}
    return Record(folder, settings, runtime.rank(), runtime.world_size())


def stylise_clip(options: argparse.Namespace) -> int:
    """Exit code after one clip is stylised: 0, or 3 if a part could not be read."""
    from stylenet import images, looks
    from stylenet.applying import styles, video
    from stylenet.applying.clips import reading, writing

    useless = (*OF_DATA_SETS, "sweep", "seamless")
    check_json(options)
    conflicts = [f"--{name.replace('_', '-')}" for name in useless if getattr(options, name)]
    if conflicts:
        raise UsageError(
            f"expected pictures for {', '.join(conflicts)}, but a clip came; leave that out"
        )
    stylizer = load_stylizer(options)
    check_styles(options, stylizer)
    paths = list(images.iterate_images(options.style or []))
    controls = controls_of(options, paths)
    if options.weights is None and len(paths) > 1:
        raise UsageError(
            f"expected one style for a clip, but {len(paths)} came; give one, or mix them with "
            "--weights"
        )
    if paths or options.weights is not None:
        looks.check_mixture(options.weights, len(paths))
    source = reading.open_source(options.content[0], options.size, options.fps)
    asked = styles.Looks(controls, options.weights, options.style_size)

    def look_for(frame: Tensor) -> Look:
        wanted = asked.wanted(paths, Path(source.name), min(frame.shape[-2:]))
        codes = [styles.encode(stylizer, styles.read(item, lambda _: frame)) for item in wanted]
        takes_styles = stylizer.family.takes_styles
        return asked.make(Path(source.name), codes, options.alpha, takes_styles)

    with writing.open_target(options.output, source) as target:
        smooth_s = video.SMOOTH_S if options.smooth is None else options.smooth
        result = video.stylise(source, target, stylizer, look_for, smooth_s)
    facts = {"content": options.content[0], "output": options.output, "summary": result}
    if options.output == reading.PIPE:  # standard output is the video itself
        print(f"wrote {options.output}: {result}", file=sys.stderr)
    else:
        tell(options, facts, f"wrote {options.output}: {result}")
    if source.damage:
        print(f"error: {source.damage}; what could be decoded is kept", file=sys.stderr)
    return DataError.exit_code if source.damage else 0
