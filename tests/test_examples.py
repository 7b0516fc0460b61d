"""The examples that users copy: in docstrings, in README.md and in docs/."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for package in ("proposals", "detector")
    for path in (ROOT / package).rglob("*.py")
    if re.search(r"^\s*>>> ", path.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


OPTIONAL = ("supervision", "fiftyone", "torchmetrics")
"""Packages without which a block is left out."""


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/recipes.md", "proposals/README.md"])
def test_the_examples_of_a_page_run_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "photo.jpg").symlink_to(ROOT / "examples" / "chelsea.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, block in enumerate((ROOT / page).read_text().split("```python\n")[1:], 1):
        code = block.split("```")[0]
        imported = re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
        if any(name in OPTIONAL and find_spec(name) is None for name in imported):
            continue
        exec(compile(code, f"{page}, block {number}", "exec"), names)
        if "print(" in code and names.get("found") is not None:
            assert len(names["found"]) > 0


@pytest.mark.parametrize("notebook", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_in_order(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # what is shown depends on the machine
            exec(compile("".join(cell["source"]), notebook.name, "exec"), names)
    assert [one.name for one in names["found"]] == ["cat"]
    assert len(names["best"]) > 500
