"""Imports run downward only, in no circle, and importing has no effects."""

import ast
import re
import sys

from conftest import ROOT, run_python

# each name is a module or a folder of the package; imports run from a later line to an earlier one,
# never back
ORDER = """
errors
files shards
images
csv_files progress hub
runtime
transforms
losses optim motion colours
looks
models
objective
config
checkpoint tracking datasets
build
training applying
metrics
page
__main__
"""
LEVELS = {name: level for level, line in enumerate(ORDER.split("\n")) for name in line.split()}
CATALOGUE = "stylenet.metrics.catalogue"  # plain data; the configuration's choices are made of it


def is_for_types_only(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(tree):
    """Every node that runs: all but what stands under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if not is_for_types_only(node):
            yield node
            yield from statements(node)


def imported_names(path):
    """(module, name) of what a file imports from the package; a module has no name."""
    modules = set(package_files()) | packages()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stylenet"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, None) if whole in modules else (node.module, alias.name)
        if isinstance(node, ast.Import):
            yield from (
                (alias.name, None) for alias in node.names if alias.name.startswith("stylenet.")
            )


def imports_of(path):
    """Modules of the package that a file imports."""
    return {module for module, _ in imported_names(path) if module.count(".")}


def packages():
    folders = [p.parent for p in (ROOT / "stylenet").rglob("__init__.py")]
    return {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def package_files():
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts): p
        for p in (ROOT / "stylenet").rglob("*.py")
        if p.stem != "__init__"
    }


def part(module):
    return module.split(".")[1]


def test_every_module_has_a_level():
    assert {part(module) for module in package_files()} == set(LEVELS)


def test_no_import_points_upward():
    for module, path in package_files().items():
        for imported in imports_of(path) - {CATALOGUE}:
            same_part = part(imported) == part(module)
            assert same_part or LEVELS[part(imported)] < LEVELS[part(module)], (
                f"{module} imports {imported}"
            )


def test_training_and_metrics_do_not_meet():
    for module, path in package_files().items():
        if part(module) in ("metrics", "applying"):
            assert "training" not in {part(imported) for imported in imports_of(path)}, module


def defined_names(path):
    """The names that a module defines itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            found |= (
                {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
                if target is not None
                else set()
            )
    return found


def test_no_module_passes_on_what_it_imported():
    """A name is imported from, and asked of, the module that defines it."""
    files = package_files()
    for path in [
        *files.values(),
        *ROOT.glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "tests").glob("*.py"),
    ]:
        tree = ast.parse(path.read_text())
        rebound = {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        rebound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        aliases = {}
        for module, name in imported_names(path):
            if name and module in files:
                assert name in defined_names(files[module]), (
                    f"{path}: {name} is not defined in {module}"
                )
            elif name is None:
                aliases[module.rsplit(".", 1)[1]] = module
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and getattr(node.value, "id", None) in aliases.keys() - rebound
            ):
                module = aliases[node.value.id]
                is_known = (
                    module not in files
                    or node.attr in defined_names(files[module])
                    or path.parent.name == "tests"
                )
                assert is_known, f"{path}: {node.value.id}.{node.attr} is not defined in {module}"


def test_no_circle_among_files():
    files = package_files()
    graph = {module: imports_of(path) & set(files) for module, path in files.items()}
    while leaves := [module for module, targets in graph.items() if not targets & set(graph)]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph


def test_formulas_and_transforms_are_pure():
    """They see tensors only: no file, no image library, no network but torch's own functions."""
    for name in (
        "transforms",
        "losses",
        "metrics/functional",
        "metrics/formulas",
        "metrics/set_formulas",
    ):
        path = ROOT / f"stylenet/{name}.py"
        seen = {
            module
            for module in imports_of(path)
            if module not in ("stylenet.metrics", "stylenet.metrics.functional")
        }
        assert seen <= {"stylenet.transforms", "stylenet.losses"}, name
        assert not {"open(", "Path", "torchvision", "PIL"} & set(path.read_text().split()), name


def test_only_build_and_scripts_import_config():
    importers = {
        module
        for module, path in package_files().items()
        if part(module) != "config"
        and any(part(imported) == "config" for imported in imports_of(path))
    }
    assert importers == {"stylenet.build", "stylenet.applying.arguments"}  # the latter for --help


def test_only_families_knows_the_kinds_of_networks():
    """No other file names a network class or asks for model.name."""
    own = {
        "stylenet",
        "compact",
        "johnson",
        "fusion",
        "critic",
        "decoder",
        "fast",
        "tiles",
        "strips",
        "families",
    }
    for module, path in package_files().items():
        if module.startswith("stylenet.models.") and module.rsplit(".", 1)[1] in own:
            continue
        named = {
            getattr(node, "id", getattr(node, "name", None))
            for node in ast.walk(ast.parse(path.read_text()))
        }
        assert not named & {"StyleNet", "CompactNet", "Decoder", "JohnsonNet", "FusionNet"}, module
        assert not re.search(r"model\.name (==|!=|in)", path.read_text()), module


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
    code = (
        "import stylenet.applying.pictures, stylenet.applying.video, sys; print([m for m in "
        f"{unwanted} if m in sys.modules])"
    )
    assert run_python("-c", code).stdout.strip() == "[]"


def test_python_is_as_new_as_promised():
    assert sys.version_info >= (3, 11)


def house():
    """The tree of CONTRIBUTING.md: {part of the package: the modules that it names}."""
    block = (ROOT / "CONTRIBUTING.md").read_text().split("```")[1].split("stylenet/\n")[1]
    tree, folder = {}, None
    for line in block.splitlines():
        name, rest = line[2:33].split(), line[33:]
        if name:
            folder = name[0].rstrip("/") if name[0].endswith("/") else None
            tree |= {word.rstrip("/"): [] for word in name}
        if folder:
            words = rest.split(":")[-1].replace(",", " ").replace("/", " ").split()
            tree[folder] += words
    return tree


def test_contributing_shows_the_house_as_it_is():
    tree = house()
    parts = {path.stem for path in (ROOT / "stylenet").iterdir() if path.name != "__pycache__"}
    assert set(tree) == parts
    for folder in ("models", "config", "training", "applying", "metrics"):
        files = {path.stem for path in (ROOT / "stylenet" / folder).glob("*.py")} - {"__init__"}
        folders = {path.parent.name for path in (ROOT / "stylenet" / folder).glob("*/__init__.py")}
        assert set(tree[folder]) == files | folders, folder


def test_contributing_has_the_order_of_imports():
    order = [part for part in house() if part in LEVELS]
    levels = [LEVELS[part] for part in order if part != "__main__"]
    assert levels == sorted(levels) and set(order) == set(LEVELS)
