"""Shared fixtures.

They are small images, random VGG weights in both layouts, and the real data if the environment
names it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylenet.models import vgg as vgg_module
from stylenet.models.vgg_files import conv_keys

ROOT = Path(__file__).resolve().parent.parent
REAL = {
    "content": "STYLENET_TEST_CONTENT",
    "style": "STYLENET_TEST_STYLE",
    "vgg19": "STYLENET_TEST_VGG19",
    "vgg19_normalised": "STYLENET_TEST_VGG19_NORMALISED",
    "decoder": "STYLENET_TEST_DECODER",
    "alexnet": "STYLENET_TEST_ALEXNET",
}


@pytest.fixture(autouse=True)
def no_network_and_no_key(monkeypatch, tmp_path):
    """Tests see no key, no home and no weights but their own.

    W&B stays off unless a test asks for it.
    """
    for name in [name for name in os.environ if name.startswith(("WANDB_", "STYLENET_VGG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb_cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb_data"))
    monkeypatch.delenv("WANDB_DATA_DIR")


@pytest.fixture
def real():
    """The path of a real file or folder by its name in REAL; skips if the environment lacks it."""

    def path_of(name: str) -> Path:
        variable = REAL[name]
        if not os.environ.get(variable):
            pytest.skip(f"{variable} is not set: this test needs real {name} data")
        return Path(os.environ[variable])

    return path_of


def random_torchvision_weights(
    network: str, n_convs: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random weights in torchvision's layout for the first convolutions.

    They are scaled so that activations stay alive.
    """
    generator = torch.Generator().manual_seed(seed)
    names = vgg_module.conv_names(network)[:n_convs]
    shapes = vgg_module.conv_shapes(network, names[-1].replace("conv", "relu"))
    keys = conv_keys(network, flat=False)
    weights = {}
    for name, (n_in, n_out) in shapes.items():
        weights[f"{keys[name]}.weight"] = (
            torch.randn(n_out, n_in, 3, 3, generator=generator) * (2 / (9 * n_in)) ** 0.5
        )
        weights[f"{keys[name]}.bias"] = torch.randn(n_out, generator=generator) * 0.1
    return weights


@pytest.fixture(scope="session")
def vgg19_file(tmp_path_factory) -> Path:
    """Random VGG-19 weights up to relu4_1, in torchvision's layout."""
    path = tmp_path_factory.mktemp("weights") / "vgg19_random.pth"
    torch.save(random_torchvision_weights("vgg19", 9), path)
    return path


def draw(path: Path, seed: int, width: int = 48, height: int = 40) -> Path:
    """A small picture of random smooth colour patches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def image_folders(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of ten contents, some in a subfolder, and one of eight styles."""
    root = tmp_path_factory.mktemp("images")
    for i in range(10):
        draw(root / "content" / ("deep/er" if i % 2 else ".") / f"c{i}.png", i)
    for i in range(8):
        draw(root / "style" / f"s{i}.png", 100 + i, width=40, height=56)
    return root / "content", root / "style"


@pytest.fixture(scope="session")
def tiny_options(image_folders, vgg19_file) -> list[str]:
    """Overrides for a training run of seconds: shallow, small, untracked."""
    content, style = image_folders
    return [
        f"data.content={content}",
        f"data.style={style}",
        f"encoder.weights={vgg19_file}",
        "encoder.tap=relu2_1",
        "encoder.calibrate_images=4",
        "loss.style_taps=[relu1_1,relu2_1]",
        "data.batch_size=2",
        "data.crop_px=16",
        "data.resize_px=24",
        "data.workers=0",
        "data.held_out=0.2",
        "train.steps=4",
        "train.log_every_steps=1",
        "val.every_steps=2",
        "val.pairs=2",
        "val.grid_pairs=2",
        "checkpoint.every_steps=2",
        "optim.lr=1e-3",
        "run.device=cpu",
        "tracking.mode=disabled",
    ]


def run_python(
    *arguments: str, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess:
    """Run a script of this repository in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )


def read_back(run_dir):
    """The records of the offline runs in a folder, as W&B's own command line prints them."""
    program = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json"]
    lines = []
    for folder in sorted((run_dir / "wandb").glob("offline-run-*")):
        command = [*program, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        lines += done.stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, tiny_options) -> Path:
    """A finished tiny run."""
    import train

    run_dir = tmp_path_factory.mktemp("runs") / "trained"
    assert (
        train.main(
            ["--config", str(ROOT / "configs/adain.yaml"), *tiny_options, f"run.dir={run_dir}"]
        )
        == 0
    )
    return run_dir
