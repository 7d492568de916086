"""Tiling changes nothing but the memory.

This holds for any size, padding and transform, on the plain and on the fast form.
"""

import pytest
import torch
from test_fast import image, random_net, relative_difference

from stylenet.applying.stylizer import SMALLEST_TILE, Stylizer, best_tile
from stylenet.errors import UsageError
from stylenet.looks import make_look
from stylenet.models.fast import make_fast
from stylenet.models.stylenet import StyleNet
from stylenet.models.tiles import can_tile, encode_tiled, halo_px, piece_of, render_tiled, spans
from stylenet.transforms import TRANSFORMS

CPU = torch.device("cpu")


def tiled(net, content, codes, weights, alpha, tile_px):
    """The picture, computed in tiles."""

    output, seen = torch.full_like(content, torch.nan), []

    def write(top, left, piece):
        output[..., top : top + piece.shape[-2], left : left + piece.shape[-1]] = piece
        seen.append(piece.numel())

    features = encode_tiled(net, content, tile_px)
    render_tiled(net, features, content.shape, make_look(codes, weights, alpha), tile_px, write)
    assert sum(seen) == content.numel()  # every pixel once
    return output


@pytest.mark.parametrize(
    "length, tile, halo", [(100, 32, 8), (64, 64, 8), (65, 64, 16), (5, 64, 8)]
)
def test_spans_cover_a_side_once_and_stay_within_it(length, tile, halo):
    found = spans(length, tile, halo)
    assert [span.start for span in found] == [0, *(span.stop for span in found[:-1])] and found[
        -1
    ].stop == length
    for span in found:
        assert (
            span.wide_start == max(0, span.start - halo)
            and 0 <= span.wide_start <= span.start < span.stop <= span.wide_stop <= length
        )


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("height, width", [(128, 96), (131, 77), (97, 130), (40, 200)])
@torch.inference_mode()
def test_equals_the_whole_pass_at_the_papers_depth(padding, height, width):
    net = make_fast(random_net(padding), CPU)
    content, codes = (
        image(1, height, width),
        [net.encode_style(image(1, 40, 50, 3)), net.encode_style(image(1, 33, 33, 4))],
    )
    whole = net.stylise(content, make_look(codes, [1, 2], 0.8))
    assert relative_difference(tiled(net, content, codes, [1, 2], 0.8, 64), whole) < 1e-5


@pytest.mark.parametrize(
    "options", [{"upsampling": "bilinear"}, {"norm": "batch"}, {"pooling": "avg"}]
)
@torch.inference_mode()
def test_equals_the_whole_pass_with_other_options(options):
    net = random_net(tap="relu3_1", **options)
    content, codes = image(2, 70, 93), [net.encode_style(image(1, 30, 30, 3))]
    assert (
        relative_difference(
            tiled(net, content, codes, [1], 1.0, 32),
            net.stylise(content, make_look(codes, [1], 1.0)),
        )
        < 1e-5
    )


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "concat"])
@torch.inference_mode()
def test_equals_the_whole_pass_for_every_transform(name):
    plain = random_net(tap="relu2_1")
    net = StyleNet(plain.encoder, TRANSFORMS[name], plain.decoder, "relu2_1")
    content, codes = image(1, 45, 61), [net.encode_style(image(1, 30, 20, 3))]
    tolerance = (
        1e-3 if name in ("wct", "efdm", "histogram") else 2e-5
    )  # rounding moves eigenvalues and ranks
    assert (
        relative_difference(
            tiled(net, content, codes, [1], 0.7, 16),
            net.stylise(content, make_look(codes, [1], 0.7)),
        )
        < tolerance
    )


def test_halo_is_as_wide_as_the_network_sees():
    """A change of one pixel changes no feature beyond the halo.

    It changes a feature close to the halo's edge.
    """
    net = random_net(tap="relu3_1")
    assert (
        halo_px(net) == 12
        and halo_px(random_net()) == 32
        and halo_px(random_net(upsampling="bilinear")) == 48
    )
    before = image(1, 64, 64)
    after = before.clone()
    after[..., 32, 32] += 1
    moved = (net.encode(before) != net.encode(after)).any(1)[
        0
    ].nonzero() * 4 - 32  # cells' upper left pixel, from the change
    assert (
        moved.min() >= -halo_px(net) - 3
        and moved.max() <= halo_px(net)
        and moved.abs().max() > halo_px(net) - 8
    )


@pytest.mark.parametrize(
    "height, width, tile", [(128, 96, 64), (136, 80, 24), (40, 200, 64), (16, 8, 8)]
)
@torch.inference_mode()
def test_equals_the_whole_pass_with_circular_padding(height, width, tile):
    """The halo comes from the opposite side, even if it is wider than the picture."""
    net = make_fast(random_net("circular"), CPU)
    content, codes = image(1, height, width), [net.encode_style(image(1, 40, 50, 3))]
    assert can_tile(net, content.shape)
    assert (
        relative_difference(
            tiled(net, content, codes, [1], 0.8, tile),
            net.stylise(content, make_look(codes, [1], 0.8)),
        )
        < 1e-5
    )


@torch.inference_mode()
def test_circular_sides_that_pooling_rounds_up_go_whole():
    net = random_net(tap="relu2_1", padding="circular")
    stylizer, content = Stylizer(net, "cpu", tile=64), image(1, 81, 90)
    assert stylizer.tile_px(content.shape) is None and stylizer.tile_px((1, 3, 82, 90)) == 64
    torch.testing.assert_close(
        stylizer(content, content), Stylizer(net, "cpu", tile="off")(content, content)
    )


def test_pieces_go_on_at_the_opposite_side():
    whole = torch.arange(12).reshape(1, 1, 3, 4)
    assert piece_of(whole, (0, 2), (1, 3))[0, 0].tolist() == [[1, 2], [5, 6]]
    assert piece_of(whole, (-1, 1), (3, 9))[0, 0].tolist() == [
        [11, 8, 9, 10, 11, 8],
        [3, 0, 1, 2, 3, 0],
    ]


@pytest.mark.parametrize("options", [{"norm": "instance"}])
def test_networks_that_see_the_whole_picture_are_not_tiled(options):
    net = random_net(tap="relu2_1", **options)
    assert not can_tile(net, (1, 3, 64, 64))
    with pytest.raises(UsageError, match="use --tile off"):
        Stylizer(net, "cpu", tile=64)
    assert Stylizer(net, "cpu").tile_px((1, 3, 5000, 5000)) is None


@torch.inference_mode()
def test_stylizer_tiles_bytes_and_floats_alike():
    net = random_net(tap="relu2_1")
    whole, pieces = Stylizer(net, "cpu", tile="off"), Stylizer(net, "cpu", tile=64)
    pixels = (image(1, 150, 90)[0] * 255).round().to(torch.uint8)
    style = image(1, 80, 130, 5)
    expected = whole(pixels, style)
    torch.testing.assert_close(pieces(pixels.float() / 255, style), expected, rtol=0, atol=1e-5)
    encoded = pieces.encode_content(pixels)
    drawn = pieces.render_pixels(encoded, [make_look([pieces.encode_style(style)])])[0]
    assert drawn.shape == (150, 90, 3) and drawn.dtype == torch.uint8
    assert (
        drawn.int() - (expected * 255).round().int().permute(1, 2, 0)
    ).abs().max() <= 1  # a value at .5 may fall either way


def test_tile_sizes_follow_the_memory():
    assert best_tile(None, CPU) == 512 and best_tile(64 * 2**30, CPU) == 512
    assert best_tile(2**30, CPU) == 256 and best_tile(2**20, CPU) == 128
    assert best_tile(64 * 2**30, torch.device("cuda")) == 2048
    stylizer = Stylizer(random_net(tap="relu1_1"), "cpu")
    assert stylizer.tile_px((1, 3, 1024, 1024)) is None and stylizer.tile_px(
        (1, 3, 2048, 2048)
    ) in (128, 256, 512)


def test_too_little_memory_halves_the_tile():
    stylizer, tried = Stylizer(random_net(tap="relu1_1"), "cpu"), []

    def action(tile_px):
        tried.append(tile_px)
        if tile_px is None or tile_px > 100:
            raise torch.OutOfMemoryError
        return "done"

    assert stylizer.in_memory(action, (1, 3, 800, 640)) == "done" and tried == [None, 400, 200, 100]

    def always(_):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        stylizer.in_memory(always, (1, 3, SMALLEST_TILE, SMALLEST_TILE))
