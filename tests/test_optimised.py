"""Pictures by optimisation as files: the command, its snapshots, resuming, mistakes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, draw, read_back, run_python

from stylenet import images
from stylenet.applying import command
from stylenet.csv_files import read_rows
from stylenet.errors import UsageError

PLAIN = [
    "loss.content_taps=[relu2_1]",
    "loss.style_taps=[relu1_1,relu2_1]",
    "tracking.mode=disabled",
    "--size",
    "24",
    "--style-size",
    "24",
]


@pytest.fixture
def arguments(vgg19_file, tmp_path):
    """The arguments for one picture, whose inputs lie in tmp_path/in."""
    paths = [draw(tmp_path / "in" / f"{name}.png", seed) for name, seed in (("c", 0), ("s", 1))]
    where = ["--content", paths[0], "--style", paths[1], "--output", tmp_path / "out.png"]
    return [
        *map(str, ["--method", "gatys", *where]),
        f"network.weights={vgg19_file}",
        *PLAIN,
    ]


def history(folder):
    with open(folder / "history.csv", newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def test_a_picture_with_all_that_is_kept_of_its_course(arguments, tmp_path, capsys):
    kept = ["optim.iterations=6", "snapshots.every=2", f"snapshots.dir={tmp_path / 'kept'}"]
    assert command.main([*arguments, *kept]) == 0
    said = capsys.readouterr()
    assert "wrote 1 of 1 pictures" in said.out and "iteration 4: total" in said.err
    picture, content = (images.load_image(p) for p in (tmp_path / "out.png", tmp_path / "in/c.png"))
    assert min(picture.shape[1:]) == 24 and not torch.equal(picture, content)
    rows = history(tmp_path / "kept/out")
    assert [row["iteration"] for row in rows] == [0, 2, 4, 6]
    assert rows[-1]["total"] < rows[0]["total"]
    for row in rows:
        total = row["content"] + row["style"] + row["tv"]
        assert row["total"] == pytest.approx(total, rel=1e-6)
    assert len(list((tmp_path / "kept/out/snapshots").iterdir())) == 4
    strip = images.load_image(tmp_path / "kept/out/strip.png")
    assert strip.shape[2] > 4 * strip.shape[1]  # the content and four snapshots
    assert not (tmp_path / "kept/out/state.pt").exists()  # finished


@pytest.mark.slow
def test_a_course_is_a_run_of_wandb_with_its_snapshots(arguments, tmp_path):
    call = [part for part in arguments if not part.startswith("tracking")]
    call += ["tracking.mode=offline", "optim.iterations=4", "snapshots.every=2"]
    kept = tmp_path / "kept/out"
    done = run_python(
        "stylize.py", *call, f"snapshots.dir={tmp_path / 'kept'}", WANDB_SILENT="true"
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert len(list(kept.glob("wandb/offline-run-*/files/media/images/optimise/*.png"))) == 3
    assert "optimise/total" in json.dumps(read_back(kept))


def test_nothing_is_kept_unasked(arguments, tmp_path):
    assert command.main([*arguments, "optim.iterations=1"]) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"in", "out.png"}
    assert not list(tmp_path.glob("*/*.csv"))


@pytest.mark.slow
def test_a_stopped_course_continues_with_the_same_command(arguments, tmp_path):
    """Its picture and its table equal those of a course that was not stopped."""
    kept = [*arguments, "snapshots.every=5", "optim.lr=0.1"]
    whole = [*kept, "optim.iterations=120", f"snapshots.dir={tmp_path / 'whole'}"]
    assert run_python("stylize.py", *whole).returncode == 0
    expected = (tmp_path / "out.png").read_bytes()
    (tmp_path / "out.png").unlink()
    parts = [*kept, "optim.iterations=120", f"snapshots.dir={tmp_path / 'parts'}"]
    process = subprocess.Popen(
        [sys.executable, "stylize.py", *parts], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while len(list((tmp_path / "parts/out").glob("snapshots/*"))) < 4:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143 and "the same command continues" in said
    assert not (tmp_path / "out.png").exists() and (tmp_path / "parts/out/state.pt").is_file()
    assert run_python("stylize.py", *parts).returncode == 0
    assert (tmp_path / "out.png").read_bytes() == expected
    plain = [
        [
            {k: v for k, v in row.items() if k != "seconds"}
            for row in history(tmp_path / name / "out")
        ]
        for name in ("whole", "parts")
    ]
    assert plain[0] == plain[1]


def test_a_damaged_state_begins_anew_with_a_warning(arguments, tmp_path, capsys):
    (tmp_path / "kept/out").mkdir(parents=True)
    (tmp_path / "kept/out/state.pt").write_bytes(b"x")
    assert command.main([*arguments, "optim.iterations=2", f"snapshots.dir={tmp_path}/kept"]) == 0
    assert "the course begins anew" in capsys.readouterr().err


def test_a_data_set_for_the_evaluation(arguments, tmp_path, capsys):
    """--pairs makes a manifest, skips a broken picture, and makes only what is missing."""
    draw(tmp_path / "in2/d.png", 3)
    (tmp_path / "in2/broken.png").write_bytes(b"x")
    call = [str(tmp_path / "in2") if part.endswith("c.png") else part for part in arguments]
    call[call.index("--output") + 1] = str(tmp_path / "set")
    call += ["--pairs", "all", "optim.iterations=2"]
    assert command.main(call) == 3
    assert "broken.png" in capsys.readouterr().err
    (row,) = (row for _, row in read_rows(tmp_path / "set/manifest.csv", ("content", "output")))
    assert row["content"] == "d.png" and (tmp_path / "set" / row["output"]).is_file()
    stored = json.loads((tmp_path / "set/stylize.json").read_text())["settings"]["gatys"]
    assert stored["optim.iterations"] == 2 and len(stored["network"]) == 64
    os.utime(tmp_path / "set" / row["output"], (1, 1))
    assert command.main(call) == 3
    assert (tmp_path / "set" / row["output"]).stat().st_mtime == 1
    with pytest.raises(UsageError, match="gatys was"):
        command.main([*call, "loss.style_weight=5"])


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--model", "x"], "expected no --model with --method gatys"),
        (["--alpha", "0.5"], "expected no --alpha"),
        (["--tile", "64", "--compile"], "expected no --compile, --tile"),
        (["loss.stile_weight=1"], "did you mean 'loss.style_weight'"),
        (["--blur"], "expected key=value"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes(arguments, extra, words):
    with pytest.raises(UsageError) as caught:
        command.main([*arguments, *extra])
    assert words in str(caught.value)


def test_without_a_method_key_value_is_unknown(arguments):
    with pytest.raises(UsageError, match="unrecognized arguments: network.weights="):
        command.main(arguments[2:])


def test_a_clip_is_refused(arguments, tmp_path):
    clip = [str(tmp_path / "clip.mp4") if part.endswith("c.png") else part for part in arguments]
    with pytest.raises(UsageError, match="expected pictures with --method gatys, but a clip came"):
        command.main(clip)
