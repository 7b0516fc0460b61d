"""The pages: links, paths and commands of every Markdown file, and the comments of every config."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from detector.commands.arguments import parse
from detector.config import load_config

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "configs/*.md", "proposals/*.md", "detector/**/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
COMMENTED = [*PAGES, *sorted(path.relative_to(ROOT) for path in ROOT.glob("configs/*.yaml"))]
CODE_PATH = re.compile(
    r"\b(?:detector|proposals|tools|configs|tests|docs|examples)/[\w/.-]*\.(?:py|yaml|md|jpg|safetensors)\b"
)
TO_COME = {"FILE", "cells.yaml", "bccd.yaml"}  # configs that the reader has or makes
PAST = Path("CHANGELOG.md")  # names what is gone


def text_of(page: Path) -> str:
    return (ROOT / page).read_text()


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / name if name else ROOT / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors_of(linked.resolve().relative_to(ROOT)), target


@pytest.mark.parametrize("page", [page for page in COMMENTED if page != PAST], ids=str)
def test_paths(page: Path) -> None:
    for name in CODE_PATH.findall(text_of(page)):
        assert (ROOT / name).exists(), name


def commands_of(page: Path) -> list[list[str]]:
    """The `python tools/...` lines of a page or a config's comments, as words without what stands before the tool."""
    text = text_of(page)
    if page.suffix == ".md":
        text = "\n".join([*blocks_of(page, "sh"), *re.findall(r"`(python tools/[^`]*)`", text.replace("\n", " "))])
    else:
        text = "\n".join(re.findall(r"^# (python tools/.*)$", text, re.MULTILINE))
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        tools = [number for number, word in enumerate(words) if re.fullmatch(r"tools/[\w/]+\.py", word)]
        if tools:
            end = next((number for number, word in enumerate(words) if word == "&&" and number > tools[0]), len(words))
            found.append(words[tools[0] : end])
    return found


@cache
def help_of(tool: str) -> str:
    done = subprocess.run([sys.executable, tool, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", COMMENTED, ids=str)
def test_commands(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names a tool, options that it has and settings that load."""
    monkeypatch.chdir(ROOT)
    for tool, *words in commands_of(page):
        assert Path(tool).is_file(), tool
        if Path(tool).parent != Path("tools"):
            for word in words:
                assert not word.startswith("--") or word in help_of(tool), (tool, word)
            continue
        parser = import_module(f"detector.commands.{Path(tool).stem}").parser()
        options = parse(
            parser, [word for word in words if word not in ("--config", *TO_COME)] if {*words} & TO_COME else words
        )
        schema = options.schema if isinstance(options.schema, str) else options.schema(options)
        if schema and hasattr(options, "overrides"):
            module, _, name = schema.partition(":")
            overrides = list(options.overrides)
            if name == "ImagesConfig":  # its folder is the command's first word
                overrides.append(f"root={options.source[0]}")
            written = str(options.config).startswith("runs/")  # by a training that the page names before
            if (options.config or overrides) and not written:
                load_config(getattr(import_module(module), name), options.config, overrides)


def test_the_readme_is_short() -> None:
    assert len(text_of(Path("README.md")).splitlines()) <= 150


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "NOTICE.md"], ids=str)
def test_prose_fits_a_screen(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    long = [line for line in text.splitlines() if len(line) > 160 and not line.startswith("|")]
    assert not long


def test_a_cell_holds_one_number() -> None:
    for page in ("README.md", "docs/experiments.md", "docs/benchmarks.md", "docs/ilsvrc.md", "docs/training.md"):
        for line in text_of(Path(page)).splitlines():
            for cell in line.split("|")[1:-1] if line.startswith("|") else []:
                assert not re.search(r"^ *[\d.,]+[^|`a-z]*[;/] *[\d.,]+", cell), (page, cell)


def test_configs_are_listed() -> None:
    listed = text_of(Path("configs/README.md"))
    for path in ROOT.glob("configs/*.yaml"):
        assert f"]({path.name})" in listed, path.name
