"""AdaIN and its relatives.

The tests cover properties, an independent reference, and differences from known implementations.
"""

import numpy as np
import pytest
import torch

from stylenet import transforms
from stylenet.transforms import ADAIN, TRANSFORMS, adain, align, blend, channel_stats, mix


def features(*shape, seed=0, dtype=torch.float32):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def numpy_adain(content, style, eps=1e-5):
    """Equation 8 for one image in numpy, float64."""
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
    assert channel_stats(x)[1].item() == pytest.approx(
        float(np.sqrt(x.numpy().var() + 1e-5)), rel=1e-12
    )
    unbiased = float(
        np.sqrt(x.numpy().var(ddof=1) + 1e-5)
    )  # the Lua original takes this for the style
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
    torch.testing.assert_close(
        mix(ADAIN, content, [channel_stats(s) for s in styles], [0.25, 0.5, 0.25]), expected
    )


def test_mix_of_one_or_of_equal_styles_is_that_style():
    content, code = features(1, 4, 6, 6), channel_stats(features(1, 4, 5, 5, seed=1))
    assert torch.equal(mix(ADAIN, content, [code], [1.0]), align(content, code))
    torch.testing.assert_close(
        mix(ADAIN, content, [code, code], [1 / 6, 5 / 6]), align(content, code)
    )
    assert torch.equal(
        mix(ADAIN, content, [code, (code[0] + 9, code[1])], [1, 0]), align(content, code)
    )


def test_mix_wants_a_share_for_each_style():
    code = channel_stats(features(1, 4, 5, 5))
    with pytest.raises(ValueError, match="zip"):
        mix(ADAIN, features(1, 4, 6, 6), [code, code], [1.0])


def numpy_histogram_matching(content, style):
    """scikit-image's formula for one channel: interpolation between cumulative histograms."""
    values, inverse, counts = np.unique(content.ravel(), return_inverse=True, return_counts=True)
    reference, reference_counts = np.unique(style.ravel(), return_counts=True)
    share, reference_share = (
        np.cumsum(counts) / content.size,
        np.cumsum(reference_counts) / style.size,
    )
    return np.interp(share, reference_share, reference)[inverse].reshape(content.shape)


def numpy_wct(content, style):
    """Whitening and colouring of one image [C, H, W] by singular values, float64."""
    x, y = content.reshape(len(content), -1), style.reshape(len(style), -1)
    x, y_mean = x - x.mean(1, keepdims=True), y.mean(1, keepdims=True)
    ux, dx, _ = np.linalg.svd(x @ x.T / x.shape[1])
    uy, dy, _ = np.linalg.svd((y - y_mean) @ (y - y_mean).T / y.shape[1])
    whitened = ux @ np.diag(dx**-0.5) @ ux.T @ x
    return (uy @ np.diag(dy**0.5) @ uy.T @ whitened + y_mean).reshape(content.shape)


def stylised(name, content, style):
    transform = TRANSFORMS[name]
    return transform.apply(content, transform.describe(style), None)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_own_style_changes_nothing(name):
    x = features(2, 4, 6, 7).relu()
    torch.testing.assert_close(
        stylised(name, x, x), TRANSFORMS[name].unchanged(x), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", TRANSFORMS)
def test_one_encoded_style_serves_contents_of_other_sizes(name):
    style, content = features(1, 4, 5, 8, seed=1).relu(), features(3, 4, 6, 6)
    one_by_one = torch.cat([stylised(name, c[None], style) for c in content])
    torch.testing.assert_close(stylised(name, content, style), one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 4, 4)])
def test_every_transform_stays_finite_on_constant_channels(name, shape):
    assert stylised(name, torch.full(shape, 2.0), torch.zeros(1, 3, 2, 2)).isfinite().all()


def test_mean_only_and_deviation_only():
    content, style = features(2, 3, 6, 6), 3 * features(2, 3, 5, 5, seed=1) + 2
    (c_mean, c_std), (s_mean, s_std) = channel_stats(content), channel_stats(style)
    for name, expected in {
        "mean": (s_mean, c_std),
        "std": (c_mean, s_std),
        "none": (c_mean, c_std),
    }.items():
        torch.testing.assert_close(
            channel_stats(stylised(name, content, style)), expected, rtol=1e-4, atol=1e-4
        )


def test_rank_matching_gives_exactly_the_style_distribution():
    content, style = features(1, 3, 5, 6), features(1, 3, 6, 5, seed=1)
    output = stylised("efdm", content, style)
    assert torch.equal(output.flatten(2).sort().values, style.flatten(2).sort().values)
    assert torch.equal(output.flatten(2).argsort(), content.flatten(2).argsort())


def test_rank_matching_interpolates_quantiles_of_another_number():
    content, style = features(1, 1, 4, 5), features(1, 1, 3, 3, seed=1)
    ordered = np.sort(style.numpy().ravel())
    expected = np.interp(np.linspace(0, 8, 20), np.arange(9), ordered)
    np.testing.assert_allclose(
        np.sort(stylised("efdm", content, style).numpy().ravel()), expected, rtol=1e-5
    )


@pytest.mark.parametrize("rectified", [False, True])
def test_histogram_matching_against_numpy(rectified):
    content, style = features(2, 3, 7, 6), 2 * features(2, 3, 5, 9, seed=1) + 0.5
    content, style = (content.relu(), style.relu()) if rectified else (content, style)
    expected = [
        [numpy_histogram_matching(c, s) for c, s in zip(cs, ss)]
        for cs, ss in zip(content.numpy(), style.numpy())
    ]
    np.testing.assert_allclose(
        stylised("histogram", content, style).numpy(), np.array(expected), rtol=1e-4, atol=1e-5
    )


def test_histogram_matching_keeps_ties_and_rank_matching_does_not():
    content, style = features(1, 1, 8, 8).relu(), features(1, 1, 8, 8, seed=1)
    zeros = content == 0
    assert (
        len(stylised("histogram", content, style)[zeros].unique())
        == 1
        < len(stylised("efdm", content, style)[zeros].unique())
    )


def test_whitening_and_colouring_against_numpy():
    content = features(2, 4, 9, 8, dtype=torch.float64)
    style = torch.einsum(
        "ij,njhw->nihw",
        features(4, 4, seed=3, dtype=torch.float64),
        features(2, 4, 7, 7, seed=1, dtype=torch.float64),
    )
    expected = np.stack([numpy_wct(c, s) for c, s in zip(content.numpy(), style.numpy() + 1)])
    np.testing.assert_allclose(
        stylised("wct", content, style + 1).numpy(), expected, rtol=1e-6, atol=1e-6
    )


def test_whitening_survives_fewer_positions_than_channels():
    content, style = features(1, 32, 4, 4), 3 * features(1, 32, 3, 3, seed=1) + 1
    output = stylised("wct", content, style)
    assert output.isfinite().all()
    torch.testing.assert_close(output.mean((2, 3)), style.mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_matrix_products_keep_their_precision_under_autocast():
    content, style = features(1, 8, 9, 9), features(1, 8, 9, 9, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = stylised("wct", content, style)
    torch.testing.assert_close(inside, stylised("wct", content, style))


def test_concatenation_resamples_the_style():
    content, style = features(1, 3, 6, 6), features(1, 3, 3, 3, seed=1)
    output = stylised("concat", content, style)
    assert torch.equal(output[:, :3], content) and output.shape == (1, 6, 6, 6)
    assert torch.equal(
        stylised("concat", content, features(1, 3, 6, 6, seed=1))[:, 3:],
        features(1, 3, 6, 6, seed=1),
    )


@pytest.mark.parametrize(
    "name", [name for name, transform in TRANSFORMS.items() if transform.survey]
)
def test_pieces_of_a_content_are_stylised_as_the_whole(name):
    content, style, transform = (
        features(1, 4, 12, 10).relu(),
        features(1, 4, 7, 9, seed=1).relu(),
        TRANSFORMS[name],
    )
    code, own = transform.describe(style), transform.survey(content)
    pieces = torch.cat([transform.apply(content[..., i : i + 5], code, own) for i in (0, 5)], 3)
    torch.testing.assert_close(pieces, transform.apply(content, code, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_statistics_of_a_large_map_in_strips(monkeypatch, dtype):
    features = torch.randn(2, 7, 9, 8, generator=torch.Generator().manual_seed(0)).to(
        dtype, memory_format=torch.channels_last
    )
    expected = transforms.channel_stats(features)
    monkeypatch.setattr(transforms, "STRIP", 300)
    sizes, square = [], torch.Tensor.square
    monkeypatch.setattr(torch.Tensor, "square", lambda x: sizes.append(x.numel()) or square(x))
    for ours, whole in zip(transforms.channel_stats(features), expected, strict=True):
        torch.testing.assert_close(ours, whole)
    big = [size for size in sizes if size > 2 * 7]  # without the small square of what rounding left
    assert len(big) > 1 and sum(big) == features.numel() and max(big) <= 300
    sizes.clear()
    transforms.channel_stats(features.clone().requires_grad_())  # training measures it in one piece
    assert max(sizes) == features.numel()


@pytest.mark.parametrize("value", [0.0, 7.0, 1234.567, 54321.9, 1e6])
def test_statistics_survive_large_means(value):
    """A constant channel has the deviation sqrt(eps); a faint one keeps its own."""
    constant = torch.full((1, 2, 64, 50), value)
    mean, std = channel_stats(constant)
    torch.testing.assert_close(std, torch.full_like(std, 1e-5**0.5), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean, torch.full_like(mean, value), rtol=1e-6, atol=0)
    wavy = constant + 0.01 * max(1.0, value) * torch.randn(
        1, 2, 64, 50, generator=torch.Generator().manual_seed(0)
    )
    exact = wavy.double().var((2, 3), correction=0, keepdim=True).add(1e-5).sqrt()
    torch.testing.assert_close(channel_stats(wavy)[1].double(), exact, rtol=1e-5, atol=0)
