"""Completion of a command line by the Tab key: sub-commands, options, presets, models, settings.

argcomplete, an optional extra, asks the parsers. The keys of a configuration are read from the source of its dataclass
instead of by importing it, because trainings import torch and Tab must answer at once.
"""

from __future__ import annotations

import argparse
import ast
import os
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).resolve().parent.parent.parent


def complete(parser: argparse.ArgumentParser, *, after: int = 0) -> None:
    """Answer the shell and end the process, if it is the shell that asks; otherwise do nothing.

    Args:
        parser: The parser of the command.
        after: Number of words of the line, behind the program's own, that stand before the command's.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    os.environ["_ARGCOMPLETE"] = str(int(os.environ["_ARGCOMPLETE"]) + after)
    for action in parser._actions:
        if action.dest == "config":
            action.completer = _presets  # type: ignore[attr-defined]
        elif action.dest == "overrides" or action.metavar == "file | key=value":
            action.completer = _settings(parser, with_files=action.dest == "source")  # type: ignore[attr-defined]
        elif action.metavar == "NAME" and action.dest == "name":
            action.completer = _models  # type: ignore[attr-defined]
        elif action.dest == "device":
            action.completer = lambda **_: ["auto", "cpu", "cuda", "mps"]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options="long")


def command_of_line(commands: Collection[str]) -> str:
    """Return the command in a line that the shell asks to complete; empty if it has none yet, or no shell asks."""
    if "_ARGCOMPLETE" not in os.environ:
        return ""
    point = int(os.environ.get("COMP_POINT") or 0) or None
    words = os.environ.get("COMP_LINE", "")[:point].split(" ")
    done = [word for word in words[int(os.environ["_ARGCOMPLETE"]) : -1] if word]
    return done[0] if done and done[0] in commands else ""


def _presets(prefix: str, **_: Any) -> list[str]:
    from argcomplete.completers import FilesCompleter

    from detector.config import PRESETS

    folder = next((one for one in PRESETS if one.is_dir()), PRESETS[0])
    return sorted(file.stem for file in folder.glob("*.yaml")) + list(FilesCompleter(("yaml", "yml"))(prefix))


def _models(prefix: str, **_: Any) -> list[str]:
    from argcomplete.completers import FilesCompleter

    from detector.model_files import FORMATS, runs_with_weights, shipped_names

    names = [*shipped_names(FORMATS), *map(str, runs_with_weights())]
    return names + list(FilesCompleter(("safetensors",))(prefix))


def _settings(parser: argparse.ArgumentParser, *, with_files: bool) -> Any:
    def completer(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        schema = parser.get_default("schema")
        if callable(schema):
            if parsed_args.config is None:
                parsed_args.config = parser.get_default("config")
            parsed_args.overrides = []
            schema = schema(parsed_args)
        found = [f"{key}={value}" for key, values in keys_of(schema).items() for value in values or ("",)]
        if with_files:
            from argcomplete.completers import FilesCompleter

            found += FilesCompleter()(prefix)
        return found

    return completer


@cache
def keys_of(schema: str) -> dict[str, tuple[str, ...]]:
    """Return the dotted keys of a configuration, and of those with few values these; empty for any other.

    Args:
        schema: The class as "module:class"; empty for none.
    """
    if not schema:
        return {}
    module, _, name = schema.partition(":")
    return dict(_keys(module, name, ""))


def _keys(module: str, name: str, above: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the keys of a dataclass and of its bases, and their values, from source."""
    where, body = _class(module, name)
    if body is None:
        return
    for base in body.bases:
        if isinstance(base, ast.Name):
            yield from _keys(where, base.id, above)
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(node.annotation):
            continue
        key, names = above + node.target.id, list(_names(where, node.annotation))
        classes = [(place, found) for place, found in (_class(*one) for one in names) if found is not None]
        words = {word for _, word in names}
        if "bool" in words:
            yield key, ("true", "false")
        elif classes and _is_enum(classes[0][1]):
            members = (one.targets[0] for one in classes[0][1].body if isinstance(one, ast.Assign))
            yield key, tuple(one.id for one in members if isinstance(one, ast.Name))
        elif classes:
            yield from _keys(classes[0][0], classes[0][1].name, f"{key}.{'NAME.' if 'dict' in words else ''}")
        else:
            yield key, ()


def _class(module: str, name: str) -> tuple[str, ast.ClassDef | None]:
    """Find the source of a class that a module defines or imports from this project; returns its module too."""
    tree = _source(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and name in [one.name for one in node.names]:
            return _class(node.module, name)
    return module, None


def _names(module: str, hint: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names in a type, each with a module that knows it; an alias gives those that it stands for."""
    for one in ast.walk(hint):
        if isinstance(one, ast.Name):
            place, meaning = _alias(module, one.id)
            yield from [(module, one.id)] if meaning is None else _names(place, meaning)


def _alias(module: str, name: str) -> tuple[str, ast.expr | None]:
    """Find what a module, or one that it imports from, names by an alias; None for what is no alias."""
    tree = _source(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return module, node.value
        if isinstance(node, ast.ImportFrom) and node.module and name in [one.name for one in node.names]:
            return _alias(node.module, name)
    return module, None


@cache
def _source(module: str) -> ast.Module | None:
    path = PACKAGES / Path(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if module.startswith(("detector", "proposals")) and file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _is_enum(body: ast.ClassDef) -> bool:
    return any("Enum" in ast.unparse(base) for base in body.bases)
