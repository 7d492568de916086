"""The compact network in strips equals the whole pass, for any size, option and look."""

import pytest
import torch
from test_fast import image

from stylenet.applying.stylizer import Stylizer, join, separate
from stylenet.looks import make_look
from stylenet.models.compact import CompactNet, make_fast
from stylenet.models.strips import encode_in_strips, encoder_halo, is_in_strips, render_in_strips

CPU = torch.device("cpu")
CHANNELS = (8, 12, 16)


def make_net(**options):
    return CompactNet(CHANNELS, generator=torch.Generator().manual_seed(0), **options).eval()


def in_strips(net, features, shape, look, tile_px):
    """The picture and its statistics."""
    output, n_rows = torch.full(shape, torch.nan), []

    def write(top, left, piece):
        output[..., top : top + piece.shape[-2], left : left + piece.shape[-1]] = piece
        n_rows.append(piece.shape[-2])

    stats = render_in_strips(net, features, shape, look, tile_px, write)
    assert sum(n_rows) == shape[-2] and output.isfinite().all()  # every row once
    return output, stats, len(n_rows)


@pytest.mark.parametrize("is_fast", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"antialias": True}, {"blocks": 6, "encoder_blocks": 2}, {"blocks": 2, "antialias": True}],
)
@pytest.mark.parametrize("height, width", [(136, 32), (131, 45), (8, 40), (97, 1)])
@torch.inference_mode()
def test_equals_the_whole_pass(options, height, width, is_fast):
    net = make_net(**options)
    net = make_fast(net, CPU) if is_fast else net
    content = image(2, height, width)
    codes = [net.encode_style(image(1, 40, 50, 3)), net.encode_style(image(1, 33, 33, 4))]
    look = make_look(codes, [1, 2], 0.7)
    whole, whole_stats = net.render(net.encode(content), content.shape, look)
    for features in (encode_in_strips(net, content, 16), net.encode(content)):
        picture, stats, n_strips = in_strips(net, features, content.shape, look, 16)
        assert n_strips > 3 or min(height, width) < 9
        assert (picture - whole).abs().max() < 1e-5 * whole.abs().max()
        for ours, theirs in zip(stats, whole_stats, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_halo_is_as_wide_as_the_encoder_sees():
    """A change beyond the halo changes no feature; one within it does."""
    net = make_net(encoder_blocks=2, antialias=True)
    before = image(1, 256, 16)
    after = before.clone()
    after[..., 128:136, :] += 1  # one cell
    moved = (net.encode(before)[2] != net.encode(after)[2]).any(1)[0].any(1).nonzero() - 16
    assert moved.abs().max() == encoder_halo(net)


@torch.inference_mode()
def test_past_statistics_steer_strips_as_they_steer_the_whole():
    net, (a, b) = make_net(antialias=True), image(2, 120, 56).split(1)
    look = make_look([net.encode_style(image(1, 40, 50, 3))])
    past = net.render(net.encode(a), a.shape, look)[1]
    for share in (0.0, 0.3):
        later = look.with_stats(past, share)
        whole, whole_stats = net.render(net.encode(b), b.shape, later)
        picture, stats, _ = in_strips(net, encode_in_strips(net, b, 16), b.shape, later, 16)
        assert (picture - whole).abs().max() < 1e-5 * whole.abs().max()
        own = net.render(net.encode(b), b.shape, look)[1]
        assert not torch.allclose(whole_stats[-1], own[-1])
    # with no share of its own, the frame has the past's statistics throughout
    assert all(map(torch.equal, net.render(net.encode(b), b.shape, look.with_stats(past))[1], past))


@torch.inference_mode()
def test_the_stylizer_takes_bytes_and_batches_in_strips():
    net = make_net(antialias=True)
    whole, strips = Stylizer(net, "cpu", tile="off"), Stylizer(net, "cpu", tile=24)
    pixels = (image(2, 150, 90) * 255).round().to(torch.uint8)
    style = image(1, 80, 130, 5)
    expected = whole(pixels, style)
    torch.testing.assert_close(strips(pixels, style), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(strips(pixels.float() / 255, style), expected, rtol=0, atol=1e-5)
    # the features of a batch part and join, as contents that share one need
    encoded = strips.encode_content(pixels)
    again = join(separate(encoded))
    assert is_in_strips(again.features)
    assert not is_in_strips(whole.encode_content(pixels).features)
    look = make_look([strips.encode_style(style)])
    assert torch.equal(strips.render(again, look), strips.render(encoded, look))


@torch.inference_mode()
def test_too_little_memory_for_one_half_only_changes_nothing(monkeypatch):
    """The encoder fits as a whole and the decoder does not, and the reverse."""
    net = make_net()
    content, expected = image(1, 130, 90), None
    for failing in ("nothing", "encode", "render"):
        stylizer = Stylizer(net, "cpu")

        def fail(*_):
            raise torch.OutOfMemoryError

        if failing != "nothing":
            monkeypatch.setattr(stylizer.net, failing, fail)
        look = make_look([net.encode_style(image(1, 40, 50, 3))])
        picture = stylizer.render(stylizer.encode_content(content), look)
        expected = picture if expected is None else expected
        torch.testing.assert_close(picture, expected, rtol=0, atol=1e-5)
