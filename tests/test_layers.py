"""The order of the packages, read from every import of the tree: arrows run down, and none in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# What stands in a line may use what stands above it, or before it in its line.
LAYERS = (
    "proposals",
    "words table terminal measuring cores threads ahead progress invocation",
    "config model_files device settings data",
    "drawing detections formats suppression",
    "evaluation analysis report",
    "views network regions scores",
    "checkpoint class_order rejection members scoring multibox classification",
    "extraction operating_points pipeline importing",
    "experiments",
    "trace",
    "training",
    "doctor drafts",
    "commands",
    "tools",
)
ORDER = [name for layer in LAYERS for name in layer.split()]


class Import(NamedTuple):
    """One import: the importing module, the imported one, and whether type checkers alone see it."""

    source: str
    target: str
    typing: bool


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PATHS = {
    module_name(path): path for top in ("proposals", "detector", "tools") for path in sorted((ROOT / top).rglob("*.py"))
}


def imports_of(module: str) -> Iterator[Import]:
    """All imports of a module, those inside functions too."""
    tree = ast.parse(PATHS[module].read_text())
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in PATHS else str(node.module) for name in names]
        for name in names:
            yield Import(module, name, id(node) in typing)


IMPORTS = [one for module in PATHS for one in imports_of(module)]
OWN = [one for one in IMPORTS if one.target in PATHS and one.target != one.source]


def unit(module: str) -> str:
    """A package or module of detector, else the whole package."""
    first, *rest = module.split(".")
    return rest[0] if first == "detector" and rest else first


def test_every_part_has_its_place() -> None:
    """A new module is entered above, where it belongs."""
    assert len(set(ORDER)) == len(ORDER)
    assert {unit(module) for module in PATHS} - {"detector"} == set(ORDER)


def test_arrows_run_down() -> None:
    rank = {name: place for place, name in enumerate(ORDER)}
    up = [
        f"{one.source} imports {one.target}"
        for one in OWN
        if unit(one.source) != unit(one.target)
        and "detector" not in (one.source, one.target)  # the package itself names what it offers, and imports it lazily
        and rank[unit(one.source)] < rank[unit(one.target)]
    ]
    assert up == []


def test_no_circles() -> None:
    arrows: dict[str, set[str]] = {module: set() for module in PATHS}
    for one in OWN:
        if not one.typing:
            arrows[one.source].add(one.target)
    list(TopologicalSorter(arrows).static_order())  # raises for a circle, and names it


def test_packages_stand_alone() -> None:
    for one in IMPORTS:
        top, target = one.source.partition(".")[0], one.target.partition(".")[0]
        assert (top, target) not in {("proposals", "detector"), ("proposals", "tools"), ("detector", "tools")}, one


@pytest.mark.parametrize("package", [module for module, path in PATHS.items() if path.name == "__init__.py"])
def test_no_module_has_the_name_of_an_export(package: str) -> None:
    tree = ast.parse(PATHS[package].read_text())
    exported = {
        ast.literal_eval(item)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(name, ast.Name) and name.id == "__all__" for name in node.targets)
        for item in ast.walk(node.value)
        if isinstance(item, ast.Constant)
    }
    assert not [name for name in exported if f"{package}.{name}" in PATHS]


# ---- scoring without torch


def reached(modules: list[str]) -> set[str]:
    """The modules and what they import, step by step; with a module its packages."""
    found: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module in found:
            continue
        found.add(module)
        parent = module.rpartition(".")[0]
        todo += [parent] * bool(parent)
        if module in PATHS:
            todo += [one.target for one in imports_of(module) if not one.typing]
    return found


TORCH_FREE = ("detector.evaluation", "detector.analysis", "detector.report")


def torch_free() -> list[str]:
    return [
        module for module in PATHS if module.startswith(("detector.evaluation", "detector.analysis", "detector.report"))
    ]


def test_evaluation_and_report_reach_no_torch() -> None:
    assert len(torch_free()) > 15
    assert not {name.partition(".")[0] for name in reached(torch_free())} & {"torch", "torchvision", "onnxruntime"}


def test_evaluation_and_report_import_where_torch_cannot_be() -> None:
    names = [*torch_free(), "detector.experiments.evaluation_run"]
    program = f"import sys, importlib; sys.modules['torch'] = None; [importlib.import_module(n) for n in {names}]"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
