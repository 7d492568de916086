"""The losses since the last logged line, kept on the device: no step waits for them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from stylenet.errors import NonFiniteLossError


class BatchLosses(NamedTuple):
    """The losses of one batch, still on the device."""

    step: int
    first_sample: int
    terms: dict[str, Tensor]


class LossWindow:
    """Losses noted step by step, and read together."""

    def __init__(self, n_batch: int, paths_of: Callable[[int], tuple[str, str]]) -> None:
        """`paths_of(i)` names the content and the style file of sample i."""
        self.n_batch, self.paths_of = n_batch, paths_of
        self.restart()

    def restart(self) -> None:
        """Forget what was noted; the rate counts from here."""
        self.noted: list[BatchLosses] = []
        self.start_s = time.perf_counter()

    def note(self, step: int, first_sample: int, terms: Mapping[str, Tensor]) -> None:
        """Keep a batch's losses."""
        self.noted.append(
            BatchLosses(step, first_sample, {name: value.detach() for name, value in terms.items()})
        )

    def read(self) -> tuple[dict[str, float], float]:
        """The mean of each loss over the batches that have it, and the steps a second.

        Then begin anew. Raises NonFiniteLossError.
        """
        values = iter(torch.stack([x for b in self.noted for x in b.terms.values()]).tolist())
        rows = [{name: next(values) for name in batch.terms} for batch in self.noted]
        for row, batch in zip(rows, self.noted, strict=True):
            self.check(row, batch.step, batch.first_sample)
        n_steps = len({batch.step for batch in self.noted})
        rate = n_steps / max(1e-9, time.perf_counter() - self.start_s)
        self.restart()
        # a batch has some terms only when they are due (loss.lazy_every_steps)
        names = max(rows, key=len)
        return {
            name: statistics.fmean(row[name] for row in rows if name in row) for name in names
        }, rate

    def check(self, losses: Mapping[str, float], step: int, first_sample: int) -> None:
        """Raise NonFiniteLossError unless all losses are finite; the message names the case."""
        if all(map(math.isfinite, losses.values())):
            return
        indices = range(first_sample, first_sample + self.n_batch)
        pairs = "; ".join(f"{i}: {' + '.join(self.paths_of(i))}" for i in indices)
        values = ", ".join(f"{name}={value:g}" for name, value in losses.items())
        raise NonFiniteLossError(
            f"expected finite losses, but at step {step + 1} came {values}; samples {indices[0]} "
            f"to {indices[-1]} ({pairs}); "
            "the last checkpoint is untouched: look at these images, or lower optim.lr, or set "
            "optim.clip_norm"
        )
