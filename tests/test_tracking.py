"""W&B online, offline and disabled: its logs, and failures that never stop or hang a run."""

import http.server
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT, read_back, run_python

import train
from stylenet import checkpoint, tracking
from stylenet.applying.stylizer import Stylizer
from stylenet.errors import NonFiniteLossError, WeightsError
from stylenet.tracking import Tracker, make_tracker
from stylenet.training import saving

RECIPE = str(ROOT / "configs/adain.yaml")


@pytest.mark.slow
def test_an_offline_run_can_be_read_back(tiny_options, tmp_path):
    """Config, history, picture, artifact and summary, read with W&B's own command line."""
    options = [
        *tiny_options,
        "tracking.mode=offline",
        "tracking.group=g1",
        "tracking.tags=[t1]",
        "tracking.notes=a note",
    ]
    done = run_python("train.py", "--config", RECIPE, *options, f"run.dir={tmp_path / 'x'}")
    assert done.returncode == 0, done.stderr
    assert (
        f"to upload the offline run: wandb sync {tmp_path / 'x'}/wandb/offline-run-*" in done.stdout
    )
    text = json.dumps(read_back(tmp_path / "x"))
    for expected in (
        "loss.style_weight",
        "facts.git_commit",
        "data.crop_px",
        "g1",
        "t1",
        "a note",
    ):  # the run and its config
        assert expected in text, expected
    for expected in (
        "train/content",
        "train/style/relu1_1",
        "val/total",
        "trainer/step",
        "train/lr",
        "train/steps_per_s",
    ):
        assert expected in text, expected
    for expected in ("val/samples", "image-file", "best/total", '"latest"', '"best"'):
        assert expected in text, expected
    staged = [path for path in (tmp_path / "x/wandb/data").rglob("*") if path.is_file()]
    assert len(staged) >= 2  # the artifacts stay with the run


@pytest.mark.slow
def test_a_resumed_run_keeps_its_id(tiny_options, tmp_path):
    options = [*tiny_options, "tracking.mode=offline", "train.steps=2"]
    assert (
        run_python("train.py", "--config", RECIPE, *options, f"run.dir={tmp_path / 'x'}").returncode
        == 0
    )
    assert run_python("train.py", "--resume", tmp_path / "x", "train.steps=3").returncode == 0
    ids = {path.name.split("-")[-1] for path in (tmp_path / "x/wandb").glob("offline-run-*")}
    assert len(ids) == 1 and len(list((tmp_path / "x/wandb").glob("offline-run-*"))) == 2


def test_disabled_does_not_import_wandb(tmp_path):
    code = f"""
import sys
from pathlib import Path
from stylenet.tracking import make_tracker
tracker = make_tracker(Path({str(tmp_path)!r}), "disabled", "id", 1.0, {{}}, "train")
tracker.log({{"a": 1.0}}, 1)
tracker.finish(0)
print("wandb" in sys.modules)
"""
    assert run_python("-c", code).stdout.strip() == "False"


def test_a_missing_package_is_said_and_survived(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert make_tracker(tmp_path, "offline", "id", 1.0, {}, "train").run is None
    assert "cannot be imported" in capsys.readouterr().err


def test_a_broken_package_is_said_and_survived(tmp_path, monkeypatch, capsys):
    (tmp_path / "wandb.py").write_text("raise TypeError('Descriptors cannot be created directly')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert make_tracker(tmp_path, "offline", "id", 1.0, {}, "train").run is None
    assert "Descriptors cannot be created" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "wandb", raising=False)


def test_a_damaged_history_is_no_obstacle(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(
        b'{"step": 1, "kind": "train"}\n\xff\xfe\n[1]\n{"step": 2}\n{"step": 9}\n{"step": 1, "ki'
    )
    tracking.trim_history(path, 2)
    assert path.read_text() == '{"step": 1, "kind": "train"}\n{"step": 2}\n'


@pytest.mark.parametrize(
    "seconds, text", [(5, "00:00:05"), (3661, "01:01:01"), (160_000, "44:26:40")]
)
def test_time_left_does_not_wrap_at_a_day(seconds, text):
    assert tracking.duration(seconds) == text


def test_a_terminal_gets_a_bar_with_losses_rate_and_time_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    journal = tracking.Journal(tmp_path, Tracker(), step=3, n_steps=10)
    journal.show_training(
        5, {"content": 1.25, "style/relu1_1": 2.0, "style/relu2_1": 1.0}, steps_per_s=2.0
    )
    journal.bar.refresh()
    journal.say("a line above the bar")
    journal.close(0)
    captured = capsys.readouterr()
    assert re.search(r"5/10 .*\[.*<.*step.*content=1.25, style=3\]", captured.err)
    assert "a line above the bar" in captured.out


def test_other_ranks_are_quiet(capsys):
    journal = tracking.Journal(None, Tracker(), step=0, n_steps=10)
    journal.write("train", 1, {"content": 1.0})
    journal.show_training(1, {"content": 1.0}, 1.0)
    journal.say("x")
    journal.close(0)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_auto_is_offline_without_a_key_and_online_with_one(monkeypatch, capsys):
    wandb = pytest.importorskip("wandb")
    assert tracking.choose_mode("auto") == "offline"
    assert tracking.choose_mode("online") == "offline" and "no W&B key" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(
            wandb, "login", lambda **options: options == {"prompt": False, "verify": False}
        )
        assert tracking.choose_mode("auto") == tracking.choose_mode("online") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert (
        tracking.choose_mode("auto") == "disabled" and tracking.choose_mode("offline") == "offline"
    )


class Failing:
    """A W&B run whose every call raises."""

    def __getattr__(self, name):
        def call(*_, **__):
            raise RuntimeError(f"{name} is broken")

        return call


def test_a_failure_in_mid_run_is_reported_once_and_ends_tracking(capsys):
    tracker = Tracker(Failing())
    tracker.log({"a": 1.0}, 1)
    tracker.log({"a": 1.0}, 2)
    tracker.log_image("x", Path("x.png"), 2)
    tracker.summarise({"a": 1})
    tracker.finish(0)
    assert capsys.readouterr().err.count("warning: W&B failed (log is broken)") == 1


def test_training_survives_a_failing_tracker(tiny_options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(saving, "make_tracker", lambda *_, **__: Tracker(Failing()))
    assert train.main(["--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}"]) == 0
    assert (tmp_path / "x/model.safetensors").exists() and "W&B failed" in capsys.readouterr().err


ONLINE = {"WANDB_API_KEY": "0" * 40}


@pytest.mark.slow
def test_a_dead_network_neither_stops_nor_hangs(tiny_options, tmp_path):
    """There is a key but no server: the run continues offline after the timeout."""
    options = [*tiny_options, "tracking.mode=online", "tracking.init_timeout_s=3"]
    done = run_python(
        "train.py",
        "--config",
        RECIPE,
        *options,
        f"run.dir={tmp_path / 'x'}",
        WANDB_BASE_URL="http://127.0.0.1:9",
        **ONLINE,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x/model.safetensors").exists() and "W&B cannot start online" in done.stderr
    assert "W&B: offline" in done.stdout


@pytest.fixture
def hanging_server():
    """A server that takes every request and never answers."""
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            release.wait(120)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_):
            """Log nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    release.set()
    server.shutdown()


@pytest.mark.slow
def test_a_hanging_server_neither_stops_nor_hangs(tiny_options, tmp_path, hanging_server):
    options = [*tiny_options, "tracking.mode=auto", "tracking.init_timeout_s=3"]
    done = run_python(
        "train.py",
        "--config",
        RECIPE,
        *options,
        f"run.dir={tmp_path / 'x'}",
        WANDB_BASE_URL=hanging_server,
        **ONLINE,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x/model.safetensors").exists() and "W&B cannot start online" in done.stderr
    assert "W&B: offline" in done.stdout


@pytest.mark.slow
def test_a_killed_service_in_mid_run_does_not_stop_training(tiny_options, tmp_path):
    """W&B's own background process is killed between two steps."""
    code = f"""
import os, signal, subprocess, sys
sys.path[:0] = [{str(ROOT)!r}]
import train
from stylenet.training.run import Run
counted = Run.finish_step
def killing(self):
    counted(self)
    if self.step == 2:
        command = ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())]
        children = subprocess.run(command, capture_output=True, text=True)
        for line in children.stdout.splitlines():
            if "wandb" in line:
                os.kill(int(line.split()[0]), signal.SIGKILL)
                print("killed the service", flush=True)
Run.finish_step = killing
sys.exit(train.main(sys.argv[1:]))
"""
    (tmp_path / "killing.py").write_text(code)
    options = [*tiny_options, "tracking.mode=offline", "tracking.init_timeout_s=5"]
    done = run_python(
        tmp_path / "killing.py",
        "--config",
        RECIPE,
        *options,
        f"run.dir={tmp_path / 'x'}",
        timeout=300,
    )
    assert (
        "killed the service" in done.stdout
        and "to upload the offline run: wandb sync" in done.stdout
    )
    assert done.returncode == 0 and (tmp_path / "x/model.safetensors").exists(), done.stderr


def test_sync_command_quotes_and_needs_an_offline_run(tmp_path):
    assert tracking.sync_command(tmp_path) is None
    (tmp_path / "a b/wandb/offline-run-1").mkdir(parents=True)
    assert (
        tracking.sync_command(tmp_path / "a b")
        == f"wandb sync '{tmp_path}/a b'/wandb/offline-run-*"
    )


def test_the_environment_is_clean():
    assert "WANDB_API_KEY" not in os.environ


class Options:
    project = entity = name = group = notes = None
    tags = ()


def test_w_and_b_s_own_variables_come_before_our_defaults(monkeypatch):
    assert tracking.labels_of(Options, "mine", ["eval"]) == {
        "project": "stylenet",
        "entity": None,
        "name": "mine",
        "group": None,
        "tags": ["eval"],
        "notes": None,
    }
    for name, value in {
        "WANDB_PROJECT": "p",
        "WANDB_ENTITY": "e",
        "WANDB_NAME": "n",
        "WANDB_RUN_GROUP": "g",
        "WANDB_TAGS": "a,b",
        "WANDB_NOTES": "why",
    }.items():
        monkeypatch.setenv(name, value)
    labels = tracking.labels_of(Options, "mine", ["eval"])
    assert list(labels.values()) == ["p", "e", "n", "g", ["a", "b", "eval"], "why"]

    class Explicit(Options):
        project, name, tags = "q", "m", ("c",)

    labels = tracking.labels_of(Explicit, "mine")
    assert (labels["project"], labels["name"], labels["tags"]) == ("q", "m", ["c"])


def test_w_and_b_is_off_when_it_is_disabled_and_an_empty_mode_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert make_tracker(tmp_path, "auto", "id", 1.0, {}, "train").run is None
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setattr("wandb.login", lambda **_: False)
    assert tracking.choose_mode("auto") == "offline"


class Noting:
    """A W&B run that notes what it is given."""

    id = "abc"

    def __init__(self):
        self.artifacts, self.alerts, self.summary = [], [], {}

    def log_artifact(self, artifact, aliases=()):
        self.artifacts.append(artifact)

    def alert(self, title, text):
        self.alerts.append((title, text))

    def __getattr__(self, name):
        return lambda *_, **__: None


def test_the_model_and_the_sets_are_artifacts(tiny_options, tmp_path, monkeypatch):
    run = Noting()
    monkeypatch.setattr(saving, "make_tracker", lambda *_, **__: Tracker(run))
    assert train.main(["--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}"]) == 0
    by_name = {artifact.name.partition(":")[0]: artifact for artifact in run.artifacts}
    model = by_name["release-abc"]
    assert model.type == "model" and model.metadata["step"] == 4 and "best/total" in model.metadata
    sets = [artifact for artifact in run.artifacts if artifact.type == "images"]
    assert {artifact.name.partition("-")[0] for artifact in sets} == {"content", "style"}
    assert all(
        artifact.metadata["train"] > 0 and not artifact.manifest.entries for artifact in sets
    )


def test_a_diverged_training_is_an_alert(tiny_options, tmp_path, monkeypatch):
    run = Noting()
    monkeypatch.setattr(saving, "make_tracker", lambda *_, **__: Tracker(run))
    wild = [*tiny_options, f"run.dir={tmp_path / 'x'}", "optim.lr=1e18", "train.steps=50"]
    with pytest.raises(NonFiniteLossError):
        train.main(["--config", RECIPE, *wild])
    ((title, text),) = run.alerts
    assert title == "training diverged" and "finite" in text


def test_a_model_may_be_an_artifact(trained_run, monkeypatch):
    class Api:
        def artifact(self, name):
            assert name == "me/stylenet/release-abc:latest"
            return self

        def download(self):
            return str(trained_run)

    monkeypatch.setattr("wandb.Api", Api)
    place = "wandb:me/stylenet/release-abc:latest"
    assert checkpoint.find_release(place) == trained_run / "model.safetensors"
    assert Stylizer.load(place, device="cpu").net is not None
    monkeypatch.setattr("wandb.Api", lambda: 1 / 0)
    with pytest.raises(WeightsError, match="give wandb:entity/project/name:alias"):
        checkpoint.find_release(place)
