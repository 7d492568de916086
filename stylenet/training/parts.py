"""What learns in a run: each part is a module with its optimiser and, if asked for, its average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Part(NamedTuple):
    """One module of a run."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None = None

    @property
    def shown(self) -> nn.Module:
        """The module that is validated and released: the average if there is one."""
        return self.average.module if self.average else self.module

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            name: item.state_dict() if item is not None else None
            for name, item in self._asdict().items()
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        for name, item in self._asdict().items():
            if item is not None:
                item.load_state_dict(state[name])


Parts = Mapping[str, Part]


def states(parts: Parts) -> dict[str, Any]:
    """The state of every part by its name."""
    return {name: part.state() for name, part in parts.items()}


def load_states(parts: Parts, state: Mapping[str, Any]) -> None:
    """Take over what `states` gave."""
    for name, part in parts.items():
        part.load(state[name])


def update_averages(parts: Parts) -> None:
    """Bring every average up to date with its module."""
    for part in parts.values():
        if part.average is not None:
            part.average.update_parameters(part.module)


def clip_gradients(part: Part, scaler: torch.amp.GradScaler, largest_norm: float) -> None:
    """Scale a part's gradients down to the norm where they are above it."""
    scaler.unscale_(part.optimizer)
    nn.utils.clip_grad_norm_(part.module.parameters(), largest_norm)
