"""Every shipped YAML loads, says what it is, and names no option at its default."""

import re

import pytest
from conftest import ROOT

from stylenet import config as c

FILES = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_loads_and_has_a_runnable_header(path):
    c.load_config(path)
    header = re.match(r"(#.*\n)+", path.read_text()).group(0)
    assert f"python train.py --config configs/{path.name}" in header


def test_paper_recipe():
    config = c.load_config(ROOT / "configs/adain.yaml")
    assert (config.optim.lr, config.optim.lr_schedule, config.optim.lr_decay) == (1e-4, "inverse", 5e-5)
    assert (config.data.batch_size, config.train.steps, config.data.resize_px, config.data.crop_px) == (8, 160_000, 512, 256)
    assert config.loss.style_taps == ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    assert (config.encoder.name, config.encoder.tap) == ("vgg19", "relu4_1")
    assert (config.loss.style_reduction, config.loss.style_weight, config.loss.content_weight) == ("sum", 1e-2, 1.0)
