"""What comes next fits: a toy family, transform and metric are each one place and one entry."""

import dataclasses
import json

import pytest
import torch
from conftest import ROOT, draw
from torch import nn

import eval as evaluation
import train
from stylenet import Stylizer
from stylenet.config.training import Config, ModelConfig, TransformConfig
from stylenet.metrics import formulas
from stylenet.metrics.catalogue import CATALOGUE, Metric
from stylenet.models.families import FAMILIES, Family
from stylenet.transforms import ADAIN, TRANSFORMS, FeatureTransform, channel_stats


class ToyNet(nn.Module):
    """A network without an encoder: it learns how much of the style's mean colour to add."""

    has_content_stats = False

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, content, style, alpha=1.0):
        return content + alpha * self.share * style.mean((2, 3), keepdim=True)

    def encode(self, image):
        return image

    def style_code(self, features):
        return (features.mean((2, 3), keepdim=True),)

    def encode_style(self, style):
        return self.style_code(style)

    def render(self, features, shape, look):
        means = zip(look.mixture, look.codes, strict=True)
        mean = sum(share * code[0] for share, code in means)
        return features + look.alpha * self.share * mean, None  # no statistics of the content

    def learn(self, seen):
        return self(seen.content, seen.style)

    def restore(self, seen):
        both = torch.cat([seen.content, seen.style])
        return self(both, both)


class ToyFamily(Family):
    network = ToyNet
    options = {}
    has_encoder = False

    def make(self, parts, generator=None, init="uniform"):
        return ToyNet()

    def assemble(self, trained, encoder, parts):
        return trained

    make_learner = assemble

    def make_fast(self, net, device, dtype):
        return net.to(device)


def train_one(tiny_options, run_dir, **sections):
    """The run folder of a tiny training with these sections."""
    options = [*tiny_options, "train.steps=2", f"run.dir={run_dir}"]
    config = Config.load(ROOT / "configs/adain.yaml", options)
    assert train.train(dataclasses.replace(config, **sections), None) == 0
    return run_dir


@pytest.fixture
def pictures(tmp_path):
    return draw(tmp_path / "c.png", 1, 40, 32), draw(tmp_path / "s.png", 2, 40, 32)


def test_a_toy_family_trains_is_released_and_applied(tiny_options, tmp_path, pictures, monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", ToyFamily())
    run_dir = train_one(tiny_options, tmp_path / "run", model=ModelConfig(name="toy"))
    stylizer = Stylizer.load(run_dir, device="cpu")
    assert isinstance(stylizer.net, ToyNet) and stylizer(*pictures).shape == (3, 32, 40)
    assert not torch.equal(stylizer(*pictures), stylizer(*pictures, alpha=0.0))


def test_a_toy_transform_trains_is_released_and_applied(
    tiny_options, tmp_path, pictures, monkeypatch
):
    def halfway(content, style, own):
        return (content + ADAIN.apply(content, style, own)) / 2

    monkeypatch.setitem(TRANSFORMS, "toy", FeatureTransform(channel_stats, halfway, channel_stats))
    monkeypatch.setattr(Family, "transforms", tuple(TRANSFORMS))
    run_dir = train_one(tiny_options, tmp_path / "run", transform=TransformConfig("toy"))
    stylizer = Stylizer.load(run_dir, device="cpu")
    assert stylizer.net.transform is TRANSFORMS["toy"]
    assert stylizer(*pictures).shape == (3, 32, 40)


def test_a_toy_metric_is_scored_and_shown(trained_run, image_folders, tmp_path, monkeypatch):
    def brightness(output, content, style, options):
        return output.image.mean()

    entry = Metric("brightness", "Brightness", "How light the output is.", higher_is_better=True)
    monkeypatch.setitem(CATALOGUE, "brightness", entry)
    monkeypatch.setattr(formulas, "brightness", brightness, raising=False)
    content, style = map(str, image_folders)
    call = ["--model", trained_run, "--content", content, "--style", style, "--device", "cpu"]
    options = ["pairs.n=3", "images.resize_px=32", "metrics.names=[brightness]"]
    output = tmp_path / "out"
    command = [*call, "--output", output, *options, "tracking.mode=disabled"]
    assert evaluation.main(list(map(str, command))) == 0
    results = json.loads((output / "metrics.json").read_text())
    values = [entry["metrics"]["brightness"]["mean"] for entry in results["candidates"]]
    assert all(0 < value < 1 for value in values)
    assert "Brightness ↑" in (output / "table.md").read_text()
    assert "Brightness ↑" in (output / "report.html").read_text()
