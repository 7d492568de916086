"""The formulas of the metrics.

Pure: tensors in, numbers out; no network, no file, no resizing.

Images are RGB in [0, 1], [N, 3, H, W]; features are [N, C, h, w]. A distance is 0 for equal inputs
and grows with the difference. Only SSIM is a similarity. Content and style losses are those of
training (`stylenet.losses`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylenet.transforms import channel_stats

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV and Pillow convert


def content_norm(output: Tensor, content: Tensor) -> Tensor:
    """Mean squared difference of features after each channel has mean 0 and deviation 1.

    The plain content loss also changes with contrast and colour, which a style should change. This
    one does not.
    """
    return F.mse_loss(standardised(output), standardised(content))


def standardised(features: Tensor) -> Tensor:
    """The features with mean 0 and deviation 1 in every channel of every image."""
    mean, std = channel_stats(features)
    return (features.to(mean.dtype) - mean) / std


def relative_distance(output: Tensor, style: Tensor) -> Tensor:
    """Frobenius distance of Gram matrices [N, C, C] over the norm of the second.

    The result is the mean over N.
    """
    return ((output - style).norm(dim=(1, 2)) / style.norm(dim=(1, 2)).clamp(min=1e-12)).mean()


def ssim(a: Tensor, b: Tensor, window: Literal["gaussian", "uniform"] = "gaussian") -> Tensor:
    """Structural similarity in [-1, 1] (Wang et al. 2004, eq. 13).

    It is the mean over the positions where the window fits.

    gaussian: 11 x 11, sigma 1.5, biased, per colour channel (the paper). uniform: 7 x 7 on grey
    values with unbiased covariance (scikit-image's default, which MicroAST's script uses).
    torchmetrics also averages over a reflected border, so it differs in the third digit. The
    computation is in float64: in flat parts the variances are differences of nearly equal numbers.
    """
    a, b = a.double(), b.double()
    if window == "uniform":
        a, b = to_grey(a), to_grey(b)
    line = window_weights(window).to(a)
    n = len(line) ** 2
    unbiased = n / (n - 1) if window == "uniform" else 1.0
    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = (local_mean(x, line) for x in (a, b))
    var_a = unbiased * (local_mean(a * a, line) - mean_a.square())
    var_b = unbiased * (local_mean(b * b, line) - mean_b.square())
    covariance = unbiased * (local_mean(a * b, line) - mean_a * mean_b)
    structure = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (structure / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))).mean()


def window_weights(window: Literal["gaussian", "uniform"]) -> Tensor:
    """One side of the separable window of `ssim`: [k], sum 1, float64."""
    if window == "uniform":
        return torch.full((7,), 1 / 7, dtype=torch.float64)
    line = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    return line / line.sum()


def local_mean(x: Tensor, line: Tensor) -> Tensor:
    """Weighted mean at every position where the window line x line fits.

    Each channel is averaged by itself.
    """
    flat = x.reshape(-1, 1, *x.shape[-2:])
    mean = F.conv2d(F.conv2d(flat, line.reshape(1, 1, 1, -1)), line.reshape(1, 1, -1, 1))
    return mean.reshape(*x.shape[:2], *mean.shape[-2:])


def to_grey(image: Tensor) -> Tensor:
    """The luma of an image, [N, 1, H, W]."""
    return (
        image
        * torch.tensor(GREY_WEIGHTS, dtype=image.dtype, device=image.device).reshape(1, 3, 1, 1)
    ).sum(1, keepdim=True)


def lpips(
    features_a: Sequence[Tensor], features_b: Sequence[Tensor], heads: Sequence[Tensor]
) -> Tensor:
    """Learned perceptual distance from a backbone's layers (Zhang et al. 2018, eq. 1).

    The result is averaged over N. heads: one weight per channel for every layer, [C] each.
    """
    layers = zip(features_a, features_b, heads, strict=True)
    return torch.stack([_lpips_layer(a, b, head) for a, b, head in layers]).sum()


def _lpips_layer(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    # The eps is outside the root, as in the authors' normalize_tensor.
    unit_a, unit_b = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b))
    return ((unit_a - unit_b).square() * head.to(a).reshape(1, -1, 1, 1)).sum(1).mean()


def cfsd(
    content: Tensor, output: Tensor, reduction: Literal["mean", "sum"] = "mean", block: int = 1024
) -> Tensor:
    """Content feature structural distance (Chung et al. 2024).

    It measures how much each position's similarity to all others has changed. Features are divided
    by C; a softmax over each row of their inner products follows; then KL(content || output) per
    row. The result is the `sum` over the rows, as in the reference, which grows with the size, or
    their `mean`.

    One image each, [1, C, h, w]. Rows are computed in blocks of `block`, so memory is block x (h w)
    instead of (h w)^2. Raises ValueError for a batch.
    """
    if len(content) != 1 or content.shape != output.shape:
        raise ValueError(
            f"expected features [1, C, h, w] of one shape, but {tuple(content.shape)} and "
            f"{tuple(output.shape)} came"
        )
    a, b = (x.flatten(2)[0].T.float() / x.shape[1] for x in (content, output))  # [positions, C]
    rows = [
        _row_divergence(a[i : i + block] @ a.T, b[i : i + block] @ b.T)
        for i in range(0, len(a), block)
    ]
    divergence = torch.cat(rows)
    return divergence.sum() if reduction == "sum" else divergence.mean()


def _row_divergence(p: Tensor, q: Tensor) -> Tensor:
    log_p, log_q = p.double().log_softmax(1), q.double().log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def colour_histogram(image: Tensor, bins: int = 8) -> Tensor:
    """Share of the pixels in each of bins^3 boxes of RGB space, [N, bins^3]."""
    index = (image.clamp(0, 1) * bins).long().clamp(max=bins - 1)  # [N, 3, H, W]
    box = (index[:, 0] * bins + index[:, 1]) * bins + index[:, 2]
    counts = torch.stack([torch.bincount(b.flatten(), minlength=bins**3) for b in box])
    return counts.double() / box[0].numel()


def colour_distance(output: Tensor, style: Tensor, bins: int = 8) -> Tensor:
    """Hellinger distance of the colour histograms, in [0, 1]; the sizes may differ."""
    root_a, root_b = colour_histogram(output, bins).sqrt(), colour_histogram(style, bins).sqrt()
    return ((root_a - root_b).norm(dim=1) / 2**0.5).mean()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two sets of feature vectors (Heusel et al. 2017, eq. 6).

    The sets are [N, D] and [M, D]; the computation is in float64. Covariances are unbiased, as in
    numpy and the FID implementations. tr((S_a S_b)^1/2) is the sum of the singular values of
    S_a^1/2 S_b^1/2. This stays exact if a set is smaller than D and the product is singular. Raises
    ValueError for a set of one.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"expected at least two vectors a set, but {len(a)} and {len(b)} came")
    a, b = a.double(), b.double()
    centred_a, centred_b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))  # S = X^T X
    # The nuclear norm of S_a^1/2 S_b^1/2 is that of X_a X_b^T, an N x M matrix.
    cross = torch.linalg.svdvals(centred_a @ centred_b.T).sum()
    distance = (
        (a.mean(0) - b.mean(0)).square().sum()
        + centred_a.square().sum()
        + centred_b.square().sum()
        - 2 * cross
    )
    return max(float(distance), 0.0)  # in this order a NaN stays one


def kernel_distance(a: Tensor, b: Tensor, n_subsets: int, subset_size: int, seed: int) -> float:
    """KID: the unbiased squared maximum mean discrepancy (Binkowski et al. 2018).

    The kernel is (x.y / D + 1)^3. The result is the mean over `n_subsets` random subsets of
    `subset_size` vectors of each set, drawn from the seed. Unlike the Fréchet distance, its
    expectation does not depend on the number of images. It may be slightly negative. Raises
    ValueError for subsets of one.
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(subset_size, len(a), len(b))
    if size < 2:
        raise ValueError(f"expected at least two vectors a subset, but {size} came")
    # a generator of a, b, a, b, …; zip takes two at a time
    draws = (pick(x.double(), size, generator) for _ in range(n_subsets) for x in (a, b))
    return float(np.mean([mmd(x, y) for x, y in zip(draws, draws, strict=True)]))


def pick(vectors: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n different vectors of the set."""
    return vectors[torch.randperm(len(vectors), generator=generator)[:n]]


def mmd(a: Tensor, b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two sets [n, D] of one size n > 1."""
    n, dimension = a.shape

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / dimension + 1) ** 3

    within = sum(
        (k.sum() - k.diagonal().sum()) / (n * (n - 1)) for k in (kernel(a, a), kernel(b, b))
    )
    return float(within - 2 * kernel(a, b).mean())


def art_fid(mean_lpips: float, fid: float) -> float:
    """(1 + LPIPS to the content) (1 + FID to the styles) (Wright & Ommer 2022, eq. 3)."""
    return (1 + mean_lpips) * (1 + fid)


class Interval(NamedTuple):
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float], n_resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """The mean and its percentile interval, resampling the values with replacement (Efron 1979)."""
    exact = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = exact[generator.integers(len(exact), size=(n_resamples, len(exact)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(exact.mean()), float(low), float(high))


def bootstrap_of_runs(
    base: np.ndarray, own: np.ndarray, n_resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """The mean of own - base and its interval, resampling trainings and pictures.

    base [seeds, pairs], own [other seeds, pairs], with the same pairs. Each resample draws seeds of
    either side and pairs, with replacement: a hierarchical bootstrap (Davison & Hinkley 1997, 3.8).
    """
    generator = np.random.default_rng(seed)

    def shares(n: int) -> np.ndarray:
        """How often each of n things is drawn, [n_resamples, n], rows sum to 1."""
        return generator.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n

    gaps = shares(len(own)) @ own - shares(len(base)) @ base  # [n_resamples, pairs]
    means = (gaps * shares(own.shape[1])).sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(own.mean() - base.mean()), float(low), float(high))


class Point(NamedTuple):
    """A method at one strength: how far it is from the content and from the style."""

    content: float
    style: float


def frontier_area(points: Sequence[Point], content_copy: Point, style_copy: Point) -> float:
    """Area under the best style loss at each content loss: 0 is best, 1 is worst.

    The unit is the box between the two copies. The curve starts at the content copy and falls
    linearly from point to point. Points that another one beats in both losses are left out. After
    the last point the curve stays level up to the style copy's content loss.
    """
    reach, frontier = style_copy.content, [content_copy]
    for point in sorted(points):
        if point.style < frontier[-1].style:
            frontier.append(point)
    x, y = np.array([p.content for p in frontier]), np.array([p.style for p in frontier])
    # The curve's own corners are on the grid, so the trapezoids are exact.
    grid = np.unique(np.concatenate([x[x < reach], np.linspace(0, reach, 513)]))
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (reach * content_copy.style))
