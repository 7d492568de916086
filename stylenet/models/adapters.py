"""Low-rank adapters (Hu et al. 2022): a few numbers beside each kernel of a network that stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stylenet.errors import WeightsError


class LowRank(nn.Module):
    """A kernel plus a matrix of low rank, `up @ down`, which starts at zero.

    The kernel [C_out, C_in, k, k] counts as a matrix C_out x (C_in k k).
    """

    def __init__(self, kernel: Tensor, rank: int, generator: torch.Generator | None) -> None:
        super().__init__()
        n_out, n_in = kernel.shape[0], kernel[0].numel()
        rank = min(rank, n_out, n_in)
        draws = torch.randn(rank, n_in, generator=generator) / n_in**0.5
        self.down, self.up = nn.Parameter(draws), nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, kernel: Tensor) -> Tensor:
        return kernel + (self.up @ self.down).reshape(kernel.shape)


def adapt(module: nn.Module, rank: int, generator: torch.Generator | None = None) -> None:
    """Freeze a module and give each of its trained convolutions an adapter, in place."""
    trained = [conv for conv in convolutions(module).values() if conv.weight.requires_grad]
    module.requires_grad_(False)
    for conv in trained:
        adapter = LowRank(conv.weight, rank, generator).to(conv.weight.device)
        parametrize.register_parametrization(conv, "weight", adapter)


def convolutions(module: nn.Module) -> dict[str, nn.Module]:
    """The convolutions of a module by their names."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return {name: part for name, part in module.named_modules() if isinstance(part, kinds)}


def adapter_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The adapters of a module: {convolution.up, convolution.down}."""
    return dict(pairs(module))


def pairs(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The same, one by one."""
    for name, conv in convolutions(module).items():
        if parametrize.is_parametrized(conv, "weight"):
            adapter = conv.parametrizations.weight[0]
            yield from ((f"{name}.up", adapter.up), (f"{name}.down", adapter.down))


def merged(
    tensors: Mapping[str, Tensor], adapters: Mapping[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """A network's tensors with the adapters added to its kernels, in float32.

    Raises WeightsError for an adapter of a kernel that the network does not have.
    """
    result = {name: tensor.float() for name, tensor in tensors.items()}
    for name in (key.removesuffix(".up") for key in adapters if key.endswith(".up")):
        kernel, up, down = (
            result.get(f"{name}.weight"),
            adapters[f"{name}.up"],
            adapters.get(f"{name}.down"),
        )
        fits = kernel is not None and down is not None and len(up) == len(kernel)
        if not fits or up.shape[1:] != down.shape[:1] or down.shape[1] != kernel[0].numel():
            raise WeightsError(
                f"expected adapters of the network's kernels in {origin}, but that of {name} does "
                "not fit; give the base that it was trained on"
            )
        result[f"{name}.weight"] = kernel + (up.float() @ down.float()).reshape(kernel.shape)
    return result
