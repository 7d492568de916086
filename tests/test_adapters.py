"""Low-rank adapters: mathematics, training, files, BASE+ADAPTER; frozen parts; early stopping."""

import json

import pytest
import torch
from conftest import ROOT, draw

import train
from stylenet import Stylizer
from stylenet.applying import command
from stylenet.checkpoint import load_model, load_state
from stylenet.errors import UsageError, WeightsError
from stylenet.models import adapters
from stylenet.models.compact import CompactNet

RECIPE = str(ROOT / "configs/adain.yaml")
COMPACT = ["model.name=compact", "model.channels=[4,6,8]", "model.blocks=2"]


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make():
    return CompactNet((4, 6, 8), 2, generator=torch.Generator().manual_seed(0))


def test_a_fresh_adapter_changes_nothing_and_only_it_learns():
    net, content, style = make(), image(1, 3, 24, 24), image(1, 3, 24, 24, seed=1)
    before = net(content, style)
    adapters.adapt(net, 2)
    torch.testing.assert_close(net(content, style), before)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained and all(name.endswith((".0.up", ".0.down")) for name in trained)
    net(content, style).mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())


def test_frozen_parts_get_no_adapter():
    net = make()
    net.to_half.requires_grad_(False)
    adapters.adapt(net, 2)
    names = set(adapters.adapter_tensors(net))
    assert names and not any(name.startswith("to_half") for name in names)


def test_merged_tensors_make_the_adapted_network():
    net, content, style = make(), image(1, 3, 24, 24), image(1, 3, 24, 24, seed=1)
    base = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    adapters.adapt(net, 2)
    for name, parameter in net.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.1)
    plain = make()
    plain.load_state_dict(adapters.merged(base, adapters.adapter_tensors(net), "x"))
    torch.testing.assert_close(plain(content, style), net(content, style))
    kernel = plain.to_half.weight - base["to_half.weight"]
    assert torch.linalg.matrix_rank(kernel.flatten(1), atol=1e-5) == 2


def test_adapters_of_another_network_are_refused():
    net, other = make(), CompactNet((4, 6, 16), 2, generator=torch.Generator())
    adapters.adapt(other, 2)
    with pytest.raises(WeightsError, match="does not fit; give the base"):
        adapters.merged(net.state_dict(), adapters.adapter_tensors(other), "x")


@pytest.fixture(scope="module")
def base_and_adapter(tmp_path_factory, tiny_options):
    """A base, and an adapter that was trained on it for four steps."""
    folder = tmp_path_factory.mktemp("adapters")
    options = [*tiny_options, *COMPACT]
    assert train.main(["--config", RECIPE, *options, f"run.dir={folder / 'base'}"]) == 0
    own = [f"train.init_from={folder / 'base'}", "train.adapter_rank=2", "optim.lr=1e-2"]
    own += ["run.seed=3", f"run.dir={folder / 'own'}"]
    assert train.main(["--config", RECIPE, *options, *own]) == 0
    return folder


def test_the_file_is_small_and_applies_with_its_base(base_and_adapter, tmp_path):
    base, own = (base_and_adapter / name / "model.safetensors" for name in ("base", "own"))
    tensors, description = load_model(own)
    assert {name.split(".")[0] for name in tensors} == {"adapter", "mu"}
    assert description["adapter"]["rank"] == 2
    content, style = image(3, 24, 24), image(3, 24, 24, seed=1)
    joined = Stylizer.load(f"{base}+{own}", device="cpu")(content, style)
    assert not torch.allclose(joined, Stylizer.load(base, device="cpu")(content, style), atol=1e-3)
    assert torch.equal(Stylizer.load(own, device="cpu")(content, style), joined)  # where it was
    # the network in training is the merged one
    state = load_state(base_and_adapter / "own/checkpoints/step_00000004.pt")
    net = make()
    adapters.adapt(net, 2)
    net.load_state_dict(state["parts"]["network"]["module"])
    expected = net.eval()(content[None], style[None])[0].clamp(0, 1)
    torch.testing.assert_close(joined, expected, atol=1e-4, rtol=0)
    picture = draw(tmp_path / "in/c.png", 0)
    call = ["--content", str(picture), "--style", str(picture), "--pairs", "all", "--size", "24"]
    assert command.main([*call, "--model", f"{base}+{own}", "--output", str(tmp_path / "set")]) == 0
    stored = json.loads((tmp_path / "set/stylize.json").read_text())["settings"]["model"]
    assert len(stored) == 2  # the hashes of both


def test_mistakes(base_and_adapter, tiny_options, tmp_path):
    base, own = (base_and_adapter / name / "model.safetensors" for name in ("base", "own"))
    with pytest.raises(WeightsError, match=r"expected the base of .*, but .* is another model"):
        Stylizer.load(f"{ROOT / 'stylenet/weights/compact.safetensors'}+{own}")
    with pytest.raises(WeightsError, match=r"expected an adapter behind the \+"):
        Stylizer.load(f"{own}+{base}")
    where = [*tiny_options, *COMPACT, f"run.dir={tmp_path / 'x'}"]
    with pytest.raises(WeightsError, match="expected a whole model as train.init_from"):
        train.main(["--config", RECIPE, *where, f"train.init_from={own}"])
    with pytest.raises(UsageError, match="train.init_from beside train.adapter_rank"):
        train.main(["--config", RECIPE, *where, "train.adapter_rank=2"])
    (tmp_path / "d.pth").touch()
    options = ["train.adapter_rank=2", f"train.init_from={tmp_path / 'd.pth'}"]
    with pytest.raises(UsageError, match="expected a released model as train.init_from"):
        train.main(["--config", RECIPE, *tiny_options, *options, f"run.dir={tmp_path / 'x'}"])
    with pytest.raises(UsageError, match="expected parts of the network as train.freeze .to_half"):
        train.main(["--config", RECIPE, *where, "train.freeze=[conv4_1]"])


@pytest.mark.slow
def test_an_adapters_training_resumes_bit_for_bit(base_and_adapter, tiny_options, tmp_path):
    own = [f"train.init_from={base_and_adapter / 'base'}", "train.adapter_rank=2"]
    for name, steps in (("whole", [4]), ("parts", [2, 4])):
        options = [*tiny_options, *COMPACT, *own, f"train.steps={steps[0]}"]
        assert train.main(["--config", RECIPE, *options, f"run.dir={tmp_path / name}"]) == 0
        for n in steps[1:]:
            assert train.main(["--resume", str(tmp_path / name), f"train.steps={n}"]) == 0
    whole, parts = (load_model(tmp_path / n / "model.safetensors")[0] for n in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_frozen_parts_of_a_compact_network_keep_their_weights(
    base_and_adapter, tiny_options, tmp_path
):
    options = [*tiny_options, *COMPACT, f"train.init_from={base_and_adapter / 'base'}"]
    options += ["train.freeze=[to_half,encoder_block]", f"run.dir={tmp_path / 'run'}"]
    assert train.main(["--config", RECIPE, *options]) == 0
    before, after = (
        load_model(place / "model.safetensors")[0]
        for place in (base_and_adapter / "base", tmp_path / "run")
    )
    changed = {n.split(".")[1] for n in after if not torch.equal(before[n], after[n])}
    assert not changed & {"to_half", "encoder_block"} and "to_pixels" in changed


@pytest.mark.slow
def test_training_ends_when_held_out_pairs_get_no_better(tiny_options, tmp_path, capsys):
    """A rate that ruins the network: the best validation is an early one, and its model is kept."""
    options = [*tiny_options, *COMPACT, "optim.lr=0.3", "train.steps=200", "train.patience=3"]
    where = f"run.dir={tmp_path / 'run'}"
    assert train.main(["--config", RECIPE, *options, "val.every_steps=1", where]) == 0
    said = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "run/history.jsonl").open()]
    totals = {row["step"]: row["total"] for row in rows if row["kind"] == "val"}
    best = min(totals, key=totals.get)
    assert max(totals) == best + 3 < 200 and f"the best model is that of step {best}" in said
    released = load_model(tmp_path / "run/model.safetensors")
    assert released[1]["step"] == best
    # the same command continues nothing
    before = (tmp_path / "run/model.safetensors").read_bytes()
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/model.safetensors").read_bytes() == before


def test_another_teacher_may_fine_tune_a_network_without_encoder(tiny_options, tmp_path):
    """Such a network's VGG is in its losses only."""
    from conftest import random_torchvision_weights

    torch.save(random_torchvision_weights("vgg19", 9, seed=7), tmp_path / "other.pth")
    first = [*tiny_options, *COMPACT, "train.steps=2", f"run.dir={tmp_path / 'a'}"]
    assert train.main(["--config", RECIPE, *first]) == 0
    second = [*tiny_options, *COMPACT, "train.steps=2", f"run.dir={tmp_path / 'b'}"]
    second += [f"train.init_from={tmp_path / 'a'}", f"encoder.weights={tmp_path / 'other.pth'}"]
    assert train.main(["--config", RECIPE, *second]) == 0


def test_the_evaluation_takes_base_and_adapter(base_and_adapter, image_folders, tmp_path):
    import eval as evaluation

    base, own = (base_and_adapter / name / "model.safetensors" for name in ("base", "own"))
    call = ["--model", base, "--model", f"{base}+{own}", "--content", image_folders[0]]
    call += ["--style", image_folders[1], "--output", tmp_path / "out", "pairs.n=2"]
    call += ["images.resize_px=32", "metrics.names=[ssim]", "tracking.mode=disabled"]
    assert evaluation.main([str(part) for part in call]) == 0
    entries = json.loads((tmp_path / "out/metrics.json").read_text())["candidates"]
    models = {e["name"]: e["metrics"]["ssim"]["mean"] for e in entries if e["kind"] == "model"}
    assert set(models) == {"base", "own"} and models["base"] != models["own"]
