"""Compare the time of each control with that of a plain picture.

    python benchmarks/controls.py --size 512 --rounds 7

The style's code is computed each time, but for the card. Ratios are medians over interleaved
rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import rounds  # noqa: F401 - makes the package importable
import torch

from stylenet.applying.stylizer import SHIPPED_MODEL, Stylizer


def calls(stylizer: Stylizer, px: int) -> dict[str, Callable[[], object]]:
    """What is timed, the plain picture first."""
    draw = torch.Generator().manual_seed(0)
    content, style, other = (torch.rand(3, px, px, generator=draw) for _ in range(3))
    half = torch.zeros(px, px)
    half[:, : px // 2] = 1
    code = stylizer.encode_style(style)
    return {
        "plain": lambda: stylizer(content, style),
        "style card": lambda: stylizer(content, code),
        "alpha 0.5": lambda: stylizer(content, style, alpha=0.5),
        "two styles mixed": lambda: stylizer(content, [style, other]),
        "colour content": lambda: stylizer(content, style, colour="content"),
        "colour matched": lambda: stylizer(content, style, colour="matched"),
        "stroke 0.5": lambda: stylizer(content, style, stroke=0.5),
        "a region, the rest another style": lambda: stylizer(
            content, style, regions=[(half, other)]
        ),
        "a region, the rest the photo": lambda: stylizer(content, [], regions=[(half, style)]),
        "seamless": lambda: stylizer(content, style, is_seamless=True),
    }


def main() -> None:
    """Print a line for each control."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(SHIPPED_MODEL))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    timed = calls(Stylizer.load(options.model), options.size)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for i in range(options.rounds + 1):  # the first one warms up
        for name, call in timed.items():
            start = time.perf_counter()
            call()
            if i:
                seconds[name].append(time.perf_counter() - start)
    print(f"{options.size}², float32, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds["plain"], strict=True)]
        print(f"{name:<34}{statistics.median(values):>7.3f} s{statistics.median(ratios):>7.2f} x")


if __name__ == "__main__":
    main()
