"""Making the pictures of a plan.

Decoding, computing and encoding overlap. Contents of one size share a batch.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from stylenet import images, runtime
from stylenet.applying import overlap, styles
from stylenet.applying.plan import Job, Plan
from stylenet.applying.record import Record
from stylenet.applying.styles import Controls, Looks, Wanted
from stylenet.applying.stylizer import GRID_PX, Encoded, Stylizer, join, separate
from stylenet.errors import DataError
from stylenet.looks import Look
from stylenet.progress import Progress
from stylenet.transforms import StyleCode

# the limit of all style codes in memory: AdaIN's take 4 kB each, those of EFDM at 512² take 8 MB
CODE_BYTES = 1 << 30
CUDA_BATCH = 8


class Sizes(NamedTuple):
    """How pictures are read.

    `content_px` and `style_px` are shortest sides in pixels, 0 for the original size. With
    `is_square` only the square in the middle of a content is used.
    """

    content_px: int
    style_px: int
    is_square: bool = False


class Ready(NamedTuple):
    """A job with its inputs."""

    job: Job
    pixels: Tensor  # uint8 [3, H, W]
    look: Look

    def kind(self) -> Hashable:
        """The key of a batch: its jobs share strength, size, shapes of codes and masks."""
        return (
            self.look.alpha,
            self.pixels.shape,
            tuple(part.shape for code in self.look.codes for part in code),
            tuple(id(region.mask) for region in self.look.regions),
        )


class Outcome(NamedTuple):
    """The counts of this process's share of the pictures."""

    n_jobs: int
    n_made: int
    n_kept: int  # already present
    n_skipped: int  # for an input that cannot be read


def make_pictures(
    stylizer: Stylizer,
    plan: Plan,
    folder: Path,
    record: Record | None,
    sizes: Sizes,
    mixture: Sequence[float] | None = None,
    n_batch: int | None = None,
    n_threads: int | None = None,
    keeps_metadata: bool = False,
    controls: Controls = Controls(),  # noqa: B008 - a constant
    told: Callable[[dict[str, Any]], None] | None = None,
) -> Outcome:
    """Make every missing picture of this process's share; returns the counts.

    Broken inputs are reported and skipped. With `keeps_metadata` a picture has its content's EXIF
    block and the profile of sRGB. `told` gets the facts of each picture that was made.
    """
    n_threads = n_threads or runtime.n_threads()
    n_batch = n_batch or (CUDA_BATCH if stylizer.device.type == "cuda" else 1)
    n_jobs = plan.count(runtime.rank(), runtime.world_size())
    with (
        record or contextlib.nullcontext(),
        ThreadPoolExecutor(n_threads) as pool,
        Progress(n_jobs, "picture", is_shown=runtime.is_main()) as progress,
        overlap.Writer(pool, 2 * n_threads) as writer,
    ):
        looks = Looks(controls, mixture, sizes.style_px, sizes.is_square)
        making = Making(stylizer, plan, folder, record, sizes, looks, pool, progress, told)
        reads = overlap.look_ahead(making.missing(), making.start, n_threads + 2 * n_batch)
        for batch in overlap.batches(
            making.readable(reads), Ready.kind, n_batch, n_waiting=4 * n_batch
        ):
            for item, pixels in zip(batch, making.render(batch), strict=True):
                writer.submit(
                    functools.partial(making.save, item.job, pixels, keeps_metadata),
                    functools.partial(making.note, item.job),
                )
    return Outcome(n_jobs, progress.n_made, progress.n_kept, progress.n_skipped)


class Making:
    """The steps from a job to its file, in order."""

    def __init__(
        self,
        stylizer: Stylizer,
        plan: Plan,
        folder: Path,
        record: Record | None,
        sizes: Sizes,
        looks: Looks,
        pool: Executor,
        progress: Progress,
        told: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.stylizer, self.plan, self.folder, self.record = stylizer, plan, folder, record
        self.sizes, self.looks, self.pool, self.progress = sizes, looks, pool, progress
        self.told = told
        self.codes = StyleCodes(functools.partial(styles.encode, stylizer), self.read_style)
        self.encoded: dict[int, Encoded] = {}  # the last batch's contents, by number
        self.last: tuple[int, Future] | None = None  # the newest content and its read
        self.broken: set[str] = set()

    def missing(self) -> Iterator[Job]:
        """This process's jobs, without those whose pictures the data set already has."""
        for job in self.plan.jobs(runtime.rank(), runtime.world_size()):
            if self.record and self.plan.row(job) in self.record:
                # a kill after the picture leaves it without a row; a second row does no harm
                self.record.add(self.plan.row(job))
                self.progress.step("kept")
            else:
                yield job

    def start(self, job: Job) -> tuple[Job, Future]:
        """The job and the future of its content, which consecutive jobs share.

        Threads also begin to read its styles.
        """
        for wanted in self.wanted(job):
            self.codes.expect(wanted)
        if self.last is None or self.last[0] != job.content:
            self.last = (
                job.content,
                self.pool.submit(self.read_content, self.plan.contents.paths[job.content]),
            )
        return job, self.last[1]

    def wanted(self, job: Job) -> list[Wanted]:
        """The styles of a job, as its content asks for them."""
        path, shortest_px = self.plan.contents.paths[job.content], self.sizes.content_px
        if self.looks.controls.stroke is not None and not shortest_px:
            with contextlib.suppress(DataError):  # it is reported when the content is read
                shortest_px = min(images.shown_size(path))
        if self.looks.controls.is_seamless:
            shortest_px = nearest_on_grid(shortest_px)
        return self.looks.wanted(self.plan.styles[job.style], path, shortest_px)

    def read_content(self, path: Path) -> Tensor:
        """A content as uint8 [3, H, W]; for a seamless texture on the grid of the features."""
        pixels = images.load_bytes(path, self.sizes.content_px or None, self.sizes.is_square)
        return on_grid(pixels) if self.looks.controls.is_seamless else pixels

    def seamless(self) -> list[bool]:
        """What `encode_content` gets beside the pictures."""
        return [True] if self.looks.controls.is_seamless else []

    def read_style(self, wanted: Wanted) -> Future:
        """A style, read in a thread."""
        return self.pool.submit(styles.read, wanted, self.read_content)

    def readable(self, started: Iterable[tuple[Job, Future]]) -> Iterator[Ready]:
        """The jobs with their inputs.

        An unreadable input is reported once, and its jobs are skipped.
        """
        for job, content in started:
            try:
                codes = [self.codes[wanted] for wanted in self.wanted(job)]
                takes_styles = self.stylizer.family.takes_styles
                path = self.plan.contents.paths[job.content]
                look = self.looks.make(path, codes, job.alpha, takes_styles)
                yield Ready(job, content.result(), look)
            except DataError as error:
                self.report(error)
                self.progress.step("skipped")

    def report(self, error: DataError) -> None:
        """Print once that a broken input is skipped."""
        if str(error) not in self.broken:
            print(f"error: {error}; skipped", file=sys.stderr)
        self.broken.add(str(error))

    def render(self, batch: Sequence[Ready]) -> Tensor:
        """The stylised pictures of a batch, uint8 [N, H, W, 3].

        A batch is halved if it does not fit the GPU's memory even in tiles.
        """
        try:
            return self.render_at_once(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # outside the handler, which keeps the tensors of the failed pass alive
        half = len(batch) // 2
        return torch.cat([self.render(batch[:half]), self.render(batch[half:])])

    def render_at_once(self, batch: Sequence[Ready]) -> Tensor:
        """The same in one pass; consecutive jobs of a content share its features."""
        fresh = {
            item.job.content: item.pixels for item in batch if item.job.content not in self.encoded
        }
        if fresh:
            encoded = self.stylizer.encode_content(
                torch.stack(list(fresh.values())), *self.seamless()
            )
            self.encoded |= dict(zip(fresh, separate(encoded), strict=True))
        # only this batch's contents stay: a content's jobs follow each other
        self.encoded = {item.job.content: self.encoded[item.job.content] for item in batch}
        content = join([self.encoded[item.job.content] for item in batch])
        return self.stylizer.render_pixels(content, [item.look for item in batch])

    def save(self, job: Job, pixels: Tensor, keeps_metadata: bool) -> None:
        """Write a picture."""
        content = self.plan.contents.paths[job.content]
        images.save_image(
            pixels,
            self.folder / job.output,
            self.record.scratch if self.record else None,
            images.metadata_of(content) if keeps_metadata else None,
        )

    def note(self, job: Job) -> None:
        """Count a written picture and add its row."""
        if self.record:
            self.record.add(self.plan.row(job))
        if self.told:
            content, style, output, _ = self.plan.row(job)
            facts = {"content": content, "style": style, "output": str(self.folder / output)}
            self.told(facts | {"alpha": job.alpha})
        self.progress.step("made")


def on_grid(pixels: Tensor) -> Tensor:
    """The picture uint8 [3, H, W] resized to the nearest multiples of GRID_PX."""
    size = [nearest_on_grid(side) for side in pixels.shape[-2:]]
    if list(pixels.shape[-2:]) == size:
        return pixels
    return images.to_bytes_tensor(
        images.to_pil(images.to_unit(pixels)).resize(size[::-1], Image.Resampling.LANCZOS)
    )


def nearest_on_grid(side_px: int) -> int:
    """The nearest multiple of GRID_PX, but not 0."""
    return max(GRID_PX, round(side_px / GRID_PX) * GRID_PX)


class StyleCodes:
    """A cache of style codes by what is wanted, of at most `max_bytes`.

    The code that was used longest ago leaves first. An unreadable style raises its DataError each
    time.
    """

    def __init__(
        self,
        encode: Callable[[Any], StyleCode],
        read: Callable[[Hashable], Future],
        max_bytes: int = CODE_BYTES,
    ) -> None:
        self.encode, self.read, self.max_bytes, self.n_bytes = encode, read, max_bytes, 0
        self.coming: dict[Hashable, Future] = {}
        self.known: OrderedDict[Hashable, StyleCode | DataError] = OrderedDict()

    def expect(self, key: Hashable) -> None:
        """Start to read a style whose code is not known."""
        if key not in self.known and key not in self.coming:
            self.coming[key] = self.read(key)

    def __getitem__(self, key: Hashable) -> StyleCode:
        if key not in self.known:
            self.known[key] = self.make(key)
            self.n_bytes += size_of(self.known[key])
        self.known.move_to_end(key)
        # the last entry always stays, even if it alone exceeds the limit
        while self.n_bytes > self.max_bytes and len(self.known) > 1:
            self.n_bytes -= size_of(self.known.popitem(last=False)[1])
        entry = self.known[key]
        if isinstance(entry, DataError):
            raise entry
        return entry

    def make(self, key: Hashable) -> StyleCode | DataError:
        """The style's code, or the error of its file."""
        self.expect(key)
        try:
            return self.encode(self.coming.pop(key).result())
        except DataError as error:
            return error


def size_of(code: StyleCode | DataError) -> int:
    """Bytes of a style code; 0 for an error."""
    return 0 if isinstance(code, DataError) else sum(part.nbytes for part in code)
