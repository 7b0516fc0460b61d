"""The examples that users copy: in docstrings, in README.md and in docs/."""

from __future__ import annotations

import doctest
import importlib
import json
import re
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


def blocks() -> list[tuple[str, int, str]]:
    """(file, number, code) of each block of Python in the pages for users."""
    return [
        (page, number, block.split("```")[0])
        for page in ("README.md", "docs/python.md", "docs/recipes.md", "proposals/README.md")
        for number, block in enumerate((ROOT / page).read_text().split("```python\n")[1:])
    ]


@pytest.fixture(scope="module")
def names() -> dict[str, dict[str, Any]]:
    """The names that the blocks of a page have defined so far."""
    return {page: {} for page, _, _ in blocks()}


@pytest.mark.parametrize(("page", "number", "code"), blocks(), ids=[f"{page} {number}" for page, number, _ in blocks()])
def test_the_pages_examples_run_in_order(
    page: str,
    number: int,
    code: str,
    names: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in ("supervision", "fiftyone", "torchmetrics"):
        if re.search(rf"^(import|from) {package}\b", code, re.MULTILINE):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "photo.jpg").symlink_to(ROOT / "examples" / "chelsea.jpg")
    exec(compile(code, page, "exec"), names[page])
    found = names[page].get("found")
    if "print(" in code and found is not None:
        assert len(found) > 0


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
