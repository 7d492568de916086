"""One optimiser with Muon for the kernels of convolutions and Adam for all other parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
BETAS = (0.9, 0.99)  # of Adam
QUINTIC = (3.4445, -4.7750, 2.0315)  # a, b, c of X <- aX + b(XX^T)X + c(XX^T)^2 X
N_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """An optimiser that moves each kernel along a semi-orthogonal matrix.

    The kernel [C_out, C_in, k, k] counts as a matrix C_out x (C_in k k). Its step is the
    semi-orthogonal matrix nearest to its momentum.

    The method is that of Jordan et al. 2024, with the scale of Liu et al. 2025 (arXiv 2502.16982):
    the root mean square of a step is 0.2 lr, as is usual for Adam's. One learning rate thus serves
    kernels and biases. Unlike in theirs the first and the last convolution take part, nothing
    decays, and the iteration is in float32. `torch.optim.Muon` takes matrices only.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move = move_kernel if parameter.ndim > 1 else move_vector
                    move(parameter, parameter.grad, self.state[parameter], group["lr"])


def move_kernel(kernel: Tensor, grad: Tensor, state: dict[str, Any], lr: float) -> None:
    """Take Muon's step with Nesterov's momentum, in place."""
    if not state:
        state["momentum"] = torch.zeros_like(kernel)
    momentum = state["momentum"]
    momentum.lerp_(grad, 1 - MOMENTUM)
    # [C_out, C_in k k]
    direction = orthogonalised(grad.lerp(momentum, MOMENTUM).flatten(1))
    kernel.sub_(direction.reshape(kernel.shape), alpha=0.2 * lr * max(direction.shape) ** 0.5)


def move_vector(vector: Tensor, grad: Tensor, state: dict[str, Any], lr: float) -> None:
    """Take Adam's step (Kingma & Ba 2015), in place."""
    if not state:
        state |= {"t": 0, "mean": torch.zeros_like(vector), "square": torch.zeros_like(vector)}
    mean, square = state["mean"], state["square"]
    state["t"] += 1
    mean.lerp_(grad, 1 - BETAS[0])
    square.lerp_(grad.square(), 1 - BETAS[1])
    unbiased = [
        part / (1 - beta ** state["t"]) for part, beta in zip((mean, square), BETAS, strict=True)
    ]
    vector.addcdiv_(unbiased[0], unbiased[1].sqrt() + 1e-8, value=-lr)


def orthogonalised(matrix: Tensor) -> Tensor:
    """About UV^T of the matrix USV^T, by five Newton-Schulz iterations.

    Singular values above about a hundredth of the norm end between 0.7 and 1.2. Smaller ones stay
    smaller.
    """
    a, b, c = QUINTIC
    is_tall = matrix.shape[0] > matrix.shape[1]
    # work on the wide side: x @ x.T is then the smaller square
    x = (matrix.T if is_tall else matrix).float()
    x = x / (x.norm() + 1e-7)  # the iteration needs singular values of at most 1
    for _ in range(N_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if is_tall else x
