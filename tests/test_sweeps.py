"""Sweep files as W&B reads them: expansion, command lines, mistakes, shipped ablations."""

import re
import string

import pytest
import yaml
from conftest import ROOT

from stylenet.config.training import Config
from stylenet.errors import UsageError
from stylenet.training import sweeps

FILES = sorted((ROOT / "configs/ablations").glob("*.yaml"))
BASE = {"program": "train.py", "method": "grid", "parameters": {"run.seed": {"values": [0, 1]}}}


def write(tmp_path, **changes):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(BASE | changes))
    return path


def test_grid_takes_every_combination(tmp_path):
    parameters = {
        "decoder.norm": {"values": ["none", "batch"]},
        "optim.lr": {"value": 1e-4},
        "run.seed": {"values": [0, 1]},
    }
    sweep = sweeps.read_sweep(write(tmp_path, parameters=parameters))
    cells = sweeps.expand(sweep)
    assert [(cell["decoder.norm"], cell["run.seed"]) for cell in cells] == [
        ("none", 0),
        ("none", 1),
        ("batch", 0),
        ("batch", 1),
    ]
    assert {cell["optim.lr"] for cell in cells} == {1e-4}
    assert sweeps.varied(sweep) == ["decoder.norm", "run.seed"]
    assert sweeps.label(cells[2], ["decoder.norm"]) == "norm=batch"


def test_random_draws_within_bounds_and_by_seed(tmp_path):
    parameters = {
        "optim.lr": {"min": 1e-5, "max": 1e-2, "distribution": "log_uniform_values"},
        "data.batch_size": {"min": 2, "max": 4},
        "loss.style_weight": {"min": 0.5, "max": 2.5},
        "decoder.norm": {"values": ["none", "batch"], "probabilities": [0.0, 1.0]},
    }
    sweep = sweeps.read_sweep(write(tmp_path, parameters=parameters, method="random", run_cap=60))
    cells = sweeps.expand(sweep)
    assert cells == sweeps.expand(sweep) != sweeps.expand(sweep, seed=1)
    assert len(cells) == 60 and {cell["data.batch_size"] for cell in cells} == {2, 3, 4}
    assert all(
        1e-5 <= cell["optim.lr"] <= 1e-2 and 0.5 <= cell["loss.style_weight"] <= 2.5
        for cell in cells
    )
    assert sum(cell["optim.lr"] < 10**-3.5 for cell in cells) in range(
        15, 46
    )  # half of them below the middle of the decades
    assert {cell["decoder.norm"] for cell in cells} == {"batch"}


def test_command_macros(tmp_path):
    cell = {"optim.lr": 1e-05, "encoder.calibrate": True, "loss.style_tap_weights": [1, 2]}
    command = ["${env}", "python", "${program}", "--config", "x.yaml", "${args_no_hyphens}"]
    sweep = sweeps.read_sweep(write(tmp_path, command=command))
    expected = [
        "--config",
        "x.yaml",
        "optim.lr=1e-05",
        "encoder.calibrate=True",
        "loss.style_tap_weights=[1, 2]",
    ]
    assert sweeps.arguments_of(sweep, cell) == expected
    default = sweeps.read_sweep(write(tmp_path))
    assert sweeps.arguments_of(default, {"optim.lr": 1e-05}) == ["--optim.lr=1e-05"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "bayes"}, "expected method grid or random"),
        ({"method": "random"}, "expected a run_cap"),
        ({"program": "other.py"}, "expected program: train.py"),
        ({"parameters": None}, "expected a W&B sweep with parameters"),
        (
            {"parameters": {"optim": {"parameters": {"lr": {"value": 1}}}}},
            "keys are dotted, not nested",
        ),
        ({"parameters": {"optim.lr": {"min": 0, "max": 1}}}, "a grid has no ranges"),
        (
            {"parameters": {"optim.lr": {"values": []}}},
            "expected a list of at least one value as values for optim.lr",
        ),
        (
            {"parameters": {"decoder.norm": {"values": "none"}}},
            "expected a list of at least one value",
        ),
        (
            {"parameters": {"run.seed": {"values": [0, 1], "probabilities": [0.5]}}},
            "expected one probability for each",
        ),
        ({"command": 5}, "expected a list as command"),
        ({"method": "random", "run_cap": 0}, "expected a run_cap"),
        (
            {"method": "random", "run_cap": 1, "parameters": {"optim.lr": {"min": 2, "max": 1}}},
            "min no larger than max",
        ),
        (
            {
                "method": "random",
                "run_cap": 1,
                "parameters": {
                    "optim.lr": {"min": 0, "max": 1, "distribution": "log_uniform_values"}
                },
            },
            "expected min above 0",
        ),
        (
            {
                "method": "random",
                "run_cap": 1,
                "parameters": {"optim.lr": {"min": 0, "max": 1, "distribution": "beta"}},
            },
            "expected a distribution out of uniform",
        ),
    ],
)
def test_mistakes(tmp_path, changes, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        sweeps.read_sweep(write(tmp_path, **changes))


@pytest.mark.parametrize("content", ["[1", "just text", ""])
def test_files_that_are_no_sweep(tmp_path, content):
    (tmp_path / "sweep.yaml").write_text(content)
    with pytest.raises(UsageError, match="expected a"):
        sweeps.read_sweep(tmp_path / "sweep.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        sweeps.read_sweep(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_ablations(path):
    """Every cell of every shipped file is a configuration that loads.

    The header has a runnable record.
    """
    text = path.read_text()
    sweep = sweeps.read_sweep(path)
    assert sweep.name == path.stem and (ROOT / f"configs/protocols/{sweep.protocol}.yaml").is_file()
    header = re.match(r"(#.*\n)+", text).group(0)
    assert f"python ablate.py configs/ablations/{path.name}" in header
    config = Config.load(ROOT / re.search(r"--config, (\S+),", text).group(1))
    scale = f"{config.train.steps:,} steps of {config.data.batch_size} pairs"
    # nobody starts more than was meant
    assert f"# Scale: {len(sweeps.expand(sweep))} cells of {scale}" in header
    for cell in sweeps.expand(sweep):
        *_, config_file = (
            part for part in sweeps.arguments_of(sweep, cell) if part.endswith(".yaml")
        )
        overrides = [part for part in sweeps.arguments_of(sweep, cell) if "=" in part]
        config = Config.load(ROOT / config_file, overrides)
        assert "{id}" in config.run.dir  # so that the cells of W&B's agents do not share a folder
    assert set(sweeps.varied(sweep)) > {"run.seed"}
    # W&B's own schema for sweep files allows these keys at the top and no other
    allowed = {
        "program",
        "project",
        "name",
        "method",
        "description",
        "command",
        "parameters",
        "run_cap",
        "metric",
        "entity",
    }
    assert yaml.safe_load(text).keys() <= allowed
    macros = {part for part in sweep.command if part.startswith("${")}
    assert macros <= {"${env}", "${interpreter}", "${program}", "${args}", "${args_no_hyphens}"}
    assert string.Template("${env}").template in sweep.command


def test_the_ablations_that_the_paper_calls_for_are_there():
    wanted = {
        "transform",
        "concat",
        "decoder_norm",
        "style_weight",
        "depth",
        "calibration",
        "padding",
        "loss_reduction",
        "johnson_norm",
        "fusion",
        "adversarial",
    }
    assert {path.stem for path in FILES} == wanted
