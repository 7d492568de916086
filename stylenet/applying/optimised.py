"""Pictures by optimisation, as files: the pictures of a plan, and what is kept of each course."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from stylenet import checkpoint, images, runtime
from stylenet.applying.optimise import Course, Gatys, Iterate, scaled, split_losses
from stylenet.applying.pictures import Outcome, Sizes
from stylenet.applying.plan import Job, Plan
from stylenet.applying.record import Record
from stylenet.csv_files import write_rows
from stylenet.errors import DataError, WeightsError
from stylenet.looks import shares_of
from stylenet.models.vgg_files import sha256_of_file
from stylenet.progress import make_bar
from stylenet.runtime import StopRequest
from stylenet.tracking import Tracker, labels_of, make_tracker

if TYPE_CHECKING:
    from stylenet.config.optimisation import Optimisation

COLUMNS = ("shortest_side_px", "iteration", "total", "content", "style", "tv", "seconds")
STRIP_PX, STRIP_LENGTH = 192, 8
STATE_FILE, STATE_FORMAT = "state.pt", "stylenet-course-1"


class Best(NamedTuple):
    """The iterate of the smallest total loss so far at one size."""

    pixels: Tensor
    total: float


def optimise_pictures(
    gatys: Gatys,
    config: Optimisation,
    plan: Plan,
    folder: Path,
    record: Record | None,
    sizes: Sizes,
    mixture: Sequence[float] | None = None,
    keeps_metadata: bool = False,
) -> Outcome:
    """Make every missing picture of this process's share, one after the other.

    Broken inputs are reported and skipped. A request to stop stores the course, if its folder is
    named, and raises SystemExit.
    """
    n_made = n_kept = n_skipped = 0
    with record or contextlib.nullcontext(), StopRequest() as stop:
        for job in plan.jobs(runtime.rank(), runtime.world_size()):
            if record and plan.row(job) in record:
                record.add(plan.row(job))
                n_kept += 1
                continue
            try:
                content, styles = read_inputs(plan, job, sizes)
            except DataError as error:
                print(f"error: {error}; skipped", file=sys.stderr)
                n_skipped += 1
                continue
            diary = Diary(config, plan, job, [gatys.sha256, list(sizes), mixture])
            picture = optimise_one(gatys, content, styles, mixture, diary, stop)
            path = plan.contents.paths[job.content]
            metadata = images.metadata_of(path) if keeps_metadata else None
            scratch = record.scratch if record else None
            images.save_image(picture[0], folder / job.output, scratch, metadata)
            if record:
                record.add(plan.row(job))
            n_made += 1
    return Outcome(plan.count(runtime.rank(), runtime.world_size()), n_made, n_kept, n_skipped)


def read_inputs(plan: Plan, job: Job, sizes: Sizes) -> tuple[Tensor, list[Tensor]]:
    """The content and the styles of a job, [1, 3, H, W] in [0, 1]. Raises DataError."""
    content = images.load_bytes(
        plan.contents.paths[job.content], sizes.content_px or None, sizes.is_square
    )
    styles = [images.load_bytes(path, sizes.style_px or None) for path in plan.styles[job.style]]
    return images.to_unit(content)[None], [images.to_unit(style)[None] for style in styles]


def optimise_one(
    gatys: Gatys,
    content: Tensor,
    styles: Sequence[Tensor],
    mixture: Sequence[float] | None,
    diary: Diary,
    stop: StopRequest,
) -> Tensor:
    """One picture, with its diary: the best iterate at the full size, [1, 3, H, W]."""
    shares, stored = shares_of(mixture, len(styles)), diary.begin()
    sizes = gatys.sizes(content)
    picture, first = (stored["picture"], stored["size"]) if stored else (None, 0)
    for number, px in enumerate(sizes[first:], start=first):
        course, best = gatys.course(content, styles, shares, px, picture), None
        if stored:
            course.load(stored["course"])
            best, stored = Best(**stored["best"]) if stored["best"] else None, None
        for iterate in diary.shown(course, gatys.n_iterations(is_first=number == 0), px):
            if best is None or iterate.total < best.total:
                best = Best(iterate.pixels.cpu(), iterate.total)
            if diary.is_due(iterate):
                losses = split_losses(iterate.terms, course.objective.weights)
                diary.note(px, iterate, losses)
                diary.store(number, picture, course, best)
            if stop.exit_code:
                diary.store(number, picture, course, best)
                diary.end(stop.exit_code)
                raise SystemExit(stop.exit_code)
        picture = best.pixels
    diary.write_strip(content)
    diary.end(0)
    return picture


class Diary:
    """What is seen and kept of one course: printed lines, a table, snapshots, and its state.

    Without a folder only the lines are printed.
    """

    def __init__(self, config: Optimisation, plan: Plan, job: Job, facts: list[Any]) -> None:
        """`facts`: what the course depends on besides the configuration and the pictures."""
        self.config, self.name = config, Path(job.output).with_suffix("").as_posix()
        self.folder = Path(config.snapshots.dir) / self.name if config.snapshots.dir else None
        self.rows: list[list[Any]] = []
        self.seconds, self.start_s = 0.0, time.perf_counter()
        self.tracker = Tracker()
        self.key = key_of(config, plan, job, facts) if self.folder else ""

    def begin(self) -> dict[str, Any] | None:
        """The stored state of a course with the same settings and pictures, if there is one."""
        if not self.folder:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        options = self.config.tracking
        labels = labels_of(options, f"gatys {self.name}", ["gatys"])
        self.tracker = make_tracker(
            self.folder,
            options.mode,
            self.key[:8],
            options.init_timeout_s,
            self.config.to_flat(),
            "optimise",
            **labels,
        )
        state = self.stored()
        if not state or state["key"] != self.key:
            return None
        self.rows, self.seconds = state["rows"], state["seconds"]
        return state

    def stored(self) -> dict[str, Any] | None:
        """The state in the folder; a damaged one is named and passed over."""
        file = self.folder / STATE_FILE
        if not file.is_file():
            return None
        try:
            return checkpoint.load_state(file, STATE_FORMAT, "course", "stylize.py")
        except WeightsError as error:
            print(f"warning: {error}; the course begins anew", file=sys.stderr)
            return None

    def shown(self, course: Course, n_iterations: int, px: int) -> Any:
        """The iterates of a course, with a bar in a terminal."""
        with make_bar(n_iterations, "iteration", course.iteration, runtime.is_main()) as bar:
            for iterate in course.iterates(n_iterations):
                yield iterate
                bar.set_postfix_str(f"{px} px, loss {iterate.total:.4g}", refresh=False)
                bar.update(iterate.iteration > bar.n)

    def is_due(self, iterate: Iterate) -> bool:
        """Whether a snapshot is taken."""
        return iterate.iteration % self.config.snapshots.every == 0

    def note(self, px: int, iterate: Iterate, losses: dict[str, float]) -> None:
        """Print an iterate's losses; keep them and its picture."""
        seconds = self.seconds + time.perf_counter() - self.start_s
        shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items() if value)
        line = f"{self.name}: {px} px, iteration {iterate.iteration}: total {iterate.total:.4g}"
        if runtime.is_main():
            print(f"{line}  {shown}  {seconds:.0f} s", file=sys.stderr)
        if not self.folder:
            return
        if self.rows and self.rows[-1][:2] == [px, iterate.iteration]:
            return  # a resumed course begins with the iterate that was stored last
        values = [iterate.total, *(losses[name] for name in COLUMNS[3:6])]
        self.rows.append([px, iterate.iteration, *values, round(seconds, 2)])
        write_rows(self.folder / "history.csv", COLUMNS, self.rows)
        picture = self.snapshot(px, iterate.iteration)
        images.save_image(iterate.pixels[0], picture)
        step = len(self.rows) - 1
        self.tracker.log(
            {"optimise/total": iterate.total}
            | {f"optimise/{name}": value for name, value in losses.items()},
            step,
        )
        self.tracker.log_image("optimise/picture", picture, step, f"{self.name}, {px} px")

    def snapshot(self, px: int, iteration: int) -> Path:
        """The file of a snapshot."""
        return self.folder / "snapshots" / f"{px:05d}px_{iteration:06d}.png"

    def store(self, size: int, picture: Tensor | None, course: Course, best: Best | None) -> None:
        """Write the state, from which the same command continues."""
        if self.folder:
            state = {
                "format": STATE_FORMAT,
                "key": self.key,
                "size": size,
                "picture": picture,
                "course": course.state(),
                "best": best._asdict() if best else None,
                "rows": self.rows,
                "seconds": self.seconds + time.perf_counter() - self.start_s,
            }
            checkpoint.save_state(state, self.folder / STATE_FILE)

    def write_strip(self, content: Tensor) -> None:
        """The content and snapshots at the full size side by side, as one picture."""
        if not self.folder:
            return
        full_px = min(content.shape[-2:])
        iterations = [row[1] for row in self.rows if row[0] == full_px]
        n = min(STRIP_LENGTH, len(iterations))
        chosen = [iterations[round(i * (len(iterations) - 1) / max(1, n - 1))] for i in range(n)]
        pictures = [content[0]]
        pictures += [images.load_image(self.snapshot(full_px, iteration)) for iteration in chosen]
        factor = min(1.0, STRIP_PX / full_px)
        small = [scaled(picture[None], factor)[0] for picture in pictures]
        images.save_image(images.make_grid([small]), self.folder / "strip.png")

    def end(self, exit_code: int) -> None:
        """Close the W&B run; say how a stopped course continues, and forget a finished one."""
        if exit_code:
            remedy = (
                "the same command continues" if self.folder else "snapshots.dir=DIR would keep it"
            )
            print(f"stopped: {self.name}; {remedy}", file=sys.stderr)
        elif self.folder:
            (self.folder / STATE_FILE).unlink(missing_ok=True)
        self.tracker.finish(exit_code)


def key_of(config: Optimisation, plan: Plan, job: Job, facts: list[Any]) -> str:
    """The sha256 of all that a course depends on, but the number of its iterations."""
    free = ("tracking.", "snapshots.", "network.weights", "optim.iterations", "optim.fine_")
    values = {k: v for k, v in config.to_flat().items() if not k.startswith(free)}
    paths = [plan.contents.paths[job.content], *plan.styles[job.style]]
    whole = [values, *facts, [sha256_of_file(path) for path in paths]]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
