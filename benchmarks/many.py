"""Measure what the codecs cost for many pictures.

Drafted decoding is compared with whole decoding, zlib's levels with each other, and overlapping
work with one step after another. The device is a pause of a given length. It takes no processor
time, as a GPU takes none.

    python benchmarks/many.py --size 256 --pictures 64 --device-ms 10
"""

from __future__ import annotations

import argparse
import functools
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from rounds import compare  # noqa: F401 - puts the repository on the path

from stylenet import images, runtime
from stylenet.applying import overlap


def draw(path: Path, width: int, height: int, seed: int) -> None:
    """Write a JPEG with edges, gradients and noise."""
    generator = np.random.default_rng(seed)
    coarse, smooth = (
        Image.fromarray(generator.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(
            (width, height), resample
        )
        for n, resample in ((16, Image.Resampling.NEAREST), (40, Image.Resampling.BICUBIC))
    )
    noisy = np.asarray(Image.blend(coarse, smooth, 0.6)) + generator.normal(
        0, 8, (height, width, 3)
    )
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=92)


def seconds_of(action: Callable[[], object]) -> float:
    """The duration of the action in seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare_draft(file: Path, px: int, n_rounds: int) -> None:
    """Print how many times as fast a drafted decode to `px` is, and its PSNR.

    Both compare it with the whole decode.
    """
    whole = functools.partial(
        lambda: images.to_bytes_tensor(images.resize_shortest(images.open_rgb(file), px))
    )
    drafted = functools.partial(images.load_bytes, file, px)
    ratios = [seconds_of(whole) / seconds_of(drafted) for _ in range(n_rounds)]
    error = (whole().double() - drafted().double()).square().mean().item()
    psnr = 10 * np.log10(255**2 / error) if error else float("inf")
    print(f"draft to {px:<5} {statistics.median(ratios):6.2f} times as fast, {psnr:.1f} dB")


def compare_levels(file: Path, px: int, n_rounds: int) -> None:
    """Print time and bytes of zlib's levels against Pillow's own, 6."""
    picture = images.to_pil(images.load_image(file, px))

    def write(level: int) -> int:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=level)
        return buffer.tell()

    for level in (1, 3, 6):
        ratios = [
            seconds_of(lambda: write(6)) / seconds_of(functools.partial(write, level))
            for _ in range(n_rounds)
        ]
        print(
            f"PNG level {level}  {statistics.median(ratios):6.2f} times as fast, "
            f"{write(level) / write(6):.2f} times as large"
        )


def one_after_another(files: list[Path], px: int, device_s: float, out: Path) -> None:
    """Decode, compute and encode one picture after another."""
    for file in files:
        picture = images.load_bytes(file, px)
        time.sleep(device_s)
        images.save_image(picture.movedim(0, -1), out / f"{file.stem}.png")


def overlapping(files: list[Path], px: int, device_s: float, out: Path, n_threads: int) -> None:
    """Do the same work with overlap, as stylize.py does it."""
    with ThreadPoolExecutor(n_threads) as pool, overlap.Writer(pool, 2 * n_threads) as writer:
        reads = overlap.look_ahead(
            files, lambda file: (file, pool.submit(images.load_bytes, file, px)), n_threads + 2
        )
        for file, picture in reads:
            pixels = picture.result().movedim(0, -1)
            time.sleep(device_s)
            writer.submit(
                functools.partial(images.save_image, pixels, out / f"{file.stem}.png"), lambda: None
            )


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--device-ms", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, large = Path(folder), Path(folder) / "large.jpg"
        draw(large, 3072, 2048, seed=0)
        for px in (128, 224, 256, 512):
            compare_draft(large, px, options.rounds)
        compare_levels(large, 512, options.rounds)
        files = [root / f"{i}.jpg" for i in range(options.pictures)]
        for i, file in enumerate(files):
            draw(file, 500, 375, seed=i)
        device_s, n_threads = options.device_ms / 1000, runtime.n_threads()
        run = [lambda: one_after_another(files, options.size, device_s, root / "a")]
        run.append(lambda: overlapping(files, options.size, device_s, root / "b", n_threads))
        pairs = [[seconds_of(action) for action in run] for _ in range(options.rounds)]
        ratio = statistics.median(a / b for a, b in pairs)
        print(
            f"overlap       {ratio:6.2f} times as fast, {n_threads} threads, {options.size} px, "
            f"device {options.device_ms:g} ms a picture; "
            f"{len(files) / min(b for _, b in pairs):.0f} pictures/s"
        )


if __name__ == "__main__":
    main()
