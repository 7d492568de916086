"""The shipped model fits docs/model_card.md: size, provenance, and its pictures at release.

A new release records its pictures by `PYTHONPATH=.:tests:data python tests/test_weights.py`.
"""

import re

import numpy as np
import pytest
import samples
import torch
from conftest import ROOT

from stylenet import images
from stylenet.applying.stylizer import SHIPPED_MODEL, Stylizer, load_network
from stylenet.build import describe_training
from stylenet.checkpoint import load_model

RECORDED = ROOT / "tests/recorded"
CASES = {"alpha_1": 1.0, "alpha_half": 0.5}


def scene(height, width, seed):
    """A picture from formulas alone, so that no library's drawing can change it.

    It shows a shaded disc before bands of colour.
    """
    y, x = np.mgrid[0:height, 0:width] / height
    rng = np.random.RandomState(seed)  # the one generator whose numbers NumPy promises to keep
    bands = 0.5 + 0.4 * np.sin(
        rng.uniform(3, 25, 3)[:, None, None] * (x + rng.uniform(-1, 1) * y)
        + rng.uniform(0, 6, (3, 1, 1))
    )
    disc = ((x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.08) * np.clip(0.3 + x - 0.4 * y, 0, 1)
    return torch.from_numpy(
        np.clip(np.where(disc > 0, disc * rng.uniform(0.3, 1, (3, 1, 1)), bands), 0, 1)
    ).float()


@pytest.fixture(scope="module")
def stylizer():
    return Stylizer.load(device="cpu")


@pytest.mark.parametrize("case", CASES)
def test_it_gives_the_recorded_pictures(stylizer, case):
    output = stylizer(scene(75, 101, 1), scene(64, 80, 2), CASES[case])
    recorded = images.load_image(RECORDED / f"compact_{case}.png")
    assert recorded.std() > 0.1  # not an even grey
    assert (
        output - recorded
    ).abs().max() <= 2.5 / 255  # two levels, and half a one for the recording's rounding


def test_size_and_numbers():
    assert SHIPPED_MODEL.stat().st_size <= 6_000_000
    assert sum(p.numel() for p in load_network(SHIPPED_MODEL).parameters()) <= 3_000_000
    tensors, _ = load_model(SHIPPED_MODEL)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_it_says_how_it_was_trained_and_names_no_place():
    _, about = load_model(SHIPPED_MODEL)
    assert about["config"]["checkpoint.release_name"] in (ROOT / "docs/model_card.md").read_text()
    assert about["data"]["content"]["train"] > 700 and about["data"]["style"]["train"] > 2000
    assert not [value for value in strings(about) if re.match(r"[/~.\\]|\w:|\w+://", value)]
    assert describe_training(about)["training_sha256"] == about["training_sha256"]
    stage = about
    while stage:
        assert re.fullmatch(
            "[0-9a-f]{40}", stage["git_commit"]
        )  # a commit, and nothing changed beside it
        stage = stage["started_from"]


def strings(value):
    """All strings in nested dictionaries and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def test_identity(stylizer):
    """A picture stylised with itself stays nearly the same.

    At release the PSNR on drawn scenes was 26 to 28 dB.
    """
    for i in range(3):
        picture = images.to_tensor(samples.draw_scene(np.random.default_rng([0, 0, i]), i))
        error = (stylizer(picture, picture) - picture).square().mean()
        assert -10 * float(torch.log10(error)) >= 25.5


def test_the_model_is_released_in_the_table_of_releases():
    _, about = load_model(SHIPPED_MODEL)
    rows = [
        line
        for line in (ROOT / "docs/model_card.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    assert any(
        about["config"]["checkpoint.release_name"] in row and about["training_sha256"][:12] in row
        for row in rows
    )


def record():
    """Write the pictures of the shipped model, once for each release."""
    stylizer = Stylizer.load(device="cpu")
    for case, alpha in CASES.items():
        images.save_image(
            stylizer(scene(75, 101, 1), scene(64, 80, 2), alpha), RECORDED / f"compact_{case}.png"
        )


if __name__ == "__main__":
    record()
