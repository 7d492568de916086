"""The progress of a long task, with rate and time left.

It is a bar in a terminal, else a line now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")


def make_bar(total: int | None, unit: str, initial: int = 0, is_shown: bool = True) -> Any:
    """A tqdm bar; without a terminal at stderr a disabled one, which shows nothing."""
    from tqdm import tqdm

    is_seen = is_shown and sys.stderr.isatty()
    return tqdm(
        total=total,
        unit=unit,
        initial=initial,
        smoothing=0,  # the mean rate over the whole run
        dynamic_ncols=True,
        disable=not is_seen,
    )


def duration(seconds: float) -> str:
    """The time as hours, minutes and seconds; the hours may exceed 24."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


class Progress:
    """A context manager that counts the finished items of a total.

    Items "kept" from before or "skipped" count as finished, but not for the rate.
    """

    def __init__(self, total: int, unit: str, is_shown: bool = True, every_s: float = 30.0) -> None:
        self.total, self.unit, self.every_s = total, unit, every_s if is_shown else float("inf")
        self.n_made = self.n_kept = self.n_skipped = 0
        self.start_s = self.said_s = time.monotonic()
        self.bar = make_bar(total, unit, is_shown=is_shown)

    def step(self, outcome: Literal["made", "kept", "skipped"] = "made") -> None:
        """Count one more item."""
        setattr(self, f"n_{outcome}", getattr(self, f"n_{outcome}") + 1)
        # tqdm leaves `initial` out of its rate.
        self.bar.initial = self.n_kept + self.n_skipped
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.said_s >= self.every_s:
            self.said_s = time.monotonic()
            print(self.line(self.said_s - self.start_s), file=sys.stderr, flush=True)

    def line(self, elapsed_s: float) -> str:
        """Finished items, total, rate and time left, as text."""
        n_done = self.n_made + self.n_kept + self.n_skipped
        rate = self.n_made / max(elapsed_s, 1e-9)
        left = duration((self.total - n_done) / rate) if self.n_made else "?"
        return f"{n_done}/{self.total} {self.unit}s  {rate:.2f} {self.unit}s/s  {left} left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def shown(items: Iterable[Item], total: int, unit: str, is_shown: bool = True) -> Iterator[Item]:
    """The items, one by one, with their progress on display."""
    with Progress(total, unit, is_shown) as progress:
        for item in items:
            yield item
            progress.step()
