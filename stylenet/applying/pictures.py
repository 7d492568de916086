"""Making the pictures of a plan: decoding, computing and encoding overlap, contents of one size go
in batches.
"""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stylenet import images, runtime
from stylenet.applying import overlap
from stylenet.applying.plan import Job, Plan
from stylenet.applying.record import Record
from stylenet.applying.stylizer import Features, Stylizer, join, separate
from stylenet.errors import DataError
from stylenet.looks import Look, make_look
from stylenet.progress import Progress
from stylenet.transforms import StyleCode

CODE_BYTES = (
    1 << 30
)  # of encoded styles kept: AdaIN's take 4 kB each, those of EFDM at 512² take 8 MB
CUDA_BATCH = 8


class Sizes(NamedTuple):
    """How pictures are read: shortest sides in pixels, 0 for as they are, and whether only a
    content's square is taken.
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
        """What is the same for all of a batch."""
        return (
            self.look.alpha,
            self.pixels.shape,
            tuple(part.shape for code in self.look.codes for part in code),
        )


class Outcome(NamedTuple):
    """What became of this process's share."""

    n_jobs: int
    n_made: int
    n_kept: int  # there before
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
) -> Outcome:
    """Make and write every picture of this process's share that is not there; broken inputs are
    reported and passed over.
    """
    n_threads = n_threads or runtime.n_threads()
    n_batch = n_batch or (CUDA_BATCH if stylizer.device.type == "cuda" else 1)
    n_jobs = plan.count(runtime.rank(), runtime.world_size())
    with (
        ThreadPoolExecutor(n_threads) as pool,
        Progress(n_jobs, "picture", is_shown=runtime.is_main()) as progress,
        overlap.Writer(pool, 2 * n_threads) as writer,
    ):
        making = Making(stylizer, plan, folder, record, sizes, mixture, pool, progress)
        started = overlap.look_ahead(making.missing(), making.start, n_threads + 2 * n_batch)
        for batch in overlap.batches(
            making.readable(started), Ready.kind, n_batch, n_waiting=4 * n_batch
        ):
            for item, pixels in zip(batch, making.render(batch), strict=True):
                writer.submit(
                    functools.partial(making.save, item.job, pixels),
                    functools.partial(making.note, item.job),
                )
    if record:
        record.close()
    return Outcome(n_jobs, progress.n_made, progress.n_kept, progress.n_skipped)


class Making:
    """The steps from a job to its file, in the order in which they come."""

    def __init__(
        self,
        stylizer: Stylizer,
        plan: Plan,
        folder: Path,
        record: Record | None,
        sizes: Sizes,
        mixture: Sequence[float] | None,
        pool: Executor,
        progress: Progress,
    ) -> None:
        self.stylizer, self.plan, self.folder, self.record = stylizer, plan, folder, record
        self.sizes, self.mixture, self.pool, self.progress = sizes, mixture, pool, progress
        self.codes = StyleCodes(stylizer.encode_style, self.read_style)
        self.features: dict[int, Features] = {}  # of the last batch's contents, by number
        self.last: tuple[int, Future] | None = None  # the content last asked for
        self.broken: set[str] = set()

    def missing(self) -> Iterator[Job]:
        """This process's jobs, without those whose pictures a data set has already."""
        for job in self.plan.jobs(runtime.rank(), runtime.world_size()):
            if self.record and self.plan.row(job) in self.record:
                self.record.add(
                    self.plan.row(job)
                )  # it has none if the process was killed just then; twice does not matter
                self.progress.step("kept")
            else:
                yield job

    def start(self, job: Job) -> tuple[Job, Future]:
        """Set threads to read what the job needs, each file once for jobs in a row."""
        for path in self.plan.styles[job.style]:
            self.codes.expect(path)
        if self.last is None or self.last[0] != job.content:
            self.last = (
                job.content,
                self.pool.submit(self.read_content, self.plan.contents.paths[job.content]),
            )
        return job, self.last[1]

    def read_content(self, path: Path) -> Tensor:
        """A content as uint8 [3, H, W]."""
        return images.load_bytes(path, self.sizes.content_px or None, self.sizes.is_square)

    def read_style(self, path: Path) -> Future:
        """A style as uint8 [3, H, W], read in a thread."""
        return self.pool.submit(images.load_bytes, path, self.sizes.style_px or None)

    def readable(self, started: Iterable[tuple[Job, Future]]) -> Iterator[Ready]:
        """The jobs with their inputs; what cannot be read is reported once, and its jobs are passed
        over.
        """
        for job, content in started:
            try:
                codes = [self.codes[path] for path in self.plan.styles[job.style]]
                yield Ready(job, content.result(), make_look(codes, self.mixture, job.alpha))
            except DataError as error:
                self.report(error)
                self.progress.step("skipped")

    def report(self, error: DataError) -> None:
        """Say of a broken input, once, that it is skipped."""
        if str(error) not in self.broken:
            print(f"error: {error}; skipped", file=sys.stderr)
        self.broken.add(str(error))

    def render(self, batch: Sequence[Ready]) -> Tensor:
        """The pictures of a batch, uint8 [N, H, W, 3]; in halves where the GPU's memory does not
        hold it even in tiles.
        """
        try:
            return self.render_at_once(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        half = len(batch) // 2  # after the handler, which holds on to what did not fit
        return torch.cat([self.render(batch[:half]), self.render(batch[half:])])

    def render_at_once(self, batch: Sequence[Ready]) -> Tensor:
        """The same in one pass; a content is encoded once for its jobs in a row."""
        fresh = {
            item.job.content: item.pixels for item in batch if item.job.content not in self.features
        }
        if fresh:
            encoded = self.stylizer.encode_content(torch.stack(list(fresh.values())))[0]
            self.features |= dict(zip(fresh, separate(encoded), strict=True))
        self.features = {item.job.content: self.features[item.job.content] for item in batch}
        features = join([self.features[item.job.content] for item in batch])
        shape = (len(batch), *batch[0].pixels.shape)
        return self.stylizer.render_pixels(features, shape, [item.look for item in batch])

    def save(self, job: Job, pixels: Tensor) -> None:
        """Write a picture."""
        images.save_image(
            pixels, self.folder / job.output, self.record.scratch if self.record else None
        )

    def note(self, job: Job) -> None:
        """Keep account of a picture that is written."""
        if self.record:
            self.record.add(self.plan.row(job))
        self.progress.step("made")


class StyleCodes:
    """Encoded styles by their path, the latest used within `max_bytes`; an unreadable one raises
    its DataError each time.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], StyleCode],
        read: Callable[[Path], Future],
        max_bytes: int = CODE_BYTES,
    ) -> None:
        self.encode, self.read, self.max_bytes, self.n_bytes = encode, read, max_bytes, 0
        self.coming: dict[Path, Future] = {}
        self.known: OrderedDict[Path, StyleCode | DataError] = OrderedDict()

    def expect(self, path: Path) -> None:
        """Begin to read a style that is not known."""
        if path not in self.known and path not in self.coming:
            self.coming[path] = self.read(path)

    def __getitem__(self, path: Path) -> StyleCode:
        if path not in self.known:
            self.known[path] = self.make(path)
            self.n_bytes += size_of(self.known[path])
        self.known.move_to_end(path)
        while self.n_bytes > self.max_bytes and len(self.known) > 1:
            self.n_bytes -= size_of(self.known.popitem(last=False)[1])
        found = self.known[path]
        if isinstance(found, DataError):
            raise found
        return found

    def make(self, path: Path) -> StyleCode | DataError:
        """The code, or what is wrong with the file."""
        self.expect(path)
        try:
            return self.encode(self.coming.pop(path).result())
        except DataError as error:
            return error


def size_of(code: StyleCode | DataError) -> int:
    """Bytes of an encoded style."""
    return 0 if isinstance(code, DataError) else sum(part.nbytes for part in code)
