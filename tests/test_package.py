"""The package: installed, called from elsewhere, and never shadowed by a clone's folder."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, draw
from PIL import Image

import stylenet
from stylenet import Stylizer, runtime, save_image

PROMISED = ("torch", "numpy", "PIL", "safetensors", "tqdm", "filelock")  # the base dependencies
OPTIONAL = ("wandb", "torchvision", "yaml", "jinja2", "matplotlib", "av")


def run(python, *arguments, cwd, **environment):
    """A Python program elsewhere, without this clone on its path."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=cwd,
        env=environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source")
    files = ["pyproject.toml", "README.md", "LICENSE"]
    for path in [ROOT / name for name in files] + [
        path for path in (ROOT / "stylenet").rglob("*") if "__pycache__" not in path.parts
    ]:
        target = source / path.relative_to(ROOT)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    build = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, source]
    done = run(sys.executable, *build, cwd=folder)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("stylenet-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh virtual environment with the wheel, beside the dependencies at hand."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    target = next((folder / "lib").glob("python3*")) / "site-packages"
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", target, wheel]
    done = run(sys.executable, *install, cwd=folder)
    assert done.returncode == 0, done.stderr
    (target / "dependencies.pth").write_text(str(Path(torch.__file__).parent.parent))
    return python


@pytest.fixture
def pictures(tmp_path):
    draw(tmp_path / "p.png", 1, 64, 48)
    draw(tmp_path / "s.png", 2, 64, 48)
    return tmp_path


SIZES = ["--size", "0", "--style-size", "0"]
CALL = ["--content", "p.png", "--style", "s.png", *SIZES, "--output", "o.png"]


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    import zipfile

    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"stylenet"}
    assert (
        "stylenet/weights/compact.safetensors" in names and "stylenet/metrics/report.html" in names
    )
    assert f"stylenet-{stylenet.__version__}" in wheel.name


@pytest.mark.slow
def test_installed_it_stylises_from_elsewhere(installed, pictures):
    """By the module and by the API; the shipped weights are found, optional packages unused."""
    done = run(installed, "-m", "stylenet", *CALL, cwd=pictures)
    assert done.returncode == 0, done.stderr
    assert Image.open(pictures / "o.png").size == (64, 48)
    code = f"""
import sys
for name in {OPTIONAL}:
    sys.modules[name] = None  # importing it fails
from stylenet import Stylizer, save_image
save_image(Stylizer.load()("p.png", "s.png"), "api.png")
from stylenet import runtime
print(sys.modules["stylenet"].__file__, runtime.git_commit(), runtime.versions()["stylenet"])
"""
    subprocess.run(["git", "init", "-q", pictures], check=True)
    done = run(installed, "-c", code, cwd=pictures)
    assert done.returncode == 0, done.stderr
    file, commit, version = done.stdout.split()
    assert "site-packages" in file and (commit, version) == ("None", stylenet.__version__)
    same = [np.asarray(Image.open(pictures / name)) for name in ("o.png", "api.png")]
    assert np.array_equal(*same)


@pytest.mark.slow
def test_installed_it_is_not_shadowed_by_a_clone_s_folder(installed, pictures):
    """The working directory holds a folder `stylenet` that is a clone, not the package."""
    (pictures / "stylenet" / "configs").mkdir(parents=True)
    done = run(installed, "-m", "stylenet", *CALL, cwd=pictures)
    assert done.returncode == 0 and (pictures / "o.png").is_file(), done.stderr


@pytest.mark.slow
def test_scripts_run_from_any_working_directory(pictures):
    """Also from the clone's parent folder, where `stylenet` would be the clone."""
    (pictures / "stylenet").symlink_to(ROOT)
    for script in ("stylenet/stylize.py", ROOT / "stylize.py"):
        done = run(sys.executable, script, *CALL, cwd=pictures)
        assert done.returncode == 0 and (pictures / "o.png").is_file(), done.stderr
        (pictures / "o.png").unlink()
    for script in ("train.py", "eval.py", "ablate.py", "data/prepare.py"):
        done = run(sys.executable, f"stylenet/{script}", "--help", cwd=pictures)
        assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def test_import_is_lazy():
    code = "import stylenet, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert run(sys.executable, "-c", code, cwd=ROOT).stdout == "False False\n"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        stylenet.nonsense  # noqa: B018 - the access is the test


def test_the_api_takes_every_kind_of_picture(pictures):
    stylizer = Stylizer.load(device="cpu")
    expected = stylizer(pictures / "p.png", str(pictures / "s.png"))
    image = Image.open(pictures / "p.png")
    for same in (image, np.asarray(image), torch.from_numpy(np.array(image)).permute(2, 0, 1)):
        torch.testing.assert_close(stylizer(same, pictures / "s.png"), expected)
    as_float = np.asarray(image).astype(np.float32) / 255
    torch.testing.assert_close(stylizer(as_float, pictures / "s.png"), expected)
    picture = stylizer.picture(image, pictures / "s.png")
    assert isinstance(picture, Image.Image) and picture.size == image.size
    save_image(expected, pictures / "saved.png")
    assert np.array_equal(np.asarray(picture), np.asarray(Image.open(pictures / "saved.png")))


def test_views_work_and_results_are_ordinary_tensors(pictures):
    stylizer = Stylizer.load(device="cpu")
    image = np.asarray(Image.open(pictures / "p.png"))
    turned = stylizer(image[:, ::-1], pictures / "s.png")
    assert torch.equal(turned, stylizer(image[:, ::-1].copy(), pictures / "s.png"))
    turned.mul_(255)
    pixels = turned.requires_grad_()
    pixels.square().sum().backward()
    assert pixels.grad is not None


@pytest.mark.parametrize(
    "picture, words",
    [
        (None, "a path, a Pillow image"),
        (("a.png", "b.png"), "give several styles as a list"),
        (np.full((8, 8, 3), 200.0), "divide levels by 255"),
        (np.full((8, 8, 3), np.nan), "divide levels by 255"),
        (np.zeros((0, 8, 3)), "expected an image"),
    ],
)
def test_what_is_no_picture_is_said(picture, words):
    from stylenet.applying.stylizer import to_batch
    from stylenet.errors import UsageError

    with pytest.raises(UsageError, match=words):
        to_batch(picture)


@pytest.mark.parametrize("wrong", [{"precision": "half"}, {"tile": "big"}, {"tile": -5}])
def test_wrong_settings_are_said(wrong):
    from stylenet.errors import UsageError

    with pytest.raises(UsageError, match=f"as {next(iter(wrong))}, but"):
        Stylizer.load(device="cpu", **wrong)


@pytest.mark.parametrize("shape", [(4, 4), (3, 8, 8), (8, 8, 4)])
def test_an_array_of_another_shape_is_refused(shape):
    from stylenet.applying.stylizer import to_batch
    from stylenet.errors import UsageError

    with pytest.raises(UsageError, match="expected an image"):
        to_batch(np.zeros(shape, dtype=np.uint8))


def test_the_commit_is_that_of_this_code():
    commit = runtime.git_commit()
    assert commit is None or len(commit.removesuffix("+dirty")) == 40
    assert runtime.versions()["stylenet"] == stylenet.__version__
