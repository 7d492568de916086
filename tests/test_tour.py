"""The notebook of the tour runs from top to bottom."""

import json

import torch
from conftest import ROOT

NOTEBOOK = ROOT / "docs/tour.ipynb"


def code_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_every_cell_runs(monkeypatch, vgg19_file):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("STYLENET_VGG19", str(vgg19_file))
    names = {}
    try:
        for cell in code_cells():
            exec(cell, names)
    finally:
        torch.set_grad_enabled(True)
    assert names["shown"].size[1] == 160 and names["aligned"].shape == names["features"].shape


def test_the_shown_pictures_are_small_and_the_outputs_have_no_errors():
    notebook = json.loads(NOTEBOOK.read_text())
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    assert len(outputs) > 8 and all(out["output_type"] != "error" for out in outputs)
    assert NOTEBOOK.stat().st_size < 400_000
