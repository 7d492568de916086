"""The metrics' formulas.

They are checked by properties, by references in numpy, and by libraries that compute the same.
"""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from stylenet.losses import gram
from stylenet.metrics import functional
from stylenet.metrics.functional import Point

LUMA = 1e-7  # the luma weights are rounded to float32


def gram_distance(output, style):
    """The distance as the scorer computes it, from Gram matrices without the features."""
    return functional.relative_distance(gram(output), gram(style))


def features(*shape, seed=0, dtype=torch.float64):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def images(n=1, height=24, width=20, seed=0):
    """Smooth colour patches in [0, 1] with a little texture, float64."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(n, 3, 4, 5, generator=generator, dtype=torch.float64)
    smooth = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    return (
        smooth + 0.03 * torch.randn(n, 3, height, width, generator=generator, dtype=torch.float64)
    ).clamp(0, 1)


def layered_lpips(a, b):
    heads = [torch.tensor([0.2, 1.0, 0.5]), torch.tensor([0.7, 0.1, 0.4])]
    return functional.lpips([a, F.avg_pool2d(a, 2)], [b, F.avg_pool2d(b, 2)], heads)


DISTANCES = {
    "content_norm": functional.content_norm,
    "gram": gram_distance,
    "ssim gaussian": lambda a, b: 1 - functional.ssim(a, b),
    "ssim uniform": lambda a, b: 1 - functional.ssim(a, b, "uniform"),
    "lpips": layered_lpips,
    "cfsd": lambda a, b: functional.cfsd(10 * a, 10 * b),
    "colour": functional.colour_distance,
}
ASYMMETRIC = ("gram", "cfsd")


@pytest.mark.parametrize("name", DISTANCES)
def test_zero_for_equal_and_growing_with_noise(name):
    image, noise = images(), features(1, 3, 24, 20, seed=1)
    assert DISTANCES[name](image, image).item() == pytest.approx(0, abs=1e-12)
    values = [
        DISTANCES[name]((image + level * noise).clamp(0, 1), image).item()
        for level in (0.01, 0.05, 0.2, 0.5)
    ]
    assert values == sorted(values) and values[0] > 1e-5 and values[-1] > 1.5 * values[0]


@pytest.mark.parametrize("name", [name for name in DISTANCES if name not in ASYMMETRIC])
def test_symmetric(name):
    a, b = images(2), images(2, seed=1)
    torch.testing.assert_close(DISTANCES[name](a, b), DISTANCES[name](b, a), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ASYMMETRIC)
def test_not_symmetric(name):
    a, b = images(), 0.5 * images(seed=1)
    assert DISTANCES[name](a, b).item() != pytest.approx(DISTANCES[name](b, a).item(), rel=0.01)


@pytest.mark.parametrize(
    "name", [name for name in DISTANCES if name != "cfsd"]
)  # which takes one image
def test_batch_is_the_mean_of_its_images_alone(name):
    a, b = images(3), images(3, seed=1)
    alone = [DISTANCES[name](x[None], y[None]).item() for x, y in zip(a, b)]
    assert max(alone) > 1.01 * min(alone)
    assert DISTANCES[name](a, b).item() == pytest.approx(np.mean(alone), rel=1e-6)


def numpy_standardised(x):
    return (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)


def test_standardised_and_content_norm_against_numpy():
    a, b = 3 * features(2, 4, 7, 6) + 1, features(2, 4, 7, 6, seed=1)
    x, y = numpy_standardised(a.numpy()), numpy_standardised(b.numpy())
    np.testing.assert_allclose(functional.standardised(a).numpy(), x, rtol=1e-10, atol=1e-12)
    assert functional.content_norm(a, b).item() == pytest.approx(((x - y) ** 2).mean(), rel=1e-10)


def test_content_norm_ignores_contrast_and_shift_of_a_channel_but_not_its_sign():
    a, b = features(2, 4, 9, 8), features(2, 4, 9, 8, seed=1)
    scale, shift = features(2, 4, 1, 1, seed=2).exp(), 5 * features(2, 4, 1, 1, seed=3)
    expected = functional.content_norm(a, b).item()
    # the 1e-5 in the variance leaves a rest of that order over the smallest variance
    assert functional.content_norm(scale * a + shift, b).item() == pytest.approx(expected, rel=1e-3)
    assert functional.content_norm(a, scale * b + shift).item() == pytest.approx(expected, rel=1e-3)
    assert functional.content_norm(-a, a).item() == pytest.approx(4, rel=1e-3)
    assert F.mse_loss(scale * a + shift, b).item() > 2 * F.mse_loss(a, b).item()


def test_standardised_keeps_float32_statistics_of_low_precision_features():
    x = (features(1, 2, 32, 32) + 50).bfloat16()
    assert functional.standardised(x).dtype == torch.float32
    torch.testing.assert_close(functional.standardised(x), functional.standardised(x.float()))


def loop_gram(x):
    """The Gram matrix of one image [C, H, W]."""
    n = x[0].size
    return np.array([[sum(p * q for p, q in zip(a.ravel(), b.ravel())) / n for b in x] for a in x])


def test_gram_distance_against_loops_with_other_sizes():
    output, style = features(2, 3, 6, 5), 2 * features(2, 3, 4, 9, seed=1) + 1
    ratios = []
    for x, y in zip(output.numpy(), style.numpy()):
        wanted = loop_gram(y)
        ratios.append(
            math.sqrt(((loop_gram(x) - wanted) ** 2).sum()) / math.sqrt((wanted**2).sum())
        )
    # the Gram matrices are float32
    assert gram_distance(output, style).item() == pytest.approx(np.mean(ratios), rel=1e-5)


def test_relative_distance_of_matrices_against_numpy():
    a, b = features(3, 4, 4), 2 * features(3, 4, 4, seed=1)
    expected = np.mean(
        [np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(a.numpy(), b.numpy())]
    )
    assert functional.relative_distance(a, b).item() == pytest.approx(expected, rel=1e-10)


def test_gram_distance_is_relative_to_the_style():
    x = features(1, 3, 6, 5)
    assert gram_distance(2 * x, x).item() == pytest.approx(3, rel=1e-5)
    assert gram_distance(x, 2 * x).item() == pytest.approx(0.75, rel=1e-5)
    assert gram_distance(x, torch.zeros_like(x)).isfinite()


def loop_ssim(a, b, weights, correction):
    """Equation 13 at every position where the window fits, of images [N, C, H, W].

    The moments are about the local mean.
    """
    k = len(weights)
    values = []
    for x, y in zip(a.reshape(-1, *a.shape[2:]), b.reshape(-1, *b.shape[2:])):
        for i, j in itertools.product(range(x.shape[0] - k + 1), range(x.shape[1] - k + 1)):
            p, q = x[i : i + k, j : j + k], y[i : i + k, j : j + k]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p = (weights * (p - mean_p) ** 2).sum() * correction
            var_q = (weights * (q - mean_q) ** 2).sum() * correction
            covariance = (weights * (p - mean_p) * (q - mean_q)).sum() * correction
            luminance = (2 * mean_p * mean_q + 0.0001) / (mean_p**2 + mean_q**2 + 0.0001)
            values.append(luminance * (2 * covariance + 0.0009) / (var_p + var_q + 0.0009))
    return np.mean(values)


def numpy_grey(image):
    return (0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2])[:, None]


def test_ssim_against_loops():
    a, b = images(2, 14, 13).numpy(), images(2, 14, 13, seed=1).numpy()
    squares = (np.arange(11)[:, None] - 5) ** 2 + (np.arange(11) - 5) ** 2
    gaussian = np.exp(-squares / 4.5)
    expected = loop_ssim(a, b, gaussian / gaussian.sum(), 1)
    assert functional.ssim(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(
        expected, rel=1e-9
    )
    expected = loop_ssim(numpy_grey(a), numpy_grey(b), np.full((7, 7), 1 / 49), 49 / 48)
    assert functional.ssim(torch.tensor(a), torch.tensor(b), "uniform").item() == pytest.approx(
        expected, abs=LUMA
    )


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_of_equal_inverted_and_constant_images(window):
    image = images()
    assert functional.ssim(image, image, window).item() == pytest.approx(1, abs=1e-12)
    assert -1 <= functional.ssim(image, 1 - image, window).item() < 0
    dark, bright = torch.full_like(image, 0.2), torch.full_like(image, 0.7)
    assert functional.ssim(dark, bright, window).item() == pytest.approx(0.2801 / 0.5301, rel=1e-9)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_in_float32(window):
    a, b = images(2), images(2, seed=1)
    exact = functional.ssim(a, b, window).item()
    assert functional.ssim(a.float(), b.float(), window).item() == pytest.approx(exact, abs=1e-5)


def test_gaussian_ssim_against_torchmetrics():
    """Both are equal where the window fits.

    torchmetrics also averages a border of 5 pixels, which it computes on reflected ones.
    """
    reference = pytest.importorskip(
        "torchmetrics.functional.image"
    ).structural_similarity_index_measure
    a, b = images(2), (images(2) + 0.1 * features(2, 3, 24, 20, seed=2)).clamp(0, 1)
    _, everywhere = reference(a, b, data_range=1.0, return_full_image=True)
    assert functional.ssim(a, b).item() == pytest.approx(
        everywhere[..., 5:-5, 5:-5].mean().item(), rel=1e-9
    )
    reflected = [F.pad(x, (5, 5, 5, 5), mode="reflect") for x in (a, b)]
    assert functional.ssim(*reflected).item() == pytest.approx(everywhere.mean().item(), rel=1e-9)


def test_ssim_against_scikit_image():
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    a, b = (
        images()[0].numpy(),
        (images() + 0.1 * features(1, 3, 24, 20, seed=2)).clamp(0, 1)[0].numpy(),
    )
    grey = (numpy_grey(x[None])[0, 0] for x in (a, b))
    expected = reference(*grey, data_range=1.0)
    assert functional.ssim(
        torch.tensor(a[None]), torch.tensor(b[None]), "uniform"
    ).item() == pytest.approx(expected, abs=LUMA)
    paper = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = reference(a, b, data_range=1.0, channel_axis=0, **paper)
    assert functional.ssim(torch.tensor(a[None]), torch.tensor(b[None])).item() == pytest.approx(
        expected, rel=1e-9
    )


def test_uniform_ssim_of_eight_bit_greys_against_scikit_image():
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    a, b = np.random.default_rng(0).integers(0, 256, (2, 20, 17), dtype=np.uint8)
    b = (0.7 * a + 0.3 * b).astype(np.uint8)
    x, y = (
        torch.tensor(v / 255).expand(1, 3, -1, -1) for v in (a, b)
    )  # three equal channels have that luma
    assert functional.ssim(x, y, "uniform").item() == pytest.approx(reference(a, b), rel=1e-9)


def test_window_weights():
    gaussian, uniform = functional.window_weights("gaussian"), functional.window_weights("uniform")
    assert gaussian.shape == (11,) and uniform.shape == (7,)
    assert gaussian.sum().item() == pytest.approx(1) and uniform.sum().item() == pytest.approx(1)
    assert uniform.unique().numel() == 1 and torch.equal(gaussian, gaussian.flip(0))
    assert (gaussian[5] / gaussian[8]).item() == pytest.approx(math.exp(3**2 / (2 * 1.5**2)))


def test_local_mean_against_loops():
    x, line = features(2, 3, 5, 6), features(3, seed=1)
    kernel = line[:, None] * line[None, :]
    expected = [
        [
            [
                [(x[n, c, i : i + 3, j : j + 3] * kernel).sum().item() for j in range(4)]
                for i in range(3)
            ]
            for c in range(3)
        ]
        for n in range(2)
    ]
    np.testing.assert_allclose(
        functional.local_mean(x, line).numpy(), expected, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_of_flat_float32_pictures_is_exact(window):
    """Differences of nearly equal numbers: float32 would give 0.9988 or more than 1."""
    x = torch.full((1, 3, 64, 64), 0.9)
    expected = functional.ssim(x.double(), x.double() + 1 / 255, window).item()
    assert functional.ssim(x, x + 1 / 255, window).item() == pytest.approx(expected, abs=1e-6)
    assert expected < 1


def test_grey_as_pillow_converts():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    grey = functional.to_grey(torch.tensor(pixels).permute(2, 0, 1)[None].double() / 255)
    # Pillow rounds to the nearest of 256 levels
    np.testing.assert_allclose(
        grey[0, 0].numpy(),
        np.asarray(Image.fromarray(pixels).convert("L")) / 255,
        rtol=0,
        atol=0.51 / 255,
    )


def test_lpips_against_numpy():
    layers_a, layers_b = (
        [features(2, 3, 5, 4, seed=s), features(2, 6, 2, 3, seed=s + 1)] for s in (0, 10)
    )
    heads = [features(3, seed=20).abs(), features(6, seed=21).abs()]
    expected = 0
    for a, b, head in zip(layers_a, layers_b, heads):
        a, b = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (a, b))
        expected += np.einsum("nchw,c->nhw", (a - b) ** 2, head.numpy()).mean()
    assert functional.lpips(layers_a, layers_b, heads).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("scale", [1e-4, 1e3])
def test_lpips_compares_directions_alone(scale):
    a, b, heads = [features(1, 3, 5, 4)], [features(1, 3, 5, 4, seed=1)], [torch.ones(3)]
    expected = functional.lpips(a, b, heads).item()
    assert functional.lpips([scale * a[0]], b, heads).item() == pytest.approx(expected, rel=1e-5)
    assert functional.lpips([-a[0]], a, heads).item() == pytest.approx(4, rel=1e-6)


def test_lpips_is_finite_where_nothing_fires_and_wants_a_head_per_layer():
    a = torch.zeros(1, 3, 4, 4)
    assert functional.lpips([a], [torch.ones(1, 3, 4, 4)], [torch.ones(3)]).item() == pytest.approx(
        1
    )
    with pytest.raises(ValueError):
        functional.lpips([a, a], [a, a], [torch.ones(3)])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_against_the_package():
    package = pytest.importorskip("lpips")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = package.LPIPS(
            net="alex", pnet_rand=True, verbose=False
        )  # its heads, on a random backbone
    a, b = 2 * images(2, 64, 72).float() - 1, 2 * images(2, 64, 72, seed=1).float() - 1
    with torch.no_grad():
        layers_a, layers_b = (reference.net(reference.scaling_layer(x)) for x in (a, b))
        expected = reference(a, b)
        for i in range(2):
            one_a, one_b = (
                [layer[i : i + 1] for layer in layers] for layers in (layers_a, layers_b)
            )
            heads = [head.model[-1].weight.flatten() for head in reference.lins]
            assert functional.lpips(one_a, one_b, heads).item() == pytest.approx(
                expected[i].item(), rel=1e-5
            )
        assert functional.lpips(layers_a, layers_b, heads).item() == pytest.approx(
            expected.mean().item(), rel=1e-5
        )
    assert expected.max() > 1.01 * expected.min() > 0


def loop_cfsd(content, output):
    """KL(content || output) of every row, for two images [C, h, w]."""
    divergences = []
    a, b = (x.reshape(len(x), -1).T / len(x) for x in (content, output))
    for i in range(len(a)):
        p, q = np.exp([a[i] @ x for x in a]), np.exp([b[i] @ x for x in b])
        p, q = p / p.sum(), q / q.sum()
        divergences.append(sum(s * math.log(s / t) for s, t in zip(p, q)))
    return np.array(divergences)


def test_cfsd_against_loops():
    content, output = 3 * features(1, 5, 6, 7), 3 * features(1, 5, 6, 7, seed=1)
    expected = loop_cfsd(content[0].numpy(), output[0].numpy())
    # inner products are float32
    assert functional.cfsd(content, output).item() == pytest.approx(expected.mean(), rel=1e-5)
    assert functional.cfsd(content, output, "sum").item() == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.parametrize("block", [1, 5, 41, 42, 43])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cfsd_in_blocks(block, reduction):
    content, output = 3 * features(1, 5, 6, 7), 3 * features(1, 5, 6, 7, seed=1)
    whole = functional.cfsd(content, output, reduction).item()
    assert functional.cfsd(content, output, reduction, block=block).item() == pytest.approx(
        whole, rel=1e-6
    )


def test_cfsd_of_the_same_shuffle_of_both_stays():
    content, output = 3 * features(1, 5, 6, 7), 3 * features(1, 5, 6, 7, seed=1)
    order = torch.randperm(42, generator=torch.Generator().manual_seed(0))
    shuffled = [x.flatten(2)[:, :, order].reshape(x.shape) for x in (content, output)]
    assert functional.cfsd(*shuffled).item() == pytest.approx(
        functional.cfsd(content, output).item(), rel=1e-5
    )
    assert functional.cfsd(content, shuffled[0]).item() > 0.1


def test_cfsd_stays_finite_for_large_features():
    content, output = 300 * features(1, 5, 6, 7), 300 * features(1, 5, 6, 7, seed=1)
    assert functional.cfsd(content, output).isfinite()


@pytest.mark.parametrize("bins", [4, 8])
def test_colour_histogram_against_numpy(bins):
    image = images(2)
    image[0, :, 0, 0], image[1, :, 0, :2] = 1.0, 0.0  # the ends of the range
    expected = [
        np.histogramdd(x.reshape(3, -1).T.numpy(), bins, [(0, 1)] * 3)[0].ravel() / (24 * 20)
        for x in image
    ]
    np.testing.assert_allclose(
        functional.colour_histogram(image, bins).numpy(), expected, rtol=0, atol=1e-15
    )


def test_colours_beyond_the_range_count_at_its_ends():
    image = torch.tensor([-0.5, 1.5]).expand(1, 3, 1, 2)
    assert torch.equal(
        functional.colour_histogram(image), functional.colour_histogram(image.clamp(0, 1))
    )


def test_colour_distance_against_the_overlap():
    a, b = images(2), images(2, 12, 30, seed=1)
    overlaps = [
        sum(math.sqrt(p * q) for p, q in zip(x, y))
        for x, y in zip(
            functional.colour_histogram(a).tolist(), functional.colour_histogram(b).tolist()
        )
    ]
    expected = np.mean([math.sqrt(1 - overlap) for overlap in overlaps])
    assert functional.colour_distance(a, b).item() == pytest.approx(expected, rel=1e-9)


def test_colour_distance_ignores_places_and_sizes_and_ends_at_one():
    image = images()
    assert functional.colour_distance(
        image.flip(3).repeat_interleave(2, 2), image
    ).item() == pytest.approx(0, abs=1e-12)
    assert functional.colour_distance(
        torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 5, 3)
    ).item() == pytest.approx(1)
    near, bins = image.clamp(0.01, 0.1), 8  # all in one box of eight a side
    assert functional.colour_distance(
        near, torch.full_like(near, 0.05), bins
    ).item() == pytest.approx(0, abs=1e-12)
    assert functional.colour_distance(near, torch.full_like(near, 0.05), 64).item() > 0.5


def scipy_frechet(a, b):
    """Equation 6 with a matrix root, as in the FID implementations."""
    root = pytest.importorskip("scipy.linalg").sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)


def correlated(n, dimension, seed=0):
    return features(n, dimension, seed=seed) @ features(
        dimension, dimension, seed=seed + 100
    ) + features(dimension, seed=seed + 200)


def test_frechet_distance_against_scipy():
    a, b = correlated(40, 6), correlated(55, 6, seed=1)
    assert functional.frechet_distance(a, b) == pytest.approx(
        scipy_frechet(a.numpy(), b.numpy()), rel=1e-9
    )


@pytest.mark.parametrize("sizes", [(5, 7), (2, 30), (30, 4)])
def test_frechet_distance_of_sets_smaller_than_the_dimension(sizes):
    a, b = correlated(sizes[0], 12), correlated(sizes[1], 12, seed=1)
    # the root of a singular matrix is known to about the root of the rounding error
    assert functional.frechet_distance(a, b) == pytest.approx(
        scipy_frechet(a.numpy(), b.numpy()), rel=1e-5
    )


def test_frechet_distance_of_numbers_in_closed_form():
    a, b = features(20, 1), 3 * features(30, 1, seed=1) + 2
    expected = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert functional.frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("n", [40, 5])
def test_frechet_distance_properties(n):
    a, b = correlated(n, 8), correlated(n + 3, 8, seed=1)
    distance = functional.frechet_distance(a, b)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(features(8, 8, seed=2)).Q
    shift = features(8, seed=3)
    size = a.square().sum().item()
    assert functional.frechet_distance(a, a) == pytest.approx(0, abs=1e-12 * size)
    assert functional.frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert functional.frechet_distance(a[order], b) == pytest.approx(distance, rel=1e-9)
    assert functional.frechet_distance(a @ rotation, b @ rotation) == pytest.approx(
        distance, rel=1e-9
    )
    assert functional.frechet_distance(a + shift, b + shift) == pytest.approx(distance, rel=1e-9)
    assert functional.frechet_distance(a + shift, a) == pytest.approx(
        shift.square().sum().item(), rel=1e-9
    )
    assert functional.frechet_distance(3 * a, 3 * b) == pytest.approx(9 * distance, rel=1e-9)


@pytest.mark.parametrize("distance", [functional.frechet_distance, functional.mmd])
def test_set_distances_grow_with_noise(distance):
    a, noise = features(60, 8), features(60, 8, seed=1)
    values = [distance(a + level * noise, a) for level in (0.5, 1, 2, 4)]
    assert values == sorted(values) and values[-1] > 10 * abs(values[0])


@pytest.mark.parametrize("sizes", [(1, 5), (5, 1)])
def test_frechet_distance_refuses_a_set_of_one(sizes):
    with pytest.raises(ValueError, match=f"{sizes[0]} and {sizes[1]} came"):
        functional.frechet_distance(features(sizes[0], 3), features(sizes[1], 3, seed=1))


def test_frechet_distance_of_float32_features_is_computed_in_float64():
    a, b = (correlated(40, 6) + 1000).float(), (correlated(55, 6, seed=1) + 1000).float()
    assert functional.frechet_distance(a, b) == functional.frechet_distance(a.double(), b.double())


def test_mmd_against_loops():
    a, b = features(7, 4), features(7, 4, seed=1) + 0.5
    total = 0
    for i, j in itertools.product(range(7), repeat=2):
        kernel = lambda x, y: (sum(p * q for p, q in zip(x.tolist(), y.tolist())) / 4 + 1) ** 3  # noqa: E731
        total += (kernel(a[i], a[j]) + kernel(b[i], b[j])) / 42 if i != j else 0
        total -= 2 * kernel(a[i], b[j]) / 49
    assert functional.mmd(a, b) == pytest.approx(total, rel=1e-10)
    assert functional.mmd(b, a) == pytest.approx(functional.mmd(a, b), rel=1e-10)


def test_mmd_against_torchmetrics():
    reference = pytest.importorskip("torchmetrics.image.kid").poly_mmd
    a, b = features(30, 16), features(30, 16, seed=1) + 0.2
    assert functional.mmd(a, b) == pytest.approx(reference(a, b).item(), rel=1e-9)


def test_mmd_of_one_distribution_is_zero_on_average():
    values = [
        functional.mmd(features(8, 4, seed=2 * s), features(8, 4, seed=2 * s + 1))
        for s in range(400)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(400)
    assert min(values) < 0 < max(values)


def test_kernel_distance_of_whole_sets_is_their_mmd():
    a, b = features(12, 4), features(12, 4, seed=1) + 0.5
    for size, seed in ((12, 0), (12, 1), (1000, 0)):
        assert functional.kernel_distance(a, b, 3, size, seed) == pytest.approx(
            functional.mmd(a, b), rel=1e-9
        )


def test_kernel_distance_of_one_draw_is_the_mmd_of_a_pair_of_subsets():
    a, b = features(5, 4), features(4, 4, seed=1) + 0.5
    pairs = itertools.product(
        itertools.combinations(range(5), 3), itertools.combinations(range(4), 3)
    )
    choices = [functional.mmd(a[list(rows)], b[list(others)]) for rows, others in pairs]
    draws = [functional.kernel_distance(a, b, 1, 3, seed) for seed in range(400)]
    nearest = [min(choices, key=lambda choice: abs(choice - draw)) for draw in draws]
    assert draws == pytest.approx(nearest, rel=1e-9)
    assert len(set(nearest)) == len(choices) == 40


def test_kernel_distance_takes_subsets_of_the_smaller_size():
    a, b = features(9, 4), features(4, 4, seed=1) + 0.5
    choices = [functional.mmd(a[list(picked)], b) for picked in itertools.combinations(range(9), 4)]
    error = np.std(choices) / math.sqrt(400)
    assert functional.kernel_distance(a, b, 400, 1000, 0) == pytest.approx(
        np.mean(choices), abs=3 * error
    )
    assert functional.kernel_distance(b, a, 400, 1000, 0) == pytest.approx(
        np.mean(choices), abs=3 * error
    )


def test_kernel_distance_is_the_mean_over_subsets_drawn_from_the_seed():
    a, b = features(30, 4), features(40, 4, seed=1) + 0.5
    assert functional.kernel_distance(a, b, 5, 10, 0) == functional.kernel_distance(a, b, 5, 10, 0)
    single = [functional.kernel_distance(a, b, 1, 10, seed) for seed in range(300)]
    assert len(set(single)) == 300
    many = functional.kernel_distance(a, b, 300, 10, 0)
    assert many == pytest.approx(np.mean(single), abs=4 * np.std(single) * math.sqrt(2 / 300))


def test_pick_takes_different_vectors_from_everywhere():
    vectors = torch.arange(10.0)[:, None]
    generator = torch.Generator().manual_seed(0)
    draws = [functional.pick(vectors, 4, generator).flatten().tolist() for _ in range(200)]
    assert all(len(set(draw)) == 4 for draw in draws)
    counts = np.bincount(np.array(draws, dtype=int).ravel(), minlength=10)
    assert counts.min() > 50 and counts.max() < 110  # 80 each, deviation 7
    assert sorted(functional.pick(vectors, 10, generator).flatten().tolist()) == list(range(10))


def test_art_fid():
    assert functional.art_fid(0, 0) == 1
    assert functional.art_fid(0.5, 20) == 31.5


def test_bootstrap_of_two_values_is_known():
    """The mean of a resample is 0, 1/2 or 1 with probability 1/4, 1/2 and 1/4."""
    assert functional.bootstrap([0, 1], 4000, seed=0) == (0.5, 0, 1)
    assert functional.bootstrap([0, 1], 4000, seed=0, level=0.4) == (0.5, 0.5, 0.5)


def test_bootstrap_interval_of_one_or_of_equal_values_has_no_width():
    assert functional.bootstrap([3.25], 100, seed=0) == (3.25, 3.25, 3.25)
    assert functional.bootstrap([3.25] * 20, 100, seed=0) == (3.25, 3.25, 3.25)


def test_bootstrap_depends_on_the_seed_alone():
    values = features(30).tolist()
    first = functional.bootstrap(values, 200, seed=0)
    assert first == functional.bootstrap(np.array(values), 200, seed=0)
    other = functional.bootstrap(values, 200, seed=1)
    assert first.mean == other.mean == pytest.approx(sum(values) / 30) and first.low != other.low


def test_bootstrap_interval_is_that_of_the_normal_approximation_and_shrinks_with_the_root_of_n():
    values = features(1600)
    widths = {}
    for n in (100, 400, 1600):
        mean, low, high = functional.bootstrap(values[:n].tolist(), 4000, seed=0)
        error = (values[:n].std(correction=0) / n**0.5).item()
        assert low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
        assert high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)
        widths[n] = high - low
    assert widths[100] / widths[1600] == pytest.approx(4, rel=0.15)


def test_bootstrap_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = features(40).exp().numpy()  # skewed, so that the two sides differ
    result = functional.bootstrap(values, 20000, seed=0, level=0.9)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, confidence_level=0.9, method="percentile", rng=1
    )
    error = expected.standard_error
    assert result[1:] == pytest.approx(tuple(expected.confidence_interval), abs=0.06 * error)
    assert abs(result.high + result.low - 2 * result.mean) > 0.06 * error


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    samples = features(800, 80) + 5
    intervals = [
        functional.bootstrap(sample.numpy(), 400, seed=i) for i, sample in enumerate(samples)
    ]
    covered = np.mean([low <= 5 <= high for _, low, high in intervals])
    assert covered == pytest.approx(
        0.945, abs=0.02
    )  # percentile intervals are slightly short; deviation 0.008


CONTENT_COPY, STYLE_COPY = Point(0.0, 2.0), Point(4.0, 0.0)  # a box of area 8


def area(points):
    return functional.frontier_area(points, CONTENT_COPY, STYLE_COPY)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], 8),
        ([(4, 0)], 4),
        ([(1, 0)], 1),
        ([(1, 1)], 1.5 + 3),
        ([(1, 1), (3, 0)], 1.5 + 1),
        ([(1, 1), (3, 1.5)], 1.5 + 3),
        ([(1, 1), (2, 1.5), (3, 0.5)], 1.5 + 1.5 + 0.5),
        ([(8, 0)], 6),
        ([(2, 3)], 8),
        ([(0, 0)], 0),
    ],
)
def test_frontier_area_by_hand(points, expected):
    assert area([Point(*p) for p in points]) == pytest.approx(expected / 8, abs=1e-12)


def test_frontier_area_of_a_nearly_perfect_method():
    assert 0 < area([Point(1e-3, 0)]) < 1e-3
    assert area([CONTENT_COPY]) == pytest.approx(1)


def test_frontier_area_knows_no_order_and_no_units():
    points = [Point(0.37, 1.5), Point(1.1, 0.9), Point(1.1, 1.2), Point(2.9, 0.4), Point(5.3, 0.1)]
    expected = area(points)
    for order in itertools.permutations(points):
        assert area(order) == expected
    scaled = [Point(7 * p.content, 3 * p.style) for p in (*points, CONTENT_COPY, STYLE_COPY)]
    assert functional.frontier_area(scaled[:-2], *scaled[-2:]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "dominated", [(1.5, 0.9), (1.5, 0.51), (2, 0.5), (3, 1.9), (4, 0.7), (9, 0.6)]
)
def test_frontier_area_ignores_a_point_that_another_beats(dominated):
    points = [Point(0.5, 1.0), Point(1.5, 0.5)]
    assert area([*points, Point(*dominated)]) == pytest.approx(area(points), rel=1e-12)


def test_frontier_area_counts_a_point_off_the_grid_exactly():
    """The curve falls between two neighbouring positions of a regular grid."""
    left, right = 1.0001, 1.0002
    expected = (2 + 1.9) / 2 * left + (right - left) * 1.9 / 2
    assert area([Point(left, 1.9), Point(right, 0.0)]) == pytest.approx(expected / 8, rel=1e-12)


def test_a_point_beaten_in_both_losses_changes_nothing_wherever_it_lies():
    copies = Point(0, 1), Point(1, 0)
    kept = [Point(0.2, 0.8), Point(0.6, 0.2)]
    assert functional.frontier_area([*kept, Point(0.4, 0.9)], *copies) == functional.frontier_area(
        kept, *copies
    )


def test_sets_too_small_for_a_distance_are_refused():
    one = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="at least two vectors a subset"):
        functional.kernel_distance(one, one, 2, 5, 0)
    with pytest.raises(ValueError, match=r"expected features \[1, C, h, w\]"):
        functional.cfsd(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))


def test_the_interval_of_runs_counts_seeds_and_pairs():
    generator = np.random.default_rng(0)
    base, own = generator.normal(size=(4, 60)), generator.normal(1, size=(5, 60))
    interval = functional.bootstrap_of_runs(base, own, 4000, 0)
    assert interval.mean == pytest.approx(own.mean() - base.mean())
    # with one seed a side it is the bootstrap over the pairs
    one = functional.bootstrap_of_runs(base[:1], own[:1], 20000, 0)
    plain = functional.bootstrap(own[0] - base[0], 20000, 1)
    assert one.low == pytest.approx(plain.low, abs=0.03) and one.high == pytest.approx(
        plain.high, abs=0.03
    )
    # seeds that differ widen it, although every pair moves alike
    shift = np.array([[-1.0], [1.0], [0.0], [2.0], [-2.0]])
    wide = functional.bootstrap_of_runs(base, own + shift, 4000, 0)
    assert wide.high - wide.low > 3 * (interval.high - interval.low)
    assert wide == functional.bootstrap_of_runs(base, own + shift, 4000, 0)
