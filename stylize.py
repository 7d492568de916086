"""Restyle pictures with a trained model.

python stylize.py --content photo.jpg --style painting.jpg --output out.png --model runs/mine
python stylize.py --content photos/ --style paintings/ --output out/ --model runs/mine --alpha 0.8
python stylize.py --content photos/ --style paintings/ --output set/ --model runs/mine --pairs random:2 --keep-folders

With --pairs the folder is a data set: it gets a manifest.csv, the same command again makes what is missing, other
settings are refused, and torchrun shares the pictures among processes.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stylenet.errors import DataError, Parser, UsageError, run_script

if TYPE_CHECKING:
    from torch import Tensor

    from stylenet.inference import Stylizer
    from stylenet.jobs import Job, Pictures, Plan
    from stylenet.pipeline import Progress
    from stylenet.record import Record
    from stylenet.transforms import StyleCode

CODE_BYTES = 1 << 30  # of encoded styles kept: AdaIN's take 4 kB each, those of EFDM at 512² take 8 MB
CUDA_BATCH = 8


def main(arguments: list[str]) -> int:
    """Exit code of one call: 0, or 3 if a picture could not be read."""
    options = make_parser().parse_args(arguments)
    if not options.model:
        raise UsageError("expected --model PATH, but none came; train one with: python train.py --config configs/adain.yaml")
    from stylenet import images, inference, jobs, runtime

    inference.check_alpha(options.alpha)
    if not options.output.strip():
        raise UsageError("expected a file or a folder as --output, but an empty name came")
    contents, styles = jobs.Pictures(options.content), jobs.Pictures(options.style)
    if options.weights is not None:
        inference.check_mixture(options.weights, len(styles))
    plan, folder = make_plan(contents, styles, options)
    images.check_writable(folder)
    runtime.keep_freed_memory()
    stylizer = inference.Stylizer.load(options.model, options.device, options.precision, options.encoder, options.tile)
    record = open_record(folder, contents, styles, options) if options.pairs else None
    return stylise_all(stylizer, plan, folder, record, options)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="stylize.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--content", nargs="+", required=True, metavar="PATH", help="pictures or folders to restyle")
    parser.add_argument("--style", nargs="+", required=True, metavar="PATH", help="pictures or folders whose look is taken")
    parser.add_argument(
        "--output", required=True, metavar="OUT", help="a file for one picture, else a folder for <content>__<style>.png"
    )
    parser.add_argument(
        "--pairs",
        metavar="P",
        help="make a data set of all pairs; random:K: each content with K styles; or a FILE.csv with the columns content, style",
    )
    parser.add_argument("--seed", type=size, default=0, help="which styles random:K draws (default 0)")
    parser.add_argument(
        "--keep-folders", action="store_true", help="below OUT as the content is below its folder; its name if made only once"
    )
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="of pictures in a folder (default png)")
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
    parser.add_argument("--crop", action="store_true", help="only the square in the middle of each content")
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
    parser.add_argument(
        "--batch", type=number, metavar="N", help=f"pictures at a time, of one size (default {CUDA_BATCH} on cuda, else 1)"
    )
    parser.add_argument("--workers", type=number, metavar="N", help="threads that decode and encode (default: one per core)")
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


def weights(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(part) for part in text.split(",")]


def number(text: str) -> int:
    """A number of 1 or more."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def make_plan(contents: Pictures, styles: Pictures, options: argparse.Namespace) -> tuple[Plan, Path]:
    """The jobs and the folder that they go to. Raises UsageError for options that exclude each other."""
    from stylenet import images, jobs

    output, is_mixture = Path(options.output), options.weights is not None
    is_file = output.suffix.lower() in images.SUFFIXES
    if is_mixture and options.pairs not in (None, "all"):
        raise UsageError(f"expected --pairs all with --weights, which mix all styles into one, but {options.pairs} came")
    if is_file and options.pairs:
        raise UsageError(f"expected a folder as --output with --pairs, but {output} is a file name; leave the suffix out")
    plan = jobs.make_plan(
        contents,
        styles,
        options.pairs,
        options.seed,
        options.alpha,
        is_mixture,
        options.keep_folders,
        f".{options.format}",
        output.name if is_file else None,
    )
    folder = output.parent if is_file else output
    check_place(folder, options)
    if is_file and len(plan) > 1:
        raise UsageError(
            f"expected a folder as --output for {len(plan)} pictures, but {output} is a file name; leave the suffix out"
        )
    return plan, folder


def check_place(folder: Path, options: argparse.Namespace) -> None:
    """Raise UsageError for a data set among its own inputs, and for single pictures among a data set's."""
    from stylenet.record import SETTINGS

    for place in map(Path, (*options.content, *options.style) if options.pairs else ()):
        if place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
            raise UsageError(f"expected a data set outside its inputs, but {folder} lies in {place}; give another --output")
    if not options.pairs and (folder / SETTINGS).exists():
        raise UsageError(f"expected --pairs for {folder}, which holds a data set; give --pairs or another --output")


# what a picture of a data set depends on, beside the model and the files
SETTLED = ("pairs", "seed", "alpha", "weights", "size", "style_size", "crop", "precision", "format", "keep_folders")


def open_record(folder: Path, contents: Pictures, styles: Pictures, options: argparse.Namespace) -> Record:
    """The data set's record. Raises UsageError if the folder holds something else."""
    from stylenet import inference, runtime
    from stylenet.models.vgg import sha256_of_file
    from stylenet.record import Record

    settings: dict[str, Any] = {name: getattr(options, name) for name in SETTLED}
    if Path(options.pairs).is_file():
        settings["pairs"] = sha256_of_file(options.pairs)
    settings |= {"model": inference.identify(options.model, options.encoder)}
    settings |= {"content": contents.describe(), "style": styles.describe()}
    return Record(folder, settings, runtime.rank(), runtime.world_size())


class Ready(NamedTuple):
    """A job with its inputs."""

    job: Job
    pixels: Tensor  # uint8 [3, H, W]
    codes: list[StyleCode]

    def kind(self) -> Hashable:
        """What is the same for all of a batch."""
        return self.job.alpha, self.pixels.shape, tuple(part.shape for code in self.codes for part in code)


def stylise_all(stylizer: Stylizer, plan: Plan, folder: Path, record: Record | None, options: argparse.Namespace) -> int:
    """Make and write every picture of this process's share: decoding, computing and encoding overlap. The exit code."""
    from stylenet import pipeline, runtime

    n_threads = options.workers or runtime.n_threads()
    n_batch = options.batch or (CUDA_BATCH if stylizer.device.type == "cuda" else 1)
    n_jobs = plan.count(runtime.rank(), runtime.world_size())
    with (
        ThreadPoolExecutor(n_threads) as pool,
        pipeline.Progress(n_jobs, "picture", is_shown=runtime.is_main()) as progress,
        pipeline.Writer(pool, 2 * n_threads) as writer,
    ):
        making = Making(stylizer, plan, folder, record, options, pool, progress)
        started = pipeline.look_ahead(making.missing(), making.start, n_threads + 2 * n_batch)
        for batch in pipeline.batches(making.readable(started), Ready.kind, n_batch, n_waiting=4 * n_batch):
            for item, pixels in zip(batch, making.render(batch), strict=True):
                writer.submit(functools.partial(making.save, item.job, pixels), functools.partial(making.note, item.job))
    if record:
        record.close()
    print(summary(progress, n_jobs, options.output))
    return DataError.exit_code if making.broken else 0


def summary(progress: Progress, n_jobs: int, output: str) -> str:
    """What has become of the jobs."""
    from stylenet import runtime

    who = f"process {runtime.rank() + 1} of {runtime.world_size()} " if runtime.world_size() > 1 else ""
    counts = ((progress.n_kept, "there before"), (progress.n_skipped, "skipped"))
    rest = "".join(f", {n} {what}" for n, what in counts if n)
    return f"{who}wrote {progress.n_made} of {n_jobs} pictures to {output}{rest}"


class Making:
    """The steps from a job to its file, in the order in which they come."""

    def __init__(
        self,
        stylizer: Stylizer,
        plan: Plan,
        folder: Path,
        record: Record | None,
        options: argparse.Namespace,
        pool: Executor,
        progress: Progress,
    ) -> None:
        self.stylizer, self.plan, self.folder, self.record = stylizer, plan, folder, record
        self.options, self.pool, self.progress = options, pool, progress
        self.codes = StyleCodes(stylizer.encode_style, self.read_style)
        self.features: dict[int, Tensor] = {}  # of the last batch's contents, by number
        self.last: tuple[int, Future] | None = None  # the content last asked for
        self.broken: set[str] = set()

    def missing(self) -> Iterator[Job]:
        """This process's jobs, without those whose pictures a data set has already."""
        from stylenet import runtime

        for job in self.plan.jobs(runtime.rank(), runtime.world_size()):
            if self.record and self.plan.row(job) in self.record:
                self.record.add(self.plan.row(job))  # it has none if the process was killed just then; twice does not matter
                self.progress.step("kept")
            else:
                yield job

    def start(self, job: Job) -> tuple[Job, Future]:
        """Set threads to read what the job needs, each file once for jobs in a row."""
        for path in self.plan.styles[job.style]:
            self.codes.expect(path)
        if self.last is None or self.last[0] != job.content:
            self.last = job.content, self.pool.submit(self.read_content, self.plan.contents.paths[job.content])
        return job, self.last[1]

    def read_content(self, path: Path) -> Tensor:
        """A content as uint8 [3, H, W]."""
        from stylenet.images import load_bytes

        return load_bytes(path, self.options.size or None, self.options.crop)

    def read_style(self, path: Path) -> Future:
        """A style as uint8 [3, H, W], read in a thread."""
        from stylenet.images import load_bytes

        return self.pool.submit(load_bytes, path, self.options.style_size or None)

    def readable(self, started: Iterable[tuple[Job, Future]]) -> Iterator[Ready]:
        """The jobs with their inputs; what cannot be read is reported once, and its jobs are passed over."""
        for job, content in started:
            try:
                codes = [self.codes[path] for path in self.plan.styles[job.style]]
                yield Ready(job, content.result(), codes)
            except DataError as error:
                report(error, self.broken)
                self.progress.step("skipped")

    def render(self, batch: Sequence[Ready]) -> Tensor:
        """The pictures of a batch, uint8 [N, H, W, 3]; in halves where the GPU's memory does not hold it even in tiles."""
        import torch

        try:
            return self.render_at_once(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        half = len(batch) // 2  # after the handler, which holds on to what did not fit
        return torch.cat([self.render(batch[:half]), self.render(batch[half:])])

    def render_at_once(self, batch: Sequence[Ready]) -> Tensor:
        """The same in one pass; a content is encoded once for its jobs in a row."""
        import torch

        fresh = {item.job.content: item.pixels for item in batch if item.job.content not in self.features}
        if fresh:
            encoded = self.stylizer.encode_content(torch.stack(list(fresh.values())))[0]
            self.features |= dict(zip(fresh, encoded.split(1), strict=True))
        self.features = {item.job.content: self.features[item.job.content] for item in batch}
        features = torch.cat([self.features[item.job.content] for item in batch])
        shape, codes = (len(batch), *batch[0].pixels.shape), [item.codes for item in batch]
        return self.stylizer.render_batch(features, shape, codes, batch[0].job.alpha, self.options.weights)

    def save(self, job: Job, pixels: Tensor) -> None:
        """Write a picture."""
        from stylenet.images import save_image

        save_image(pixels, self.folder / job.output, self.record.scratch if self.record else None)

    def note(self, job: Job) -> None:
        """Keep account of a picture that is written."""
        if self.record:
            self.record.add(self.plan.row(job))
        self.progress.step("made")


def report(error: DataError, broken: set[str]) -> None:
    """Say of a broken input, once, that it is skipped."""
    if str(error) not in broken:
        print(f"error: {error}; skipped", file=sys.stderr)
    broken.add(str(error))


class StyleCodes:
    """Encoded styles by their path, the latest used within CODE_BYTES; an unreadable one raises its DataError each time."""

    def __init__(self, encode: Callable[[Tensor], StyleCode], read: Callable[[Path], Future], max_bytes: int = CODE_BYTES) -> None:
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


if __name__ == "__main__":
    sys.exit(run_script(main))
