"""The objective: its terms equal the formulas, for every family that learns by it."""

import pytest
import torch
import torch.nn.functional as F

from stylenet.losses import (
    LossWeights,
    normalised_content_loss,
    sliced_values,
    term_names,
    weighted_total,
)
from stylenet.models.compact import CompactNet
from stylenet.models.decoder import Decoder
from stylenet.models.learning import PairLearner, repeated, rolled
from stylenet.models.stylenet import StyleNet
from stylenet.models.vgg_files import load_vgg
from stylenet.objective import Objective, mixed
from stylenet.transforms import ADAIN, TRANSFORMS, adain, channel_stats


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net(vgg19_file):
    encoder = load_vgg("vgg19", vgg19_file, ["relu4_1"])
    return StyleNet(
        encoder,
        ADAIN,
        Decoder("vgg19", "relu4_1", init="he", generator=torch.Generator().manual_seed(0)),
    )


def terms_of(net, content, style, weights):
    """The observed batch and the terms of one step."""
    objective = Objective(net.encoder, net.tap, net.transform, weights)
    seen = objective.observe(content, style)
    return seen, objective.terms(net.learn(seen), seen, net)


def test_training_terms_are_the_formulas(net):
    taps = ["relu1_1", "relu3_1"]
    weights = LossWeights(
        1.0, 10.0, dict.fromkeys(taps, 1.0), "mean", gram=1.0, tv=1.0, identity=1.0
    )
    content, style = image(2, 3, 32, 32), image(2, 3, 32, 32, seed=1)
    seen, terms = terms_of(net, content, style, weights)
    t = adain(net.encode(content), net.encode(style))
    torch.testing.assert_close(seen.target, t)
    output = net.decoder(t)
    torch.testing.assert_close(terms["content"], F.mse_loss(net.encode(output), t))
    for tap in taps:
        a, b = net.encoder(output, [tap])[tap], net.encoder(style, [tap])[tap]
        stats = lambda x: (x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-5).sqrt())  # noqa: E731
        expected = sum(F.mse_loss(x, y) for x, y in zip(stats(a), stats(b)))
        torch.testing.assert_close(terms[f"style/{tap}"], expected, rtol=1e-4, atol=1e-6)
    assert {"gram/relu1_1", "gram/relu3_1", "tv"} < set(terms)
    restored = [net.decoder(net.encode(x)) for x in (content, style)]
    expected = (F.mse_loss(restored[0], content) + F.mse_loss(restored[1], style)) / 2
    torch.testing.assert_close(terms["identity"], expected)


def test_identity_features_compare_restored_contents_by_their_features(net):
    taps = ("relu1_1", "relu3_1")
    weights = LossWeights(0.0, 0.0, {"relu1_1": 1.0}, identity_features=2.0, content_norm_taps=taps)
    content, style = image(2, 3, 32, 32), image(2, 3, 32, 32, seed=1)
    terms = terms_of(net, content, style, weights)[1]
    assert list(terms) == term_names(weights) == ["identity_features"]
    restored = net.encoder(net.decoder(net.encode(content)), taps)
    own = net.encoder(content, taps)
    expected = sum(normalised_content_loss(restored[tap], own[tap]) for tap in taps) / 2
    torch.testing.assert_close(terms["identity_features"], expected)
    torch.testing.assert_close(weighted_total(terms, weights), 2 * expected)


def test_gradients_reach_the_decoder_only(net):
    weights = LossWeights(1.0, 10.0, {"relu1_1": 1.0}, "mean")
    net.zero_grad()
    content, style = image(1, 3, 16, 16), image(1, 3, 16, 16, seed=1)
    seen, terms = terms_of(net, content, style, weights)
    assert not seen.target.requires_grad
    weighted_total(terms, weights).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.decoder.parameters())
    assert all(p.grad is None for p in net.encoder.parameters())


def test_constant_images_stay_finite_forward_and_backward(net):
    weights = LossWeights(1.0, 10.0, {"relu1_1": 1.0, "relu4_1": 1.0}, "mean")
    net.zero_grad()
    content, style = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    terms = terms_of(net, content, style, weights)[1]
    weighted_total(terms, weights).backward()
    assert all(value.isfinite() for value in terms.values())
    assert all(p.grad.isfinite().all() for p in net.decoder.parameters())


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"content": 1.0, "style": 0.0}, {"content"}),
        ({"content": 0.0, "style": 1.0}, {"style/relu1_1"}),
        ({"content": 0.0, "style": 0.0, "identity": 1.0}, {"identity"}),
        ({"content": 1.0, "style": 1.0, "gram": 1.0, "tv": 1.0, "identity": 1.0}, None),
    ],
)
def test_only_terms_with_a_weight_are_computed(net, options, expected):
    weights = LossWeights(taps={"relu1_1": 1.0}, **options)
    content, style = image(1, 3, 16, 16), image(1, 3, 16, 16, seed=1)
    terms = terms_of(net, content, style, weights)[1]
    assert (
        set(terms)
        == (expected or {"content", "style/relu1_1", "gram/relu1_1", "tv", "identity"})
        == set(term_names(weights))
    )


def test_the_vgg_teaches_a_compact_network(vgg19_file):
    """Target, style loss and identity are AdaIN's.

    This holds for every pair of a content and a style that meet.
    """
    vgg = load_vgg("vgg19", vgg19_file, ["relu2_1"])
    net = (
        CompactNet((4, 6, 8), 3, generator=torch.Generator().manual_seed(0))
        .eval()
        .requires_grad_(False)
    )
    learner = PairLearner(net)
    content, style = image(2, 3, 16, 16), image(2, 3, 16, 16, seed=1)
    weights = LossWeights(1.0, 1.0, {"relu1_1": 1.0}, identity=1.0)
    objective = Objective(vgg, "relu2_1", ADAIN, weights)
    seen = objective.observe(content, style, n_styles=2)
    terms = objective.terms(learner.learn(seen), seen, learner)
    features = lambda x, tap: vgg(x, [tap])[tap]  # noqa: E731
    content_terms, style_terms = [], []
    for c, s in ((0, 0), (1, 1), (0, 1), (1, 0)):
        pair = content[c : c + 1], style[s : s + 1]
        output = net(*pair)
        target = adain(features(pair[0], "relu2_1"), features(pair[1], "relu2_1"))
        content_terms.append(F.mse_loss(features(output, "relu2_1"), target))
        (mean, std), (m, d) = (channel_stats(features(x, "relu1_1")) for x in (output, pair[1]))
        style_terms.append(F.mse_loss(mean, m) + F.mse_loss(std, d))
    images = torch.cat([content, style])
    assert float(terms["content"]) == pytest.approx(float(sum(content_terms) / 4), rel=1e-4)
    assert float(terms["style/relu1_1"]) == pytest.approx(float(sum(style_terms) / 4), rel=1e-4)
    assert float(terms["identity"]) == pytest.approx(
        float(F.mse_loss(net(images, images), images)), rel=1e-4
    )


def test_contents_meet_other_styles():
    contents, styles = (
        torch.arange(3.0).reshape(3, 1, 1, 1),
        torch.arange(10.0, 13.0).reshape(3, 1, 1, 1),
    )
    pairs = set(
        zip(
            repeated(contents, 3).flatten().tolist(),
            rolled(styles, 3).flatten().tolist(),
            strict=True,
        )
    )
    assert len(pairs) == 9
    assert torch.equal(rolled(styles, 1), styles)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_vgg_family_encodes_a_content_once_a_step(vgg19_file, name, monkeypatch):
    """A step has three encoder passes for every transform.

    Observing encodes content and style; the terms encode the output.
    """
    vgg, calls = load_vgg("vgg19", vgg19_file, ["relu2_1"]), []
    transform = TRANSFORMS[name]
    net = StyleNet(
        vgg, transform, Decoder("vgg19", "relu2_1", widening=transform.widening), "relu2_1"
    )
    walk = type(vgg).walk
    monkeypatch.setattr(
        type(vgg), "walk", lambda self, x, taps: calls.append(x) or walk(self, x, taps)
    )
    terms_of(
        net,
        image(1, 3, 16, 16),
        image(1, 3, 16, 16, seed=1),
        LossWeights(1.0, 1.0, {"relu1_1": 1.0}),
    )
    assert len(calls) == 3


def test_normalised_content_and_shift_are_terms_of_every_family(net):
    weights = LossWeights(
        0.0, 0.0, {}, content_norm=1.0, content_norm_taps=("relu2_1", "relu3_1"), shift=1.0
    )
    content, style = image(1, 3, 64, 64), image(1, 3, 64, 64, seed=1)
    _, terms = terms_of(net, content, style, weights)
    assert set(terms) == {"content_norm", "shift"}
    output = net(content, style)
    moved = net(content.roll((1, 2), (2, 3)), style)
    expected = (output.roll((1, 2), (2, 3)) - moved)[..., 17:48, 18:48].square().mean()
    torch.testing.assert_close(terms["shift"], expected, rtol=1e-3, atol=1e-6)


def test_terms_with_passes_of_their_own_are_left_out_without_a_learner(net):
    weights = LossWeights(
        1.0, 0.0, {}, "mean", identity=1.0, identity_features=1.0, shift=1.0, tv=1.0
    )
    objective = Objective(net.encoder, net.tap, net.transform, weights)
    seen = objective.observe(image(2, 3, 32, 32), image(2, 3, 32, 32, seed=1))
    assert set(objective.terms(net.learn(seen), seen)) == {"content", "tv"}


def test_feature_and_sliced_terms_are_the_formulas(net):
    feature_taps, taps = {"relu2_2": 2.0, "relu3_1": 1.0}, {"relu1_1": 1.0, "relu2_1": 0.5}
    weights = LossWeights(0.0, 0.0, taps, features=3.0, feature_taps=feature_taps, sliced=4.0)
    content, style = image(2, 3, 32, 32), image(2, 3, 32, 32, seed=1)
    output = image(2, 3, 32, 32, seed=2)
    objective = Objective(net.encoder, "relu3_1", TRANSFORMS["none"], weights)
    terms = objective.terms(output, objective.observe(content, style))
    assert list(terms) == term_names(weights)
    expected = 0.0
    for tap, weight in feature_taps.items():
        apart = F.mse_loss(net.encoder(output, [tap])[tap], net.encoder(content, [tap])[tap])
        torch.testing.assert_close(terms[f"features/{tap}"], apart)
        expected += 3 * weight * apart
    for tap, weight in taps.items():
        sides = [sliced_values(net.encoder(x, [tap])[tap]) for x in (output, style)]
        torch.testing.assert_close(terms[f"sliced/{tap}"], F.mse_loss(*sides))
        expected += 4 * weight * F.mse_loss(*sides)
    torch.testing.assert_close(weighted_total(terms, weights), expected)


def test_a_mixture_of_styles_is_observed_as_the_mean_of_each(net):
    taps = dict.fromkeys(["relu1_1", "relu2_1"], 1.0)
    weights = LossWeights(1.0, 1.0, taps, gram=1.0, sliced=1.0)
    objective = Objective(net.encoder, "relu2_1", ADAIN, weights)
    content = image(1, 3, 32, 32)
    seen = [objective.observe(content, image(1, 3, 32, px, seed=px)) for px in (32, 48)]
    alone, half = mixed(seen, [1.0, 0.0]), mixed(seen, [0.5, 0.5])
    torch.testing.assert_close(alone.style_grams["relu2_1"], seen[0].style_grams["relu2_1"])
    for name in ("style_grams", "style_stats"):
        pick = (lambda x: x["relu2_1"]) if name == "style_grams" else (lambda x: x["relu2_1"][0])
        parts = [pick(getattr(item, name)) for item in seen]
        torch.testing.assert_close(pick(getattr(half, name)), sum(parts) / 2)
    torch.testing.assert_close(half.target, (seen[0].target + seen[1].target) / 2)
    assert half.style_slices["relu1_1"].shape[2] == 32 * 32  # of the smaller picture
