"""Work that overlaps: reading ahead, writing behind, batches of a kind, and how far it has come. All of it bounded."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")
Started = TypeVar("Started")


def look_ahead(items: Iterable[Item], start: Callable[[Item], Started], n: int) -> Iterator[Started]:
    """`start(item)` of every item in order, called up to n items before its result is taken: to set threads to work."""
    started: deque[Started] = deque()
    for item in items:
        started.append(start(item))
        if len(started) > n:
            yield started.popleft()
    while started:
        yield started.popleft()


def batches(items: Iterable[Item], kind: Callable[[Item], Hashable], n: int, n_waiting: int) -> Iterator[list[Item]]:
    """Every item once, in lists of at most n of one kind; not more than `n_waiting` wait for others of their kind."""
    waiting: dict[Hashable, list[Item]] = {}  # the kind that waits longest first
    for item in items:
        of_kind = waiting.setdefault(kind(item), [])
        of_kind.append(item)
        if len(of_kind) == n:
            yield waiting.pop(kind(item))
        elif sum(map(len, waiting.values())) > n_waiting:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


class Writer:
    """Context: actions done in the background, at most n at a time; what each raises is raised here, soon after."""

    def __init__(self, pool: Executor, n: int) -> None:
        self.pool, self.n = pool, n
        self.running: deque[tuple[Future, Callable[[], Any]]] = deque()

    def submit(self, action: Callable[[], Any], then: Callable[[], Any]) -> None:
        """Do `action` in the background and, when it is done, `then` in this thread."""
        self.running.append((self.pool.submit(action), then))
        while self.running and (len(self.running) > self.n or self.running[0][0].done()):
            self.finish_one()

    def finish_one(self) -> None:
        """Wait for the oldest action."""
        future, then = self.running.popleft()
        future.result()
        then()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Wait for all; after an error those that succeed still count."""
        while self.running:
            with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
                self.finish_one()


class Progress:
    """How far a count has come: a bar in a terminal, else a line now and then, with rate and time left.

    What was "kept" from before or "skipped" counts as done, and not for the rate.
    """

    def __init__(self, total: int, unit: str, is_shown: bool = True, every_s: float = 30.0) -> None:
        from tqdm import tqdm

        self.total, self.unit, self.every_s = total, unit, every_s if is_shown else float("inf")
        self.n_made = self.n_kept = self.n_skipped = 0
        self.start_s = self.said_s = time.monotonic()
        self.bar = tqdm(total=total, unit=unit, smoothing=0, disable=not (is_shown and sys.stderr.isatty()))

    def step(self, outcome: Literal["made", "kept", "skipped"]) -> None:
        """One more."""
        setattr(self, f"n_{outcome}", getattr(self, f"n_{outcome}") + 1)
        self.bar.initial = self.n_kept + self.n_skipped
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.said_s >= self.every_s:
            self.said_s = time.monotonic()
            print(self.line(self.said_s - self.start_s), file=sys.stderr, flush=True)

    def line(self, elapsed_s: float) -> str:
        """Done, total, rate and time left."""
        n_done = self.n_made + self.n_kept + self.n_skipped
        rate = self.n_made / max(elapsed_s, 1e-9)
        left_s = round((self.total - n_done) / rate) if self.n_made else None
        left = "?" if left_s is None else f"{left_s // 3600:02}:{left_s // 60 % 60:02}:{left_s % 60:02}"
        return f"{n_done}/{self.total} {self.unit}s  {rate:.2f} {self.unit}s/s  {left} left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
