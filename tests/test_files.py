"""write_whole: a file has its old content, its new content, or does not exist."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from proposals.files import write_whole


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with write_whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failure_keeps_the_old_content_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), write_whole(path) as temporary:
        temporary.write_text(str(1 // int(temporary.write_text("ne") == 0)))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_names_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")
    with write_whole(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_a_link_keeps_pointing_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("there")
    with write_whole(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "new"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no /dev/null on this system")
def test_a_device_is_written_directly() -> None:
    with write_whole(Path("/dev/null")) as temporary:
        temporary.write_text("x")
    assert Path("/dev/null").is_char_device()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_whole(tmp_path / "no/a.txt") as temporary:
        temporary.write_text("x")


WRITES = {"write_text", "write_bytes", "savez", "savez_compressed", "savefig", "imwrite", "save_file", "copyfile"}
MODULES = {"np", "torch", "json", "shutil"}


def is_write(call: ast.Call) -> bool:
    """Whether a call writes a file anew; appending, and what goes into memory or nowhere, does not."""
    function, given = call.func, [ast.unparse(argument) for argument in call.args]
    name = ast.unparse(function).rpartition(".")[2]
    if name == "open":
        return any(text[:2] in ("'w", "'x") for text in given) and "os.devnull" not in given
    if name in ("save", "dump"):
        return ast.unparse(function).partition(".")[0] in MODULES
    return name in WRITES and "buffer" not in given


def unprotected(tree: ast.AST, inside: bool = False) -> list[int]:
    """The lines that write a file outside a block of write_whole."""
    found = []
    if isinstance(tree, ast.With):
        opened = [item.context_expr for item in tree.items]
        inside = inside or any(
            isinstance(item, ast.Call) and isinstance(item.func, ast.Name) and item.func.id == "write_whole"
            for item in opened
        )
    if isinstance(tree, ast.Call) and is_write(tree) and not inside:
        found.append(tree.lineno)
    for child in ast.iter_child_nodes(tree):
        found += unprotected(child, inside)
    return found


@pytest.mark.parametrize("package", ["detector", "proposals", "tools"])
def test_every_file_is_written_whole(package: str) -> None:
    root = Path(__file__).parent.parent
    places = [
        f"{path.relative_to(root)}:{line}"
        for path in sorted((root / package).rglob("*.py"))
        for line in unprotected(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert places == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_told_with_the_file() -> None:
    with pytest.raises(OSError, match="No space left") as caught, write_whole(Path("/dev/full")) as path:
        path.write_text("a")
    assert caught.value.filename == "/dev/full"


def test_the_error_names_the_file_that_was_wanted(tmp_path: Path) -> None:
    """Not the temporary one, whose name the user never chose."""
    with pytest.raises(FileNotFoundError) as caught, write_whole(tmp_path / "no folder/a.txt") as part:
        part.write_text("x")
    assert caught.value.filename == str(tmp_path / "no folder/a.txt")
