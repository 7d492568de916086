"""Seconds to restyle one picture, ours against the textbook's, style encoded every time unless it says cached.

python benchmarks/stylize.py --size 512 --rounds 7
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rounds import compare
from textbook import Textbook
from train_step import make_images, make_parts

from stylenet import runtime
from stylenet.inference import Stylizer
from stylenet.models.fast import make_fast
from stylenet.models.stylenet import StyleNet
from stylenet.transforms import ADAIN


def make_textbook_call(px: int) -> Callable[[], None]:
    """One textbook stylisation."""
    net = Textbook(*make_parts())
    content, style = make_images(1, px)

    def call() -> None:
        with torch.no_grad():
            net(content, style)

    return call


def make_our_call(px: int, precision: str, is_cached: bool) -> Callable[[], None]:
    """One stylisation as stylize.py does it."""
    runtime.keep_freed_memory()
    stylizer = Stylizer(StyleNet(make_parts()[0], ADAIN, make_parts()[1]), "cpu", precision)
    content, style = make_images(1, px)
    code = stylizer.encode_style(style)
    return lambda: stylizer(content, code if is_cached else style)


def largest_difference(px: int) -> float:
    """Between the two pictures in float32, relative to the largest value."""
    encoder, decoder = make_parts()
    content, style = make_images(1, px)
    with torch.no_grad():
        theirs = Textbook(encoder, decoder)(content, style)
        ours = make_fast(StyleNet(encoder, ADAIN, decoder), torch.device("cpu"))(content, style)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    px = options.size
    print(f"stylising one {px}² picture, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"largest relative difference in float32: {largest_difference(px):.1e}")
    candidates = {
        "textbook float32": (make_textbook_call, (px,)),
        "ours float32": (make_our_call, (px, "fp32", False)),
        "ours float32, cached style": (make_our_call, (px, "fp32", True)),
        "ours bf16": (make_our_call, (px, "bf16", False)),
        "ours bf16, cached style": (make_our_call, (px, "bf16", True)),
    }
    compare(candidates, options.rounds)


if __name__ == "__main__":
    main()
