"""The objective's terms: properties and independent references."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from stylenet import losses
from stylenet.build import make_loss_weights
from stylenet.config.training import LAZY_WEIGHTS, Config, LossConfig
from stylenet.losses import LossWeights


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TERMS = [losses.content_loss, losses.style_loss, losses.gram_loss, losses.identity_loss]


@pytest.mark.parametrize("term", TERMS)
def test_zero_for_equal_and_symmetric_and_growing(term):
    a, b = features(2, 3, 8, 8), features(2, 3, 8, 8, seed=1)
    assert term(a, a).item() == 0
    torch.testing.assert_close(term(a, b), term(b, a))
    values = [term(a + level * b, a).item() for level in (0.1, 0.3, 1.0)]
    assert values == sorted(values) and values[0] > 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_style_loss_against_numpy(reduction):
    a, b = features(2, 3, 8, 8), 2 * features(2, 3, 5, 4, seed=1)
    per_image = []
    for x, y in zip(a.double().numpy(), b.double().numpy()):
        std = lambda v: np.sqrt(v.var((1, 2)) + 1e-5)  # noqa: E731
        squared = (x.mean((1, 2)) - y.mean((1, 2))) ** 2 + (std(x) - std(y)) ** 2
        per_image.append(squared.sum() if reduction == "sum" else squared.mean())
    assert losses.style_loss(a, b, reduction).item() == pytest.approx(np.mean(per_image), rel=1e-5)


def test_sum_is_channels_times_mean():
    a, b = features(2, 7, 8, 8), features(2, 7, 5, 4, seed=1)
    torch.testing.assert_close(losses.style_loss(a, b, "sum"), 7 * losses.style_loss(a, b, "mean"))


def test_gram_against_numpy_and_sizes_may_differ():
    x = features(1, 3, 4, 5)
    flat = x[0].reshape(3, 20).double().numpy()
    np.testing.assert_allclose(losses.gram(x)[0].numpy(), flat @ flat.T / 20, rtol=1e-5)
    doubled = x.repeat_interleave(2, 2)
    assert losses.gram_loss(x, doubled).item() == pytest.approx(0, abs=1e-10)


def test_total_variation():
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    assert losses.total_variation(ramp).item() == 1  # 1 a pixel to the right, 0 down
    assert losses.total_variation(torch.ones(1, 3, 1, 1)).item() == 0


def test_terms_are_float32_for_low_precision_features():
    x = features(1, 2, 4, 4).bfloat16()
    assert {term(x, x).dtype for term in TERMS} == {torch.float32}


def test_effective_weights_make_the_total():
    weights = LossWeights(2.0, 10.0, {"relu1_1": 1.0, "relu2_1": 0.5}, "mean", gram=3.0, tv=0.1)
    terms = {
        "content": 1.0,
        "style/relu1_1": 2.0,
        "style/relu2_1": 4.0,
        "gram/relu2_1": 1.0,
        "tv": 5.0,
    }
    total = losses.weighted_total(
        {name: torch.tensor(value) for name, value in terms.items()}, weights
    )
    assert total.item() == pytest.approx(2 + 20 + 20 + 1.5 + 0.5)


def test_lazy_terms_count_as_many_times_over():
    weights = LossWeights(
        1.0, 0.0, {}, "mean", identity=2.0, identity_features=1.0, shift=1.0, motion=1.0
    )
    terms = dict.fromkeys(["content", *losses.LAZY_TERMS], torch.tensor(1.0))
    assert losses.weighted_total(terms, weights) == 6
    assert losses.weighted_total(terms, weights, lazy_factor=3) == 16


@pytest.mark.parametrize("name", [f.name for f in fields(LossConfig) if f.name.endswith("_weight")])
def test_lazy_weights_are_those_of_the_lazy_terms(name):
    others = [f"loss.{f.name}=0" for f in fields(LossConfig) if f.name.endswith("_weight")]
    chosen = ["loss.content_weight=1", f"loss.{name}=1"]  # the adversarial one needs another
    weights = make_loss_weights(Config.load(None, [*others, *chosen]))
    is_lazy = any(losses.effective_weight(term, weights) for term in losses.LAZY_TERMS)
    assert is_lazy == (name in LAZY_WEIGHTS)


def test_description_shows_what_the_other_reduction_would_need():
    text = losses.describe_weights(
        LossWeights(1.0, 10.0, {"relu1_1": 1.0}, "mean"), {"relu1_1": 64}
    )
    assert "content          1" in text and "as sum: 0.15625" in text
    text = losses.describe_weights(
        LossWeights(1.0, 0.01, {"relu4_1": 1.0}, "sum", tv=2.0), {"relu4_1": 512}
    )
    assert "as mean: 5.12" in text and "tv               2" in text and "gram" not in text


def test_normalised_content_is_blind_to_channel_statistics():
    content, other = torch.randn(2, 4, 9, 9), torch.randn(2, 4, 9, 9)
    assert float(losses.normalised_content_loss(3 * content + 1, content)) < 1e-6
    assert float(losses.normalised_content_loss(other, content)) == pytest.approx(2, abs=0.5)


def test_balanced_style_counts_a_pale_style_as_much_as_a_strong_one():
    output, style = torch.randn(1, 4, 9, 9), torch.randn(1, 4, 9, 9) + 1
    plain, pale = losses.style_loss(output, style), losses.style_loss(output / 10, style / 10)
    assert float(pale) == pytest.approx(float(plain) / 100, rel=1e-2)
    full = [
        losses.style_loss(a, b, balance=1.0)
        for a, b in ((output, style), (output / 10, style / 10))
    ]
    assert float(full[0]) == pytest.approx(float(full[1]), rel=1e-2)
    half = losses.style_loss(output, style, balance=0.5)
    assert float(half) == pytest.approx((float(plain) + float(full[0])) / 2, rel=1e-5)


def test_balanced_gram_loss_counts_a_pale_style_as_much_as_a_strong_one():
    output, style = (losses.gram(torch.randn(2, 4, 9, 9) + k) for k in (0, 1))
    full = [
        losses.matrix_distance(a, b, 1.0) for a, b in ((output, style), (output / 9, style / 9))
    ]
    assert float(full[0]) == pytest.approx(float(full[1]), rel=1e-4)
    by_hand = [float(((a - b) ** 2).mean() / (b**2).mean()) for a, b in zip(output, style)]
    assert float(full[0]) == pytest.approx(sum(by_hand) / 2, rel=1e-4)
    plain, half = losses.matrix_distance(output, style), losses.matrix_distance(output, style, 0.5)
    assert float(half) == pytest.approx((float(plain) + float(full[0])) / 2, rel=1e-5)


def test_shift_loss_is_nothing_where_the_output_moves_with_the_content():
    output = torch.rand(2, 3, 64, 64)
    assert float(losses.shift_loss(output, output.roll((3, 5), (2, 3)), (3, 5))) == 0
    assert float(losses.shift_loss(output, output, (3, 5))) > 0.1
    border = output.clone()
    border[..., :10, :] = 0  # what happens at the border does not count
    assert float(losses.shift_loss(output, border.roll((1, 0), (2, 3)), (1, 0))) == 0


def test_sliced_distance_is_the_wasserstein_distance_of_sorted_values():
    """With one channel: the mean squared difference of the sorted values."""
    a, b = features(1, 1, 3, 4), features(1, 1, 3, 4, seed=1)
    sides = [losses.sliced_values(x) for x in (a, b)]
    sort = [np.sort(x.numpy().ravel()) for x in (a, b)]
    sign = float(losses.directions_of(1))  # one direction is 1 or -1
    expected = np.mean((sort[0] - sort[1]) ** 2)
    assert abs(sign) == 1
    assert losses.sliced_distance(*sides).item() == pytest.approx(expected, rel=1e-5)


def test_sliced_values_know_no_places_and_many_sizes():
    x = features(2, 5, 4, 6)
    shuffled = x.flatten(2)[..., torch.randperm(24)].reshape(2, 5, 6, 4)
    torch.testing.assert_close(losses.sliced_values(x), losses.sliced_values(shuffled))
    basis = losses.directions_of(5)
    torch.testing.assert_close(basis @ basis.T, torch.eye(5))
    doubled = losses.sliced_values(x.repeat_interleave(2, 3))
    apart = losses.sliced_distance(losses.sliced_values(x), losses.sliced_values(x + 1))
    assert losses.sliced_distance(losses.sliced_values(x), doubled) < 0.02 * apart


def test_sliced_distance_sees_what_means_and_deviations_do_not():
    """Equal mean, deviation and Gram matrix, but other values: two peaks against one bell."""
    bell = features(1, 1, 40, 40)
    bell = (bell - bell.mean()) / bell.std(unbiased=False)
    peaks = torch.where(bell > bell.median(), 1.0, -1.0)
    assert losses.style_loss(bell, peaks) < 1e-3 and losses.gram_loss(bell, peaks) < 1e-3
    assert losses.sliced_distance(*map(losses.sliced_values, (bell, peaks))) > 0.1
