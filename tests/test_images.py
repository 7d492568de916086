"""Every kind of file decodes to the right RGB; failures to decode or write are reported."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw
from PIL import Image, ImageCms

from stylenet import files, images
from stylenet.errors import DataError, UsageError


def pixels_of(image):
    return np.asarray(image)[0, 0].tolist()


def test_alpha_is_composited_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert pixels_of(images.open_rgb(tmp_path / "a.png")) == [255, 255, 255]
    Image.new("RGBA", (4, 4), (0, 0, 0, 51)).save(tmp_path / "b.png")
    assert pixels_of(images.open_rgb(tmp_path / "b.png")) == [204, 204, 204]


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    image.save(tmp_path / "p.png", transparency=0)
    assert pixels_of(images.open_rgb(tmp_path / "p.png")) == [255, 255, 255]


@pytest.mark.parametrize("value, expected", [(0, 0), (257 * 100, 100), (65535, 255), (40000, 156)])
def test_16_bit_grey_is_scaled_not_saturated(tmp_path, value, expected):
    Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / "g.png")
    assert pixels_of(images.open_rgb(tmp_path / "g.png")) == [expected] * 3


def test_cmyk_and_grey(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red, green, blue = pixels_of(images.open_rgb(tmp_path / "c.jpg"))
    assert red > 200 and green < 60 and blue < 60
    Image.new("L", (4, 4), 77).save(tmp_path / "l.png")
    assert pixels_of(images.open_rgb(tmp_path / "l.png")) == [77, 77, 77]


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "r.jpg", exif=exif)
    assert images.open_rgb(tmp_path / "r.jpg").size == (4, 8)


def test_what_does_not_decode_is_a_data_error(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    Image.new("F", (4, 4)).save(tmp_path / "float.tiff")
    for name in ("text.png", "empty.jpg", "cut.png", "float.tiff", "absent.png"):
        with pytest.raises(DataError, match=name):
            images.open_rgb(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(images.TooLargeError, match="shrink it"):
        images.open_rgb(tmp_path / "whole.png")


def test_listing_is_recursive_sorted_and_skips_the_rest(tmp_path):
    for name in ("b/x.PNG", "a.jpg", "b/y.webp", "notes.txt", ".hidden/z.png", "._a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in images.list_images(tmp_path)] == [
        "a.jpg",
        "b/x.PNG",
        "b/y.webp",
    ]


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (7, 500), (10, 10)])
def test_shortest_side(size):
    resized = images.resize_shortest(Image.new("RGB", size), 10)
    assert min(resized.size) == 10
    assert max(resized.size) == pytest.approx(10 * max(size) / min(size), abs=1)


def test_tensor_round_trip_is_exact_and_png_lossless(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    tensor = images.to_tensor(image)
    assert (
        tensor.shape == (3, 5, 7)
        and tensor.dtype == torch.float32
        and tensor.min() >= 0
        and tensor.max() <= 1
    )
    images.save_image(tensor, tmp_path / "deep/er/x.png")
    assert torch.equal(images.load_image(tmp_path / "deep/er/x.png"), tensor)


def test_values_outside_are_clipped_not_wrapped():
    assert pixels_of(images.to_pil(torch.tensor([-0.5, 0.5, 1.5]).reshape(3, 1, 1))) == [
        0,
        128,
        255,
    ]


def test_failed_writing_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replaced_file(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_finished_files_have_ordinary_permissions(tmp_path):
    images.save_image(torch.zeros(3, 2, 2), tmp_path / "x.png")
    (tmp_path / "y").touch()
    assert (tmp_path / "x.png").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_bad_targets_are_usage_errors(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file name ending in"):
        images.save_image(torch.zeros(3, 2, 2), tmp_path / "x.doc")
    with pytest.raises(UsageError, match="folder that can be written"):
        images.save_image(torch.zeros(3, 2, 2), tmp_path / "file" / "x.png")
    with pytest.raises(UsageError, match="folder that can be written"):
        files.check_writable(tmp_path / "file")


def test_check_writable_leaves_nothing_behind(tmp_path):
    files.check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_grid_places_every_image():
    rows = [[torch.full((3, 2, 3), v / 10) for v in (1, 2)], [torch.full((3, 2, 3), 0.3)]]
    grid = images.make_grid(rows, gap_px=1)
    assert grid.shape == (3, 5, 7)
    assert [
        round(float(grid[0, y, x]), 1) for y, x in ((0, 0), (0, 4), (3, 0), (2, 0), (4, 6))
    ] == [0.1, 0.2, 0.3, 1.0, 1.0]


def test_whatever_pillow_raises_is_a_data_error(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    for kind in (TypeError, MemoryError, KeyError):
        monkeypatch.setattr(
            Image.Image, "load", lambda _, kind=kind: (_ for _ in ()).throw(kind("damaged"))
        )
        with pytest.raises(DataError, match="x.png.*damaged"):
            images.open_rgb(tmp_path / "x.png")


def test_thin_pictures_do_not_explode():
    with pytest.raises(images.TooLargeError, match="would be resized to 7680000 x 512"):
        images.resize_shortest(Image.new("RGB", (30000, 2)), 512)


def test_linked_folders_are_entered_and_circles_are_not_endless(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "real/a.png").touch()
    (tmp_path / "set/linked").symlink_to(tmp_path / "real")
    (tmp_path / "real/circle").symlink_to(tmp_path / "set")
    assert images.list_images(tmp_path / "set") == [tmp_path / "set/linked/a.png"]


def test_link_to_nothing_is_listed_and_said_when_read(tmp_path):
    gone = tmp_path / "gone.png"
    gone.symlink_to(tmp_path / "elsewhere.png")
    assert images.list_images(tmp_path) == [gone]
    with pytest.raises(DataError, match="there is no file .*gone.png"):
        images.load_image(gone)


@pytest.fixture
def large_jpeg(tmp_path):
    """A JPEG of 1,600 x 1,200 with edges, gradients and noise, as from a camera."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (1600, 1200), Image.Resampling.NEAREST
    )
    smooth = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(
        (1600, 1200), Image.Resampling.BICUBIC
    )
    mixed = Image.blend(coarse, smooth, 0.6)
    noisy = np.asarray(mixed).astype(float) + generator.normal(0, 8, (1200, 1600, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "large.jpg", quality=92)
    return tmp_path / "large.jpg"


def psnr(a, b):
    return float(10 * torch.log10(255**2 / (a.double() - b.double()).square().mean()))


@pytest.mark.parametrize(
    "px, decoded",
    [
        (128, (400, 300)),
        (256, (800, 600)),
        (300, (800, 600)),
        (301, (1600, 1200)),
        (2000, (1600, 1200)),
    ],
)
def test_a_large_jpeg_is_decoded_near_the_wanted_size_and_looks_the_same(large_jpeg, px, decoded):
    assert images.open_rgb(large_jpeg, px).size == decoded and images.open_rgb(large_jpeg).size == (
        1600,
        1200,
    )
    whole = images.to_bytes_tensor(images.resize_shortest(images.open_rgb(large_jpeg), px))
    drafted = images.load_bytes(large_jpeg, px)
    assert drafted.shape == whole.shape and min(drafted.shape[1:]) == px
    assert torch.equal(drafted, whole) if decoded == (1600, 1200) else psnr(drafted, whole) > 40


def test_a_drafted_picture_is_turned_and_converted_all_the_same(tmp_path):
    image = Image.new("CMYK", (1200, 800), (0, 255, 255, 0))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert images.open_rgb(tmp_path / "turned.jpg", 100).size == (200, 300)
    assert images.load_bytes(tmp_path / "turned.jpg", 100).shape == (3, 150, 100)
    red, green, blue = pixels_of(images.open_rgb(tmp_path / "turned.jpg", 100))
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (61, 90), (50, 50)])
def test_the_square_in_the_middle_straight_at_its_size(tmp_path, size):
    draw(tmp_path / "x.png", 3, *size)
    square = images.load_bytes(tmp_path / "x.png", 20, is_square=True)
    resized_then_cut = images.cut_centre(
        images.resize_shortest(images.open_rgb(tmp_path / "x.png"), 20)
    )
    assert (
        square.shape == (3, 20, 20) and psnr(square, images.to_bytes_tensor(resized_then_cut)) > 25
    )
    cut = images.to_bytes_tensor(images.cut_centre(images.open_rgb(tmp_path / "x.png")))
    assert torch.equal(images.load_bytes(tmp_path / "x.png", is_square=True), cut)


def test_temporary_files_lie_where_they_are_asked_to(tmp_path):
    with files.replaced_file(tmp_path / "deep/a.txt", tmp_path / ".mine-") as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path and temporary.name.startswith(".mine-")
    assert (tmp_path / "deep/a.txt").read_text() == "new" and not list(tmp_path.glob(".mine-*"))


def chromaticities(primaries, gamma=2.2):
    """An ICC profile of a display with these primaries: x, y of red, green and blue."""
    white = np.array([0.9642, 1.0, 0.8249])  # D50, in which profiles count
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    matrix = columns * np.linalg.solve(columns, white)

    def fixed(value):
        return int(round(value * 65536)).to_bytes(4, "big", signed=True)

    def tag_xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big")
    tags = {b"wtpt": tag_xyz(white)}
    tags |= {name: tag_xyz(matrix[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve + b"\0\0")
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + (start + len(data)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        data += content
    header = bytearray(128)
    header[0:4] = (start + len(data)).to_bytes(4, "big")
    header[8:12], header[12:24], header[36:40] = b"\x02\x10\0\0", b"mntrRGB XYZ ", b"acsp"
    header[68:80] = b"".join(map(fixed, white))
    return bytes(header) + len(tags).to_bytes(4, "big") + table + data


WIDE = chromaticities([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)])  # about Adobe RGB's


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_colour_profiles_are_converted(tmp_path, suffix):
    """A green that is less saturated in a wide space is a stronger one in sRGB."""
    wide = Image.new("RGB", (16, 16), (100, 180, 90))
    wide.save(tmp_path / f"wide{suffix}", icc_profile=WIDE, quality=100)
    red, green, blue = pixels_of(images.open_rgb(tmp_path / f"wide{suffix}"))
    assert red < 75 and abs(green - 180) < 8 and blue < 90
    # of grey nothing but the curve changes
    Image.new("RGB", (16, 16), (90, 90, 90)).save(
        tmp_path / f"grey{suffix}", icc_profile=WIDE, quality=100
    )
    red, green, blue = pixels_of(images.open_rgb(tmp_path / f"grey{suffix}"))
    assert max(red, green, blue) - min(red, green, blue) <= 2 and abs(red - 90) < 6


def test_profiles_go_with_alpha_and_rotation(tmp_path):
    wide = Image.new("RGBA", (8, 4), (100, 180, 90, 255))
    wide.putpixel((0, 0), (0, 0, 0, 0))
    exif = wide.getexif()
    exif[0x0112] = 6
    wide.save(tmp_path / "a.png", icc_profile=WIDE, exif=exif)
    turned = images.open_rgb(tmp_path / "a.png")
    assert turned.size == (4, 8) and turned.getpixel((3, 0)) == (255, 255, 255)
    assert turned.getpixel((0, 7))[0] < 75


@pytest.mark.parametrize("profile", [b"junk", WIDE[:200], WIDE[:140] + bytes(300)])
def test_a_damaged_profile_is_ignored(tmp_path, profile):
    Image.new("RGB", (4, 4), (100, 180, 90)).save(tmp_path / "d.png", icc_profile=profile)
    assert pixels_of(images.open_rgb(tmp_path / "d.png")) == [100, 180, 90]


def test_srgb_s_own_profile_changes_nothing(tmp_path):
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "s.png", icc_profile=own)
    assert np.array_equal(np.asarray(images.open_rgb(tmp_path / "s.png")), pixels)
    # a profile for other pixels: grey ones with that of a colour screen
    Image.new("L", (4, 4), 77).save(tmp_path / "l.png", icc_profile=own)
    assert pixels_of(images.open_rgb(tmp_path / "l.png")) == [77, 77, 77]


def test_orientation_is_read_beside_odd_tags(tmp_path):
    """Tags that Pillow cannot encode again, as telephones write them, spoil nothing."""
    for tag, kind, value in ((0x0100, 9, -5), (0x011A, 10, 0), (0x0128, 8, -1)):
        entry = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"  # orientation 6
        odd = tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little")
        odd += (value & 0xFFFFFFFF).to_bytes(4, "little")
        block = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + odd + entry + bytes(4)
        Image.new("RGB", (8, 4)).save(tmp_path / "o.jpg", exif=block)
        assert images.open_rgb(tmp_path / "o.jpg").size == (4, 8)
    Image.new("RGB", (8, 4)).save(tmp_path / "o.png", exif=b"hello world, no TIFF")
    assert images.open_rgb(tmp_path / "o.png").size == (8, 4)


def tiff(pixels, **tags):
    """A TIFF of one strip with these tags, which Pillow itself would not write."""
    kinds = {"bits": 258, "compression": 259, "photometric": 262, "strip": 273, "samples": 277}
    kinds |= {"rows": 278, "n_bytes": 279, "format": 339, "width": 256, "height": 257}
    data = pixels.tobytes()
    values = {"width": pixels.shape[1], "height": pixels.shape[0], "compression": 1, "strip": 8}
    values |= {"samples": 1, "rows": pixels.shape[0], "n_bytes": len(data), **tags}
    entries = sorted((kinds[name], value) for name, value in values.items())
    table = len(entries).to_bytes(2, "little") + b"".join(
        number.to_bytes(2, "little")
        + (4 if number in (273, 279) else 3).to_bytes(2, "little")
        + (1).to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for number, value in entries
    )
    return b"II*\0" + (8 + len(data)).to_bytes(4, "little") + data + table + bytes(4)


def test_grey_of_other_kinds_is_right_or_refused(tmp_path):
    values = np.array([[0, 40000], [257, 65535]], dtype="<u2")
    for name, content, expected in (
        ("black", tiff(values, bits=16, photometric=1), [0, 156, 1, 255]),
        ("white", tiff(values, bits=16, photometric=0), [255, 99, 254, 0]),
        ("signed", tiff(values.view("<i2"), bits=16, photometric=1, format=2), None),
        ("long", tiff(values.astype("<u4"), bits=32, photometric=1), None),
        ("float", tiff(values.astype("<f4"), bits=32, photometric=1, format=3), None),
    ):
        path = tmp_path / f"{name}.tif"
        path.write_bytes(content)
        if expected is None:
            with pytest.raises(DataError, match=f"{name}.tif: expected pixels of 8 or 16 bits"):
                images.open_rgb(path)
        else:
            assert np.asarray(images.open_rgb(path))[..., 0].flatten().tolist() == expected, name


def png16(colour_type, pixels, key):
    """A 16-bit PNG with a transparent colour."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    height, width = pixels.shape[:2]
    header = (
        width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour_type, 0, 0, 0])
    )
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    content = chunk(b"IHDR", header) + chunk(b"tRNS", np.array(key, dtype=">u2").tobytes())
    return (
        b"\x89PNG\r\n\x1a\n" + content + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def test_transparent_16_bit_colours(tmp_path):
    (tmp_path / "grey.png").write_bytes(png16(0, np.array([[300, 301], [0, 65535]]), [300]))
    grey = np.asarray(images.open_rgb(tmp_path / "grey.png"))[..., 0]
    assert grey.tolist() == [[255, 1], [0, 255]]  # only the very value is transparent
    (tmp_path / "rgb.png").write_bytes(png16(2, np.full((2, 2, 3), 300), [300] * 3))
    with pytest.raises(DataError, match="16-bit colours came of which one is transparent"):
        images.open_rgb(tmp_path / "rgb.png")


@pytest.mark.parametrize("suffix", images.SUFFIXES)
def test_every_listed_format_is_read_and_written(tmp_path, suffix):
    images.save_image(torch.full((3, 16, 16), 0.5), tmp_path / f"x{suffix}")
    pixels = pixels_of(images.open_rgb(tmp_path / f"x{suffix}"))
    assert max(abs(value - 128) for value in pixels) <= 3
    assert images.list_images(tmp_path) == [tmp_path / f"x{suffix}"]


def test_only_listed_formats_are_opened(tmp_path):
    """Whatever the name says: Pillow would start Ghostscript for PostScript."""
    (tmp_path / "e.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png", "PPM")
    for name in ("e.png", "p.png"):
        with pytest.raises(DataError, match="its content is of no such format"):
            images.open_rgb(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_and_not_awaited(tmp_path):
    os.mkfifo(tmp_path / "p.png")
    for path in (tmp_path / "p.png", Path("/dev/null"), tmp_path):
        with pytest.raises(DataError, match="expected an image, but a (pipe or a device|folder)"):
            images.open_rgb(path)


def test_files_passed_over_are_counted(tmp_path):
    for name in ("a.png", "b.txt", "c.txt", "d.HEIC", "e", ".hidden"):
        (tmp_path / name).touch()
    note = images.passed_over(tmp_path)
    assert (
        note == f"note: 4 files of {tmp_path} are passed over: .txt (2), .heic (1), no suffix (1)"
    )
    (tmp_path / "pure").mkdir()
    assert images.passed_over(tmp_path / "pure") is None


def test_a_huge_picture_is_shrunk_before_it_is_converted(tmp_path, monkeypatch):
    noise = Image.effect_noise((640, 480), 60).convert("RGBA")
    noise.save(tmp_path / "n.png")
    plain = images.open_rgb(tmp_path / "n.png", 60)
    monkeypatch.setattr(images, "HUGE_PIXELS", 1000)
    small = images.open_rgb(tmp_path / "n.png", 60)
    assert plain.size == (640, 480) and small.size == (160, 120)
    both = [np.asarray(images.resize_shortest(x, 60)).astype(int) for x in (plain, small)]
    assert np.abs(both[0] - both[1]).mean() < 3


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_metadata_is_kept_and_upright(tmp_path, suffix):
    photo = Image.new("RGB", (8, 4))
    exif = photo.getexif()
    exif[0x0112], exif[0x010F] = 6, "A maker"
    photo.save(tmp_path / "p.jpg", exif=exif)
    metadata = images.metadata_of(tmp_path / "p.jpg")
    images.save_image(torch.zeros(3, 8, 4), tmp_path / f"o{suffix}", None, metadata)
    with Image.open(tmp_path / f"o{suffix}") as saved:
        saved.load()
        assert saved.getexif()[0x010F] == "A maker" and saved.getexif()[0x0112] == 1
        assert b"acsp" in saved.info["icc_profile"]
    assert images.open_rgb(tmp_path / f"o{suffix}").size == (4, 8)  # not turned again
    for kind in (".webp", ".tif", ".png"):  # some keep the block without its mark, or as tags
        photo.save(tmp_path / f"q{kind}", exif=exif)
        metadata = images.metadata_of(tmp_path / f"q{kind}")
        images.save_image(torch.zeros(3, 8, 4), tmp_path / f"o{suffix}", None, metadata)
        with Image.open(tmp_path / f"o{suffix}") as saved:
            saved.load()
            assert saved.getexif()[0x010F] == "A maker", kind
            assert saved.getexif().get(0x0112, 1) == 1
    Image.new("RGB", (8, 4)).save(tmp_path / "d.png", exif=b"no TIFF at all")
    assert images.metadata_of(tmp_path / "d.png").keys() == {"icc_profile"}


@pytest.mark.parametrize("suffix, side", [(".webp", 17000), (".gif", 66000), (".jpg", 66000)])
def test_a_format_s_limit_is_said_in_a_line(tmp_path, suffix, side, capsys):
    with pytest.raises(UsageError, match=f"expected sides of at most .* but {side}x1 came"):
        images.save_image(torch.zeros(3, 1, side), tmp_path / f"o{suffix}")
    assert not list(tmp_path.iterdir())
    images.save_image(torch.zeros(3, 8, 8), tmp_path / "o.jpg", None, {"exif": bytes(70_000)})
    assert "its EXIF block is too long for JPEG and left out" in capsys.readouterr().err
