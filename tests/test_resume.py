"""A resumed run equals the uninterrupted one, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT

import train
from stylenet.checkpoint import list_states, load_model, load_state, save_state, state_path
from stylenet.errors import DataError, UsageError, WeightsError
from stylenet.training.setup import Setup

RECIPE = str(ROOT / "configs/adain.yaml")


def assert_equal(ours, theirs, path=""):
    """Assert that nested states are equal, tensors bit for bit."""
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), path
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{path}/{key}")
    elif isinstance(ours, list):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(a, b, f"{path}/{i}")
    else:
        assert ours == theirs, path


def comparable(run_dir, step):
    """The state without the entries that name the run itself."""
    state = load_state(state_path(run_dir, step))
    for key in ("release", "tracking_id"):
        state.pop(key)
    return state


def begin(tiny_options, run_dir, *overrides):
    return train.main(["--config", RECIPE, *tiny_options, f"run.dir={run_dir}", *overrides])


COMPACT = [
    "model.name=compact",
    "optim.name=muon",
    "model.channels=[4,6,8]",
    "train.styles_per_content=2",
    "optim.ema_decay=0.9",
    "loss.identity_weight=1",
    "loss.lazy_every_steps=2",  # a run that stops after 3 steps goes on without the term
]
EVERYTHING = [
    "optim.ema_decay=0.9",
    "decoder.norm=batch",
    "data.flip=true",
    "train.accumulate=2",
    "train.precision=bf16",
]


@pytest.mark.parametrize(
    "options",
    [
        ["data.workers=0"],
        ["data.workers=2"],
        ["data.workers=0", *EVERYTHING],
        ["data.cache=ram"],
        ["data.workers=0", *COMPACT],
    ],
    ids=["0 workers", "2 workers", "everything", "cached", "compact"],
)
def test_two_n_steps_equal_n_resume_n(tiny_options, tmp_path, options):
    assert begin(tiny_options, tmp_path / "whole", "train.steps=6", *options) == 0
    assert begin(tiny_options, tmp_path / "halves", "train.steps=3", *options) == 0
    assert train.main(["--resume", str(tmp_path / "halves"), "train.steps=6"]) == 0
    assert_equal(comparable(tmp_path / "halves", 6), comparable(tmp_path / "whole", 6))
    released = [
        (tmp_path / name / "history.jsonl").read_text().count('"train"')
        for name in ("whole", "halves")
    ]
    assert released == [6, 6]


def spawn(tiny_options, run_dir, *overrides):
    command = [
        sys.executable,
        "train.py",
        "--config",
        RECIPE,
        *tiny_options,
        f"run.dir={run_dir}",
        *overrides,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, **pipes, text=True, start_new_session=True)


def wait_for_states(process, run_dir, n, timeout_s=120):
    """Wait until the run has written n resume states."""
    end = time.monotonic() + timeout_s
    while len(list_states(run_dir)) < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no checkpoint in time"
        time.sleep(0.02)


LONG = ["train.steps=100000", "val.every_steps=100000", "checkpoint.keep=1000"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_after_sigkill_it_goes_on_from_the_last_checkpoint(tiny_options, tmp_path, workers):
    options = [*LONG, "checkpoint.every_steps=5", f"data.workers={workers}"]
    process = spawn(tiny_options, tmp_path / "killed", *options)
    wait_for_states(process, tmp_path / "killed", 2)
    process.kill()
    process.wait()
    last = load_state(list_states(tmp_path / "killed")[-1])["step"]
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    (
        tmp_path / "killed" / "checkpoints" / ".writing-half.pt"
    ).touch()  # as a kill in the middle of saving leaves it
    assert train.main(["--resume", str(tmp_path / "killed"), f"train.steps={last + 3}"]) == 0
    whole = [*options, f"train.steps={last + 3}"]
    assert begin(tiny_options, tmp_path / "whole", *whole) == 0
    assert_equal(
        comparable(tmp_path / "killed", last + 3) | {"best": 0},
        comparable(tmp_path / "whole", last + 3) | {"best": 0},
    )
    assert not (tmp_path / "killed" / "checkpoints" / ".writing-half.pt").exists()
    steps = [
        line.split(",")[0]
        for line in (tmp_path / "killed" / "history.jsonl").read_text().splitlines()
        if '"train"' in line
    ]
    assert len(steps) == len(set(steps)) == last + 3


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", [0, 2])
def test_signals_save_first_then_exit(tiny_options, tmp_path, number, code, workers):
    """The signal reaches the whole process group, loader workers included.

    A terminal or a batch system sends it so.
    """
    process = spawn(
        tiny_options, tmp_path / "x", *LONG, "checkpoint.every_steps=4", f"data.workers={workers}"
    )
    wait_for_states(process, tmp_path / "x", 1)
    os.killpg(process.pid, number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    step = load_state(list_states(tmp_path / "x")[-1])["step"]
    assert f"stopped at step {step}; continue with: python train.py --resume" in out
    assert "Traceback" not in error and not (tmp_path / "x/model.safetensors").exists()
    assert train.main(["--resume", str(tmp_path / "x"), f"train.steps={step + 1}"]) == 0


def test_other_images_are_not_taken_for_the_old_ones(tiny_options, image_folders, tmp_path):
    shutil.copytree(image_folders[0], tmp_path / "content")
    options = [*tiny_options, f"data.content={tmp_path / 'content'}", "train.steps=2"]
    assert begin(options, tmp_path / "x") == 0
    state = list_states(tmp_path / "x")[-1]
    (tmp_path / "content/c0.png").rename(tmp_path / "content/c00.png")
    with pytest.raises(DataError, match="content images that the run began with"):
        train.main(["--resume", str(tmp_path / "x"), "train.steps=3"])
    assert list_states(tmp_path / "x")[-1] == state


def test_run_dir_beside_resume_is_refused(trained_run):
    with pytest.raises(UsageError, match="expected a run to continue where it is"):
        train.main(["--resume", str(trained_run), "run.dir=elsewhere"])


def test_a_checkpoint_that_lies_elsewhere_takes_no_folder_over(tiny_options, tmp_path):
    assert begin(tiny_options, tmp_path / "run", "train.steps=1") == 0
    home = tmp_path / "home"
    (home / "downloads").mkdir(parents=True)
    (home / "config.yaml").write_text("mine")
    shutil.copy(state_path(tmp_path / "run", 1), home / "downloads")
    with pytest.raises(UsageError, match="expected a checkpoint in a run's folder checkpoints/"):
        train.main(["--resume", str(home / "downloads" / state_path("", 1).name)])
    assert sorted(path.name for path in home.iterdir()) == ["config.yaml", "downloads"]
    with pytest.raises(WeightsError, match="there is no"):
        train.main(["--resume", str(home / "absent")])
    (tmp_path / "run/other").mkdir()
    (tmp_path / "run/other/.writing-notes.txt").write_text("mine")
    assert train.main(["--resume", str(tmp_path / "run"), "train.steps=2"]) == 0
    assert (tmp_path / "run/other/.writing-notes.txt").exists()


EARLY = ["val.every_steps=1", "checkpoint.every_steps=1", "checkpoint.keep=9"]


def test_the_best_of_another_course_is_not_released(tiny_options, tmp_path, capsys):
    """The run goes on from an older checkpoint, after a later state was the best one."""
    run = tmp_path / "run"
    options = [*EARLY, "train.patience=50", "train.steps=4"]
    assert begin(tiny_options, run, *options) == 0
    best = run / "checkpoints/best.pt"
    state = load_state(best) | {"step": 4}  # as if the last one had been it
    save_state(state, best)
    assert train.main(["--resume", str(state_path(run, 2)), "train.steps=2"]) == 0
    assert load_model(run / "model.safetensors")[1]["step"] == 2
    assert (run / "checkpoints/superseded_best.pt").exists() and not best.exists()
    assert "which is gone: this is that of step 2" in capsys.readouterr().out


def test_a_run_that_patience_ended_is_left_as_it_is(tiny_options, tmp_path, capsys):
    run = tmp_path / "run"
    options = [*EARLY, "train.patience=1", "train.steps=9", "optim.lr=1e-30"]
    assert begin(tiny_options, run, *options) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train.main(["--resume", str(run)]) == 0
    assert "finished before, at step 2" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_stop_before_the_first_batch_is_saved(tiny_options, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Setup, "make_batches", lambda *_: iter(()))
        begin(tiny_options, tmp_path / "run")
    assert [path.name for path in list_states(tmp_path / "run")] == [state_path("", 0).name]
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
