"""Stylising clips: smoothed statistics, scene cuts, and overlapping reading and writing."""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stylenet import images, runtime
from stylenet.applying.clips.reading import Frame, Source
from stylenet.applying.clips.writing import Target
from stylenet.applying.stylizer import Stylizer
from stylenet.errors import DataError
from stylenet.looks import Look
from stylenet.progress import make_bar
from stylenet.transforms import StyleCode

SMOOTH_S = 0.15  # measured: docs/results/video.md
AHEAD = 4  # frames that are read before, and that wait to be written after, the one being computed
# Measured on crops of 256 from photos. 99 % of 199 pairs of photos count as a cut. Of 200 photos
# none does if panned by 18 % of the width between two frames, zoomed by 15 %, or 1.6 times as
# bright as before. Of pans by a quarter of the width 14 % do.
CUT_COLOURS, CUT_LAYOUT = 0.85, 0.7
EXPOSURE_S = 2.0  # the time constant of a shot's usual brightness
LOG_2 = math.log(2)
POLL_S = 0.1  # how soon a wait for a frame notices a request to stop


class Glimpse(NamedTuple):
    """The summary of a frame by which it is compared with the next one."""

    colours: Tensor  # [48], the share of each channel's values in each of 16 ranges
    grey: Tensor  # [24, 24], 0 to 255


def glimpse(pixels: Tensor) -> Glimpse:
    """Colours and layout of a frame uint8 [3, H, W]."""
    small = F.adaptive_avg_pool2d(pixels.float(), 48)  # [3, 48, 48]
    # 16 ranges for each channel, numbered 0 to 15, 16 to 31 and 32 to 47
    ranges = (small / 16).long().clamp(max=15).flatten(1) + 16 * torch.arange(3)[:, None]
    colours = torch.bincount(ranges.flatten(), minlength=48) / ranges.numel()
    return Glimpse(colours, F.adaptive_avg_pool2d(small.mean(0, keepdim=True), 24)[0])


def is_cut(before: Glimpse, now: Glimpse) -> bool:
    """Whether a new shot begins: both the colours and the layout have changed.

    A pan keeps the colours, and the layout except for a shift. A flash or a change of exposure
    keeps the layout.
    """
    # the intersection of the histograms, 1 for equal ones
    colours = torch.minimum(before.colours, now.colours).sum()
    return bool(colours < CUT_COLOURS) and layout_likeness(before.grey, now.grey) < CUT_LAYOUT


def layout_likeness(before: Tensor, now: Tensor) -> float:
    """The largest correlation of two pictures [n, n] over shifts of up to a sixth."""
    # a pan shifts the layout: only what both frames show is compared
    reach = range(-len(now) // 6, len(now) // 6 + 1)
    pairs = (
        (overlap(before, dy, dx), overlap(now, -dy, -dx))
        for dy, dx in itertools.product(reach, reach)
    )
    return max(float(F.cosine_similarity(a - a.mean(), b - b.mean(), dim=0)) for a, b in pairs)


def overlap(picture: Tensor, dy: int, dx: int) -> Tensor:
    """The part of a picture [n, n] that a copy shifted by (dy, dx) covers, as a vector."""
    n = len(picture)
    return picture[max(0, dy) : n + min(0, dy), max(0, dx) : n + min(0, dx)].flatten()


def brightening(before: Glimpse, now: Glimpse) -> float:
    """The logarithm of the factor of brightness between two frames.

    It is the median over cells, which no single object changes.
    """
    # dark and clipped cells do not follow the exposure
    ratios = (now.grey / before.grey)[
        (before.grey > 8) & (now.grey > 8) & (before.grey < 247) & (now.grey < 247)
    ]
    return float(ratios.log().median()) if len(ratios) else 0.0


class Smoother:
    """Smooths the content statistics within a shot, so that the look does not flicker.

    The statistics are pooled over the past, exponentially, with a time constant in seconds. So the
    constant means the same at any frame rate. That alone would show changes of exposure,
    which frame-wise AdaIN takes out. So `evened` first takes every frame to its shot's usual
    brightness.
    """

    def __init__(self, smooth_s: float) -> None:
        self.smooth_s, self.n_cuts, self.last = smooth_s, 0, None
        self.begin()

    def begin(self) -> None:
        """Begin a shot, without memory of the last one."""
        self.average: StyleCode | None = None
        # logarithms of the brightness now and usually, relative to the shot's first frame
        self.level = self.usual = 0.0

    def see(self, pixels: Tensor, at_s: float) -> None:
        """Note the next frame uint8 [3, H, W] and its time; a scene cut begins a shot."""
        now = glimpse(pixels)
        self.elapsed_s = at_s - self.last[1] if self.last else 0.0
        if self.last and is_cut(self.last[0], now):
            self.n_cuts += 1
            self.begin()
        elif self.last:
            self.level += brightening(self.last[0], now)
            self.usual += (self.level - self.usual) * share(self.elapsed_s, EXPOSURE_S)
        self.last = now, at_s

    def evened(self, pixels: Tensor) -> Tensor:
        """The frame in [0, 1] at its shot's usual brightness.

        Its brightness changes by no more than the factor two.
        """
        return images.to_unit(pixels) * math.exp(max(-LOG_2, min(LOG_2, self.usual - self.level)))

    def steady(self, look: Look) -> Look:
        """The look whose content statistics are the shot's average, including the frame's own.

        A shot's first frame has only its own.
        """
        return look.with_stats(self.average, share(self.elapsed_s, self.smooth_s))

    def note(self, stats: StyleCode | None) -> None:
        """Note the statistics that aligned the frame; they are the shot's average now."""
        self.average = stats


def share(elapsed_s: float, constant_s: float) -> float:
    """The weight of a new value in an exponential average, in [0, 1]."""
    return 1 - math.exp(-elapsed_s / constant_s) if constant_s else 1.0


def stylise(
    source: Source,
    target: Target,
    stylizer: Stylizer,
    look_for: Callable[[Tensor], Look],
    smooth_s: float = SMOOTH_S,
) -> str:
    """Stylise the clip from source to target; returns a summary in words.

    `look_for` makes the clip's look from its first frame, uint8 [3, H, W].
    `source.damage` says what could not be read. Ctrl-C ends a pipe or a camera as its last frame
    does. Of a file it leaves nothing and raises SystemExit.
    """
    smoother, n_frames, start_s, look = Smoother(smooth_s), 0, time.perf_counter(), None
    is_smoothed = smooth_s > 0 and can_smooth(stylizer)
    with (
        runtime.StopRequest() as stop,
        Behind(target.add) as write,
        make_bar(source.n_frames, "frame") as bar,
    ):
        for item in ahead(source, lambda: stop.exit_code or target.is_gone, source.is_live):
            if isinstance(item, Frame):
                look = look or look_for(item.pixels)
                smoother.see(item.pixels, float(item.time))
                content = stylizer.encode_content(
                    smoother.evened(item.pixels) if is_smoothed else item.pixels
                )
                # what stays of the frame is not evened
                content = content._replace(pixels=item.pixels[None])
                pixels, stats = stylizer.render_frame(
                    content, smoother.steady(look) if is_smoothed else look
                )
                smoother.note(stats)
                item = item._replace(pixels=pixels[0])
                n_frames += 1
                bar.update()
            write(item)
        if stop.exit_code and not source.is_endless:
            print("interrupted; no file was written", file=sys.stderr)
            raise SystemExit(stop.exit_code)
    if not n_frames:
        raise DataError(f"{source.name}: expected a video, but no frame of it decodes")
    return summary(n_frames, time.perf_counter() - start_s, smoother.n_cuts)


def can_smooth(stylizer: Stylizer) -> bool:
    """Whether the network uses statistics of the content; if not, stderr gets a note."""
    if not stylizer.net.has_content_stats:
        print(
            "note: this model has no statistics of the whole content to be smoothed; each frame "
            "is by itself",
            file=sys.stderr,
        )
    return stylizer.net.has_content_stats


def summary(n_frames: int, elapsed_s: float, n_cuts: int) -> str:
    """Frames, seconds, speed and cuts."""
    return (
        f"{n_frames} frames in {elapsed_s:.1f} s, {n_frames / elapsed_s:.2f} frames/s, scene "
        f"cuts: {n_cuts}"
    )


class Behind:
    """Context that calls `action` in a thread of its own, in order, a few calls behind.

    An error is raised at a later call.
    """

    def __init__(self, action: Callable[[Any], None]) -> None:
        self.action, self.pool, self.pending = action, ThreadPoolExecutor(1), deque[Future]()

    def __enter__(self) -> Callable[[Any], None]:
        return self.put

    def put(self, item: Any) -> None:
        """Queue an item; waits for the oldest call if too many are open."""
        self.pending.append(self.pool.submit(self.action, item))
        if len(self.pending) > AHEAD:
            self.pending.popleft().result()

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.pool.shutdown(cancel_futures=kind is not None)
        while kind is None and self.pending:
            self.pending.popleft().result()


END = object()


def ahead(
    items: Iterable[Any], is_stopped: Callable[[], Any], keeps_newest: bool = False
) -> Iterator[Any]:
    """The items in order, made a few ahead in a thread of its own.

    The iteration ends early when `is_stopped`. An error in the thread is raised here. With
    `keeps_newest` a newer item replaces one that waits, as a camera needs. The thread is a daemon,
    since a wait for a pipe or a camera cannot be ended.
    """
    ready: queue.Queue[Any] = queue.Queue(1 if keeps_newest else AHEAD)
    is_over = threading.Event()

    def offer(item: Any) -> None:
        is_taken = False
        while not (is_taken or is_over.is_set()):
            with contextlib.suppress(queue.Full):  # polled, since the reader may have left
                ready.put(item, timeout=POLL_S)
                is_taken = True

    def work() -> None:
        try:
            for item in items:
                if is_over.is_set():
                    return
                if keeps_newest:
                    drop(ready)
                offer(item)
            offer(END)
        except BaseException as error:  # it is raised again by the one who waits
            offer(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while not is_stopped():
            try:
                item = ready.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if item is END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_over.set()


def drop(ready: queue.Queue[Any]) -> None:
    """Remove the item that waits, if there is one."""
    with contextlib.suppress(queue.Empty):
        ready.get_nowait()
