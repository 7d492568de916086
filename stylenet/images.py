"""Functions that decode, encode and resize images.

Between modules an image is RGB float32 in [0, 1], [3, H, W].

Pillow decodes, because torchvision.io crashes the whole process on some broken PNG files.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import io
import itertools
import os
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageSequence, UnidentifiedImageError
from torch import Tensor

from stylenet import shards
from stylenet.errors import DataError, UsageError, one_line
from stylenet.files import check_regular, replaced_file

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"
)  # fmt: skip
# the only decoders that may see a file, whatever its name: Pillow knows some that start programs
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's own limit, about 13,400 x 13,400
JPEG_QUALITY = 95
# of zlib: takes a third of the time of Pillow's 6, files are 5 to 10 % larger (docs/log.md)
PNG_LEVEL = 1
# a JPEG is decoded to at least so many times the side asked for: 1 would be 9 to 12 dB worse
# (docs/log.md)
DRAFT_FACTOR = 2


HUGE_PIXELS = 2**25  # above this a picture is shrunk before it is converted
ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")  # other files with several pictures are no clips
DEFAULT_FRAME_MS = 100  # of a GIF that names no duration, as browsers take it
MOST_KINDS = 6  # suffixes that a note names
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation; 1 is upright
EXIF_MARK = b"Exif\0\0"
DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
PARTS_OF_EXIF = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_WHITE_IS_ZERO = 258, 262, 0
# 9 x 9 x 9 colours as an RGB picture of 9 x 81
COLOUR_CUBE = np.stack(
    np.meshgrid(*[np.linspace(0, 255, 9, dtype=np.uint8)] * 3, indexing="ij"), axis=-1
).reshape(9, 81, 3)
SRGB_ROUNDING = 2  # levels of 255
JPEG_EXIF_BYTES = 65_533
FORMAT_LIMITS_PX = {"JPEG": 65500, "WEBP": 16383, "GIF": 65535}


class TooLargeError(DataError):
    """A picture is so large that it may be a decompression bomb."""


def list_images(folder: str | Path) -> list[Path]:
    """The image files below the folder and the folders linked in it, in a stable order.

    Hidden files and folders are omitted. A link whose target is gone is listed: who reads it is
    told, as of any damaged picture. Raises DataError for a folder that cannot be read.
    """
    root = Path(folder)
    image_paths = (
        path
        for path in list_files(root)
        if is_image_name(path) and (path.is_file() or path.is_symlink())
    )
    return sorted(image_paths, key=lambda path: path.relative_to(root).as_posix())


def list_files(root: Path) -> list[Path]:
    """All files that are not hidden below the folder and the folders linked in it."""
    paths, real_places = [], set()

    def refuse(error: OSError) -> None:
        raise DataError(
            f"expected a folder that can be read, but {error.filename} cannot ({error.strerror})"
        )

    for place, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        # the walk enters linked folders, but none twice: links may form a circle
        is_new = os.path.realpath(place) not in real_places
        real_places.add(os.path.realpath(place))
        folders[:] = [name for name in folders if is_new and not name.startswith(".")]
        paths += [Path(place, name) for name in names if is_new and not name.startswith(".")]
    return paths


def is_image_name(path: Path) -> bool:
    """Whether the suffix is that of a format in SUFFIXES."""
    return path.suffix.lower() in SUFFIXES


def passed_over(folder: str | Path) -> str | None:
    """One line with the files of a folder that are no images by their suffix, or None."""
    suffixes = Counter(
        path.suffix.lower() or "no suffix"
        for path in list_files(Path(folder))
        if not is_image_name(path)
    )
    if not suffixes:
        return None
    kinds = ", ".join(f"{suffix} ({n})" for suffix, n in suffixes.most_common(MOST_KINDS))
    rest = ", ..." if len(suffixes) > MOST_KINDS else ""
    return f"note: {suffixes.total()} files of {folder} are passed over: {kinds}{rest}"


def open_rgb(
    path: str | Path, wanted_px: int | None = None, background: str = "white"
) -> Image.Image:
    """The decoded image as 8-bit RGB in the colours of sRGB.

    EXIF rotation is applied, alpha is put on the background, CMYK, 16-bit grey and colour profiles
    are converted. A large JPEG that will be shrunk to a shortest side of `wanted_px` is decoded at
    a half, a quarter or an eighth of its size, and another huge picture is shrunk before it is
    converted. Raises DataError for a file that is missing, no image or truncated, and TooLargeError
    above MAX_PIXELS.
    """
    packed = shards.opened(path)
    if packed is None:
        check_regular(path, "an image")
    try:
        # ignores Pillow's warnings on size (it refuses at twice that), EXIF and palettes
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(packed or path, formats=FORMATS) as image,
        ):
            if wanted_px:
                # has no effect on other formats
                image.draft(None, (DRAFT_FACTOR * wanted_px, DRAFT_FACTOR * wanted_px))
            check_pixels(image)
            image.load()
            turn = turn_of(image)
            rgb = to_rgb(reduced(image, wanted_px) if wanted_px else image, background)
            return rgb.transpose(turn) if turn is not None else rgb
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"expected an image, but there is no file {path}; check the path") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: expected an image ({', '.join(FORMATS)}), but its content is of no such "
            "format"
        ) from None
    except Image.DecompressionBombError:
        raise TooLargeError(
            f"{path}: expected at most {MAX_PIXELS:,} pixels, but it has more; shrink it first"
        ) from None
    except (Exception, MemoryError) as error:  # Pillow raises whatever a damaged file leads it to
        raise DataError(
            f"{path}: expected a whole image, but it does not decode ({one_line(error)})"
        ) from None


def check_pixels(image: Image.Image) -> None:
    """Raise DataError for an opened image whose pixels Pillow would misread.

    These are signed and 32-bit integers, floating point numbers, and 16-bit colours of which one is
    transparent (Pillow reads their upper bytes only).
    """
    if image.mode in ("I", "F"):
        kind = "floating point" if image.mode == "F" else "signed or 32-bit"
        raise DataError(f"expected pixels of 8 or 16 bits, but {kind} ones came; convert it first")
    raw_mode = image.tile[0].args if image.tile else ""
    if "16" in str(raw_mode) and image.mode == "RGB" and "transparency" in image.info:
        raise DataError(
            "expected 8 bits, or no transparent colour, but 16-bit colours came of which one is "
            "transparent; convert it to 8 bits"
        )


def reduced(image: Image.Image, wanted_px: int) -> Image.Image:
    """A huge image shrunk by a whole factor to at least DRAFT_FACTOR * wanted_px.

    Its conversions would need several copies of it. Other images are returned as they are.
    """
    factor = min(image.size) // (DRAFT_FACTOR * wanted_px)
    is_huge = image.width * image.height > HUGE_PIXELS
    if factor < 2 or not is_huge or image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    return image.reduce(factor)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """The turn that the EXIF orientation of a loaded image asks for, or None.

    Only this tag is read: the others may be of any kind, and Pillow's own function would encode
    them again.
    """
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a damaged block leads Pillow to whatever
        return None


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Any Pillow image as 8-bit RGB in the colours of sRGB, transparency on the background.

    Raises DataError for pixels that are neither 8-bit nor unsigned 16-bit.
    """
    if image.mode.startswith("I;16"):
        return grey16_to_rgb(image, background)
    if image.mode in ("I", "F"):
        check_pixels(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        colours = in_srgb(layers.convert("RGB"), image.info)
        merged = Image.new("RGB", layers.size, background)
        merged.paste(colours, mask=layers.getchannel("A"))
        return merged
    return in_srgb(image, image.info)


def grey16_to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """A 16-bit grey image as 8-bit RGB, scaled. Pillow's own convert saturates instead."""
    pixels = np.asarray(image)
    key = image.info.get("transparency")
    is_clear = pixels == key if isinstance(key, int) else None
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    n_bits = tags.get(TIFF_BITS, (16,))[0]
    largest = 2**n_bits - 1  # 12-bit values are not stretched when they are read
    if tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO:
        pixels = largest - pixels
    grey = (pixels.astype(np.uint32) * 255 + largest // 2) // largest
    image8 = in_srgb(Image.fromarray(grey.astype(np.uint8)), image.info)
    if is_clear is not None:
        image8.paste(background, mask=Image.fromarray(is_clear))
    return image8


def in_srgb(image: Image.Image, info: dict) -> Image.Image:
    """The image as RGB in the colours of sRGB, by the colour profile in the file's `info`.

    A profile that is damaged, or of another kind than the pixels, is ignored.
    """
    profile = info.get("icc_profile")
    if not profile:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    convert = to_srgb_of(bytes(profile), image.mode)
    if convert is None:
        return image.convert("RGB")
    return ImageCms.applyTransform(image, convert)


@functools.lru_cache(maxsize=8)
def to_srgb_of(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of a mode from a colour profile to sRGB; None where it changes nothing."""
    try:
        convert = ImageCms.buildTransform(
            io.BytesIO(profile), ImageCms.createProfile("sRGB"), mode, "RGB"
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    # most profiles are sRGB's own: a conversion that moves no colour by more than rounding is none
    plain = Image.fromarray(COLOUR_CUBE).convert(mode)
    moved = np.asarray(ImageCms.applyTransform(plain, convert)).astype(int)
    distance = np.abs(moved - np.asarray(plain.convert("RGB"))).max()
    return None if distance <= SRGB_ROUNDING else convert


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


def to_jpeg(image: Tensor, shortest_px: int) -> bytes:
    """A small JPEG of an image [3, H, W], float in [0, 1] or uint8."""
    unit = to_unit(image) if image.dtype == torch.uint8 else image
    stream = io.BytesIO()
    resize_shortest(to_pil(unit), shortest_px).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def sha256_of_picture(path: str | Path) -> str:
    """The sha256 of a picture's file, be it in a shard."""
    member = shards.opened(path)
    return hashlib.sha256(member.read() if member else Path(path).read_bytes()).hexdigest()


def shown_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture as it is shown, from its header. Raises DataError."""
    check_regular(path, "an image")
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=FORMATS) as image,
        ):
            turn = turn_of(image)
            is_sideways = turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)
            is_sideways |= turn in (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE)
            return image.size[::-1] if is_sideways else image.size
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        raise DataError(f"{path}: expected an image, but {one_line(error)}") from None


def animation(path: str | Path) -> Iterator[tuple[Image.Image, Fraction]]:
    """Every frame of an animated picture as 8-bit RGB, and its duration in seconds.

    A picture of one frame has that frame. Raises DataError.
    """
    check_regular(path, "an image")
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=FORMATS) as image,
        ):
            turn = turn_of(image)
            for frame in ImageSequence.Iterator(image):
                # the next frame replaces this one; and some are timed late
                picture = frame.transpose(turn) if turn is not None else frame.copy()
                shown_ms = frame.info.get("duration") or DEFAULT_FRAME_MS
                yield to_rgb(picture), Fraction(shown_ms).limit_denominator(10) / 1000
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        raise DataError(
            f"{path}: expected an animated picture, but it does not decode ({one_line(error)})"
        ) from None


def is_animated(path: str | Path) -> bool:
    """Whether a picture has several frames, by its header; False for a broken one."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=FORMATS) as image,
        ):
            return getattr(image, "is_animated", False) and image.format in ANIMATED_FORMATS
    except Exception:  # reading it says what is wrong
        return False


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


def metadata_of(path: str | Path) -> dict[str, bytes]:
    """What a photo's stylised picture keeps: its EXIF block, upright, and the profile of sRGB.

    The block's other tags stay byte for byte; of a TIFF, whose tags are not a block, those that
    describe the photo are kept. A damaged block is left out.
    """
    profile = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=FORMATS) as image,
        ):
            image.load()  # a PNG's block may follow its pixels
            block = image.info.get("exif") or described(image)
            return profile | ({"exif": upright_exif(block)} if block else {})
    except Exception:  # reading the pixels says what is wrong
        return profile


def upright_exif(block: bytes) -> bytes:
    """An EXIF block whose orientation is 1. Raises struct.error or KeyError for a damaged one."""
    content = bytearray(block)
    start = len(EXIF_MARK) if content.startswith(EXIF_MARK) else 0
    order = {b"II": "<", b"MM": ">"}[bytes(content[start : start + 2])]
    (offset,) = struct.unpack_from(f"{order}I", content, start + 4)
    (n_tags,) = struct.unpack_from(f"{order}H", content, start + offset)
    for i in range(n_tags):
        entry = start + offset + 2 + 12 * i  # tag, kind, count, value
        if struct.unpack_from(f"{order}H", content, entry)[0] == ExifTags.Base.Orientation:
            struct.pack_into(f"{order}H", content, entry + 8, 1)
    return (b"" if start else EXIF_MARK) + bytes(content)  # JPEG needs the mark


def described(image: Image.Image) -> bytes:
    """What the tags of a TIFF, which are among those of its pixels, say of the photo."""
    tags, kept = image.getexif(), Image.Exif()
    for tag in (*DESCRIPTIVE_TAGS, *PARTS_OF_EXIF):
        if tag in tags:
            kept[tag] = tags.get_ifd(tag) if tag in PARTS_OF_EXIF else tags[tag]
    return kept.tobytes() if len(kept) else b""


def save_image(
    image: Tensor,
    path: str | Path,
    scratch: Path | None = None,
    metadata: Mapping[str, bytes] | None = None,
) -> None:
    """Write a float image [3, H, W], or pixels uint8 [H, W, 3], in the format of the suffix.

    The file appears whole or not at all. `scratch`: see replaced_file. `metadata` is that of
    `metadata_of`. Raises UsageError for an unknown suffix and for a folder that cannot be written.
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
    metadata = dict(metadata or {})
    if kind == "JPEG" and len(metadata.get("exif", b"")) > JPEG_EXIF_BYTES:
        del metadata["exif"]
        print(f"{target.name}: its EXIF block is too long for JPEG and left out", file=sys.stderr)
    picture, limit_px = to_pil(image), FORMAT_LIMITS_PX.get(kind, MAX_PIXELS)
    if max(picture.size) > limit_px:
        raise UsageError(
            f"expected sides of at most {limit_px} pixels for {target.name}, but "
            f"{picture.width}x{picture.height} came; write PNG, or make it smaller"
        )
    with replaced_file(target, scratch) as temporary:
        try:
            picture.save(temporary, format=kind, **options, **metadata)
        except (ValueError, RuntimeError, struct.error) as error:  # whatever else it cannot hold
            raise UsageError(
                f"expected to write {target}, but {kind} does not take it ({one_line(error)})"
            ) from None


def iterate_images(paths: list[str | Path]) -> Iterator[Path]:
    """Every file of `paths`, with each folder replaced by the images below it.

    A pattern such as `photos/*.jpg` stands for the files that it matches. Raises DataError where a
    path does not exist or a folder has no images.
    """
    for path in (found for place in paths for found in matches(place)):
        files = list_images(path) if path.is_dir() else [path]
        if not files:
            raise DataError(no_images_message(path))
        yield from files


def matches(place: str | Path) -> list[Path]:
    """The path itself, or what matches it as a pattern. Raises DataError where there is nothing."""
    if Path(place).exists():
        return [Path(place)]
    found = sorted(map(Path, glob.glob(str(place), recursive=True)))  # noqa: PTH207 - any root
    if not found:
        raise DataError(f"expected an image or a folder, but there is no {place}; check the path")
    return found


def root_of(place: str | Path) -> Path:
    """The folder that a place stands for: itself, a file's, or a pattern's part without signs."""
    path = Path(place)
    if path.is_dir():
        return path
    if path.exists() or not glob.has_magic(str(place)):
        return path.parent
    parts = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1])
    return Path(*parts)


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
