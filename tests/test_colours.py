"""Colours apart from brightness: whose they are, and matching of distributions."""

import pytest
import torch

from stylenet.colours import COLOURS, luminance, matched, recoloured


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def chroma(picture):
    """R - Y and B - Y."""
    y = luminance(picture)
    return torch.cat([picture[..., 0:1, :, :] - y, picture[..., 2:3, :, :] - y], -3)


def test_content_keeps_its_chroma_under_the_results_brightness():
    output, content = (0.3 + 0.4 * image(1, 3, 8, 8, seed=i) for i in (1, 2))
    picture = recoloured(output, content, "content")
    inside = ((picture > 0) & (picture < 1)).all(1, keepdim=True)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(
        luminance(picture)[inside], luminance(output)[inside], rtol=0, atol=1e-5
    )
    both = inside.expand(-1, 2, -1, -1)
    torch.testing.assert_close(chroma(picture)[both], chroma(content)[both], rtol=0, atol=1e-5)
    # the other way round it is the same with the roles exchanged
    assert torch.equal(recoloured(content, output, "only"), picture)


def test_a_grey_content_gives_a_grey_picture():
    grey = image(1, 1, 8, 8).expand(-1, 3, -1, -1)
    picture = recoloured(image(1, 3, 8, 8, seed=1), grey, "content")
    assert (picture - picture[:, :1]).abs().max() < 1e-6


@pytest.mark.parametrize("colour", ["style", "matched"])
def test_the_others_leave_the_result_as_it_is(colour):
    output = image(1, 3, 8, 8)
    assert recoloured(output, image(1, 3, 8, 8, seed=1), colour) is output
    assert colour in COLOURS


def test_a_matched_style_has_the_contents_mean_and_covariance():
    style, content = 0.2 * image(3, 40, 40), image(3, 30, 50, seed=1)
    content = 0.4 + 0.1 * torch.einsum("ij,jhw->ihw", torch.tensor(MIXING), content)
    picture = matched(style, content).flatten(1)
    assert picture.min() > 0 and picture.max() < 1
    torch.testing.assert_close(picture.mean(1), content.flatten(1).mean(1), rtol=0, atol=1e-3)
    torch.testing.assert_close(
        torch.cov(picture), torch.cov(content.flatten(1)), rtol=0.02, atol=1e-4
    )


MIXING = [[1.0, 0.3, 0.1], [0.2, 0.8, 0.1], [0.1, 0.1, 0.5]]


@pytest.mark.parametrize("which", ["style", "content", "both"])
def test_constant_and_grey_pictures_make_no_noise(which):
    flat = torch.full((3, 16, 16), 0.3)
    grey = image(1, 16, 16).expand(3, -1, -1)
    for odd in (flat, grey):
        style = odd if which in ("style", "both") else image(3, 16, 16, seed=2)
        content = odd if which in ("content", "both") else image(3, 16, 16, seed=3)
        picture = matched(style, content)
        assert picture.isfinite().all()
        if style is flat:  # nothing to be spread
            assert picture.flatten(1).std(1).max() < 1e-3
        if content is flat:
            torch.testing.assert_close(picture.mean(), torch.tensor(0.3), rtol=0, atol=0.01)
            assert picture.std() < 0.01
        if content is grey:
            assert (picture - picture[:1]).abs().max() < 0.02
