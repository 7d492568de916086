"""Compare seconds and peak memory of one large picture: the textbook's whole pass and our tiles.

    python benchmarks/large.py --size 2048
    python benchmarks/large.py --size 8192 --only ours
    python benchmarks/large.py --size 4096 --only compact

Each candidate runs in a fresh process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.connection import Connection

import torch
from rounds import Make
from textbook import Textbook
from train_step import make_images, make_parts

from stylenet import runtime
from stylenet.applying.stylizer import SHIPPED_MODEL, Stylizer, load_network
from stylenet.looks import make_look
from stylenet.models.stylenet import StyleNet
from stylenet.transforms import ADAIN


def measure(connection: Connection, make: Make, arguments: tuple) -> None:
    """Send the seconds of one call, and the bytes above what was in use before it.

    This runs in a process of its own.
    """
    call = make(*arguments)
    peak, start = runtime.PeakMemory(torch.device("cpu")), time.perf_counter()
    call()
    connection.send((time.perf_counter() - start, peak.above_start()))


def make_textbook_call(px: int, style_px: int) -> object:
    """The textbook's whole pass."""
    net = Textbook(*make_parts())
    content, style = make_images(1, px)[0], make_images(1, style_px)[1]

    def call() -> None:
        with torch.no_grad():
            net(content, style)

    return call


def make_our_call(
    px: int,
    style_px: int,
    precision: str,
    tile: int | str,
    keeps: bool,
    is_compact: bool = False,
) -> object:
    """Our pass from 8-bit pixels to 8-bit pixels, as stylize.py does it.

    With `keeps` the allocator has the setting of stylize.py too.
    """
    if keeps:
        runtime.keep_freed_memory()
    net = (
        load_network(SHIPPED_MODEL)
        if is_compact
        else StyleNet(make_parts()[0], ADAIN, make_parts()[1])
    )
    stylizer = Stylizer(net, "cpu", precision, tile)
    content = torch.randint(
        0, 256, (3, px, px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    style = make_images(1, style_px)[1]

    def call() -> None:
        encoded = stylizer.encode_content(content)
        stylizer.render_pixels(encoded, [make_look([stylizer.encode_style(style)])])

    return call


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--style-size", type=int, default=512)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument(
        "--only", choices=("ours", "bf16", "compact", "strips"), help="leave the others out"
    )
    options = parser.parse_args()
    sides, tile = (options.size, options.style_size), options.tile
    candidates = {
        "textbook float32": (make_textbook_call, sides),
        "ours float32, whole": (make_our_call, (*sides, "fp32", "off", False)),
        "ours float32, tiles": (make_our_call, (*sides, "fp32", tile, False)),
        "the same, memory kept": (make_our_call, (*sides, "fp32", tile, True)),
        "ours bf16, tiles": (make_our_call, (*sides, "bf16", tile, False)),
        "the same in bf16, kept": (make_our_call, (*sides, "bf16", tile, True)),
        "compact, whole": (make_our_call, (*sides, "fp32", "off", False, True)),
        "compact, strips": (make_our_call, (*sides, "fp32", tile, False, True)),
        "the same, kept": (make_our_call, (*sides, "fp32", tile, True, True)),
    }
    all_names = list(candidates)
    names = {
        "ours": all_names[2:4],
        "bf16": all_names[4:6],
        "compact": all_names[6:],
        "strips": all_names[7:],
        None: all_names,
    }[options.only]
    print(
        f"one {options.size}² picture, a style of {options.style_size}², tiles of {tile}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'':<24}{'seconds':>9}{'of first':>10}{'peak MiB':>10}{'of first':>10}")
    context, first = multiprocessing.get_context("spawn"), None
    for name in names:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(theirs, *candidates[name]), daemon=True)
        process.start()
        seconds, peak = ours.recv()
        process.join()
        first = first or (seconds, peak)
        print(
            f"{name:<24}{seconds:>9.1f}{seconds / first[0]:>10.2f}"
            f"{peak / 2**20:>10.0f}{peak / first[1]:>10.2f}"
        )


if __name__ == "__main__":
    main()
