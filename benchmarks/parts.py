"""Measure what each part of a compact network does.

    python benchmarks/parts.py --content photos/ --style paintings/

Each residual block is left out in turn: what came in goes on. Each way up from a coarser map is
cut in turn: its map becomes constant. A part that does something changes the picture (rms in levels
of 255) and makes it worse (content norm and style loss, judged by the VGG-19 of STYLENET_VGG19). A
part that changes nothing costs its time for nothing.

The share is the rms of what a block adds by that of what comes in. Far above 1 the block has no
skip connection any more, since its sum drowns what came in; far below 1 it adds nothing.

Figures are means over the pairs. Pictures are cut square.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import rounds  # noqa: F401 - makes the package importable
import torch
from behaviour import TAPS, WINDOW_PX, load_square, make_parser, style_distance
from torch import Tensor, nn

from stylenet.applying.stylizer import Stylizer
from stylenet.errors import UsageError, run_script
from stylenet.metrics.functional import content_norm
from stylenet.metrics.pairs import evaluated_part
from stylenet.models.compact import CompactNet, ResidualBlock
from stylenet.models.vgg import VGG
from stylenet.models.vgg_files import find_weights, load_vgg

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Any]


class Outcome(NamedTuple):
    """What a pair's output is like."""

    output: Tensor  # [3, H, W]
    content_norm: float
    style: float


def left_out(module: nn.Module, came: tuple[Tensor, ...], result: Tensor) -> Tensor:
    """What came in, as the block's result."""
    return came[0]


def cut(module: nn.Module, came: tuple[Tensor, ...], result: Tensor) -> Tensor:
    """The result's channel means in its place."""
    return result.mean((2, 3), keepdim=True).expand_as(result).clone()


def parts(net: CompactNet) -> Iterator[tuple[str, nn.Module, Hook]]:
    """Each part's name, its module, and the hook that takes its effect away."""
    for name, module in net.named_modules():
        if isinstance(module, ResidualBlock):
            yield name, module, left_out
    yield "the way up from 1/8", net.from_eighth, cut
    yield "the way up from 1/4", net.from_quarter, cut


def watched(shares: list[float]) -> Hook:
    """A hook that adds to `shares` the rms of what a block adds by that of what came in."""

    def hook(module: nn.Module, came: tuple[Tensor, ...], result: Tensor) -> None:
        shares.append(float((result - came[0]).norm() / came[0].norm()))

    return hook


def outcomes(
    stylizer: Stylizer, vgg: VGG, pairs: Sequence[Sequence[Tensor]], targets: Sequence[Any]
) -> list[Outcome]:
    """The output of each pair and how it is judged; `targets` are the pairs' own features."""
    made = []
    for (content, style), (content_features, style_features) in zip(pairs, targets, strict=True):
        output = stylizer(content, style)
        features = vgg(output[None], TAPS)
        made.append(
            Outcome(
                output,
                float(content_norm(features["relu4_1"], content_features["relu4_1"])),
                style_distance(features, style_features),
            )
        )
    return made


def row(name: str, made: Sequence[Outcome], whole: Sequence[Outcome], shares: list[float]) -> str:
    """A line of the table."""
    share = f"{statistics.fmean(shares):.3g}" if shares else "-"
    change = statistics.fmean(
        255 * float((a.output - b.output).square().mean().sqrt())
        for a, b in zip(made, whole, strict=True)
    )
    return (
        f"{name:<26} share {share:>6}   change {change:5.1f}   "
        f"content norm {statistics.fmean(x.content_norm for x in made):.3f}   "
        f"style {statistics.fmean(x.style for x in made):.3f}"
    )


@torch.inference_mode()
def main(arguments: list[str]) -> int:
    """Print a line for the whole network and one for each part."""
    options = make_parser(__doc__).parse_args(arguments)
    if options.size < WINDOW_PX or options.pairs < 1:
        raise UsageError(
            f"expected --size of at least {WINDOW_PX} and --pairs of at least 1, but --size "
            f"{options.size} --pairs {options.pairs} came"
        )
    stylizer = Stylizer.load(options.model)
    if not isinstance(stylizer.net, CompactNet):
        raise UsageError(f"expected a compact network as --model, but {options.model} is none")
    vgg = load_vgg("vgg19", find_weights("vgg19", None), TAPS)
    folders = [
        evaluated_part(getattr(options, name), 0.0, f"--{name}").paths
        for name in ("content", "style")
    ]
    pairs = [
        [load_square(paths[i * len(paths) // options.pairs], options.size) for paths in folders]
        for i in range(options.pairs)
    ]
    targets = [[vgg(picture[None], TAPS) for picture in pair] for pair in pairs]
    found = list(parts(stylizer.net))
    shares: dict[str, list[float]] = {name: [] for name, _, _ in found}
    handles = [
        module.register_forward_hook(watched(shares[name]))
        for name, module, hook in found
        if hook is left_out
    ]
    whole = outcomes(stylizer, vgg, pairs, targets)
    for handle in handles:
        handle.remove()
    print(f"{options.size}², {options.pairs} pairs, torch {torch.__version__}")
    print(row("the whole network", whole, whole, []))
    for name, module, hook in found:
        handle = module.register_forward_hook(hook)
        made = outcomes(stylizer, vgg, pairs, targets)
        handle.remove()
        print(row(f"no {name}", made, whole, shares[name]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
