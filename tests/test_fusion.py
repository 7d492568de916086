"""The family of two encoders and a fusion: sizes, fusions, codes, mixtures, training."""

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

import train
from stylenet import Stylizer
from stylenet.looks import make_look
from stylenet.models.fusion import TOKENS, AttentionFusion, FusionNet, normalised
from stylenet.transforms import channel_stats

KINDS = ("adain", "concat", "attention")


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make(fusion="adain"):
    generator = torch.Generator().manual_seed(0)
    return FusionNet((4, 6, 8), 1, fusion, generator).eval()


@pytest.mark.parametrize("fusion", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (13, 30), (1, 1), (5, 64)])
@torch.no_grad()
def test_every_size_comes_back_and_the_style_counts(fusion, size):
    net, content = make(fusion), image(2, 3, *size)
    outputs = [net(content, image(2, 3, 17, 40, seed=seed)) for seed in (1, 2)]
    assert outputs[0].shape == (2, 3, *size) and outputs[0].isfinite().all()
    assert not torch.equal(*outputs)


@pytest.mark.parametrize("fusion", KINDS)
@torch.no_grad()
def test_alpha_blends_features_and_mixtures_mean_the_fused_ones(fusion):
    net, content = make(fusion), image(1, 3, 24, 20)
    features = net.encode(content)
    codes = [net.encode_style(image(1, 3, 16 + 8 * i, 20, seed=i)) for i in (1, 2)]
    plain = net.render(features, content.shape, make_look(codes[:1], alpha=0.0))[0]
    other = net.render(features, content.shape, make_look(codes[1:], alpha=0.0))[0]
    assert torch.equal(plain, other)  # at strength 0 no style is left
    fused = [net.fusion(features, code) for code in codes]
    expected = net.blocks(0.25 * fused[0] + 0.75 * fused[1])
    expected = net.from_half(F.relu(net.from_quarter(F.relu(expected))))
    mixed = net.render(features, content.shape, make_look(codes, [1, 3]))[0]
    torch.testing.assert_close(mixed, net.to_pixels(F.relu(expected))[..., :24, :20])


@torch.no_grad()
def test_adain_gives_the_content_the_styles_statistics():
    net = make()
    content, painting = image(1, 3, 40, 40), image(1, 3, 40, 40, seed=1)
    features, style = net.encode(content), net.style_encoder(painting)
    alive = channel_stats(features)[1].flatten() > 0.02
    fused = channel_stats(net.fusion(features, net.style_code(style)))
    assert alive.any()
    for ours, theirs in zip(fused, channel_stats(style), strict=True):
        torch.testing.assert_close(ours[:, alive], theirs[:, alive], atol=2e-3, rtol=2e-2)


@torch.no_grad()
def test_attention_against_its_formula():
    torch.manual_seed(0)
    fusion = AttentionFusion(5)
    content, code = image(1, 5, 6, 7), (image(1, 5, TOKENS, TOKENS, seed=1),)
    query = fusion.query(normalised(content))[0].flatten(1)  # [C, HW]
    key = fusion.key(normalised(code[0]))[0].flatten(1)
    value = fusion.value(code[0])[0].flatten(1)
    weights = (query.T @ key / 5**0.5).softmax(1)
    expected = content + fusion.out((value @ weights.T).reshape(1, 5, 6, 7))
    torch.testing.assert_close(fusion(content, code), expected)


@pytest.mark.parametrize("fusion", KINDS)
def test_training_releases_a_model_that_stylises(fusion, tiny_options, tmp_path):
    options = [
        *tiny_options,
        "model.name=fusion",
        "model.channels=[4,6,8]",
        "model.blocks=1",
        f"model.fusion={fusion}",
        "loss.identity_weight=1",
        "loss.shift_weight=1",
        "data.crop_px=40",
        "data.resize_px=48",
        f"run.dir={tmp_path / 'run'}",
    ]
    assert train.main(["--config", str(ROOT / "configs/adain.yaml"), *options]) == 0
    exact, low = (
        Stylizer.load(tmp_path / "run", device="cpu", precision=name) for name in ("fp32", "bf16")
    )
    content, styles = image(3, 30, 26), [image(3, 20, 20, seed=s) for s in (1, 2)]
    picture = exact(content, styles, mixture=[1, 3])
    assert picture.shape == (3, 30, 26)
    torch.testing.assert_close(
        low(content, styles[0]), exact(content, styles[0]), atol=0.05, rtol=0
    )
