"""Time stylising pictures: our form of the textbook's network, and the included one.

    python benchmarks/stylize.py --size 512 --rounds 7
    python benchmarks/stylize.py --size 512 --device cuda --batch 8

The style is encoded each time, unless a row says cached.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import torch
from rounds import compare
from textbook import Textbook
from train_step import make_images, make_parts

from stylenet import runtime
from stylenet.applying.stylizer import SHIPPED_MODEL, Stylizer, load_network
from stylenet.models.fast import make_fast
from stylenet.models.stylenet import StyleNet
from stylenet.transforms import ADAIN


def make_textbook_call(px: int, n: int, device: str) -> Callable[[], None]:
    """One textbook stylisation of n pictures."""
    net = Textbook(*make_parts()).to(device)
    content, style = make_images(n, px)

    def call() -> None:
        with torch.no_grad():
            net(content.to(device), style.to(device)).cpu()

    return call


def make_our_call(
    px: int, n: int, device: str, name: str, precision: str, is_cached: bool, is_compiled: bool
) -> Callable[[], None]:
    """One stylisation of n pictures as stylize.py does it."""
    runtime.keep_freed_memory()
    runtime.allow_tf32(precision == "tf32")
    net = (
        load_network(SHIPPED_MODEL)
        if name == "included"
        else StyleNet(make_parts()[0], ADAIN, make_parts()[1])
    )
    stylizer = Stylizer(net, device, precision, is_compiled=is_compiled)
    content, style = make_images(n, px)
    code = stylizer.encode_style(style)
    return lambda: stylizer(content, code if is_cached else style)


def largest_difference(px: int) -> float:
    """The largest difference of both float32 pictures, relative to the largest value."""
    encoder, decoder = make_parts()
    content, style = make_images(1, px)
    with torch.no_grad():
        theirs = Textbook(encoder, decoder)(content, style)
        ours = make_fast(StyleNet(encoder, ADAIN, decoder), torch.device("cpu"))(content, style)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile")
    options = parser.parse_args()
    shape = options.size, options.batch, options.device
    hardware = runtime.hardware(torch.device(options.device))
    print(
        f"stylising {options.batch} picture(s) of {options.size}² at once, {hardware}, torch "
        f"{torch.__version__}"
    )
    print(
        "largest relative difference in float32: "
        f"{largest_difference(min(512, options.size)):.1e} (on the CPU)"
    )
    candidates = {"textbook float32": (make_textbook_call, shape)}
    precisions = ("fp32", "bf16") if options.device == "cpu" else ("fp32", "tf32", "bf16", "fp16")
    for name, precision in itertools.product(("ours", "included"), precisions):
        for suffix, is_cached in (("", False), (", cached style", True)):
            candidates[f"{name} {precision}{suffix}"] = (
                make_our_call,
                (*shape, name, precision, is_cached, options.compile),
            )
    compare(candidates, options.rounds)


if __name__ == "__main__":
    main()
