"""Every command that README, docs, data/README.md and the Makefile show works, in order."""

import csv
import importlib
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, draw, run_python
from test_video import make_clip, pictures
from torch import nn

import stylenet
import stylize
import train
from stylenet.errors import UsageError
from stylenet.models.compact import CompactNet

GUIDES = ("training", "datasets", "video", "evaluation", "gatys")  # what README only points to
DOCUMENTS = ("README.md", *(f"docs/{name}.md" for name in GUIDES))
WAYS = ("docs/controls.md", "docs/export.md")
LINKED = ("train.py", "stylize.py", "eval.py", "ablate.py", "stylenet", "configs", "data")


def blocks(document, language=""):
    """The fenced blocks of a document in the given language."""
    parts = re.split(r"^```(\w*)\n", (ROOT / document).read_text(), flags=re.MULTILINE)[1:]
    opened = zip(
        parts[::4], parts[1::4]
    )  # language, content; then the closing fence and the text behind it
    return [content for name, content in opened if name == language]


def commands(document, start="python "):
    """The command lines of a document, without their comments."""
    lines = [
        line.split(" #")[0].strip() for block in blocks(document) for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith(start)]


@pytest.fixture
def workplace(tmp_path, vgg19_file, monkeypatch):
    """A folder that looks like the repository to a user, with pictures and weights."""
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    for i in range(6):
        draw(tmp_path / "photos" / f"{i}.png", i, 80, 70)
        draw(tmp_path / "paintings" / f"{i}.png", 50 + i, 80, 70)
    for i, name in enumerate(("photo", "painting", "a", "b", "c")):
        draw(tmp_path / f"{name}.jpg", i, 80, 70)
    draw(tmp_path / "mask.png", 7, 30, 20)
    draw(tmp_path / "texture.png", 8, 64, 64)
    make_clip(tmp_path / "clip.mp4", pictures(3))
    for i in range(3):
        draw(tmp_path / "frames" / f"{i}.png", i, 80, 70)
    monkeypatch.setenv("STYLENET_VGG19", str(vgg19_file))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tmp_path


def shrink(line, tiny_options):
    """The command with options that make it short; data and folders stay as documented."""
    extra = []
    if "train.py --config" in line or "ablate.py" in line:
        kept = [
            option
            for option in tiny_options
            if not option.startswith(("data.content", "data.style", "tracking", "encoder.weights"))
        ]
        extra = [*kept, "train.steps=2"]
    if "eval.py" in line or "ablate.py" in line:
        extra += [
            "pairs.n=2",
            "images.resize_px=32",
            "metrics.cfsd_px=16",
            "metrics.timing_rounds=1",
            "oracle.iterations=2",
        ]
        extra += ["networks.download=false"]
    if "stylize.py" in line:
        extra = ["--size", "24"]
        extra += [] if "--stroke" in line else ["--style-size", "24"]
    if "--method gatys" in line:  # the random VGG ends at relu4_1
        extra += ["loss.content_taps=[relu2_1]", "loss.style_taps=[relu1_1]"]
        extra += ["optim.iterations=2", "optim.fine_iterations=1"]
    return [*shlex.split(line), *extra]


def run_here(arguments, folder):
    done = subprocess.run(
        [sys.executable, *arguments[1:]], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


def read_manifest(folder):
    with open(folder / "manifest.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_readme_commands(workplace, tiny_options, monkeypatch):
    lines = [line for document in DOCUMENTS for line in commands(document)]
    assert len(lines) >= 17
    monkeypatch.chdir(workplace)
    for line in filter(is_run, lines):
        arguments = shrink(line, tiny_options)
        if "stylize.py" in line and "gatys" not in line:  # in this process, since there are many
            assert stylize.main(arguments[2:]) == 0, line
        else:
            run_here(arguments, workplace)
    (code,) = blocks("README.md", "python")
    run_here(["python", "-c", code], workplace)
    (code,) = blocks("docs/gatys.md", "python")
    small = "['optim.iterations=1','loss.content_taps=[relu2_1]','loss.style_taps=[relu1_1]']"
    run_here(["python", "-c", code.replace('["optim.iterations=100"]', small)], workplace)
    assert (workplace / "runs/gatys/out/strip.png").exists()
    assert len(read_manifest(workplace / "out/gatys")) == 6
    assert (workplace / "out.png").exists() and len(list((workplace / "out").glob("*.png"))) == 36
    sets = [
        {row["content"] + row["style"] for row in read_manifest(workplace / name)}
        for name in ("stylised", "listed")
    ]
    assert len(sets[0]) == 12 and sets[0] == sets[1]
    assert sorted(path.name for path in (workplace / "classes").glob("*.jpg")) == [
        f"{i}.jpg" for i in range(6)
    ]
    assert (workplace / "runs/mine/eval/report.html").exists() and (
        workplace / "out/pairs/pair_list.csv"
    ).exists()
    assert (workplace / "runs/ablations/decoder_norm/report.html").exists()
    assert (workplace / "out.mp4").exists() and len(
        list((workplace / "stylised_frames").iterdir())
    ) == 3


def test_a_command_for_each_system(workplace, tiny_options, monkeypatch):
    """Those in the table of systems, which are no blocks."""
    monkeypatch.chdir(workplace)
    rows = re.findall(r"^\|.*\| `(python .*)` \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 7
    for line in rows:
        arguments = [*shrink(line, tiny_options), *(["data.scales=[24]"] * ("clips" in line))]
        assert (train if "train.py" in line else stylize).main(arguments[2:]) == 0, line
    for name in ("mine", "wave", "fusion", "artist", "clips"):
        assert (workplace / "runs" / name / "model.safetensors").exists()


def is_run(line):
    """Whether a command is run here; the page and exports have tests of their own."""
    return "stylenet.page" not in line and "stylenet export" not in line


def test_commands_of_controls(workplace, monkeypatch):
    """In this process, since there are many."""
    monkeypatch.chdir(workplace)
    lines = [line for line in commands("docs/controls.md") if is_run(line)]
    assert len(lines) >= 13
    for line in lines:
        (workplace / "out.png").unlink(missing_ok=True)
        sizes = [] if "--list-styles" in line else ["--size", "24"]
        sizes += ["--style-size", "24"] if sizes and "--stroke" not in line else []
        assert stylize.main([*shlex.split(line)[2:], *sizes]) == 0, line
        assert (workplace / "out.png").exists() or "--output out.png" not in line
    (code,) = blocks("docs/controls.md", "python")
    run_here(["python", "-c", code], workplace)
    assert (workplace / "painting.style").exists() and (workplace / "sheet.png").exists()


def test_commands_of_exports_name_options_that_exist():
    from stylenet.applying import export

    start = "python -m stylenet export "
    lines = [*commands("docs/export.md", start), *commands("README.md", start)]
    assert len(lines) == 3
    for line in lines:
        options = shlex.split(line)[4:]
        assert options[options.index("--to") + 1] in export.KINDS and "--output" in options


@pytest.mark.slow
def test_data_readme_commands(workplace, tiny_options):
    for line in commands("data/README.md", ("python ", "tar ")):
        if line.startswith("tar "):
            subprocess.run(shlex.split(line), cwd=workplace, check=True)
        else:
            run_here(shrink(line, tiny_options), workplace)
    assert (workplace / "runs/packed/model.safetensors").exists()
    assert (workplace / "runs/mine/model.safetensors").exists()


@pytest.mark.slow
def test_demo_commands(workplace, monkeypatch):
    """What `make demo` runs, at a smaller size."""
    listed = subprocess.run(
        ["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    lines = [
        line
        for line in listed.replace("\\\n", " ").splitlines()
        if line.startswith(".venv/bin/python ")
    ]
    ((script, *rest),) = [shlex.split(line)[1:] for line in lines]
    with monkeypatch.context() as patch:
        patch.delenv("STYLENET_VGG19")  # it needs none
        run_here(["python", script, *rest, "--size", "64"], workplace)
    assert script == "stylize.py" and len(list((workplace / "runs/demo_pictures").iterdir())) == 24


@pytest.mark.slow
def test_the_first_training(workplace):
    """The commands in the header of configs/demo.yaml, in fewer steps."""
    # the drawn pictures go to a folder of this test: `data` is a link to the repository
    (workplace / "data").unlink()
    (workplace / "data").mkdir()
    draw_all = ["python", "-c", runner(ROOT / "data/samples.py"), "--output", "data/drawn"]
    run_here(draw_all, workplace)
    small = ["train.steps=2", "data.crop_px=32", "data.resize_px=32", "encoder.calibrate_images=2"]
    run_here(["python", "train.py", "--config", "configs/demo.yaml", *small], workplace)
    assert (workplace / "runs/demo/model.safetensors").exists()


def runner(script):
    """Code that runs a script of the repository from another folder."""
    return (
        f"import runpy, sys; sys.argv[0] = '{script}'; runpy.run_path('{script}', None, '__main__')"
    )


def test_the_two_set_up_commands_exist():
    targets = [line for document in ("README.md",) for line in commands(document, "make ")]
    assert targets == ["make demo", "make test"]
    for target in ("demo", "test", "bench"):
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_ci_runs_the_readme_command():
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")


def test_linked_files_exist():
    names = ("models", "ablations", "speed", "video", "systems")
    results = [f"docs/results/{name}.md" for name in names]
    others = ("data/README.md", "CONTRIBUTING.md", "docs/model_card.md", "docs/log.md")
    for document in (*DOCUMENTS, *WAYS, *results, *others):
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / document).read_text()):
            assert (ROOT / document).parent.joinpath(target).exists(), target


def test_documented_exit_codes_are_the_real_ones():
    from stylenet import errors

    text = (ROOT / "README.md").read_text()
    kinds = (errors.UsageError, errors.DataError, errors.WeightsError, errors.NonFiniteLossError)
    for code in (
        *(kind.exit_code for kind in kinds),
        errors.EXIT_INTERRUPTED,
        errors.EXIT_TERMINATED,
    ):
        assert re.search(rf"^\| (\d+, )?{code}(, \d+)? \| \w", text, re.MULTILINE), code


@pytest.mark.slow
def test_benchmark_of_large_pictures_runs():
    # a style of the usual size takes minutes where a processor has no bf16 arithmetic
    sides = ["--size", "64", "--style-size", "64", "--tile", "64"]
    done = run_python("benchmarks/large.py", *sides)
    assert done.returncode == 0, done.stderr
    assert re.search(r"ours bf16, tiles +[\d.]+ +[\d.]+ +\d+ +[\d.]+", done.stdout)


@pytest.mark.slow
def test_benchmark_of_flicker_runs(trained_run, image_folders):
    folders = ["--content", image_folders[0], "--style", image_folders[1]]
    done = run_python(
        "benchmarks/flicker.py",
        "--model",
        trained_run,
        *folders,
        "--pairs",
        "1",
        "--size",
        "64",
        "--frames",
        "3",
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"still, a lamp flickers +0\.00 +[\d.]+ +0\.\d+ ", done.stdout)


@pytest.mark.slow
def test_benchmark_of_behaviour_runs(image_folders, vgg19_file):
    folders = ["--content", image_folders[0], "--style", image_folders[1]]
    done = run_python(
        "benchmarks/behaviour.py",
        *folders,
        "--pairs",
        "1",
        "--size",
        "64",
        STYLENET_VGG19=str(vgg19_file),
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"identity, \w+ +mean \d+\.\d+ .* dB", done.stdout)) == 2
    assert re.search(r"pass 3: content norm \d+\.\d+   style \d+\.\d+   grid \d+\.\d+", done.stdout)
    assert len(re.findall(r"scales 32 and (?:64|128) px: \d+\.\d   photos", done.stdout)) == 2
    assert len(re.findall(r"strokes, style of \d+ px: (?:[\d.]+, ){2}[\d.]+\n", done.stdout)) == 3
    done = run_python("benchmarks/behaviour.py", *folders, "--size", "63")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: expected --size of at least 64, --pairs and --passes of at least 1, but --size 63 "
        "--pairs 8 --passes 3 came"
    )


@pytest.mark.slow
def test_benchmark_of_parts_runs(image_folders, vgg19_file):
    options = ["--content", image_folders[0], "--style", image_folders[1], "--size", "64"]
    done = run_python(
        "benchmarks/parts.py", *options, "--pairs", "1", STYLENET_VGG19=str(vgg19_file)
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"the whole network +share +- +change +0\.0 +content norm \d", done.stdout)
    assert re.search(r"no the way up from 1/8 +share +- +change +[1-9][\d.]* ", done.stdout)
    done = run_python("benchmarks/parts.py", *options, "--pairs", "0")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: expected --size of at least 64 and --pairs of at least 1, but --size 64 --pairs 0 "
        "came"
    )


def test_a_part_that_adds_nothing_changes_nothing(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    parts = importlib.import_module("parts")
    net = CompactNet((4, 4, 8), blocks=3, generator=torch.Generator().manual_seed(0))
    net.decoder_blocks[0].second.weight.data.zero_()
    content, style = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    whole, changed, shares = net(content, style), set(), {}
    for name, module, hook in parts.parts(net):
        with module.register_forward_hook(hook):
            if not torch.equal(net(content, style), whole):
                changed.add(name)
        with module.register_forward_hook(parts.watched(shares.setdefault(name, []))):
            if hook is parts.left_out:
                net(content, style)
    others = {"encoder_block", "decoder_blocks.1", "quarter_block"}
    assert changed == others | {"the way up from 1/8", "the way up from 1/4"}
    assert shares["decoder_blocks.0"] == [0.0] and all(min(shares[name]) > 0 for name in others)
    monkeypatch.setattr(parts.Stylizer, "load", lambda path: SimpleNamespace(net=nn.Identity()))
    with pytest.raises(UsageError, match="expected a compact network as --model, but a.pth is"):
        parts.main(["--model", "a.pth", "--content", ".", "--style", "."])


def test_grid_and_scales_see_what_they_should(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    behaviour = importlib.import_module("behaviour")
    grid, scale_errors = behaviour.grid, behaviour.scale_errors
    generator = torch.Generator().manual_seed(0)
    tiles = torch.rand(3, 8, 8, generator=generator).repeat(1, 16, 16)
    assert grid(tiles) == pytest.approx(64, rel=0.01)
    assert grid(torch.rand(3, 512, 512, generator=generator)) == pytest.approx(1, abs=0.1)
    assert grid(torch.full((3, 128, 128), 0.3)) == pytest.approx(0, abs=1e-3)
    half = torch.rand(3, 8, 8, generator=generator)
    whole = half.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert scale_errors([half, whole, 1 - whole])[0] == pytest.approx(0, abs=1e-4)
    assert scale_errors([half, whole, 1 - whole])[1] > 50


@pytest.mark.slow
def test_benchmark_of_many_pictures_runs():
    done = run_python(
        "benchmarks/many.py", "--size", "32", "--pictures", "4", "--device-ms", "1", "--rounds", "1"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"overlap +[\d.]+ times as fast", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, options",
    [
        ("train_step.py", ["--batch", "1", "--crop", "32"]),
        ("stylize.py", ["--size", "32"]),
        ("command.py", ["--size", "32"]),
    ],
)
def test_benchmarks_run_and_do_the_same_work(script, options):
    done = run_python(f"benchmarks/{script}", *options, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"ours bf16 +\d", done.stdout)
    if script == "train_step.py":
        theirs, ours = (
            float(value) for value in re.search(r"textbook (\S+), ours (\S+)", done.stdout).groups()
        )
        assert ours == pytest.approx(theirs, rel=1e-4)
    elif script == "stylize.py":
        assert float(re.search(r"difference in float32: (\S+)", done.stdout).group(1)) < 1e-4
        assert re.search(r"included fp32 +\d", done.stdout)


@pytest.mark.slow
def test_benchmark_of_controls_runs():
    done = run_python("benchmarks/controls.py", "--size", "32", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"plain +[\d.]+ s +1\.00 x", done.stdout) and "seamless" in done.stdout


def test_the_citation_names_this_version():
    assert f"version: {stylenet.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_readme_is_short():
    """A heading every few lines, and what only some need is one click away."""
    text = (ROOT / "README.md").read_text()
    assert len(text) < 9500
    assert max(map(len, re.split(r"^#+ .*$", text, flags=re.MULTILINE))) < 1500
