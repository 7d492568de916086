"""Functions that decode, encode and resize images.

Between modules an image is RGB float32 in [0, 1], [3, H, W].

Pillow decodes, because torchvision.io crashes the whole process on some broken PNG files.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from stylenet.errors import DataError, UsageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's own limit, about 13,400 x 13,400
JPEG_QUALITY = 95
# of zlib: takes a third of the time of Pillow's 6, files are 5 to 10 % larger (docs/log.md)
PNG_LEVEL = 1
# a JPEG is decoded to at least so many times the side asked for: 1 would be 9 to 12 dB worse
# (docs/log.md)
DRAFT_FACTOR = 2
UNFINISHED = ".writing-"  # how the names of temporary files begin


class TooLargeError(DataError):
    """A picture is so large that it may be a decompression bomb."""


def list_images(folder: str | Path) -> list[Path]:
    """The image files below the folder and the folders linked in it, in a stable order.

    Hidden files and folders are omitted.
    """
    root, paths, real_places = Path(folder), [], set()
    for place, folders, names in os.walk(root, followlinks=True):
        # the walk enters linked folders, but none twice: links may form a circle
        is_new = os.path.realpath(place) not in real_places
        real_places.add(os.path.realpath(place))
        folders[:] = [name for name in folders if is_new and not name.startswith(".")]
        paths += [Path(place, name) for name in names if is_new and not name.startswith(".")]
    image_paths = (path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(image_paths, key=lambda path: path.relative_to(root).as_posix())


def open_rgb(path: str | Path, wanted_px: int | None = None) -> Image.Image:
    """The decoded image as 8-bit RGB.

    EXIF rotation is applied, alpha is put on white, CMYK and 16-bit are converted. A large JPEG
    that will be shrunk to a shortest side of `wanted_px` is decoded at a half, a quarter or an
    eighth of its size. Raises DataError for a file that is missing, no image or truncated, and
    TooLargeError above MAX_PIXELS.
    """
    try:
        # ignores Pillow's warnings on size (it refuses at twice that), EXIF and palettes
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if wanted_px:
                # has no effect on other formats
                image.draft(None, (DRAFT_FACTOR * wanted_px, DRAFT_FACTOR * wanted_px))
            return to_rgb(ImageOps.exif_transpose(image))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"expected an image, but there is no file {path}; check the path") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: expected an image, but its content is of no format that Pillow knows"
        ) from None
    except Image.DecompressionBombError:
        raise TooLargeError(
            f"{path}: expected at most {MAX_PIXELS:,} pixels, but it has more; shrink it first"
        ) from None
    except (Exception, MemoryError) as error:  # Pillow raises whatever a damaged file leads it to
        raise DataError(
            f"{path}: expected a whole image, but it does not decode ({error})"
        ) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB.

    Raises DataError for floating point pixels.
    """
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow may hold in 32 bits
        return Image.fromarray(grey16_to_grey8(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise DataError(
            "expected integer pixels, but they are floating point; save it as an 8- or 16-bit image"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")


def grey16_to_grey8(pixels: np.ndarray) -> np.ndarray:
    """16-bit grey values as 8-bit ones, scaled.

    Pillow's own convert saturates instead.
    """
    return ((pixels.clip(0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def resize_shortest(
    image: Image.Image, shortest_px: int, resample: int = Image.Resampling.BILINEAR
) -> Image.Image:
    """The image resized so that its shortest side has `shortest_px`.

    Pillow's filter is antialiased when it shrinks. Raises TooLargeError for a picture so thin, or a
    side so long, that the result would exceed MAX_PIXELS.
    """
    width, height = image.size
    scale = shortest_px / min(width, height)
    size = (max(shortest_px, round(width * scale)), max(shortest_px, round(height * scale)))
    if size[0] * size[1] > MAX_PIXELS:
        raise TooLargeError(
            f"expected at most {MAX_PIXELS:,} pixels, but {width} x {height} would be resized to "
            f"{size[0]} x {size[1]}"
        )
    return image if size == image.size else image.resize(size, resample)


def resize_square(
    image: Image.Image, side_px: int, resample: int = Image.Resampling.BILINEAR
) -> Image.Image:
    """The largest square from the middle, resized to `side_px` a side.

    Pixels outside the square are never resized.
    """
    # Pillow's box cuts and resizes in one step
    left, top = ((side - min(image.size)) // 2 for side in image.size)
    return image.resize(
        (side_px, side_px), resample, box=(left, top, left + min(image.size), top + min(image.size))
    )


def cut_centre(image: Image.Image) -> Image.Image:
    """The largest square from the middle."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def to_bytes_tensor(image: Image.Image) -> Tensor:
    """An RGB Pillow image as uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1], contiguous."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB Pillow image as float32 [3, H, W] in [0, 1]."""
    return to_unit(to_bytes_tensor(image))


def to_pixels(image: Tensor) -> Tensor:
    """A float image [..., 3, H, W] in [0, 1] as uint8 [..., H, W, 3].

    Values outside are clipped, the others are rounded.
    """
    return image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).movedim(-3, -1)


def to_pil(image: Tensor) -> Image.Image:
    """A float image [3, H, W] in [0, 1], or pixels uint8 [H, W, 3], as a Pillow image."""
    pixels = to_pixels(image) if image.is_floating_point() else image
    return Image.fromarray(pixels.contiguous().cpu().numpy())


def load_bytes(path: str | Path, shortest_px: int | None = None, is_square: bool = False) -> Tensor:
    """The image file as uint8 [3, H, W], with the shortest side at `shortest_px` if given.

    With `is_square` it is the largest square from the middle. Raises DataError and TooLargeError as
    `open_rgb` does.
    """
    image = open_rgb(path, shortest_px)
    if is_square:
        return to_bytes_tensor(resize_square(image, shortest_px or min(image.size)))
    try:
        return to_bytes_tensor(resize_shortest(image, shortest_px) if shortest_px else image)
    except TooLargeError as error:
        raise TooLargeError(f"{path}: {error}") from None


def load_image(path: str | Path, shortest_px: int | None = None) -> Tensor:
    """The image file as float32 [3, H, W] in [0, 1], shortest side `shortest_px` if given."""
    return to_unit(load_bytes(path, shortest_px))


def quantised(image: Tensor) -> Tensor:
    """A float image as an 8-bit file returns it: clipped to [0, 1], in steps of 1/255."""
    return image.float().clamp(0, 1).mul(255).round().div(255)


def save_image(image: Tensor, path: str | Path, scratch: Path | None = None) -> None:
    """Write a float image [3, H, W], or pixels uint8 [H, W, 3], in the format of the suffix.

    The file appears whole or not at all. `scratch`: see replaced_file. Raises UsageError for an
    unknown suffix and for a folder that cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"expected a file name ending in {', '.join(SUFFIXES)}, but {target.name!r} came"
        )
    kind = Image.registered_extensions()[target.suffix.lower()]
    options = {
        "JPEG": {"quality": JPEG_QUALITY, "subsampling": 0},
        "PNG": {"compress_level": PNG_LEVEL},
    }.get(kind, {})
    try:
        with replaced_file(target, scratch) as temporary:
            to_pil(image).save(temporary, format=kind, **options)
    except OSError as error:
        raise UsageError(f"expected to write {target}, but it failed ({error})") from None


class replaced_file:  # noqa: N801 - used like a function
    """A context whose temporary file replaces `target` on success.

    The temporary path lies beside `target`. On success the file is synced and renamed, on failure
    it is removed.

    `scratch` is another beginning of the temporary path, on the same file system. What a killed
    process leaves then lies there.
    """

    def __init__(self, target: str | Path, scratch: Path | None = None) -> None:
        self.target = Path(target)
        self.scratch = scratch or self.target.parent / UNFINISHED

    def __enter__(self) -> Path:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                dir=self.scratch.parent, prefix=self.scratch.name, suffix=self.target.suffix
            )
        except OSError as error:
            raise UsageError(
                f"expected a folder that can be written, but {self.target.parent} cannot "
                f"({error.strerror})"
            ) from None
        os.close(handle)
        self.temporary = Path(name)
        return self.temporary

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            self.temporary.unlink(missing_ok=True)
            return
        with open(self.temporary, "rb") as file:
            os.fsync(file.fileno())  # before the rename, so that a crash leaves no empty file
        self.temporary.chmod(0o666 & ~current_umask())
        self.temporary.replace(self.target)


def check_writable(folder: str | Path) -> None:
    """Make the folder and a file in it, and remove the file again.

    Raises UsageError if that fails.
    """
    with contextlib.suppress(KeyError), replaced_file(Path(folder) / "probe"):
        raise KeyError  # ends the context like a failure, so that no file stays


def current_umask() -> int:
    """The process's umask, which finished files follow and temporary ones do not."""
    mask = os.umask(0)  # the umask can only be read by setting it
    os.umask(mask)
    return mask


def iterate_images(paths: list[str | Path]) -> Iterator[Path]:
    """Every file of `paths`, with each folder replaced by the images below it.

    Raises DataError where a path does not exist or a folder has no images.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(
                f"expected an image or a folder, but there is no {path}; check the path"
            )
        files = list_images(path) if path.is_dir() else [path]
        if not files:
            raise DataError(no_images_message(path))
        yield from files


def no_images_message(folder: str | Path) -> str:
    """The error message for a folder without images."""
    return (
        f"expected images ({', '.join(SUFFIXES)}) below {folder}, but there are none; check "
        "the path"
    )


def make_grid(rows: list[list[Tensor]], gap_px: int = 4) -> Tensor:
    """Rows of images [3, H, W] of one size as one picture [3, H', W'] with white gaps."""
    height, width = rows[0][0].shape[-2:]
    n_columns = max(len(row) for row in rows)
    grid = torch.ones(
        3, len(rows) * (height + gap_px) - gap_px, n_columns * (width + gap_px) - gap_px
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (height + gap_px), j * (width + gap_px)
            grid[:, top : top + height, left : left + width] = (
                image.detach().float().cpu().clamp(0, 1)
            )
    return grid
