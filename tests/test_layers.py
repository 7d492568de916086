"""Imports run downward only, in no circle, and importing has no effects."""

import ast
import sys

from conftest import ROOT, run_python

LEVELS = {
    "errors": 0,
    "sweeps": 1,
    "transforms": 1,
    "looks": 2,
    "losses": 2,
    "images": 1,
    "pipeline": 1,
    "clips": 2,
    "config": 1,
    "datasets": 3,
    "models": 3,
    "objective": 4,
    "runtime": 4,
    "checkpoint": 4,
    "tracking": 4,
    "optim": 1,
    "inference": 5,
    "jobs": 5,
    "record": 5,
    "build": 6,
    "pictures": 6,
    "training": 7,
    "video": 6,
    "metrics": 7,
}


def imports_of(path):
    """Modules of the package that a file imports, as (first part, full name)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stylenet"):
            names = [node.module] if node.module != "stylenet" else [f"stylenet.{alias.name}" for alias in node.names]
            found |= set(names)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("stylenet.")}
    return found


def package_files():
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in (ROOT / "stylenet").rglob("*.py") if p.stem != "__init__"
    }


def part(module):
    return module.split(".")[1]


def test_every_module_has_a_level():
    assert {part(module) for module in package_files()} == set(LEVELS)


def test_no_import_points_upward():
    for module, path in package_files().items():
        for imported in imports_of(path):
            same_part = part(imported) == part(module)
            assert same_part or LEVELS[part(imported)] < LEVELS[part(module)], f"{module} imports {imported}"


def test_no_circle_among_files():
    files = package_files()
    graph = {module: imports_of(path) & set(files) for module, path in files.items()}
    while leaves := [module for module, targets in graph.items() if not targets & set(graph)]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph


def test_formulas_and_transforms_are_pure():
    """They see tensors only: no file, no image library, no network but torch's own functions."""
    for name in ("transforms", "losses", "metrics/functional"):
        path = ROOT / f"stylenet/{name}.py"
        assert {part(module) for module in imports_of(path)} <= {"transforms", "losses"}, name
        assert not {"open(", "Path", "torchvision", "PIL"} & set(path.read_text().split()), name


def test_only_build_and_scripts_import_config():
    importers = {module for module, path in package_files().items() if "stylenet.config" in imports_of(path)}
    assert importers == {"stylenet.build"}


def test_help_imports_neither_torch_nor_wandb():
    code = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    print("torch" in sys.modules, "wandb" in sys.modules)
"""
    for script in ("train.py", "stylize.py", "eval.py", "ablate.py"):
        done = run_python("-c", code, script)
        assert done.stdout.splitlines()[-1] == "False False", done.stderr


def test_stylising_needs_neither_torchvision_nor_wandb_nor_config():
    unwanted = ("torchvision", "wandb", "matplotlib", "av", "stylenet.config")
    code = f"import stylenet.pictures, stylenet.video, sys; print([m for m in {unwanted} if m in sys.modules])"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_python_is_as_new_as_promised():
    assert sys.version_info >= (3, 11)
