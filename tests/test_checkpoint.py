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
        c.latest_state(tmp_path)
    for step in (2, 10, 9):
        c.save_state({"step": step}, c.state_path(tmp_path, step))
    c.save_state({"step": 99}, tmp_path / "checkpoints" / "best.pt")
    assert c.latest_state(tmp_path) == c.state_path(tmp_path, 10)
    c.drop_old_states(tmp_path, 2)
    assert [path.name for path in c.list_states(tmp_path)] == [
        "step_00000009.pt",
        "step_00000010.pt",
    ]
    assert (tmp_path / "checkpoints" / "best.pt").exists()


def test_release_is_found_in_folders_files_and_states(tmp_path):
    state = {
        "step": 1,
        "release": {"tensors": {"a": torch.ones(1)}, "description": {"from": "state"}},
    }
    c.save_state(state, c.state_path(tmp_path, 1))
    assert (
        c.read_release(tmp_path)[1]
        == c.read_release(c.state_path(tmp_path, 1))[1]
        == {"from": "state"}
    )
    c.save_model({"a": torch.ones(1)}, {"from": "release"}, tmp_path / "model.safetensors")
    assert c.read_release(tmp_path)[1] == {"from": "release"}


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
