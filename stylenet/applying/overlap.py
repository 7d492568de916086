"""Overlapping work, all of it bounded: reading ahead, writing behind, batches of a kind."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Item = TypeVar("Item")
Started = TypeVar("Started")


def look_ahead(
    items: Iterable[Item], start: Callable[[Item], Started], n: int
) -> Iterator[Started]:
    """The results of `start(item)` in order, with up to n items started ahead.

    `start` sets threads to work, so its result may be a future.
    """
    pending: deque[Started] = deque()
    for item in items:
        pending.append(start(item))
        if len(pending) > n:
            yield pending.popleft()
    while pending:
        yield pending.popleft()


def batches(
    items: Iterable[Item], kind: Callable[[Item], Hashable], n: int, n_waiting: int
) -> Iterator[list[Item]]:
    """Every item once, in lists of at most n items of one kind.

    At most `n_waiting` items wait for others of their kind. Beyond that the kind that waits longest
    is yielded.
    """
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
    """Context that runs actions in the background, at most n at a time.

    An error of an action is raised in this thread, soon after.
    """

    def __init__(self, pool: Executor, n: int) -> None:
        self.pool, self.n = pool, n
        self.running: deque[tuple[Future, Callable[[], Any]]] = deque()

    def submit(self, action: Callable[[], Any], then: Callable[[], Any]) -> None:
        """Do `action` in the background and, when it is done, `then` in this thread."""
        self.running.append((self.pool.submit(action), then))
        while self.running and (len(self.running) > self.n or self.running[0][0].done()):
            self.finish_one()

    def finish_one(self) -> None:
        """Wait for the oldest action, then call its `then`."""
        future, then = self.running.popleft()
        future.result()
        then()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Wait for all actions; after an error, those that succeed still count."""
        while self.running:
            with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
                self.finish_one()
