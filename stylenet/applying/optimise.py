"""Stylising by optimising pixels, without a trained network (Gatys et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from stylenet.losses import weighted_total
from stylenet.objective import Objective


def optimise_pixels(
    objective: Objective, content: Tensor, style: Tensor, n_iterations: int, learning_rate: float
) -> Iterator[dict[str, float]]:
    """The objective's terms after 0, 1, 2, … steps of Adam on the pixels.

    content, style [1, 3, H, W] in [0, 1]. The pixels start as the content image and are clipped to
    [0, 1] after each step.
    """
    seen = objective.observe(content, style)
    pixels = content.clone().requires_grad_()
    adam = torch.optim.Adam([pixels], lr=learning_rate)
    for _ in range(n_iterations + 1):
        terms = objective.terms(pixels, seen)
        yield {name: value.item() for name, value in terms.items()}
        adam.zero_grad(set_to_none=True)
        weighted_total(terms, objective.weights).backward()
        adam.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
