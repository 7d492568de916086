"""The whole network: sizes, strengths, mixing."""

import pytest
import torch

from stylenet.looks import make_look
from stylenet.models.decoder import Decoder
from stylenet.models.stylenet import StyleNet
from stylenet.models.vgg_files import load_vgg
from stylenet.transforms import ADAIN, TRANSFORMS, adain


@pytest.fixture(scope="module")
def net(vgg19_file):
    encoder = load_vgg("vgg19", vgg19_file, ["relu4_1"])
    return StyleNet(
        encoder,
        ADAIN,
        Decoder("vgg19", "relu4_1", init="he", generator=torch.Generator().manual_seed(0)),
    )


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(32, 40), (33, 47), (7, 70), (1, 1), (8, 9)])
def test_output_has_the_content_size(net, size):
    assert net(image(1, 3, *size), image(1, 3, 21, 30)).shape == (1, 3, *size)


def test_composition(net):
    content, style = image(2, 3, 32, 40), image(1, 3, 24, 24, seed=1)
    f_c, f_s = net.encode(content), net.encode(style)
    torch.testing.assert_close(net(content, style), net.decoder(adain(f_c, f_s)))
    torch.testing.assert_close(net(content, style, 0.0), net.decoder(f_c))
    torch.testing.assert_close(
        net(content, style, 0.3), net.decoder(0.7 * f_c + 0.3 * adain(f_c, f_s))
    )


def test_a_batch_is_its_images(net):
    contents, styles = image(2, 3, 32, 40), image(2, 3, 24, 24, seed=1)
    single = torch.cat([net(contents[i : i + 1], styles[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(net(contents, styles), single, rtol=1e-4, atol=1e-5)


def test_odd_sizes_are_aligned_with_the_content(net):
    """A content with a few more rows has the same features except near the cut."""
    content = image(1, 3, 64, 64)
    features = lambda x: net.encoder(x, ["relu2_1"])["relu2_1"]  # noqa: E731
    torch.testing.assert_close(
        features(content[:, :, :61])[..., :24, :], features(content)[..., :24, :]
    )


def test_style_codes_are_reusable(net):
    style = image(1, 3, 24, 24, seed=1)
    code = net.encode_style(style)
    for seed in (2, 3):
        content = image(1, 3, 16, 24, seed=seed)
        assert torch.equal(net.stylise(content, make_look([code])), net(content, style))


def test_mixing_is_linear_in_features(net):
    content, codes = (
        image(1, 3, 16, 24),
        [net.encode_style(image(1, 3, 24, 24, seed=s)) for s in (1, 2)],
    )
    features = net.encode(content)
    mixed = 0.25 * ADAIN.apply(features, codes[0]) + 0.75 * ADAIN.apply(features, codes[1])
    torch.testing.assert_close(
        net.stylise(content, make_look(codes, [1, 3])), net.decode(mixed, content.shape)
    )


@pytest.mark.parametrize("name", [name for name, kind in TRANSFORMS.items() if kind.survey])
def test_a_clip_s_second_frame_is_aligned_by_both(net, name):
    """Statistics of every kind are mixed; those of a still picture stay."""
    net = StyleNet(net.encoder, TRANSFORMS[name], torch.nn.Identity())
    frames = [net.encode(image(1, 3, 32, 40, seed=seed)) for seed in (1, 2)]
    look = make_look([net.encode_style(image(1, 3, 24, 24, seed=3))])
    past = net.settled_stats(frames[0], look)
    look = look.with_stats(past, 0.25)
    for a, b in zip(net.settled_stats(frames[0], look), past, strict=True):
        torch.testing.assert_close(a, b)
    stats = net.settled_stats(frames[1], look)
    assert [part.shape for part in stats] == [part.shape for part in past]
    assert net.align(frames[1], look, stats).isfinite().all()
