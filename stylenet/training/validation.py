"""Losses and pictures of held-out pairs, and the check of weights before they are saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylenet import datasets, images, runtime
from stylenet.build import Data
from stylenet.losses import weighted_total
from stylenet.models.families import FAMILIES
from stylenet.objective import Objective

if TYPE_CHECKING:
    from stylenet.config.training import Config


class Validation:
    """The held-out pairs of a run, with what is computed on them.

    Pairs are read once, when they are needed first.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        objective: Objective,
        device: torch.device,
        layout: torch.memory_format,
        say: Callable[[str], Any],
    ) -> None:
        self.config, self.data, self.objective, self.say = config, data, objective, say
        self.device, self.layout = device, layout
        self._pairs: list[datasets.HeldOutPair] | None = None

    @property
    def pairs(self) -> list[datasets.HeldOutPair]:
        """The pairs; `say` hears it if there are none."""
        if self._pairs is None:
            options, styles = self.config.data, self.data.style
            # a network for one style is judged by the style that it learns
            takes_styles = FAMILIES[self.config.model.name].takes_styles
            sets = self.data.content.held_out, styles.held_out if takes_styles else styles.train
            n = max(self.config.val.pairs, self.config.val.grid_pairs)
            floor_px = options.crop_px if options.scales else None
            self._pairs = datasets.held_out_pairs(
                *sets, n, options.crop_px, options.resize_px, floor_px
            )
            if not self._pairs:
                self.say(
                    "no held-out images of both kinds: no validation (set data.held_out, or give "
                    "manifests that hold some out)"
                )
        return self._pairs

    def losses(self, net: Any) -> dict[str, float]:
        """Mean losses over val.pairs, by the names of the training losses."""
        sums: dict[str, float] = {}
        pairs, size = self.pairs[: self.config.val.pairs], self.config.data.batch_size
        for start in range(0, len(pairs), size):
            batch = pairs[start : start + size]
            parts = [pair.content for pair in batch], [pair.style for pair in batch]
            stacked = (torch.stack(part).to(self.device) for part in parts)
            content, style = (part.contiguous(memory_format=self.layout) for part in stacked)
            for name, value in self.losses_of(net, content, style).items():
                sums[name] = sums.get(name, 0.0) + value * len(content)
        return {name: value / len(pairs) for name, value in sums.items()}

    @torch.no_grad()
    def losses_of(self, net: Any, content: Tensor, style: Tensor) -> dict[str, float]:
        """The losses of a batch by name, and their total."""
        with runtime.autocast(self.device, self.config.train.precision):
            seen = self.objective.observe(content, style)
            # always the same motion, so that its loss compares from one validation to the next
            motion = datasets.motion_of(0, 0, *content.shape[-2:])
            terms = self.objective.terms(net.learn(seen), seen, net, motion=motion)
        total = weighted_total(terms, self.objective.weights)
        return {name: float(value) for name, value in (terms | {"total": total}).items()}

    @property
    def grid_caption(self) -> str:
        """What the columns of the grid are, and the files of each row."""
        strengths = ", ".join(f"alpha {alpha:g}" for alpha in self.config.val.alphas)
        rows = [
            f"{pair.content_path.name} + {pair.style_path.name}"
            for pair in self.pairs[: self.config.val.grid_pairs]
        ]
        return f"columns: content, style, {strengths}; rows: {'; '.join(rows)}"

    @torch.no_grad()
    def write_grid(self, net: Any, path: Path) -> None:
        """The sample pairs, one a row: content, style, and the output at each strength."""
        rows = []
        for content, style, *_ in self.pairs[: self.config.val.grid_pairs]:
            batch = content[None].to(self.device), style[None].to(self.device)
            with runtime.autocast(self.device, self.config.train.precision):
                rows.append(
                    [content, style, *(net(*batch, alpha)[0] for alpha in self.config.val.alphas)]
                )
        images.save_image(images.make_grid(rows), path)
