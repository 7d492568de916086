"""train.py in its parts and as a whole: dry run, outputs, options, failures, processes."""

import json
import re
import shutil

import pytest
import torch
from conftest import ROOT, draw, random_torchvision_weights, run_python
from PIL import Image

import train
from stylenet import build, checkpoint
from stylenet.checkpoint import load_model, load_state
from stylenet.config.options import list_options
from stylenet.config.training import Config
from stylenet.errors import DataError, NonFiniteLossError, UsageError, WeightsError

RECIPE = str(ROOT / "configs/adain.yaml")


def network_of(state):
    """The part of a resume state that is released: module, optimizer, average."""
    return state["parts"]["network"]


@pytest.fixture
def start(tiny_options, tmp_path):
    """Train with overrides in a folder of its own, and return the folder."""

    def run(*overrides, name="run"):
        assert (
            train.main(
                ["--config", RECIPE, *tiny_options, f"run.dir={tmp_path / name}", *overrides]
            )
            == 0
        )
        return tmp_path / name

    return run


def decoder_of(run_dir):
    tensors, _ = load_model(run_dir / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("decoder.")}


def history(run_dir, kind="train"):
    rows = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_lazy_terms_are_computed_when_due_and_logged_as_they_are(start):
    options = [
        "train.steps=4",
        "val.every_steps=2",
        "train.log_every_steps=1",
        "loss.identity_weight=50",
        "loss.shift_weight=50",
    ]
    plain, lazy = (
        start(*options, f"loss.lazy_every_steps={every}", name=f"every{every}") for every in (1, 2)
    )
    rows, lazy_rows = history(plain), history(lazy)
    assert [{"identity", "shift"} <= set(row) for row in lazy_rows] == [True, False, True, False]
    assert not {"identity", "shift"} & set(lazy_rows[1])
    # the first step has the same network: the term is logged as it is, and counts twice
    assert lazy_rows[0]["identity"] == rows[0]["identity"] > 0
    extra = 50 * (rows[0]["identity"] + rows[0]["shift"])
    assert lazy_rows[0]["total"] - rows[0]["total"] == pytest.approx(extra, rel=1e-3)
    # a validation has every term, once
    (first, _), (last, _) = history(plain, "val"), history(lazy, "val")
    assert first.keys() == last.keys() and last["identity"] > 0
    assert "lazy_every_steps: 2" in (lazy / "config.yaml").read_text()


def test_dry_run_prints_everything_and_writes_nothing(tiny_options, tmp_path, capsys):
    assert (
        train.main(["--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}", "--dry-run"])
        == 0
    )
    out = capsys.readouterr().out
    resolved = out[: out.index("content: 8 images")]
    (tmp_path / "again.yaml").write_text(resolved)
    assert Config.load(tmp_path / "again.yaml").data.crop_px == 16
    assert (
        "8 images to train, 2 held out" in out
        and "trained: 112,451 parameters, 112,451 trained" in out
    )
    assert "style/relu1_1    0.01  (reduction sum over 64 channels; as mean: 0.64)" in out
    assert not (tmp_path / "x").exists()


def test_a_dry_run_counts_what_adapters_train(trained_run, tiny_options, tmp_path, capsys):
    options = ["train.adapter_rank=1", f"train.init_from={trained_run}", "--dry-run"]
    arguments = ["--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}", *options]
    assert train.main(arguments) == 0
    counts = re.search(r"trained: (\S+) parameters, (\S+) trained", capsys.readouterr().out)
    whole, own = (int(number.replace(",", "")) for number in counts.groups())
    assert 0 < own < whole / 5


@pytest.mark.parametrize(
    "options, words",
    [
        (["loss.content_weight=0", "loss.style_weight=0", "loss.adversarial_weight=1"], "loss wei"),
        (["loss.adversarial_weight=1", "data.crop_px=8"], "expected data.crop_px of 16 or more"),
        (["optim.lr=1e300"], "expected optim.lr below 1e"),
    ],
)
def test_settings_that_would_fail_later_are_refused(tiny_options, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        train.main(["--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}", *options])


@pytest.mark.slow
def test_an_estimate_times_real_steps_and_leaves_nothing(tiny_options, tmp_path, capsys):
    arguments = ["--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}"]
    with pytest.raises(UsageError, match="expected --dry-run beside --estimate"):
        train.main([*arguments, "--estimate"])
    assert train.main([*arguments, "train.steps=1000", "--dry-run", "--estimate"]) == 0
    said = re.search(r"estimate: (\S+) hours for 1,000 steps of (\S+) s", capsys.readouterr().out)
    hours, step_s = map(float, said.groups())
    assert 0 < 0.9 * 1000 * step_s / 3600 <= hours and not (tmp_path / "x").exists()


def test_help_is_instant_and_complete():
    done = run_python("train.py", "--help")
    assert done.returncode == 0
    assert all(option.key in done.stdout for option in list_options(Config).values())


def test_a_finished_run_holds_what_is_promised(trained_run):
    names = {
        path.relative_to(trained_run).as_posix()
        for path in trained_run.rglob("*")
        if path.is_file()
    }
    assert names == {
        ".lock",  # held while a process trains here
        "config.yaml",
        "history.jsonl",
        "model.safetensors",
        "checkpoints/best.pt",
        "checkpoints/step_00000002.pt",
        "checkpoints/step_00000004.pt",
        "samples/step_00000002.png",
        "samples/step_00000004.png",
    }
    _, about = load_model(trained_run / "model.safetensors")
    assert (
        about["step"] == 4
        and about["encoder"]["is_carried"]
        and about["versions"]["torch"]
        and about["data"]["content"]["train"] == 8
    )
    assert [row["step"] for row in history(trained_run)] == [1, 2, 3, 4]
    assert {"content", "style/relu1_1", "style/relu2_1", "total"} <= set(
        history(trained_run, "val")[0]
    )
    grid = Image.open(trained_run / "samples/step_00000004.png")
    assert grid.size == (6 * 16 + 5 * 4, 2 * 16 + 4)
    assert load_state(trained_run / "checkpoints/best.pt")["best"]["total"] == min(
        row["total"] for row in history(trained_run, "val")
    )


def test_training_lowers_the_loss(start):
    run_dir = start(
        "train.steps=60",
        "optim.lr=3e-3",
        "decoder.init=he",
        "val.every_steps=60",
        "checkpoint.every_steps=60",
    )
    totals = [row["total"] for row in history(run_dir)]
    assert sum(totals[-10:]) < 0.6 * sum(totals[:10])


def test_same_seed_same_weights_other_seed_other_weights(start):
    a, b, c = (
        decoder_of(start(f"run.seed={seed}", "train.steps=2", name=name))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(a[name], b[name]) for name in a) and not all(
        torch.equal(a[name], c[name]) for name in a
    )


@pytest.mark.parametrize("cache", ["ram", "device"])
def test_cache_changes_nothing(start, cache):
    plain, cached = (
        decoder_of(start(name="plain")),
        decoder_of(start(f"data.cache={cache}", name="cached")),
    )
    assert all(torch.equal(plain[name], cached[name]) for name in plain)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.precision=bf16"],
        ["train.precision=fp16"],
        ["train.channels_last=false"],
        [
            "optim.name=muon",
            "train.precision=fp16",
            "train.freeze=[conv2_1]",
            "decoder.norm=instance",
        ],
        ["optim.clip_norm=0.1", "optim.lr_schedule=cosine", "optim.warmup_steps=2"],
        ["optim.ema_decay=0.5", "decoder.norm=batch"],
        ["loss.gram_weight=1", "loss.tv_weight=1", "loss.identity_weight=1", "data.flip=true"],
        [
            "encoder.calibrate=false",
            "encoder.padding=circular",
            "encoder.pooling=avg",
            "decoder.upsampling=bilinear",
        ],
        ["checkpoint.carry_encoder=false", "train.freeze=[conv2_1]", "decoder.norm=instance"],
        ["loss.content_weight=0", "loss.style_weight=0", "loss.identity_weight=1"],
    ],
    ids=" ".join,
)
def test_options_train(start, overrides):
    run_dir = start(*overrides)
    assert all(value.isfinite().all() for value in decoder_of(run_dir).values())


@pytest.mark.slow
def test_compiled_training_equals_plain_training(start):
    plain, compiled = (
        decoder_of(start(name="plain")),
        decoder_of(start("train.compile=true", name="compiled")),
    )
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-3, atol=1e-4)


def test_accumulation_equals_a_larger_batch(start):
    large = decoder_of(start("data.batch_size=4", "train.steps=1", name="large"))
    parts = decoder_of(
        start("data.batch_size=2", "train.accumulate=2", "train.steps=1", name="parts")
    )
    for name in large:
        torch.testing.assert_close(parts[name], large[name], rtol=1e-4, atol=1e-5)


def test_averaged_weights_are_the_moving_average(start):
    run_dir = start(
        "optim.ema_decay=0.5",
        "checkpoint.every_steps=1",
        "checkpoint.keep=9",
        "optim.lr_schedule=constant",
    )
    states = [load_state(path) for path in sorted((run_dir / "checkpoints").glob("step_*.pt"))]
    key = "convs.conv1_1.weight"
    expected = network_of(states[0])["module"][key]
    for state in states[1:]:
        expected = 0.5 * expected + 0.5 * network_of(state)["module"][key]
    torch.testing.assert_close(decoder_of(run_dir)["decoder." + key], expected)


def test_a_released_model_is_not_overwritten(start, trained_run, tiny_options, tmp_path):
    shutil.copytree(trained_run, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/checkpoints")
    before = (tmp_path / "copy/model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="holds a run"):
        start(name="copy")
    assert (tmp_path / "copy/model.safetensors").read_bytes() == before


def test_frozen_normalisation_keeps_its_statistics(start):
    first = start("decoder.norm=batch", name="first")
    second = start(
        "decoder.norm=batch", f"train.init_from={first}", "train.freeze=[conv2_1]", name="second"
    )
    old, new = decoder_of(first), decoder_of(second)
    names = [name for name in old if "norms" in name]
    assert all(torch.equal(old[name], new[name]) == ("conv2_1" in name) for name in names)


def test_fine_tuning_from_a_published_flat_decoder(start, tmp_path):
    decoder = build.make_trained(Config.load(None, ["encoder.tap=relu2_1", "run.seed=8"]))
    flat = {
        f"{3 * i + 1}.{part}": getattr(conv, part).detach()
        for i, conv in enumerate(decoder.convs.values())
        for part in ("weight", "bias")
    }
    torch.save(flat, tmp_path / "decoder.pth")
    tuned = decoder_of(start(f"train.init_from={tmp_path / 'decoder.pth'}", "train.steps=1"))
    change = (tuned["decoder.convs.conv2_1.weight"] - flat["1.weight"]).abs().max()
    assert 0 < change < 2e-3


def test_a_manifest_of_missing_files_fails_the_dry_run(tiny_options, tmp_path):
    (tmp_path / "m.csv").write_text("path,split\nnowhere.png,train\n")
    with pytest.raises(DataError, match="1 are missing, first"):
        train.main(
            ["--config", RECIPE, *tiny_options, f"data.content={tmp_path / 'm.csv'}", "--dry-run"]
        )


def test_old_checkpoints_are_dropped(start):
    run_dir = start("checkpoint.every_steps=1", "checkpoint.keep=2")
    names = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert names == ["best.pt", "step_00000003.pt", "step_00000004.pt"]


def test_learning_rate_schedules():
    def rates(*overrides):
        schedule = build.make_schedule(
            Config.load(None, ["optim.lr=1", "train.steps=100", *overrides])
        )
        return [schedule(t) for t in (0, 50, 100)]

    assert rates("optim.lr_decay=0.02") == pytest.approx(
        [1, 1 / 2, 1 / 3]
    )  # the paper's lr / (1 + decay t)
    assert rates("optim.lr_schedule=cosine") == pytest.approx([1, 0.5, 0])
    assert rates("optim.lr_schedule=constant") == [1, 1, 1]
    assert rates("optim.lr_schedule=constant", "optim.warmup_steps=99") == pytest.approx(
        [0.01, 0.51, 1]
    )


def test_fine_tuning_starts_from_the_model(start, trained_run):
    run_dir = start(
        f"train.init_from={trained_run / 'model.safetensors'}",
        "train.freeze=[conv2_1]",
        "train.steps=1",
    )
    old, new = decoder_of(trained_run), decoder_of(run_dir)
    frozen = [name for name in old if "conv2_1" in name]
    assert frozen and all(torch.equal(old[name], new[name]) for name in frozen)
    moved = [(old[name] - new[name]).abs().max() for name in old if "conv2_1" not in name]
    assert min(moved) > 0 and max(moved) < 2e-3  # one step of Adam at 1e-3
    mu = [
        load_model(run / "model.safetensors")[1]["encoder"]["mu_sha256"]
        for run in (trained_run, run_dir)
    ]
    assert mu[0] == mu[1]  # the features that the decoder knows, not newly calibrated ones


def test_fine_tuning_refuses_what_does_not_fit(start, trained_run, tmp_path):
    model = trained_run / "model.safetensors"
    with pytest.raises(WeightsError, match="decoder.norm differ"):
        start(f"train.init_from={model}", "decoder.norm=instance")
    torch.save(random_torchvision_weights("vgg19", 9, seed=5), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="expected the encoder that"):
        start(f"train.init_from={model}", f"encoder.weights={tmp_path / 'other.pth'}")
    with pytest.raises(WeightsError, match="but conv2_2 is beyond them"):
        start(f"train.init_from={model}", "loss.style_taps=[relu1_1,relu3_1]")
    with pytest.raises(UsageError, match="train.freeze names all"):
        start("train.freeze=[conv2_1, conv1_2, conv1_1]")


def test_mistakes_before_training(tiny_options, trained_run, tmp_path, monkeypatch):
    arguments = ["--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    cases = [
        ([], UsageError, "--config FILE or --resume DIR"),
        (["--resume", str(tmp_path)], UsageError, "there are none"),
        ([*arguments, "optim.clipnorm=1"], UsageError, "did you mean 'optim.clip_norm'"),
        ([*arguments, f"data.content={tmp_path / 'empty'}"], DataError, "there are none"),
        ([*arguments, "data.style=None"], DataError, "data.style is not set"),
        ([*arguments, "encoder.weights=nowhere.pth"], WeightsError, "no such file"),
        ([*arguments, "encoder.tap=relu3_4", "encoder.name=vgg16"], UsageError, "taps of vgg16"),
        ([*arguments, "loss.style_taps=[relu5_1]"], WeightsError, "reaches only relu4_1"),
        ([*arguments, "train.freeze=[conv7]"], UsageError, "decoder layers out of"),
        ([*arguments, "run.device=cuda:7"], UsageError, "expected a device"),
        ([*arguments, "run.device=meta"], UsageError, "expected a device"),
        ([*arguments, "run.seed=99999999999999999999999"], UsageError, "run.seed of 0 or more"),
        ([*arguments, "run.dir="], UsageError, "a folder as run.dir"),
        (
            [*arguments, f"run.dir={trained_run}"],
            UsageError,
            "holds a run; continue it with --resume",
        ),
        (
            [*arguments, f"run.dir={tmp_path / 'file' / 'x'}"],
            UsageError,
            "folder that can be written",
        ),
    ]
    for case, kind, message in cases:
        with pytest.raises(kind, match=message):
            train.main(case)


@pytest.mark.parametrize(
    "extra, code, message",
    [
        (["optim.lr=fast"], 2, "expected float for optim.lr"),
        (["data.content=/nowhere"], 3, "there is no /nowhere"),
        (["encoder.weights=/nowhere.pth"], 4, "encoder.weights"),
    ],
)
def test_exit_codes_of_the_script(tiny_options, tmp_path, extra, code, message):
    done = run_python(
        "train.py", "--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}", *extra
    )
    assert done.returncode == code
    assert re.fullmatch(r"error: [^\n]*\n", done.stderr) and message in done.stderr


def test_resume_refuses_a_changed_configuration(trained_run, tmp_path):
    run_dir = tmp_path / "copy"
    shutil.copytree(trained_run, run_dir)
    with pytest.raises(
        UsageError, match="optim.lr, loss.style_weight differ|loss.style_weight, optim.lr differ"
    ):
        train.main(["--resume", str(run_dir), "optim.lr=1", "loss.style_weight=3"])
    with pytest.raises(UsageError, match="differ"):
        train.main(["--resume", str(run_dir), "--config", RECIPE])
    assert train.main(["--resume", str(run_dir), "train.steps=5", "tracking.project=other"]) == 0
    assert load_state(run_dir / "checkpoints/step_00000005.pt")["step"] == 5


def test_resume_refuses_another_encoder(trained_run, vgg19_file, tmp_path):
    run_dir = tmp_path / "copy"
    shutil.copytree(trained_run, run_dir)
    moved = tmp_path / "weights.pth"
    state = load_state(run_dir / "checkpoints/step_00000004.pt")
    state["release"]["description"]["config"]["encoder.weights"] = str(moved)
    torch.save(state, run_dir / "checkpoints/step_00000004.pt")
    torch.save(random_torchvision_weights("vgg19", 9, seed=5), moved)
    with pytest.raises(WeightsError, match="expected the encoder that"):
        train.main(["--resume", str(run_dir), "train.steps=5"])


def test_resume_of_a_truncated_checkpoint(trained_run, tmp_path, capsys):
    """The newest whole one counts, with a warning; the model of the end is made anew."""
    run_dir = tmp_path / "copy"
    shutil.copytree(trained_run, run_dir)
    first, newest = checkpoint.list_states(run_dir)
    newest.write_bytes(newest.read_bytes()[:5000])
    (run_dir / "model.safetensors").unlink()
    assert train.main(["--resume", str(run_dir)]) == 0
    assert f"{newest.name} is truncated" in capsys.readouterr().err
    ours, theirs = (load_model(run / "model.safetensors")[0] for run in (run_dir, trained_run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    first.write_bytes(b"")
    newest.write_bytes(b"")
    with pytest.raises(WeightsError, match="truncated"):
        train.main(["--resume", str(run_dir)])


def test_resume_of_a_checkpoint_by_name(trained_run, tmp_path):
    """It is the run's folder that continues; the newer state is set aside."""
    run_dir = tmp_path / "copy"
    shutil.copytree(trained_run, run_dir)
    first, newest = checkpoint.list_states(run_dir)
    assert train.main(["--resume", str(first), "train.steps=3"]) == 0
    names = [path.name for path in checkpoint.list_states(run_dir)]
    assert names == [first.name, "step_00000003.pt"]
    assert (run_dir / "checkpoints" / f"superseded_{newest.name}").exists()


def test_a_finished_run_is_left_as_it_is(trained_run, tmp_path, capsys):
    run_dir = tmp_path / "copy"
    shutil.copytree(trained_run, run_dir)
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert train.main(["--resume", str(run_dir)]) == 0
    assert "finished before, at step 4" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_data_may_have_moved(trained_run, image_folders, tmp_path, monkeypatch):
    """Paths, workers and intervals may change on resume; the sets' hashes must agree."""
    run_dir = tmp_path / "copy"
    shutil.copytree(trained_run, run_dir)
    moved = [shutil.copytree(folder, tmp_path / folder.name) for folder in image_folders]
    changes = [f"data.content={moved[0]}", f"data.style={moved[1]}", "data.workers=1"]
    steps = ["train.steps=5", "checkpoint.every_steps=1", "train.log_every_steps=1"]
    assert train.main(["--resume", str(run_dir), *changes, *steps]) == 0
    # relative paths begin where the run was started
    monkeypatch.chdir(tmp_path)
    names = [f"data.content={moved[0].name}", f"data.style={moved[1].name}"]
    assert train.main(["--resume", str(run_dir), *names, "train.steps=6"]) == 0
    monkeypatch.chdir("/")
    assert train.main(["--resume", str(run_dir), "train.steps=7"]) == 0
    next(moved[0].glob("*.png")).rename(moved[0] / "renamed.png")
    with pytest.raises(DataError, match="holds other files"):
        train.main(["--resume", str(run_dir), "train.steps=8"])


def test_non_finite_loss_stops_with_step_losses_and_samples(start, tmp_path):
    with pytest.raises(NonFiniteLossError) as caught:
        start("train.steps=50", "optim.lr=1e18", "checkpoint.every_steps=1", "val.every_steps=100")
    message = str(caught.value)
    step = int(re.search(r"at step (\d+) came", message).group(1))
    first = int(re.search(r"samples (\d+) to", message).group(1))
    assert (
        first == 2 * (step - 1)
        and "content=" in message
        and re.search(r"c\d\.png \+ .*s\d\.png", message)
    )
    assert (
        not list((tmp_path / "run").rglob("*.pt"))
        and not (tmp_path / "run/model.safetensors").exists()
    )


def test_weights_ruined_by_the_last_update_do_not_replace_good_ones(start, tmp_path):
    """The loss of a step is finite, but its update makes the weights useless.

    A checkpoint is due; the old one stays.
    """
    run_dir = start("train.steps=2", "checkpoint.every_steps=1", "checkpoint.keep=1")
    good = load_state(run_dir / "checkpoints/step_00000002.pt")
    network_of(good)["optimizer"]["param_groups"][0]["eps"] = 1e-45  # an update out of all measure
    for moments in network_of(good)["optimizer"]["state"].values():
        moments["exp_avg"].fill_(1e30)
    torch.save(good, run_dir / "checkpoints/step_00000002.pt")
    with pytest.raises(NonFiniteLossError, match="at step 3 came"):
        train.main(["--resume", str(run_dir), "train.steps=9"])
    (kept,) = sorted((run_dir / "checkpoints").glob("step_*.pt"))
    assert kept.name == "step_00000002.pt"
    assert all(
        tensor.isfinite().all() for tensor in network_of(load_state(kept))["module"].values()
    )


def test_one_bad_file_does_not_stop_training(start, image_folders, tmp_path, capsys):
    folder = tmp_path / "content"
    shutil.copytree(image_folders[0], folder)
    for i in range(30):
        draw(folder / f"more{i}.png", 200 + i)
    (folder / "c0.png").write_bytes(b"broken")
    run_dir = start(
        f"data.content={folder}",
        "train.steps=30",
        "val.every_steps=30",
        "checkpoint.every_steps=30",
    )
    assert (run_dir / "model.safetensors").exists()
    assert capsys.readouterr().err.count("c0.png") == 1


def test_too_many_bad_files_stop_training(start, image_folders, tmp_path):
    folder = tmp_path / "content"
    shutil.copytree(image_folders[0], folder)
    for i in (0, 2, 4, 6):
        (folder / f"c{i}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="unreadable images"):
        start(f"data.content={folder}", "train.steps=30", "data.workers=1")


def test_without_held_out_images_training_goes_on(start, capsys):
    run_dir = start("data.held_out=0")
    assert "no validation" in capsys.readouterr().out and (run_dir / "model.safetensors").exists()


def test_piped_output_is_plain_lines(tiny_options, tmp_path):
    done = run_python("train.py", "--config", RECIPE, *tiny_options, f"run.dir={tmp_path / 'x'}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(lines) == 4 and re.fullmatch(
        r"step 4/4  content \S+  style \S+  total \S+  \S+ steps/s  00:00:00 left", lines[-1]
    )
    assert "\r" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        ["loss.identity_weight=1"],
        ["train.accumulate=2"],
        ["model.name=compact", "model.channels=[4,6,8]", "loss.identity_weight=1"],
    ],
    ids=["identity", "accumulated", "compact"],
)
def test_two_processes_equal_one_with_the_doubled_batch(tiny_options, start, tmp_path, extra):
    one = decoder_of(start("data.batch_size=4", "train.steps=2", *extra, name="one"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        *torchrun,
        "train.py",
        "--config",
        RECIPE,
        *tiny_options,
        "train.steps=2",
        f"run.dir={tmp_path / 'two'}",
        *extra,
    ]
    done = run_python(*command, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    two = decoder_of(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    assert done.stdout.count("finished at step 2") == 1


@pytest.mark.slow
def test_gradients_of_two_processes(tiny_options, tmp_path):
    """The first gradient, from Adam's first moment: 0.1 times the gradient after one step."""
    moments = []
    for name, batch, prefix in (
        ("one", 4, []),
        ("two", 2, ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]),
    ):
        options = [
            *tiny_options,
            "train.steps=1",
            f"data.batch_size={batch}",
            f"run.dir={tmp_path / name}",
        ]
        done = run_python(*prefix, "train.py", "--config", RECIPE, *options, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        kept = load_state(tmp_path / name / "checkpoints/step_00000001.pt")
        state = network_of(kept)["optimizer"]["state"]
        moments.append([10 * value["exp_avg"] for value in state.values()])
    for one, two in zip(*moments):
        assert float((one - two).norm() / one.norm()) < 1e-5


@pytest.mark.slow
def test_several_processes_refuse_batch_statistics_on_the_cpu(tiny_options, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_python(
        *torchrun,
        "train.py",
        "--config",
        RECIPE,
        *tiny_options,
        "decoder.norm=batch",
        f"run.dir={tmp_path / 'x'}",
    )
    assert done.returncode != 0 and "expected GPUs for decoder.norm=batch" in done.stderr


@pytest.mark.slow
def test_a_dead_rank_ends_the_job(tiny_options, tmp_path):
    """Rank 1 dies in its third step.

    The job ends soon, with a non-zero exit code and without a released model.
    """
    code = f"""
import os, sys
sys.path[:0] = [{str(ROOT)!r}]
import train
from stylenet.training.run import Run
if os.environ["RANK"] == "1":
    counted = Run.finish_step
    def dying(self):
        counted(self)
        if self.step == 3:
            os._exit(7)
    Run.finish_step = dying
from stylenet.errors import run_script
sys.exit(run_script(train.main))
"""
    (tmp_path / "dying.py").write_text(code)
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        tmp_path / "dying.py",
    ]
    options = [
        *tiny_options,
        "train.steps=100000",
        "checkpoint.every_steps=100000",
        "val.every_steps=100000",
    ]
    done = run_python(
        *torchrun,
        "--config",
        RECIPE,
        *options,
        f"run.dir={tmp_path / 'x'}",
        OMP_NUM_THREADS="1",
        timeout=120,
    )
    assert done.returncode != 0 and not (tmp_path / "x/model.safetensors").exists()
    assert "error: expected 2 processes to the end, but another one has gone" in done.stderr
    assert "[rank0]: Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["mean", "none", "efdm", "histogram", "wct", "concat"])
def test_every_transform_trains_and_stylises(tiny_options, tmp_path, name):
    """Each transform has a decoder of its own, and the released model knows its transform."""
    from stylenet.applying.stylizer import Stylizer

    run_dir = tmp_path / name
    options = [
        *tiny_options,
        "train.steps=2",
        "train.precision=bf16",
        "loss.identity_weight=1",
        f"transform.name={name}",
    ]
    assert train.main(["--config", RECIPE, *options, f"run.dir={run_dir}"]) == 0
    stylizer = Stylizer.load(run_dir)
    content, styles = torch.rand(1, 3, 24, 20), [torch.rand(1, 3, 16, 30), torch.rand(1, 3, 20, 20)]
    assert stylizer(content, styles, 0.5, [1, 2]).shape == (1, 3, 24, 20)
    fresh, same = stylizer(content, styles[0], 0.0), stylizer(content, styles[1], 0.0)
    torch.testing.assert_close(fresh, same)  # at strength 0 the style does not matter


def test_a_transform_of_another_width_is_no_starting_point(trained_run, tiny_options, tmp_path):
    options = [
        *tiny_options,
        "transform.name=concat",
        f"train.init_from={trained_run}",
        f"run.dir={tmp_path / 'x'}",
    ]
    with pytest.raises(WeightsError, match="but transform.name differ"):
        train.main(["--config", RECIPE, *options])


def test_sweep_agents_choose_the_run_id_and_with_it_the_folder(tiny_options, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "agent7")
    options = [*tiny_options, "train.steps=2", f"run.dir={tmp_path}/sweep/{{id}}"]
    assert train.main(["--config", RECIPE, *options]) == 0
    assert (tmp_path / "sweep/agent7/model.safetensors").is_file()
    state = load_state(tmp_path / "sweep/agent7/checkpoints/step_00000002.pt")
    assert state["tracking_id"] == "agent7" == state["release"]["description"]["wandb_run"]["id"]


def test_two_processes_do_not_write_one_folder(trained_run):
    from stylenet.runtime import lock_folder

    lock = lock_folder(trained_run)
    done = run_python("train.py", "--resume", str(trained_run), "train.steps=5")
    lock.release()
    assert done.returncode == 2 and "another process trains there" in done.stderr
