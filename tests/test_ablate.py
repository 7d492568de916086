"""ablate.py: cells are trained, shared, recognised, resumed and compared.

A failed cell does not stop the others.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT, run_python

import ablate
from stylenet import runtime
from stylenet.errors import UsageError

SCORING = [
    "pairs.n=4",
    "images.resize_px=32",
    "metrics.names=[content_norm,style,ssim,vgg_frechet]",
    "metrics.bootstrap=50",
]


def sweep_file(
    tmp_path, name="norms", values=("none", "instance"), seeds=(0, 1), key="decoder.norm"
):
    parameters = {key: {"values": list(values)}, "run.seed": {"values": list(seeds)}}
    command = [
        "${env}",
        "python",
        "${program}",
        "--config",
        str(ROOT / "configs/adain.yaml"),
        "${args_no_hyphens}",
    ]
    content = {
        "program": "train.py",
        "method": "grid",
        "name": name,
        "command": command,
        "parameters": parameters,
    }
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content | {"description": "What?\nprotocol: quick\n"}))
    return path


def call(path, tmp_path, tiny_options, *more):
    options = [option for option in tiny_options if not option.startswith("train.steps")]
    return [
        str(path),
        "--output",
        str(tmp_path / "out"),
        *options,
        "train.steps=2",
        *SCORING,
        *more,
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_options):
    """A finished ablation of two settings and two seeds."""
    folder = tmp_path_factory.mktemp("ablation")
    path = sweep_file(folder)
    done = run_python("ablate.py", *call(path, folder, tiny_options, "--jobs", "2"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_cell_is_a_real_run(finished):
    cells = list((finished / "out/cells").iterdir())
    assert len(cells) == 4 and all((cell / "model.safetensors").is_file() for cell in cells)
    configs = [yaml.safe_load((cell / "config.yaml").read_text()) for cell in cells]
    assert {(c["decoder"]["norm"], c["run"]["seed"]) for c in configs} == {
        (n, s) for n in ("none", "instance") for s in (0, 1)
    }
    assert {(c["tracking"]["group"], tuple(c["tracking"]["tags"])) for c in configs} == {
        ("norms", ("ablation", "norms"))
    }


@pytest.mark.slow
def test_comparison_has_seeds_intervals_and_a_baseline(finished):
    found = json.loads((finished / "out/norms/comparison.json").read_text())
    assert found["baseline"] == "norm=none" and found["seeds"]["norm=instance"] == [
        0,
        1,
    ]
    assert (
        len(found["means"]["norm=instance"]["style"]) == 2
        and "vgg_frechet" in found["means"]["norm=none"]
    )
    gap = found["differences"]["norm=instance"]["style"]
    means = [sum(found["means"][f"norm={norm}"]["style"]) / 2 for norm in ("none", "instance")]
    assert gap["mean"] == pytest.approx(means[1] - means[0])
    results = json.loads((finished / "out/norms/eval/metrics.json").read_text())
    assert results["protocol"]["values"]["pairs.held_out"] == 0.2  # what no cell was trained on


@pytest.mark.slow
def test_comparison_is_written_in_every_form(finished):
    folder = finished / "out/norms"
    markdown, latex, page = (
        (folder / name).read_text() for name in ("table.md", "table.tex", "report.html")
    )
    assert "±" in markdown and "**" in markdown and "content copy" in markdown and r"$\pm$" in latex
    assert page.count("<svg") == 2 and page.count("data:image/jpeg") >= 8
    assert (folder / "grid.png").stat().st_size > 1000


@pytest.mark.slow
def test_resume_recognises_finished_cells_by_what_they_compute(
    finished, tmp_path, tiny_options, capsys
):
    """An ablation of another name finds the two cells that it shares, and trains two."""
    path = sweep_file(tmp_path, name="others", values=("none", "batch"))
    arguments = [*call(path, tmp_path, tiny_options)[:-1], SCORING[-1]]
    arguments[arguments.index("--output") + 1] = str(finished / "out")
    assert ablate.main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("finished  norm=none") == 2 and said.count("to do     norm=batch") == 2
    with pytest.raises(UsageError, match="2 of its 4 cells are begun; continue with --resume"):
        ablate.main(arguments)


@pytest.mark.slow
def test_an_estimate_times_each_setting_once(tmp_path, tiny_options, capsys, monkeypatch):
    timed = []
    monkeypatch.setattr(
        ablate.train,
        "measure",
        lambda config: timed.append(config) or ablate.train.Timing(0.0, 1800.0),
    )
    arguments = call(sweep_file(tmp_path), tmp_path, tiny_options)
    with pytest.raises(UsageError, match="expected --dry-run beside --estimate"):
        ablate.main([*arguments, "--estimate"])
    assert ablate.main([*arguments, "--dry-run", "--estimate"]) == 0
    assert "estimate: 4 hours of training" in capsys.readouterr().out  # 4 cells of 2 steps
    assert [config.decoder.norm for config in timed] == ["none", "instance"]


@pytest.mark.slow
def test_a_training_ends_with_an_ablation_that_is_killed(tmp_path, tiny_options):
    """A kill that no handler sees leaves no training behind, and --resume goes on."""
    path = sweep_file(tmp_path, values=("none",), seeds=(0,))
    arguments = call(path, tmp_path, tiny_options)
    arguments[arguments.index("train.steps=2")] = "train.steps=100000"
    command = [sys.executable, str(ROOT / "ablate.py"), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    histories = tmp_path / "out/cells"
    wait_for(lambda: list(histories.glob("*/history.jsonl")))
    process.kill()
    process.wait()
    (cell,) = histories.iterdir()
    wait_for(lambda: list(cell.glob("checkpoints/step_*.pt")) and is_free(cell))


def wait_for(is_so, limit_s=120.0):
    end_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def is_free(folder):
    """Whether no process holds the run folder."""
    try:
        runtime.lock_folder(folder).release()
    except UsageError:
        return False
    return True


@pytest.mark.slow
def test_resume_of_a_finished_ablation_trains_nothing(finished, tiny_options):
    before = {
        path: path.stat().st_mtime_ns for path in (finished / "out/cells").rglob("*.safetensors")
    }
    scored = (finished / "out/norms/eval/work/rows-0.jsonl").read_text()
    done = run_python(
        "ablate.py", *call(finished / "norms.yaml", finished, tiny_options, "--resume")
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (finished / "out/norms/eval/work/rows-0.jsonl").read_text() == scored


@pytest.mark.slow
def test_a_failed_cell_is_reported_and_the_others_go_on(tmp_path, tiny_options):
    """A learning rate of 1e30 diverges at once."""
    path = sweep_file(tmp_path, name="rates", key="optim.lr", values=("1e-3", "1e30"), seeds=(0,))
    done = run_python(
        "ablate.py",
        *call(path, tmp_path, [o for o in tiny_options if not o.startswith("optim.lr")]),
    )
    assert done.returncode == 1
    assert (
        "cell lr=1e30 failed with exit code 5" in done.stderr and "expected finite" in done.stderr
    )
    text = (tmp_path / "out/rates/table.md").read_text()
    assert "failed, and not in the tables: lr=1e30" in text and "lr=1e-3" in text


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_saves_the_running_cell_and_starts_no_other(tmp_path, tiny_options, number):
    path = sweep_file(tmp_path, seeds=(0,))
    options = [o for o in tiny_options if not o.startswith(("train.steps", "checkpoint.every"))]
    arguments = [
        str(path),
        "--output",
        str(tmp_path / "out"),
        *options,
        "train.steps=100000",
        "checkpoint.every_steps=100000",
    ]
    process = subprocess.Popen(
        [sys.executable, "ablate.py", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        logs = tmp_path / "out/norms/logs"
        deadline = time.time() + 120
        while time.time() < deadline and not any(
            "step 2/" in log.read_text() for log in logs.glob("*.log")
        ):
            time.sleep(0.2)
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    (cell,) = (tmp_path / "out/cells").iterdir()
    assert len(list((cell / "checkpoints").glob("step_*.pt"))) == 1


@pytest.mark.parametrize(
    "extra, message",
    [
        (["decoder.norm=batch"], "expected decoder.norm to be left to the ablation"),
        (["--jobs", "0"], "expected --jobs of 1 or more"),
        (["decoder.nrom=batch"], "did you mean 'decoder.norm'"),
        (["data.content=None"], "expected one data.content for all cells"),
        (["pairs.n=abc"], "expected int for pairs.n"),  # before anything is trained
        (["--alpha", "2"], "invalid strengths value"),
        (["--metrics", "beauty"], "expected metrics.names out of"),
    ],
)
def test_mistakes(tmp_path, tiny_options, extra, message):
    with pytest.raises(UsageError, match=message):
        ablate.main([*call(sweep_file(tmp_path), tmp_path, tiny_options), *extra])
    assert not (tmp_path / "out").exists()


def test_overrides_are_dealt_to_training_and_scoring():
    given = ["optim.lr=1", "pairs.n=3", "--tracking.mode=disabled"]
    assert ablate.split_overrides(given) == (
        ["optim.lr=1", "--tracking.mode=disabled"],
        ["pairs.n=3", "--tracking.mode=disabled"],
    )


def test_jobs_share_the_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert ablate.environment(1, 4)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [ablate.environment(slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == [
        "0",
        "1",
        "0",
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")  # the user's own choice is kept to
    assert [ablate.environment(slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == [
        "2",
        "5",
        "2",
    ]


def test_cells_that_compute_the_same_are_refused(tmp_path, tiny_options):
    path = sweep_file(tmp_path, key="optim.warmup_steps", values=("10", 10))
    with pytest.raises(
        UsageError,
        match="warmup_steps=10 seed=0 and warmup_steps=10 seed=0 are the same",
    ):
        ablate.main(call(path, tmp_path, tiny_options))


def test_a_damaged_model_is_not_finished(tmp_path):
    cell = ablate.Cell({}, None, [], tmp_path)
    assert not cell.is_finished
    (tmp_path / "model.safetensors").write_bytes(b"half of it")
    assert not cell.is_finished


@pytest.mark.slow
def test_cells_with_other_weights_are_not_compared(finished, tmp_path):
    """One of the cells is a model of another encoder.

    This happens if STYLENET_VGG19 changes between two resumes.
    """
    from stylenet.checkpoint import load_model, save_model

    cells = [
        ablate.Cell({}, None, [], folder) for folder in sorted((finished / "out/cells").iterdir())
    ]
    ablate.check_comparable(cells)
    tensors, about = load_model(cells[0].folder / "model.safetensors")
    about["encoder"]["sha256"] = "0" * 64
    save_model(tensors, about, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="expected the same encoder weights in all cells"):
        ablate.check_comparable([*cells, ablate.Cell({}, None, [], tmp_path)])
