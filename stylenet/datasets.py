"""Image sets (folders and manifests), crops, and the stateless sampler.

Sample i of a stream is a function of (seed, stream, i): which image, which crop, mirrored or not.
So a checkpoint needs one integer to continue. The number of loader workers, the cache and a resume
change nothing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stylenet import images, progress, shards
from stylenet.csv_files import read_rows
from stylenet.errors import DataError
from stylenet.motion import Motion, draw_motion

CONTENT, STYLE = 0, 1  # the two streams, drawn independently of each other
# separate random streams within each of the two
PERMUTATION, AUGMENTATION, REPLACEMENT, SCALE, SHIFT, MOTION = range(6)
MANIFEST_SUFFIXES = (".csv", ".tsv")
MAX_REPLACEMENTS = 20  # tries to replace an unreadable image before giving up


@dataclass(frozen=True)
class ImageSet:
    """The paths of one part of a set, in a stable order."""

    origin: str
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)


class Split(NamedTuple):
    """The two parts of a set, which share no file."""

    train: ImageSet
    held_out: ImageSet


def read_split(
    origin: str | None, held_out_share: float, option_name: str, needs_training_part: bool = True
) -> Split:
    """The train and held-out parts of a folder, a manifest or a single picture.

    Raises DataError where there is nothing to train on. Without `needs_training_part` it raises
    only where both parts are empty.
    """
    if not origin:
        raise DataError(
            f"expected a folder or a manifest, but {option_name} is not set; give {option_name}=DIR"
        )
    path = Path(origin).expanduser()
    if shards.is_pattern(origin):
        return read_shards(origin, held_out_share)
    if not path.exists():
        raise DataError(
            f"expected a folder or a manifest, but there is no {origin} ({option_name}); check "
            "the path"
        )
    if path.is_file() and images.is_image_name(path):
        return Split(ImageSet(str(path), (path,)), ImageSet(str(path), ()))
    split = read_folder(path, held_out_share) if path.is_dir() else read_manifest(path)
    if not split.train and (needs_training_part or not split.held_out):
        raise DataError(
            images.no_images_message(origin)
            if path.is_dir()
            else f"expected training images in {origin}, but it lists none"
        )
    return split


def read_folder(folder: Path, held_out_share: float) -> Split:
    """The folder's images, split by the hash of their relative path.

    At least one of two or more images is held out, unless the share is 0.
    """
    paths = images.list_images(folder)
    held_out = choose_held_out(folder, paths, held_out_share)
    train = tuple(path for path in paths if path not in held_out)
    return Split(
        ImageSet(str(folder), train),
        ImageSet(str(folder), tuple(path for path in paths if path in held_out)),
    )


def read_shards(origin: str, held_out_share: float) -> Split:
    """The images in the shards of a pattern, split by the hash of their path below its folder.

    Raises DataError where there are none.
    """
    places = shards.expand(origin)
    paths = [
        place / name
        for place in places
        for name in shards.index(place)
        if images.is_image_name(Path(name))
    ]
    if not paths:
        raise DataError(f"expected images in the shards of {origin}, but there are none")
    held_out = choose_held_out(shared_folder(places), paths, held_out_share)
    parts = ([p for p in paths if p not in held_out], [p for p in paths if p in held_out])
    return Split(*(ImageSet(origin, tuple(part)) for part in parts))


def shared_folder(paths: Sequence[Path]) -> Path:
    """The folder that all of the files lie below."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def choose_held_out(folder: Path, paths: Sequence[Path], share: float) -> set[Path]:
    """The held-out ones of a folder's images, the same in training and in data/prepare.py.

    A hash of the relative path decides and not a random draw: a new file moves hardly any other
    between the parts.
    """
    if not share or not paths:
        return set()
    n = min(len(paths) - 1, max(1, round(share * len(paths))))
    names = {path: os.fsencode(path.relative_to(folder).as_posix()) for path in paths}
    return set(sorted(paths, key=lambda path: hashlib.sha256(names[path]).digest())[:n])


def read_manifest(file: Path) -> Split:
    """The images and the split of a manifest from data/prepare.py.

    Paths are relative to the manifest's folder. Raises DataError for another kind of file, and for
    an image in both parts.
    """
    if file.suffix.lower() not in MANIFEST_SUFFIXES:
        raise DataError(
            f"expected a folder or a manifest ({', '.join(MANIFEST_SUFFIXES)}), but {file} came"
        )
    parts = read_parts(file)
    both = sorted(set(parts["train"]) & set(parts["held_out"]))
    if both:
        raise DataError(
            f"expected each image in one part, but {file} has {both[0]} in both; make it with "
            "data/prepare.py"
        )
    return Split(*(ImageSet(str(file), tuple(paths)) for paths in parts.values()))


def read_parts(file: Path) -> dict[str, list[Path]]:
    """The paths of each part.

    Raises DataError for a missing column and an unknown part.
    """
    parts: dict[str, list[Path]] = {"train": [], "held_out": []}
    for line, row in read_rows(file, ("path", "split"), "make it with data/prepare.py"):
        if row["split"] not in parts or not row["path"]:
            expected = " or ".join(parts)
            raise DataError(
                f"expected a path and a split of {expected} in {file} line {line}, but "
                f"{row['split']!r} came"
            )
        parts[row["split"]].append(file.parent / row["path"])
    return parts


def check_presence(split: Split) -> None:
    """Raise DataError if a file of either part is missing.

    A manifest may be older than the folder.
    """
    missing = [path for part in split for path in part.paths if not shards.holds(path)]
    if missing:
        raise DataError(
            f"expected the images of {split.train.origin}, but {len(missing)} are missing, first "
            f"{missing[0]}; make the manifest anew"
        )


def generator_for(*key: int) -> np.random.Generator:
    """A random generator that depends on the key alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@functools.lru_cache(maxsize=8)
def permutation(seed: int, stream: int, epoch: int, n: int) -> np.ndarray:
    """The order of the images in an epoch."""
    return generator_for(seed, stream, PERMUTATION, epoch).permutation(n)


def image_number(seed: int, stream: int, i: int, n: int) -> int:
    """The number of the image, out of n, that sample i shows.

    Every image appears once an epoch, and each epoch has its own order.
    """
    return int(permutation(seed, stream, i // n, n)[i % n])  # epoch i // n, place i % n


def replacement_number(seed: int, stream: int, i: int, n: int, attempt: int) -> int:
    """The number of the image that replaces an unreadable one.

    Like the sample itself, it depends only on its arguments.
    """
    return int(generator_for(seed, stream, REPLACEMENT, i, attempt).integers(n))


class Crop(NamedTuple):
    """A square crop as two shares of the free range, and whether it is mirrored."""

    top: float
    left: float
    mirrored: bool


def crop_of(seed: int, stream: int, i: int, flip: bool) -> Crop:
    """The crop of sample i, the same for the same arguments."""
    top, left, coin = generator_for(seed, stream, AUGMENTATION, i).random(3)
    return Crop(float(top), float(left), bool(flip and coin < 0.5))


def scale_of(seed: int, stream: int, i: int, scales: Sequence[int]) -> int:
    """The shortest side in pixels at which sample i is seen.

    Half of the styles have their content's scale, the others one of their own.
    """
    # the key has no stream, so both streams draw the same three numbers for sample i
    coin, style_scale, content_scale = generator_for(seed, SCALE, i).random(3)
    fraction = style_scale if stream == STYLE and coin < 0.5 else content_scale
    return scales[int(fraction * len(scales))]


def shift_of(seed: int, step: int) -> tuple[int, int]:
    """The pixels, down and right, by which the shift loss moves the contents of a step.

    They are at most 7 each, but not both 0.
    """
    number = int(generator_for(seed, SHIFT, step).integers(1, 64))  # 8 * down + right
    return number // 8, number % 8


def motion_of(seed: int, step: int, height: int, width: int) -> Motion:
    """The motion of a step's contents in the motion loss."""
    return draw_motion(generator_for(seed, MOTION, step), height, width)


CENTRE = Crop(0.5, 0.5, False)


def cut(pixels: Tensor, crop: Crop, crop_px: int) -> Tensor:
    """The crop of an image [3, H, W], sides at least `crop_px` -> [3, crop_px, crop_px]."""
    height, width = pixels.shape[-2:]
    top, left = int(crop.top * (height - crop_px + 1)), int(crop.left * (width - crop_px + 1))
    square = pixels[:, top : top + crop_px, left : left + crop_px]
    return square.flip(-1) if crop.mirrored else square


def cut_at_scale(pixels: Tensor, crop: Crop, crop_px: int, scale_px: int) -> Tensor:
    """The crop of an image whose shortest side is resized to `scale_px`.

    A smaller image keeps its size. Only the square that is seen is resized: bilinear and
    antialiased.
    """
    factor = max(1.0, min(pixels.shape[-2:]) / scale_px)  # of shrinking
    # crop_px at the scale cover crop_px * factor pixels here; rounding may not exceed the image
    square = cut(pixels, crop, min(round(crop_px * factor), min(pixels.shape[-2:])))
    if square.shape[-1] == crop_px:
        return square
    return F.interpolate(square[None], size=(crop_px, crop_px), mode="bilinear", antialias=True)[0]


class PixelSource:
    """The resized uint8 images of a set by number, from files, memory or the device.

    The shortest side is `resize_px`. With a `floor_px`, smaller pictures keep their size down to
    `floor_px`.
    """

    def __init__(self, image_set: ImageSet, resize_px: int, floor_px: int | None = None) -> None:
        self.image_set, self.resize_px, self.floor_px = image_set, resize_px, floor_px
        self.kept: list[Tensor | DataError] | None = None

    def __len__(self) -> int:
        return len(self.image_set)

    def __getitem__(self, number: int) -> Tensor:
        """The image as uint8 [3, H, W].

        Raises DataError for a file that does not decode.
        """
        pixels = self.kept[number] if self.kept is not None else self.read(number)
        if isinstance(pixels, DataError):  # an unreadable file's error was stored in its place
            raise pixels
        return pixels

    def read(self, number: int) -> Tensor:
        """The image decoded from its file and resized, uint8 [3, H, W]."""
        image = images.open_rgb(self.image_set.paths[number], self.resize_px)
        # the picture's own shortest side, but from floor_px to resize_px
        shortest = (
            min(self.resize_px, max(self.floor_px, min(image.size)))
            if self.floor_px
            else self.resize_px
        )
        return images.to_bytes_tensor(images.resize_shortest(image, shortest))

    def keep(self, device: torch.device, n_threads: int) -> None:
        """Decode every image once, in threads, and hold it on the device.

        An unreadable file keeps its error.
        """

        def attempt(number: int) -> Tensor | DataError:
            try:
                return self.read(number).contiguous().to(device)
            except DataError as error:
                return error

        with ThreadPoolExecutor(max(1, n_threads)) as pool:
            decoded = pool.map(attempt, range(len(self)))
            self.kept = list(progress.shown(decoded, len(self), "image"))


class Sample(NamedTuple):
    """One image of a stream, and the errors of the images that it replaces."""

    pixels: Tensor  # uint8 [3, crop_px, crop_px]
    path: str
    failures: list[tuple[str, str]]  # (path, message) of every unreadable file that was replaced
    is_lost: bool = False  # no replacement could be read either; there are no pixels


class Pair(NamedTuple):
    """A content and a style sample."""

    content: Sample
    style: Sample


class Batch(NamedTuple):
    """A batch of pairs, uint8 until it is on the device.

    That is a quarter of the bytes to transfer.
    """

    content: Tensor  # uint8 [N, 3, crop_px, crop_px]
    style: Tensor
    failures: list[tuple[str, str]]
    is_lost: bool


class PairDataset(Dataset):
    """An endless stream of content and style crops by global sample index.

    The two are paired anew at every step.
    """

    def __init__(
        self,
        content: PixelSource,
        style: PixelSource,
        crop_px: int,
        seed: int,
        flip: bool,
        scales: Sequence[int] = (),
    ) -> None:
        self.sources, self.crop_px, self.seed, self.flip, self.scales = (
            (content, style),
            crop_px,
            seed,
            flip,
            scales,
        )

    def __getitem__(self, i: int) -> Pair:
        return Pair(self.sample(CONTENT, i), self.sample(STYLE, i))

    def sample(self, stream: int, i: int) -> Sample:
        """Sample i of a stream, with another image in place of an unreadable one."""
        source, failures = self.sources[stream], []
        for attempt in range(MAX_REPLACEMENTS):
            number = self.number(stream, i, attempt)
            try:
                pixels = source[number]
            except DataError as error:
                failures.append((str(source.image_set.paths[number]), str(error)))
                continue
            crop = crop_of(self.seed, stream, i, self.flip)
            return Sample(
                self.cut(pixels, crop, stream, i), str(source.image_set.paths[number]), failures
            )
        # no exception: one from a loader worker would reach the user as a page of traceback
        return Sample(torch.empty(0), "", failures, is_lost=True)

    def cut(self, pixels: Tensor, crop: Crop, stream: int, i: int) -> Tensor:
        """The part of an image that sample i shows, uint8 [3, crop_px, crop_px]."""
        if not self.scales:
            return cut(pixels, crop, self.crop_px)
        return cut_at_scale(pixels, crop, self.crop_px, scale_of(self.seed, stream, i, self.scales))

    def number(self, stream: int, i: int, attempt: int) -> int:
        """The number of the image that a sample shows at the given attempt."""
        n = len(self.sources[stream])
        first = attempt == 0
        return (
            image_number(self.seed, stream, i, n)
            if first
            else replacement_number(self.seed, stream, i, n, attempt)
        )

    def paths(self, i: int) -> tuple[str, str]:
        """The content and the style file that sample i shows."""
        return self.sample(CONTENT, i).path, self.sample(STYLE, i).path


def collate(pairs: list[Pair]) -> Batch:
    """Pairs as one batch."""
    samples = [sample for pair in pairs for sample in pair]
    failures = [failure for sample in samples for failure in sample.failures]
    if any(sample.is_lost for sample in samples):
        return Batch(torch.empty(0), torch.empty(0), failures, is_lost=True)
    # [N, 3, crop_px, crop_px] each
    content, style = (
        torch.stack([pair[stream].pixels for pair in pairs]) for stream in (CONTENT, STYLE)
    )
    return Batch(content, style, failures, is_lost=False)


class EndlessSampler(Sampler):
    """One rank's share of the global sample indices from `start` on.

    A step takes `batch_size` indices for each of `world_size` ranks in turn. Two ranks of 4 thus
    see together the eight samples that one process with a batch of 8 would see.
    """

    def __init__(self, start: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.start, self.batch_size, self.rank, self.world_size = (
            start,
            batch_size,
            rank,
            world_size,
        )

    def __iter__(self) -> Iterator[int]:
        base = self.start + self.rank * self.batch_size
        while True:
            yield from range(base, base + self.batch_size)
            base += self.batch_size * self.world_size  # past the other ranks' shares


def make_batches(
    dataset: PairDataset,
    sampler: EndlessSampler,
    n_workers: int,
    pin: bool,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Batch]:
    """The endless stream of batches, which `n_workers` processes read ahead.

    It ends when `is_stopped`, also while it waits for a batch. Raises DataError if the batches on
    their way do not fit the shared memory.
    """
    if n_workers:
        check_shared_memory(n_workers, sampler.batch_size, dataset.crop_px)
    loader = DataLoader(
        dataset,
        batch_size=sampler.batch_size,
        sampler=sampler,
        num_workers=n_workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=_leave_signals_to_the_parent if n_workers else None,
        persistent_workers=n_workers > 0,
        timeout=POLL_S if n_workers else 0,
    )
    batches = iter(loader)
    while not is_stopped():
        try:
            batch = next(batches)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
        else:
            yield batch


POLL_S = 1  # how soon a wait for a batch notices a request to stop
SHARED_MEMORY = Path("/dev/shm")
AHEAD = 2  # batches that each worker holds ready


def check_shared_memory(n_workers: int, batch_size: int, crop_px: int) -> None:
    """Raise DataError if the workers' batches do not fit the shared memory.

    A worker would lose a batch without a word, and the training would wait for it for ever.
    """
    if not SHARED_MEMORY.is_dir():
        return
    needed = n_workers * AHEAD * 2 * batch_size * 3 * crop_px**2  # two images a pair, uint8
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < needed:
        raise DataError(
            f"expected {needed / 2**20:.0f} MiB of shared memory for data.workers={n_workers}, but "
            f"{SHARED_MEMORY} has {free / 2**20:.0f} free; lower data.workers, or raise it (docker "
            "run --shm-size=2g)"
        )


def _leave_signals_to_the_parent(_: int) -> None:
    """Ignore SIGINT and SIGTERM in a loader worker, since the trainer handles them.

    A signal to the whole group must let the trainer save first. A worker that died of one would
    break the trainer's step. The worker ends by itself when the trainer does.
    """
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class BadFiles:
    """The unreadable files so far: each is reported once, and too many are an error."""

    def __init__(self, n_images: int, max_share: float) -> None:
        self.seen: set[str] = set()
        self.n_images, self.max_share = n_images, max_share

    def report(self, batch: Batch) -> None:
        """Print a warning for each new unreadable file of the batch.

        Raises DataError above the share; a single bad file that can be replaced is allowed.
        """
        for path, message in batch.failures:
            if path not in self.seen:
                self.seen.add(path)
                print(f"warning: {message}; another image takes its place", file=sys.stderr)
        if batch.is_lost or len(self.seen) > max(1, self.max_share * self.n_images):
            raise DataError(
                f"expected at most {self.max_share:.1%} unreadable images of {self.n_images}, but "
                f"{len(self.seen)} came; "
                "check the data with data/prepare.py, or raise data.max_bad"
            )


class HeldOutPair(NamedTuple):
    """Two centre crops, [3, crop_px, crop_px] in [0, 1], and their files."""

    content: Tensor
    style: Tensor
    content_path: Path
    style_path: Path


def held_out_pairs(
    split_content: ImageSet,
    split_style: ImageSet,
    n: int,
    crop_px: int,
    resize_px: int,
    floor_px: int | None = None,
) -> list[HeldOutPair]:
    """n fixed pairs of centre crops.

    Sets shorter than n repeat in new pairings. Unreadable files are omitted, with a warning.
    """
    n_contents, n_styles = len(split_content), len(split_style)
    if not n_contents or not n_styles:
        return []
    contents = _readable(PixelSource(split_content, resize_px, floor_px), crop_px, n)
    styles = _readable(PixelSource(split_style, resize_px, floor_px), crop_px, n)
    if not contents or not styles:
        return []
    # each round through the styles starts one further on, so that contents meet other styles
    pairs = []
    for i in range(n):
        content_path, content = contents[i % len(contents)]
        style_path, style = styles[(i + i // len(styles)) % len(styles)]
        pairs.append(HeldOutPair(content, style, content_path, style_path))
    return pairs


def _readable(source: PixelSource, crop_px: int, n: int) -> list[tuple[Path, Tensor]]:
    crops: list[tuple[Path, Tensor]] = []
    # a fixed order that does not depend on the run's seed
    for number in map(int, generator_for(0, PERMUTATION).permutation(len(source))):
        try:
            crop = images.to_unit(cut(source[number], CENTRE, crop_px))
            crops.append((source.image_set.paths[number], crop))
        except DataError as error:
            print(f"warning: {error}; left out of the held-out pairs", file=sys.stderr)
            continue
        if len(crops) == n:
            break
    return crops


def calibration_batches(
    sources: tuple[PixelSource, PixelSource], n: int, crop_px: int, batch_size: int = 8
) -> Iterator[Tensor]:
    """Batches of centre crops of n images, [N, 3, crop_px, crop_px] in [0, 1].

    Half are contents and half styles, spread evenly over the sets. Unreadable files are omitted;
    training names them.
    """
    choices: list[tuple[PixelSource, int]] = []
    for source, share in zip(sources, (n - n // 2, n // 2), strict=True):
        # each number once, also where the set has fewer images than its share
        numbers = np.unique(
            np.linspace(0, len(source) - 1, min(share, len(source))).round().astype(int)
        )
        choices += [(source, int(number)) for number in numbers]
    crops = []
    for source, number in choices:
        try:
            crops.append(images.to_unit(cut(source[number], CENTRE, crop_px)))
        except DataError:
            continue
        if len(crops) == batch_size:
            yield torch.stack(crops)
            crops = []
    if crops:  # the last, smaller batch
        yield torch.stack(crops)


def describe_set(split: Split) -> dict[str, Any]:
    """A set's entry in a checkpoint: its origin, its size, and a hash of its list of files."""
    return {
        "origin": split.train.origin,
        "train": len(split.train),
        "held_out": len(split.held_out),
        "list_sha256": hash_of_list(split.train),
    }


def name_below(path: Path, origin: str) -> str:
    """The path relative to the root of its set, or whole where it does not lie below it.

    The root of a manifest's set is the manifest's folder.
    """
    root = Path(origin)
    root = root if root.is_dir() else root.parent
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def hash_of_list(image_set: ImageSet) -> str:
    """The sha256 of the file names, relative to the set's root where they lie below it."""
    names = (name_below(path, image_set.origin) for path in image_set.paths)
    return hashlib.sha256(os.fsencode("\n".join(names))).hexdigest()
