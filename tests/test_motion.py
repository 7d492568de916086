"""Random motion, warping by a flow, and the motion loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stylenet import datasets
from stylenet.losses import LossWeights
from stylenet.motion import MARGIN_PX, Motion, draw_motion, motion_loss, warp
from stylenet.objective import Objective
from stylenet.transforms import ADAIN


def image(*shape, seed=0):
    """A random picture in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def still(height, width, **changes):
    """A motion without any."""
    values = {"flow": torch.zeros(1, 2, height, width), "exposure": 1.0}
    return Motion(**values | {"noise": torch.zeros(1, 3, height, width)} | changes)


def test_a_flow_of_whole_pixels_moves_them():
    flow = torch.zeros(1, 2, 24, 30)
    flow[:, 0], flow[:, 1] = 3, -2  # each pixel comes from 3 to the right and 2 above
    picture = image(2, 3, 24, 30)
    moved = warp(picture, flow)
    torch.testing.assert_close(
        moved[:, :, 4:-4, 4:-4], picture.roll((2, -3), (2, 3))[:, :, 4:-4, 4:-4]
    )


def test_a_motion_is_a_function_of_the_seed_and_the_step():
    first, again, other = (datasets.motion_of(1, step, 40, 48) for step in (5, 5, 6))
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(first, again))
    assert not torch.equal(first.flow, other.flow) and first.exposure != other.exposure
    assert first.flow.shape == (1, 2, 40, 48) and first.noise.shape == (1, 3, 40, 48)


def test_drawn_flows_are_smooth_and_bounded():
    flows = [draw_motion(np.random.default_rng(i), 64, 64).flow for i in range(50)]
    assert max(float(flow.abs().max()) for flow in flows) < 30
    assert max(float(flow.diff(dim=-1).abs().max()) for flow in flows) < 1
    assert sum(float(flow.abs().mean()) for flow in flows) / 50 > 2


def test_a_frame_is_moved_brightened_and_noisy():
    picture = image(1, 3, 40, 40) * 0.5
    motion = still(40, 40, exposure=1.5, noise=torch.full((1, 3, 40, 40), 0.01))
    torch.testing.assert_close(motion.film(picture), picture * 1.5 + 0.01)
    assert float(motion.film(torch.ones(1, 3, 40, 40)).max()) == 1


def test_the_loss_is_zero_where_the_output_follows_the_motion_alone():
    motion = draw_motion(np.random.default_rng(0), 80, 96)
    output = image(2, 3, 80, 96)
    assert motion_loss(output, motion.warp(output), motion).item() == 0
    # a pattern that stays on the screen, as texture on the grid of strides does
    stripes = (torch.arange(96) % 4 / 4).expand(2, 3, 80, 96)
    assert motion_loss(stripes, stripes, motion).item() > 0.01


def test_the_margin_is_left_out():
    motion, output = still(96, 96), image(1, 3, 96, 96)
    changed = output.clone()
    changed[..., :MARGIN_PX, :] += 1
    changed[..., -MARGIN_PX:] += 1
    assert motion_loss(output, changed, motion).item() == pytest.approx(0, abs=1e-9)
    changed[..., MARGIN_PX, MARGIN_PX] += 1
    expected = 1 / (96 - 2 * MARGIN_PX) ** 2
    assert motion_loss(output, changed, motion).item() == pytest.approx(expected, rel=1e-4)


def test_small_crops_count_too():
    for side in (16, 32, 40):
        assert draw_motion(np.random.default_rng(0), side, side).inside().sum() > side**2 / 10


def test_the_objective_films_the_content_and_shows_it_to_the_network():
    """A network that copies has to lose by what exposure and noise change, and no more."""
    weights = LossWeights(0.0, 0.0, {}, motion=1.0)
    objective = Objective(None, "relu2_1", ADAIN, weights)
    seen = objective_input(image(2, 3, 64, 64))
    copy = lambda content, style: content  # noqa: E731
    motion = draw_motion(np.random.default_rng(3), 64, 64)
    terms = objective.terms(seen.content, seen, copy, motion=motion)
    expected = motion_loss(seen.content, motion.film(seen.content), motion)
    assert terms == {"motion": expected} and expected > 0
    grey = lambda content, style: torch.full_like(content, 0.5)  # noqa: E731
    assert objective.terms(grey(seen.content, None), seen, grey, motion=motion)["motion"] < 1e-12


def objective_input(content):
    """What was observed of a batch, as far as the motion term asks."""
    return SimpleNamespace(content=content, style=content)
