"""Every shipped YAML loads, has a header, and names no option at its default."""

import re

import pytest
from conftest import ROOT

from stylenet.config.options import differing_keys, flatten, read_yaml
from stylenet.config.protocol import Protocol
from stylenet.config.training import Config

OPTIMISATION = ROOT / "configs/gatys.yaml"  # test_optimise.py loads it
FILES = sorted(set((ROOT / "configs").glob("*.yaml")) - {OPTIMISATION})
PROTOCOLS = sorted((ROOT / "configs/protocols").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_loads_and_has_a_runnable_header(path):
    Config.load(path)
    header = re.match(r"(#.*\n)+", path.read_text()).group(0)
    assert f"python train.py --config configs/{path.name}" in header


def test_the_header_of_optimisation_is_runnable():
    header = re.match(r"(#.*\n)+", OPTIMISATION.read_text()).group(0)
    assert "python stylize.py --method gatys --config configs/gatys.yaml" in header


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_protocols_load_and_have_a_runnable_header(path):
    protocol = Protocol.load(path, [])
    header = re.match(r"(#.*\n)+", path.read_text()).group(0)
    assert f"--protocol {path.stem} " in header and "python eval.py" in header
    named = flatten(read_yaml(path), str(path), Protocol)
    changed = differing_keys(Protocol(), protocol)
    assert set(named) == set(changed)  # a card holds only what differs from the defaults


def test_protocols_are_as_published():
    load = lambda name: Protocol.load(ROOT / f"configs/protocols/{name}.yaml", [])  # noqa: E731 - short
    assert (load("quick").pairs.n, load("quick").images.resize_px) == (40, 256)
    adain, styleid, microast = load("adain2017"), load("styleid800"), load("microast")
    assert (adain.pairs.contents, adain.pairs.styles, adain.images.resize_px) == (50, 10, 512)
    assert (styleid.pairs.contents, styleid.pairs.styles, styleid.images.resize_px) == (20, 40, 512)
    assert (styleid.metrics.cfsd_reduction, styleid.metrics.cfsd_px, styleid.metrics.lpips_net) == (
        "sum",
        0,
        "alex",
    )
    assert (styleid.judge.padding, styleid.judge.calibrate) == (
        "zeros",
        "no",
    )  # torchvision's network as it is
    assert (
        microast.metrics.content_taps == ("relu4_1", "relu5_1")
        and len(microast.metrics.style_taps) == 5
    )
    assert (microast.metrics.ssim_window, microast.judge.channel_order, microast.images.crop) == (
        "uniform",
        "bgr",
        "none",
    )


def test_paper_recipe():
    config = Config.load(ROOT / "configs/adain.yaml")
    assert (config.optim.lr, config.optim.lr_schedule, config.optim.lr_decay) == (
        1e-4,
        "inverse",
        5e-5,
    )
    assert (
        config.data.batch_size,
        config.train.steps,
        config.data.resize_px,
        config.data.crop_px,
    ) == (8, 160_000, 512, 256)
    assert config.loss.style_taps == ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    assert (config.encoder.name, config.encoder.tap) == ("vgg19", "relu4_1")
    assert (config.loss.style_reduction, config.loss.style_weight, config.loss.content_weight) == (
        "sum",
        1e-2,
        1.0,
    )
