"""The adversarial loss: its formulas, the critic, and a run that continues bit for bit."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, run_python

import train
from stylenet.checkpoint import load_model, load_state
from stylenet.errors import UsageError
from stylenet.losses import adversarial_loss, gradient_penalty, hinge_loss
from stylenet.models.critic import Critic
from stylenet.training.adversary import Adversary

RECIPE = str(ROOT / "configs/adain.yaml")


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_hinge_losses():
    painted, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0])
    assert hinge_loss(painted, made).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1) / 2)
    assert adversarial_loss(made).item() == 1.0


def test_the_gradient_penalty_of_a_linear_critic_is_its_squared_weights():
    weight = image(3, 4, 4)
    images = image(2, 3, 4, 4, seed=1).requires_grad_()
    scores = (weight * images).sum((1, 2, 3))
    penalty = gradient_penalty(scores, images)
    assert penalty.item() == pytest.approx(weight.square().sum().item() / 2, rel=1e-5)


def test_a_critic_is_drawn_by_its_seed_and_leaves_the_global_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    critics = [Critic(4, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    scores = [critic.eval()(image(1, 3, 48, 48)) for critic in critics]
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])
    assert scores[0].shape == (1, 1, 5, 5)


def test_spectral_normalisation_bounds_the_critic():
    """Each layer's matrix has a largest singular value of about 1."""
    critic = Critic(8)
    for _ in range(50):
        critic(image(1, 3, 32, 32))
    for conv in critic.convs:
        largest = torch.linalg.svdvals(conv.weight.flatten(1))[0].item()
        assert largest == pytest.approx(1, abs=0.02)


def test_a_critic_tells_stripes_from_noise_and_the_output_learns_from_it():
    stripes = (torch.arange(32) % 4 < 2).float().expand(4, 3, 32, 32)
    adversary = Adversary(Critic(8), lr=2e-3, r1_weight=0.0)
    facts = [adversary.learn(stripes, image(4, 3, 32, 32, seed=i)) for i in range(60)]
    assert facts[-1]["critic_accuracy"] > 0.95 and facts[-1]["critic"] < facts[0]["critic"]
    pixels = image(4, 3, 32, 32, seed=99).requires_grad_()
    before = [p.clone() for p in adversary.part.module.parameters()]
    adversary.term(pixels).backward()
    assert pixels.grad.abs().sum() > 0
    for parameter, old in zip(adversary.part.module.parameters(), before, strict=True):
        assert parameter.grad is None and parameter.requires_grad and torch.equal(parameter, old)


OPTIONS = ["loss.adversarial_weight=0.5", "critic.channels=4", "critic.r1_weight=1"]


def rows_of(run_dir):
    rows = [json.loads(line) for line in (run_dir / "history.jsonl").open()]
    return [row for row in rows if row["kind"] == "train"]


@pytest.mark.parametrize("model", [["model.name=compact", "model.channels=[4,6,8]"], []])
def test_every_family_trains_with_it_and_logs_both_sides(tiny_options, tmp_path, model):
    options = [*tiny_options, *OPTIONS, *model, f"run.dir={tmp_path / 'run'}"]
    assert train.main(["--config", RECIPE, *options]) == 0
    for row in rows_of(tmp_path / "run"):
        assert {"adversarial", "critic", "critic_accuracy", "r1"} <= row.keys()
        assert 0 <= row["critic_accuracy"] <= 1
    tensors, _ = load_model(tmp_path / "run/model.safetensors")
    assert not [name for name in tensors if "critic" in name]  # not released


def test_the_total_has_the_adversarial_term_and_not_the_critics(tiny_options, tmp_path):
    options = [*tiny_options, *OPTIONS, "loss.content_weight=2", f"run.dir={tmp_path / 'run'}"]
    assert train.main(["--config", RECIPE, *options]) == 0
    row = rows_of(tmp_path / "run")[0]
    style = sum(value for name, value in row.items() if name.startswith("style/"))
    expected = 2 * row["content"] + 0.01 * style + 0.5 * row["adversarial"]
    assert row["total"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tiny_options, tmp_path):
    for name, steps in (("whole", [4]), ("parts", [2, 4])):
        options = [*tiny_options, *OPTIONS, f"train.steps={steps[0]}", f"run.dir={tmp_path / name}"]
        assert train.main(["--config", RECIPE, *options]) == 0
        for n in steps[1:]:
            assert train.main(["--resume", str(tmp_path / name), f"train.steps={n}"]) == 0
    states = [
        load_state(tmp_path / name / "checkpoints/step_00000004.pt")["parts"]
        for name in ("whole", "parts")
    ]
    for part in ("network", "critic"):
        ours, theirs = (state[part]["module"] for state in states)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_two_processes_have_one_critic(tiny_options, tmp_path):
    """Two processes of half the batch learn the critic of one process with the whole batch."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    critics = []
    for name, batch, prefix in (("one", 4, []), ("two", 2, torchrun)):
        options = [*tiny_options, *OPTIONS, "train.steps=1", f"data.batch_size={batch}"]
        where = f"run.dir={tmp_path / name}"
        done = run_python(
            *prefix, "train.py", "--config", RECIPE, *options, where, OMP_NUM_THREADS="1"
        )
        assert done.returncode == 0, done.stderr
        state = load_state(tmp_path / name / "checkpoints/step_00000001.pt")
        critics.append(state["parts"]["critic"]["optimizer"]["state"])
    for number, moments in critics[0].items():  # half the first gradient
        torch.testing.assert_close(
            critics[1][number]["exp_avg"], moments["exp_avg"], rtol=1e-3, atol=1e-6
        )


def test_mistakes(tiny_options, tmp_path):
    for option in ("critic.lr=0", "critic.r1_weight=-1", "loss.adversarial_weight=-1"):
        with pytest.raises(UsageError, match="expected"):
            train.main(["--config", RECIPE, *tiny_options, option, f"run.dir={tmp_path / 'x'}"])


@torch.no_grad()
def test_leaky_layers_are_the_formula():
    critic = Critic(4).eval()
    x = 2 * image(1, 3, 32, 32) - 1
    for conv in list(critic.convs)[:-1]:
        x = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
        x = torch.where(x > 0, x, 0.2 * x)
    expected = F.conv2d(x, critic.convs[-1].weight, critic.convs[-1].bias, padding=1)
    torch.testing.assert_close(critic(image(1, 3, 32, 32)), expected)
