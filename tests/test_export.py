"""Exports: onnxruntime and torch.export give what the network gives, at any size."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, draw
from PIL import Image

from stylenet import Stylizer
from stylenet.applying import export
from stylenet.applying.stylizer import SHIPPED_MODEL, load_network
from stylenet.errors import UsageError
from stylenet.models.families import family_of
from stylenet.models.fusion import FusionNet
from stylenet.models.johnson import JohnsonNet

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
SIZES = [((48, 64), (40, 40)), ((97, 133), (45, 120))]


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["included", "vgg"])
def model(request, trained_run):
    return SHIPPED_MODEL if request.param == "included" else trained_run


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The ONNX files of a model."""
    target = tmp_path_factory.mktemp("exported") / "mine.onnx"
    made = export.export(model, target)
    assert [path.name for path in made] == ["mine.onnx", "mine.style.onnx", "mine.codes.onnx"]
    return made


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_onnx_equals_the_network(model, exported, sizes, alpha):
    stylizer = Stylizer.load(model, device="cpu")
    by_picture, of_style, by_codes = map(onnxruntime.InferenceSession, exported)
    content = image(1, 3, *sizes[0])
    styles = [image(1, 3, *sizes[1], seed=i) for i in (1, 2)]
    strength = np.array(alpha, np.float32)
    inputs = {"content": content.numpy(), "style": styles[0].numpy(), "alpha": strength}
    (output,) = by_picture.run(None, inputs)
    expected = stylizer(content, styles[0], alpha=alpha).numpy()
    assert np.abs(output - expected).max() < 1e-4

    codes = [of_style.run(None, {"style": style.numpy()}) for style in styles]
    rows = {f"code_{i}": np.concatenate(parts) for i, parts in enumerate(zip(*codes))}
    mixture = np.array([1, 3], np.float32)
    inputs = {"content": content.numpy(), "mixture": mixture, "alpha": strength, **rows}
    (output,) = by_codes.run(None, inputs)
    expected = stylizer(content, styles, alpha=alpha, mixture=[1, 3]).numpy()
    assert np.abs(output - expected).max() < 1e-4


def test_an_exported_program_equals_the_network(tmp_path):
    net = load_network(SHIPPED_MODEL)
    graph = export.graphs(family_of(net).make_fast(net, torch.device("cpu"), torch.float32))[0]
    export.write_program(graph, tmp_path / "mine.pt2")
    program = torch.export.load(tmp_path / "mine.pt2").module()
    content, style = image(1, 3, 70, 55), image(1, 3, 64, 90, seed=1)
    with torch.no_grad():
        output = program(content=content, style=style, alpha=torch.tensor(0.5))
    expected = Stylizer.load(device="cpu")(content, style, alpha=0.5)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)


def test_a_network_for_one_style_takes_a_content_alone():
    net = JohnsonNet((4, 6, 8), 1, generator=torch.Generator().manual_seed(0)).eval()
    (graph,) = export.graphs(net)
    program = export.program_of(graph).module()
    content = image(1, 3, 41, 66)
    with torch.no_grad():
        torch.testing.assert_close(
            program(content=content), Stylizer(net, "cpu")(content, ()), rtol=0, atol=1e-4
        )


def test_the_example_of_the_documentation(exported, tmp_path):
    text = (ROOT / "docs/export.md").read_text()
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "sys" in code)
    assert set(re.findall(r"^(?:import|from) (\w+)", example, re.M)) == {
        "sys",
        "numpy",
        "onnxruntime",
        "PIL",
    }
    (tmp_path / "example.py").write_text(example)
    draw(tmp_path / "c.png", 1, 60, 40)
    draw(tmp_path / "s.png", 2, 40, 50)
    arguments = ["example.py", str(exported[0]), "c.png", "s.png", "out.png"]
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out.png").size == (768, 512)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "write_onnx", lambda graph, file: file.write_bytes(b"graph"))
    assert export.main([]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == [
        "compact.codes.onnx",
        "compact.onnx",
        "compact.style.onnx",
    ]
    assert "wrote compact.onnx" in capsys.readouterr().out


def test_a_failure_leaves_the_files_as_they_were(tmp_path, monkeypatch):
    def write(graph, file):
        if graph.ending == ".codes":
            raise RuntimeError("full")
        file.write_bytes(b"new")

    monkeypatch.setattr(export, "write_onnx", write)
    for name in ("m.onnx", "m.style.onnx", "m.codes.onnx"):
        (tmp_path / name).write_bytes(b"old")
    with pytest.raises(RuntimeError, match="full"):
        export.export(SHIPPED_MODEL, tmp_path / "m.onnx")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"old"] * 3


def test_what_cannot_be_exported_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="ending in .onnx"):
        export.export(SHIPPED_MODEL, tmp_path / "mine.pt2")
    with pytest.raises(UsageError, match="expected one of onnx"):
        export.export(SHIPPED_MODEL, tmp_path / "mine.tflite", "tflite")
    with pytest.raises(UsageError, match="AdaIN"):
        export.graphs(FusionNet((4, 6, 8), 1))
    assert not list(tmp_path.iterdir())
