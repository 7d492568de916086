"""Files are whole or absent and need no code to be read; foreign ones are refused."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from stylenet import checkpoint as c
from stylenet.build import describe_training
from stylenet.errors import UsageError, WeightsError


def test_state_round_trip(tmp_path):
    state = {
        "release": {},
        "step": 3,
        "best": None,
        "decoder": {"w": torch.randn(3)},
        "nested": {"a": [1.5, "x", True]},
    }
    c.save_state(state, tmp_path / "s.pt")
    loaded = c.load_state(tmp_path / "s.pt")
    assert (
        torch.equal(loaded["decoder"]["w"], state["decoder"]["w"])
        and loaded["nested"] == state["nested"]
    )


def test_model_round_trip(tmp_path):
    tensors, description = (
        {"decoder.a": torch.randn(2, 3).T, "b": torch.arange(3.0).double()},
        {"encoder": {"sha256": "x"}, "step": 1},
    )
    c.save_model(tensors, description, tmp_path / "m.safetensors")
    loaded, about = c.load_model(tmp_path / "m.safetensors")
    assert about == description and all(
        torch.equal(loaded[name], tensors[name]) for name in tensors
    )


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("load", [c.load_state, c.load_model])
def test_foreign_and_damaged_files_are_refused_and_not_run(load, tmp_path, capsys):
    c.save_state({"release": {}, "step": 1}, tmp_path / "whole.pt")
    c.save_model({"a": torch.zeros(1000)}, {}, tmp_path / "whole.safetensors")
    for name in ("whole.pt", "whole.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(content[: len(content) // 2])
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"a": Evil()}, tmp_path / "zip.pt")
    torch.save({"format": "another", "a": 1}, tmp_path / "foreign.pt")
    torch.save({"format": c.FORMAT}, tmp_path / "hollow.pt")
    save_file(
        {"a": torch.zeros(1)},
        tmp_path / "hollow.safetensors",
        metadata={"format": c.FORMAT, "stylenet": "{"},
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    (tmp_path / "empty").touch()
    names = [
        "cut_whole.pt",
        "cut_whole.safetensors",
        "pickle.pt",
        "zip.pt",
        "foreign.pt",
        "foreign.safetensors",
        "empty",
        "absent",
    ]
    names += ["hollow.pt", "hollow.safetensors"]
    for name in names:
        with pytest.raises(WeightsError, match=name) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_interrupted_saving_keeps_the_old_file(tmp_path):
    c.save_state({"release": {}, "step": 1}, tmp_path / "s.pt")
    with pytest.raises(Exception, match="pickle"):
        c.save_state({"step": 2, "bad": lambda: None}, tmp_path / "s.pt")
    assert c.load_state(tmp_path / "s.pt")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]


def test_latest_and_old_states(tmp_path):
    with pytest.raises(UsageError, match="start it with --config"):
        c.load_latest(tmp_path)
    for step in (2, 10, 9):
        c.save_state({"release": {}, "step": step}, c.state_path(tmp_path, step))
    c.save_state({"release": {}, "step": 99}, tmp_path / "checkpoints" / "best.pt")
    path, state = c.load_latest(tmp_path)
    assert path == c.state_path(tmp_path, 10) and state["step"] == 10
    c.drop_old_states(tmp_path, 2)
    assert [path.name for path in c.list_states(tmp_path)] == [
        "step_00000009.pt",
        "step_00000010.pt",
    ]
    assert (tmp_path / "checkpoints" / "best.pt").exists()


def test_release_is_found_in_folders_files_and_states(tmp_path):
    described = {"tensors": {"a": torch.ones(1)}, "description": GOOD | {"from": "state"}}
    c.save_state({"step": 1, "release": described}, c.state_path(tmp_path, 1))
    for place in (tmp_path, c.state_path(tmp_path, 1)):
        assert c.read_release(place)[1]["from"] == "state"
    c.save_model({"a": torch.ones(1)}, GOOD | {"from": "release"}, tmp_path / "model.safetensors")
    assert c.read_release(tmp_path)[1]["from"] == "release"


def test_another_encoder_is_refused():
    description = {"encoder": {"sha256": "a" * 64}}
    c.check_encoder(description, "a" * 64, "x")
    with pytest.raises(WeightsError, match="expected the encoder that model.x was trained with"):
        c.check_encoder(description, "b" * 64, "model.x")


def test_a_failed_write_is_said(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos")

    monkeypatch.setattr(c.torch, "save", fail)
    with pytest.raises(UsageError, match="expected to write.*is the disk full"):
        c.save_state({"step": 1}, tmp_path / "s.pt")
    assert list(tmp_path.iterdir()) == []


def test_what_holds_a_run(tmp_path):
    assert not c.holds_run(tmp_path)
    c.save_model({"a": torch.zeros(1)}, {}, tmp_path / "model.safetensors")
    assert c.holds_run(tmp_path)


def test_the_training_hash_is_of_what_was_computed():
    """Another folder, name or output changes nothing.

    Another rate, set, commit or starting point does.
    """
    config = {
        "optim.lr": 1e-3,
        "run.dir": "runs/a",
        "data.content": "photos",
        "encoder.weights": "/v.pth",
        "checkpoint.keep": 3,
    }
    sets = {
        kind: {"origin": kind, "train": 3, "held_out": 1, "list_sha256": kind}
        for kind in ("content", "style")
    }
    about = {
        "step": 5,
        "data": sets,
        "git_commit": "c",
        "versions": {},
        "hardware": "h",
        "config": config,
    }
    about |= {"encoder": {"sha256": "e", "mu_sha256": None}, "started_from": None}

    def digest(**changes):
        return describe_training(about | changes)["training_sha256"]

    moved = {kind: values | {"origin": "elsewhere"} for kind, values in sets.items()}
    private = config | {
        "run.dir": "b",
        "data.content": "c",
        "encoder.weights": "w",
        "checkpoint.keep": 9,
    }
    assert digest() == digest(data=moved) == digest(config=private)
    other_set = sets | {"style": sets["style"] | {"list_sha256": "x"}}
    others = [
        {"config": config | {"optim.lr": 2e-3}},
        {"data": other_set},
        {"git_commit": "d"},
        {"started_from": {"step": 1}},
    ]
    assert len({digest(), *(digest(**change) for change in others)}) == 5
    assert "/v.pth" not in str(describe_training(about)) and "photos" not in str(
        describe_training(about)
    )


def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path, capsys):
    for step in (1, 2, 3):
        c.save_state({"release": {}, "step": step}, c.state_path(tmp_path, step))
    content = c.state_path(tmp_path, 3).read_bytes()
    c.state_path(tmp_path, 3).write_bytes(content[: len(content) // 2])
    c.state_path(tmp_path, 2).write_bytes(b"")
    assert c.load_latest(tmp_path)[1]["step"] == 1
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and all("trying the one before" in line for line in warnings)
    c.state_path(tmp_path, 1).write_bytes(b"")
    with pytest.raises(WeightsError, match="step_00000001.pt is truncated"):
        c.load_latest(tmp_path)


def test_a_flipped_bit_in_a_state_is_noticed(tmp_path):
    """The archive has checksums, and torch.load does not look at them."""
    c.save_state({"release": {"tensors": torch.ones(1000)}}, tmp_path / "s.pt")
    content = bytearray((tmp_path / "s.pt").read_bytes())
    place = bytes(content).index(torch.ones(8).numpy().tobytes())
    content[place + 100] ^= 1
    (tmp_path / "s.pt").write_bytes(content)
    assert torch.load(tmp_path / "s.pt", weights_only=True)  # silently wrong
    with pytest.raises(WeightsError, match="the checksum of .* is wrong"):
        c.load_state(tmp_path / "s.pt")


def test_equal_models_are_equal_files_and_a_flipped_bit_is_noticed(tmp_path):
    tensors = {name: torch.rand(3, 4) for name in "cab"}
    for name in ("one", "two"):
        c.save_model(dict(sorted(tensors.items())), {"z": 1, "a": [2]}, tmp_path / name)
        tensors = dict(reversed(tensors.items()))
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    for place in (len(content) - 5, content.index(b"stylenet") + 12):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "two").write_bytes(changed)
        with pytest.raises(WeightsError):
            c.load_model(tmp_path / "two")


def test_models_without_a_checksum_stay_readable(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "m", {"format": c.FORMAT, "stylenet": "{}"})
    assert c.load_model(tmp_path / "m")[1] == {}


GOOD = {
    "model": "vgg",
    "transform": "adain",
    "decoder": {},
    "encoder": {
        "name": "vgg19",
        "tap": "relu4_1",
        "padding": "reflect",
        "pooling": "max",
        "sha256": "0",
        "is_carried": False,
    },
}


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ({"model": 1}, "model"),
        ({"transform": None}, "transform"),
        ({"encoder": "vgg19"}, "encoder"),
        ({"encoder": GOOD["encoder"] | {"is_carried": "no"}}, "is_carried"),
        ({"decoder": []}, "decoder"),
    ],
)
def test_a_damaged_description_is_one_line(damage, name, tmp_path):
    c.save_model({"a": torch.ones(2)}, GOOD, tmp_path / "m")
    assert c.read_release(tmp_path / "m")[1] == GOOD
    c.save_model({"a": torch.ones(2)}, GOOD | damage, tmp_path / "m")
    with pytest.raises(WeightsError, match=f"is damaged .{name} is missing"):
        c.read_release(tmp_path / "m")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    c.save_model({"a": torch.tensor([1, float("nan")])}, GOOD, tmp_path / "m")
    with pytest.raises(WeightsError, match="expected finite weights, but a in"):
        c.read_release(tmp_path / "m")


def test_states_of_another_course_are_set_aside(tmp_path):
    for step in (1, 2, 3):
        c.save_state({"release": {}}, c.state_path(tmp_path, step))
    c.set_newer_aside(tmp_path, 1)
    assert [path.name for path in c.list_states(tmp_path)] == ["step_00000001.pt"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3  # nothing is lost
