"""Work that overlaps: reading ahead, writing behind, and batches of a kind. All of it bounded."""

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
    """`start(item)` of every item in order, called up to n items before its result is taken: to set
    threads to work.
    """
    started: deque[Started] = deque()
    for item in items:
        started.append(start(item))
        if len(started) > n:
            yield started.popleft()
    while started:
        yield started.popleft()


def batches(
    items: Iterable[Item], kind: Callable[[Item], Hashable], n: int, n_waiting: int
) -> Iterator[list[Item]]:
    """Every item once, in lists of at most n of one kind; not more than `n_waiting` wait for others
    of their kind.
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
    """Context: actions done in the background, at most n at a time; what each raises is raised
    here, soon after.
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
