"""Every kind of file decodes to the right RGB; failures to decode or write are reported."""

import numpy as np
import pytest
import torch
from conftest import draw
from PIL import Image

from stylenet import images
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
    with pytest.raises(ZeroDivisionError), images.replaced_file(target) as temporary:
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
        images.check_writable(tmp_path / "file")


def test_check_writable_leaves_nothing_behind(tmp_path):
    images.check_writable(tmp_path / "new")
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
            images.ImageOps,
            "exif_transpose",
            lambda _, kind=kind: (_ for _ in ()).throw(kind("damaged")),
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
    with images.replaced_file(tmp_path / "deep/a.txt", tmp_path / ".mine-") as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path and temporary.name.startswith(".mine-")
    assert (tmp_path / "deep/a.txt").read_text() == "new" and not list(tmp_path.glob(".mine-*"))
