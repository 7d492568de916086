"""Prepare images for training: check a folder, or pack two of them into one small file.

python data/prepare.py check DIR [--output manifest.csv] [--held-out 0.02]
python data/prepare.py pack --content DIR --style DIR --px 256 --max-mb 40 --output pack.tar
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import os
import sys
import tarfile
import warnings
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stylenet import files, images, progress
from stylenet.csv_files import format_row, write_rows
from stylenet.datasets import MANIFEST_SUFFIXES, choose_held_out, read_split
from stylenet.errors import DataError, Parser, UsageError, run_script

UNUSABLE = ("corrupt", "truncated", "huge", "tiny", "duplicate")  # left out of the manifest
NOTED = ("CMYK", "alpha", "16-bit", "EXIF-rotated")  # converted when read, listed for information
COLUMNS = ("path", "width", "height", "bytes", "sha256", "split")
QUALITIES = tuple(range(90, 29, -5))  # of WebP, best first
LONGEST_PX = 16383  # of a side in WebP
N_PROBED = 48  # pictures by which a quality is chosen
TAR_BYTES = 512 + 511 + 128  # of a file at most: header, padding, row of the manifest
TAR_END = 10_240 + 4096  # its last block, and the manifests' own headers


@dataclass
class Finding:
    """The facts about one file."""

    path: Path
    bytes: int = 0
    width: int = 0
    height: int = 0
    sha256: str = ""
    pixels_sha256: str = ""
    marks: list[str] = field(default_factory=list)  # of UNUSABLE and NOTED
    message: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether it goes into the manifest."""
        return not set(self.marks) & set(UNUSABLE)


def main(arguments: list[str]) -> int:
    """Exit code of one call."""
    options = make_parser().parse_args(arguments)
    return check(options) if options.command == "check" else pack(options)


def check(options: argparse.Namespace) -> int:
    """Write the manifest of a folder; exit code 0, whatever it leaves out."""
    folder = Path(options.folder)
    target = Path(options.output) if options.output else beside(folder)
    if not folder.is_dir():
        raise DataError(f"expected a folder of images, but {folder} is none; check the path")
    check_options(options.held_out, target)
    paths = images.list_images(folder)
    if not paths:
        raise DataError(images.no_images_message(folder))
    findings = inspect_all(paths, options.min_px, options.workers)
    mark_duplicates(findings)
    print_findings(findings, folder)
    usable = [finding for finding in findings if finding.is_usable]
    if not usable:
        raise DataError(
            f"expected usable images in {folder}, but all {len(findings)} were left out; see the "
            "list above"
        )
    note = images.passed_over(folder)
    if note:
        print(note)
    held_out = split_of(folder, paths, usable, options.held_out)
    write_manifest(usable, held_out, target)
    print(
        f"wrote {target}: {len(usable) - len(held_out)} to train, {len(held_out)} held out, "
        f"{len(findings) - len(usable)} left out"
    )
    return 0


def make_parser() -> Parser:
    """The parser of the command line."""
    parser = Parser(
        prog="data/prepare.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    check = commands.add_parser(
        "check", help="decode every image, list what is wrong, write a manifest"
    )
    check.add_argument("folder", metavar="DIR", help="folder of images, read recursively")
    check.add_argument(
        "--output",
        metavar="FILE",
        help="manifest to write, .csv or .tsv (default DIR.csv beside DIR)",
    )
    check.add_argument(
        "--held-out",
        type=float,
        default=0.02,
        metavar="SHARE",
        help="share kept for validation, as data.held_out of train.py (default 0.02)",
    )
    check.add_argument(
        "--min-px",
        type=int,
        default=64,
        help="shortest side below which an image is tiny (default 64)",
    )
    packing = commands.add_parser(
        "pack", help="shrink contents and styles and put them into one .tar of limited size"
    )
    for kind in ("content", "style"):
        packing.add_argument(
            f"--{kind}", required=True, metavar="PATH", help="folder, or manifest of `check`"
        )
    packing.add_argument(
        "--px",
        type=int,
        default=256,
        help="shortest side (default 256); smaller pictures stay as they are",
    )
    packing.add_argument(
        "--max-mb",
        type=float,
        default=40.0,
        help="size of the file, in units of 1,000,000 bytes (default 40)",
    )
    packing.add_argument(
        "--held-out",
        type=float,
        default=0.02,
        help="share of a folder kept for validation (default 0.02)",
    )
    packing.add_argument(
        "--output", default="pack.tar", metavar="FILE", help="file to write (default pack.tar)"
    )
    for command in (check, packing):
        command.add_argument(
            "--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)"
        )
    return parser


def beside(folder: Path) -> Path:
    """The manifest beside a folder, since nothing is written into it unasked.

    Raises UsageError for another file of that name.
    """
    target = folder.resolve().parent / f"{folder.resolve().name}.csv"
    if target.is_file():
        with open(target, encoding="utf-8-sig", errors="replace") as stream:
            is_manifest = stream.readline().strip() == ",".join(COLUMNS)
        if not is_manifest:
            raise UsageError(
                f"expected {target} to be a manifest or absent, but it is another file; give "
                "--output"
            )
    return target


def check_options(held_out: float, target: Path) -> None:
    """Raise UsageError before the long work rather than after it."""
    if not 0 <= held_out < 1:
        raise UsageError(f"expected --held-out in [0, 1), but {held_out} came")
    if target.suffix.lower() not in MANIFEST_SUFFIXES:
        raise UsageError(
            f"expected a manifest named {' or '.join(MANIFEST_SUFFIXES)}, but {target.name!r} came"
        )
    if target.is_dir():
        raise UsageError(f"expected a file as --output, but {target} is a folder")
    files.check_writable(target.parent)


def inspect_all(paths: list[Path], min_px: int, n_workers: int) -> list[Finding]:
    """A finding for every file, in order, made in parallel."""
    with ProcessPoolExecutor(max(1, n_workers)) as pool:
        findings = pool.map(inspect, paths, [min_px] * len(paths), chunksize=8)
        return list(progress.shown(findings, len(paths), "image"))


def inspect(path: Path, min_px: int) -> Finding:
    """The finding of one file, which is decoded fully."""
    finding = Finding(path)
    try:
        files.check_regular(path, "an image")
        content = path.read_bytes()
        finding.bytes, finding.sha256 = len(content), hashlib.sha256(content).hexdigest()
        finding.marks += header_marks(path)
        image = images.open_rgb(path)
    except (DataError, OSError) as error:
        finding.message = str(error)
        # Pillow has no exception of its own for truncated files
        is_truncated = "truncated" in str(error.__context__)
        finding.marks.append(
            "huge"
            if isinstance(error, images.TooLargeError)
            else "truncated"
            if is_truncated
            else "corrupt"
        )
        return finding
    finding.width, finding.height = image.size
    finding.pixels_sha256 = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    if min(image.size) < min_px:
        finding.marks.append("tiny")
    return finding


def header_marks(path: Path) -> list[str]:
    """The marks that a file's header gives; none if it cannot be read."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=images.FORMATS) as image,
        ):
            layout = str(image.tile)  # before getexif, which loads a PNG and forgets it
            bands = image.getbands()
            facts = {
                "CMYK": image.mode == "CMYK",
                "alpha": "A" in bands or "transparency" in image.info,
                # Pillow reads 16-bit RGB as 8-bit, so only the layout tells
                "16-bit": image.mode.startswith("I") or ";16" in layout,
                "EXIF-rotated": images.turn_of(image) is not None,
            }
    except Exception:  # Pillow raises many kinds for damaged headers; decoding says which it is
        return []
    return [mark for mark, is_so in facts.items() if is_so]


def mark_duplicates(findings: list[Finding]) -> None:
    """Mark every file whose decoded picture came before.

    The pixels are compared, so changed metadata hides no duplicate.
    """
    first: dict[str, Path] = {}
    for finding in findings:
        if not finding.is_usable:
            continue
        original = first.setdefault(finding.pixels_sha256, finding.path)
        if original != finding.path:
            finding.marks.append("duplicate")
            finding.message = f"{finding.path}: the same picture as {original}"


def print_findings(findings: list[Finding], folder: Path) -> None:
    """Print every mark with its files."""
    by_mark: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        for mark in finding.marks:
            by_mark[mark].append(finding)
    print(f"{len(findings)} images in {folder}")
    for mark in (*UNUSABLE, *NOTED):
        for finding in by_mark[mark]:
            print(f"  {mark}: {finding.message or finding.path}")
        remark = "left out" if mark in UNUSABLE else "converted when read"
        print(f"{mark}: {len(by_mark[mark])}" + (f" ({remark})" if by_mark[mark] else ""))


def split_of(folder: Path, paths: list[Path], usable: list[Finding], share: float) -> set[Path]:
    """The held-out images, as training chooses them from the folder itself.

    Only where none of these is usable, another one is held out.
    """
    kept = [finding.path for finding in usable]
    return choose_held_out(folder, paths, share) & set(kept) or choose_held_out(folder, kept, share)


def write_manifest(usable: list[Finding], held_out: set[Path], target: Path) -> None:
    """Write one row for each usable image; paths are relative to the manifest's folder."""
    root = target.absolute().parent

    def row(f: Finding) -> list[Any]:
        relative = Path(os.path.relpath(f.path.absolute(), root)).as_posix()
        return [
            relative,
            f.width,
            f.height,
            f.bytes,
            f.sha256,
            "held_out" if f.path in held_out else "train",
        ]

    write_rows(target, COLUMNS, map(row, usable))


@dataclass
class Packed:
    """One picture of a pack."""

    kind: str  # content or style
    path: Path
    split: str
    webp: bytes = b""
    width: int = 0
    height: int = 0
    message: str = ""


def pack(options: argparse.Namespace) -> int:
    """Write both sets as WebP of the best quality that fits, with their manifests.

    The exit code is 0, or 3 if an unreadable picture was left out.
    """
    target, max_bytes = Path(options.output), options.max_mb * 1e6
    if (
        target.suffix.lower() != ".tar"
        or options.px < 16
        or not max_bytes > 0
        or not 0 <= options.held_out < 1
    ):
        raise UsageError(
            "expected --output ending in .tar, --px of 16 or more, --max-mb above 0 and "
            f"--held-out in [0, 1), but {options.output}, "
            f"{options.px}, {options.max_mb:g} and {options.held_out:g} came"
        )
    files.check_writable(target.parent)
    pictures = [
        item
        for kind in ("content", "style")
        for item in list_pictures(kind, getattr(options, kind), options.held_out)
    ]
    with ProcessPoolExecutor(max(1, options.workers)) as pool:
        # the sample may be too optimistic: then the next lower quality follows
        for quality in QUALITIES[
            QUALITIES.index(choose_quality(pool, pictures, options.px, max_bytes)) :
        ]:
            results = pool.map(
                functools.partial(shrink, px=options.px, quality=quality), pictures, chunksize=16
            )
            packed = list(progress.shown(results, len(pictures), "image"))
            if size_of(packed) <= max_bytes:
                break
        else:
            raise UsageError(too_large(options))
    broken = [item for item in packed if item.message]
    for item in broken:
        print(f"error: {item.message}; left out", file=sys.stderr)
    packed = [item for item in packed if not item.message]
    write_pack(packed, target)
    counts = ", ".join(
        f"{sum(item.kind == kind for item in packed)} {kind}s" for kind in ("content", "style")
    )
    print(
        f"wrote {target}: {counts}, {target.stat().st_size / 1e6:.1f} MB, WebP of quality "
        f"{quality}, shortest side {options.px}"
    )
    return DataError.exit_code if broken else 0


def list_pictures(kind: str, origin: str, held_out: float) -> list[Packed]:
    """The pictures of a set with their parts of its split. Raises DataError."""
    split = read_split(origin, held_out, f"--{kind}")
    return [
        Packed(kind, path, name)
        for name, part in zip(split._fields, split, strict=True)
        for path in part.paths
    ]


def choose_quality(
    pool: ProcessPoolExecutor, pictures: list[Packed], px: int, max_bytes: float
) -> int:
    """The best quality at which the set should fit, or the lowest if none does.

    It is judged by pictures that are spread over the set.
    """
    sample = pictures[:: max(1, len(pictures) // N_PROBED)]
    for quality in QUALITIES:
        results = list(pool.map(functools.partial(shrink, px=px, quality=quality), sample))
        if size_of(results) * len(pictures) / len(sample) <= max_bytes:
            return quality
    return QUALITIES[-1]


def shrink(item: Packed, px: int, quality: int) -> Packed:
    """The picture as WebP, its shortest side at most `px`; or its error message."""
    try:
        image = images.open_rgb(item.path)
    except DataError as error:
        return Packed(item.kind, item.path, item.split, message=str(error))
    image = (
        images.resize_shortest(image, px, Image.Resampling.LANCZOS)
        if min(image.size) > px
        else image
    )
    if max(image.size) > LONGEST_PX:
        reason = f"expected sides of at most {LONGEST_PX} pixels, but {max(image.size)} would come"
        return Packed(item.kind, item.path, item.split, message=f"{item.path}: {reason}")
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=4)
    return Packed(item.kind, item.path, item.split, stream.getvalue(), *image.size)


def size_of(packed: list[Packed]) -> int:
    """The size of the file in bytes, at most."""
    return TAR_END + sum(len(item.webp) + TAR_BYTES for item in packed)


def too_large(options: argparse.Namespace) -> str:
    """The message for a set that fits at no quality."""
    return (
        f"expected pictures of {options.px} pixels that fit into {options.max_mb:g} MB at WebP "
        f"quality {QUALITIES[-1]} or more, but they "
        "do not; give a smaller --px or a larger --max-mb"
    )


def write_pack(packed: list[Packed], target: Path) -> None:
    """Write the .tar: <kind>/<number>.webp, and <kind>.csv as `check` writes it.

    The same pictures give the same bytes.
    """
    with (
        files.replaced_file(target) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for kind in ("content", "style"):
            rows = [format_row(COLUMNS)]
            for number, item in enumerate(item for item in packed if item.kind == kind):
                name = f"{kind}/{number:06d}.webp"
                add_file(tar, name, item.webp)
                digest = hashlib.sha256(item.webp).hexdigest()
                rows.append(
                    format_row([name, item.width, item.height, len(item.webp), digest, item.split])
                )
            add_file(tar, f"{kind}.csv", b"".join(rows))


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put bytes into the .tar, without date or owner."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(content), 0o644
    tar.addfile(header, io.BytesIO(content))


if __name__ == "__main__":
    sys.exit(run_script(main))
