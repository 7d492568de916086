"""Draw a small procedural set of contents and styles.

    python data/samples.py --output data/drawn --count 12

So tests and a first training need no download and no third-party picture.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stylenet.errors import Parser, UsageError, run_script
from stylenet.images import save_image, to_tensor

Colour = tuple[int, int, int]
SIZE = (384, 288)  # width, height


def main(arguments: list[str]) -> int:
    """Write OUT/content/*.png and OUT/style/*.png."""
    parser = Parser(
        prog="data/samples.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        default="data/drawn",
        metavar="DIR",
        help="folder to write (default data/drawn)",
    )
    parser.add_argument(
        "--count", type=int, default=12, metavar="N", help="pictures of each kind (default 12)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed draws other pictures (default 0)"
    )
    options = parser.parse_args(arguments)
    if options.count < 1:
        raise UsageError(f"expected --count of 1 or more, but {options.count} came")
    if options.seed < 0:
        raise UsageError(f"expected --seed of 0 or more, but {options.seed} came")
    for kind, draw in (("content", draw_scene), ("style", draw_style)):
        for i in range(options.count):
            picture = draw(np.random.default_rng([options.seed, kind == "style", i]), i)
            save_image(to_tensor(picture), Path(options.output) / kind / f"{kind}_{i:02d}.png")
    print(f"wrote {options.count} contents and {options.count} styles to {options.output}")
    return 0


def palette(rng: np.random.Generator, n: int, number: int) -> list[Colour]:
    """n colours around two or three hues, of varied lightness.

    The main hue turns by the golden ratio from picture to picture.
    """
    hues = 0.618 * number + rng.choice([0.0, 0.08, 0.5, 0.58], size=n) + rng.normal(0, 0.02, n)
    saturation, value = rng.uniform(0.35, 0.95, n), np.linspace(0.15, 1.0, n)
    return [hsv(h % 1, s, v) for h, s, v in zip(hues, saturation, value, strict=True)]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour by hue, saturation and value in [0, 1]."""
    import colorsys

    return tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def draw_scene(rng: np.random.Generator, number: int) -> Image.Image:
    """A landscape: sky, sun, hills, and houses or trees, with a little photographic noise."""
    width, height = SIZE
    horizon = int(height * rng.uniform(0.45, 0.65))
    image = gradient(hsv(0.58, rng.uniform(0.3, 0.7), 0.9), hsv(rng.uniform(0.02, 0.15), 0.3, 1.0))
    draw = ImageDraw.Draw(image)
    ball(
        draw,
        rng.uniform(0.1, 0.9) * width,
        rng.uniform(0.1, 0.3) * height,
        rng.uniform(14, 30),
        (255, 240, 190),
    )
    for layer in range(3):
        draw.polygon(
            hill(rng, horizon + 28 * layer - 30),
            fill=hsv(rng.uniform(0.2, 0.42), 0.5, 0.75 - 0.18 * layer),
        )
    for _ in range(rng.integers(3, 7)):
        place = rng.uniform(0.05, 0.9) * width, horizon + rng.uniform(10, 80)
        (house if number % 2 else tree)(draw, rng, *place)
    return add_noise(image.filter(ImageFilter.GaussianBlur(0.6)), rng, 4.0)


def gradient(top: Colour, bottom: Colour) -> Image.Image:
    """A vertical blend of two colours."""
    share = np.linspace(0, 1, SIZE[1])[:, None, None]
    rows = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
    return Image.fromarray(np.broadcast_to(rows, (SIZE[1], SIZE[0], 3)).astype(np.uint8).copy())


def ball(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    """A filled circle."""
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def hill(rng: np.random.Generator, base: float) -> list[tuple[float, float]]:
    """The outline of a chain of hills down to the picture's lower edge."""
    width, height = SIZE
    xs = np.linspace(0, width, 60)
    ys = base + sum(
        rng.uniform(4, 22) * np.sin(xs / width * math.pi * 2 * k + rng.uniform(0, 6))
        for k in (1, 2, 4)
    )
    return [
        (0.0, float(height)),
        *zip(xs.tolist(), ys.tolist(), strict=True),
        (float(width), float(height)),
    ]


def house(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float) -> None:
    """A house with roof, door and window."""
    side = rng.uniform(24, 56)
    wall, roof = hsv(rng.uniform(0, 0.15), 0.25, 0.95), hsv(rng.uniform(0.95, 1.05) % 1, 0.7, 0.6)
    draw.rectangle([x, y - side, x + 1.3 * side, y], fill=wall)
    draw.polygon(
        [(x - 4, y - side), (x + 0.65 * side, y - 1.6 * side), (x + 1.3 * side + 4, y - side)],
        fill=roof,
    )
    draw.rectangle([x + 0.2 * side, y - 0.5 * side, x + 0.45 * side, y], fill=(70, 45, 30))
    draw.rectangle(
        [x + 0.75 * side, y - 0.7 * side, x + 1.05 * side, y - 0.4 * side], fill=(90, 130, 170)
    )


def tree(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float) -> None:
    """A trunk and a crown of overlapping balls."""
    tall = rng.uniform(30, 70)
    draw.rectangle([x - 3, y - tall * 0.5, x + 3, y], fill=(80, 55, 35))
    for _ in range(14):
        dx, dy = rng.normal(0, 0.16 * tall, 2)
        ball(
            draw,
            x + dx,
            y - 0.75 * tall + dy,
            0.16 * tall,
            hsv(rng.uniform(0.24, 0.38), 0.6, rng.uniform(0.3, 0.7)),
        )


def draw_style(rng: np.random.Generator, number: int) -> Image.Image:
    """One of six manners in its own palette: strokes, dots, mosaic, swirls, hatching, bands."""
    manners = (strokes, dots, mosaic, swirls, hatching, bands)
    return add_noise(manners[number % len(manners)](rng, palette(rng, 7, number)), rng, 6.0)


def canvas(colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture and its pen."""
    image = Image.new("RGB", SIZE, colour)
    return image, ImageDraw.Draw(image)


def strokes(rng: np.random.Generator, colours: list[Colour]) -> Image.Image:
    """Short thick brush strokes along a slowly turning field."""
    image, draw = canvas(colours[3])
    phase = rng.uniform(0, 6, 2)
    for x, y in rng.uniform(0, 1, (2200, 2)) * SIZE:
        angle = 2 * math.sin(x / 90 + phase[0]) + 2 * math.cos(y / 70 + phase[1])
        length = rng.uniform(10, 26)
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        draw.line([(x, y), end], fill=colours[rng.integers(7)], width=int(rng.integers(3, 7)))
    return image


def dots(rng: np.random.Generator, colours: list[Colour]) -> Image.Image:
    """Pointillist dots."""
    image, draw = canvas(colours[6])
    for x, y in rng.uniform(0, 1, (4500, 2)) * SIZE:
        tone = int(3 + 3 * math.sin(x / 60) * math.cos(y / 45) + rng.normal(0, 0.8))
        ball(draw, x, y, rng.uniform(2, 5), colours[min(6, max(0, tone))])
    return image


def mosaic(rng: np.random.Generator, colours: list[Colour]) -> Image.Image:
    """Cells around random centres, with dark joints."""
    centres = rng.uniform(0, 1, (160, 2)) * SIZE
    grid = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), -1).reshape(-1, 1, 2)
    # the two nearest centres are almost equally near along a joint
    distances = np.sort(np.linalg.norm(grid - centres, axis=2), axis=1)[:, :2]
    nearest = np.argmin(np.linalg.norm(grid - centres, axis=2), axis=1)
    pixels = np.asarray(colours, dtype=np.uint8)[rng.integers(7, size=160)][nearest]
    pixels[distances[:, 1] - distances[:, 0] < 2.5] = (25, 22, 20)
    return Image.fromarray(pixels.reshape(SIZE[1], SIZE[0], 3))


def swirls(rng: np.random.Generator, colours: list[Colour]) -> Image.Image:
    """Rings around several eyes, as in a starry night."""
    ys, xs = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    waves = sum(
        np.sin(np.hypot(xs - x, ys - y) / rng.uniform(4, 9))
        for x, y in rng.uniform(0, 1, (4, 2)) * SIZE
    )
    levels = np.clip((waves + 4) / 8 * 7, 0, 6).astype(int)
    return Image.fromarray(np.asarray(colours, dtype=np.uint8)[levels])


def hatching(rng: np.random.Generator, colours: list[Colour]) -> Image.Image:
    """Pen strokes crossing on paper."""
    image, draw = canvas((238, 230, 214))
    for angle in rng.uniform(0, math.pi, 3):
        for offset in np.arange(-500, 500, rng.uniform(5, 9)):
            x, y = SIZE[0] / 2 - offset * math.sin(angle), SIZE[1] / 2 + offset * math.cos(angle)
            dx, dy = 400 * math.cos(angle), 400 * math.sin(angle)
            draw.line(
                [(x - dx, y - dy), (x + dx, y + dy)],
                fill=colours[rng.integers(0, 3)],
                width=int(rng.integers(1, 3)),
            )
    return image


def bands(rng: np.random.Generator, colours: list[Colour]) -> Image.Image:
    """Flat interlocking shapes of full colour."""
    image, draw = canvas(colours[5])
    for _ in range(70):
        x, y = rng.uniform(0, 1, 2) * SIZE
        corners = [
            (x + rng.normal(0, 45), y + rng.normal(0, 45)) for _ in range(rng.integers(3, 6))
        ]
        draw.polygon(corners, fill=colours[rng.integers(7)], outline=colours[0])
    return image


def add_noise(image: Image.Image, rng: np.random.Generator, deviation: float) -> Image.Image:
    """The picture with Gaussian noise, so that no area is perfectly flat."""
    pixels = np.asarray(image).astype(np.float32) + rng.normal(0, deviation, (*image.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    sys.exit(run_script(main))
