"""AdaIN and its relatives: properties, an independent reference, and the differences to the known implementations."""

import numpy as np
import pytest
import torch

from stylenet.transforms import ADAIN, adain, align, blend, channel_stats, mix


def features(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def numpy_adain(content, style, eps=1e-5):
    """Equation 8 written out for one image in numpy, float64."""
    out = np.empty_like(content, dtype=np.float64)
    for c in range(content.shape[0]):
        x, y = content[c].astype(np.float64), style[c].astype(np.float64)
        sigma = lambda v: np.sqrt(((v - v.mean()) ** 2).mean() + eps)  # noqa: E731 - the paper's symbol
        out[c] = sigma(y) * (x - x.mean()) / sigma(x) + y.mean()
    return out


def test_against_numpy_with_different_sizes():
    content, style = features(2, 5, 7, 6), 3 * features(2, 5, 4, 9, seed=1) + 2
    expected = np.stack([numpy_adain(c.numpy(), s.numpy()) for c, s in zip(content, style)])
    np.testing.assert_allclose(adain(content, style).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_output_has_the_style_statistics():
    mean, std = channel_stats(adain(features(2, 5, 32, 32), 4 * features(2, 5, 8, 8, seed=1) - 1))
    style_mean, style_std = channel_stats(4 * features(2, 5, 8, 8, seed=1) - 1)
    torch.testing.assert_close(mean, style_mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(std, style_std, rtol=1e-4, atol=1e-4)


def test_identity():
    x = features(2, 5, 9, 9)
    torch.testing.assert_close(adain(x, x), x)


def test_one_style_serves_a_batch():
    content, style = features(3, 4, 6, 6), features(1, 4, 5, 5, seed=1)
    torch.testing.assert_close(adain(content, style), adain(content, style.expand(3, -1, -1, -1)))


def test_variance_is_biased_with_eps_inside_the_root():
    x = features(1, 1, 2, 2, dtype=torch.float64)
    assert channel_stats(x)[1].item() == pytest.approx(float(np.sqrt(x.numpy().var() + 1e-5)), rel=1e-12)
    unbiased = float(np.sqrt(x.numpy().var(ddof=1) + 1e-5))  # the Lua original takes this for the style
    assert abs(channel_stats(x)[1].item() - unbiased) > 0.01


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 4, 4)])
def test_constant_channels_and_single_pixels_stay_finite(shape):
    content = torch.full(shape, 7.0, requires_grad=True)
    output = adain(content, torch.full((1, 3, 1, 1), -2.0))
    output.sum().backward()
    assert output.isfinite().all() and content.grad.isfinite().all()
    torch.testing.assert_close(output, torch.full(shape, -2.0))


def test_statistics_of_low_precision_features_are_float32():
    x = (features(1, 4, 64, 64) + 100).bfloat16()
    mean, std = channel_stats(x)
    assert mean.dtype == std.dtype == torch.float32
    torch.testing.assert_close(mean, x.double().mean((2, 3), keepdim=True).float())
    assert adain(x, x).dtype == torch.bfloat16


def test_blend_ends_and_middle():
    a, b = features(1, 2, 3, 3), features(1, 2, 3, 3, seed=1)
    assert torch.equal(blend(a, b, 0.0), a) and torch.equal(blend(a, b, 1.0), b)
    torch.testing.assert_close(blend(a, b, 0.25), 0.75 * a + 0.25 * b)


def test_mix_is_the_weighted_sum_of_aligned_features():
    content, styles = features(1, 4, 6, 6), [features(1, 4, 5, 5, seed=s) * s for s in (1, 2, 3)]
    expected = sum(w / 4 * adain(content, style) for w, style in zip((1, 2, 1), styles))
    torch.testing.assert_close(mix(ADAIN, content, [channel_stats(s) for s in styles], [1, 2, 1]), expected)


def test_mix_of_one_or_of_equal_styles_is_that_style():
    content, code = features(1, 4, 6, 6), channel_stats(features(1, 4, 5, 5, seed=1))
    assert torch.equal(mix(ADAIN, content, [code], [3.0]), align(content, code))
    torch.testing.assert_close(mix(ADAIN, content, [code, code], [1, 5]), align(content, code))
    assert torch.equal(mix(ADAIN, content, [code, (code[0] + 9, code[1])], [1, 0]), align(content, code))


@pytest.mark.parametrize("weights", [[1.0], [1, -1], [0, 0]])
def test_mix_refuses_weights_that_do_not_fit(weights):
    code = channel_stats(features(1, 4, 5, 5))
    with pytest.raises(ValueError, match="expected 2 weights"):
        mix(ADAIN, features(1, 4, 6, 6), [code, code], weights)
