"""YAML whose words keep their spelling, and their conversion to the type of a setting.

In: YAML.  Out: mappings, lists, texts, and a Word for each word that YAML reads as a number, a bool or null; `typed`
converts them to the setting's type. A text stays as it is written: YAML alone would turn the class names no, 010, 1e3
and 12:30 into other values.
"""

from __future__ import annotations

import json
import re
import shlex
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml  # type: ignore[import-untyped]

QUOTING = ". A text with one of : # & * ! @ % ` | > [ ] { } , in it belongs in quotes"


@dataclass(frozen=True)
class Word:
    """A word that YAML does not read as text.

    Attributes:
        text: The word as it is written.
        value: The number, bool or None that YAML reads.
    """

    text: str
    value: Any

    def __repr__(self) -> str:
        return repr(self.value)


class Misfit(Exception):
    """A value that does not fit the type of its setting."""


class Unquoted(Exception):
    """A value that YAML does not read as text, in place of a text; the argument is the value."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain values, a Word for each word that is no text, and keys as they are written."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            problem = "a key must be one word" if not isinstance(key, yaml.ScalarNode) else ""
            problem = problem or (f"found duplicate key {key.value}" if key.value in seen else "")
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        self.flatten_mapping(node)  # "<<"
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


for _kind in ("bool", "int", "float", "null"):
    _read = getattr(yaml.constructor.SafeConstructor, f"construct_yaml_{_kind}")
    _Loader.add_constructor(
        f"tag:yaml.org,2002:{_kind}", lambda loader, node, read=_read: Word(node.value, read(loader, node))
    )
for _kind in ("merge", "value"):  # "<<" and "=" outside the places where they mean something
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", lambda loader, node: node.value)
# At once and not step by step, so that an alias that contains itself is an error.
_Loader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True))
_Loader.add_constructor("tag:yaml.org,2002:seq", lambda loader, node: loader.construct_sequence(node, deep=True))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # 1e-3 and 1.5e3, which YAML 1.1 takes for texts
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str) -> Any:  # whatever YAML can state
    """Parse a YAML document; its keys are texts.

    Raises:
        yaml.YAMLError: the document is malformed, or a key occurs twice, is not one word, or an alias contains itself.
    """
    return yaml.load(text, _Loader)


def typed(hint: Any, value: Any, *, top: bool = True) -> Any:
    """Convert a value of YAML to a setting's type.

    Args:
        hint: The type: a number, bool, text, path, enum (by name), a list, tuple or dict of these, a dataclass X,
            "X | tuple[X, ...]", or one of them "| None".
        value: A value that parse_yaml returned.
        top: Whether the value is a setting of its own and not an item: an unquoted null is then no text.

    Raises:
        Unquoted: a text is needed, and YAML reads something else.
        Misfit: the value does not fit the type.
    """
    kind = without_none(hint)
    is_none = value is None or (isinstance(value, Word) and value.value is None)
    if is_none and kind is not hint:
        return None
    if isinstance(kind, type) and issubclass(kind, (str, Path, Enum)):
        if isinstance(value, Word):
            if not value.text or (top and is_none):
                raise Unquoted(value)
            value = value.text
        if not isinstance(value, str):
            raise Misfit if value is None or issubclass(kind, Enum) else Unquoted(value)
        if issubclass(kind, Enum):
            if value not in kind.__members__:
                raise Misfit
            return kind[value]
        return kind(value)
    item = item_of(kind)
    if item is not None:
        if value == []:
            raise Misfit
        kind = _options(kind)[isinstance(value, list)]
    if is_section(kind):
        hints = hints_of(kind)
        if not isinstance(value, Mapping) or not value.keys() <= hints.keys():
            raise Misfit
        return kind(**{name: typed(hints[name], item, top=False) for name, item in value.items()})
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise Misfit
        return {name: typed(get_args(kind)[1], item, top=False) for name, item in value.items()}
    if get_origin(kind) in (list, tuple):
        if not isinstance(value, list):
            raise Misfit
        items = get_args(kind)
        items = items if get_origin(kind) is tuple and Ellipsis not in items else items[:1] * len(value)
        if len(items) != len(value):
            raise Misfit
        return get_origin(kind)(typed(one, item, top=False) for one, item in zip(items, value, strict=True))
    try:
        return msgspec.convert(value.value if isinstance(value, Word) else value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Misfit from error


def is_section(kind: Any) -> bool:
    """Whether a type is a dataclass, a section of settings."""
    return is_dataclass(kind)


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    """Return the type of each field of a dataclass by name, in their order."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union; none for any other type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def item_of(kind: Any) -> Any:
    """Return X of "X | tuple[X, ...]", a section or a list of such sections; None for any other type."""
    options = _options(kind)
    if len(options) == 2 and is_section(options[0]) and get_args(options[1]) == (options[0], ...):
        return options[0]
    return None


def without_none(hint: Any) -> Any:
    """Return X of "X | None", else the hint itself."""
    options = _options(hint)
    return Union[tuple(one for one in options if one is not type(None))] if type(None) in options else hint  # noqa: UP007


def unquoted(label: str, value: Any, found: Any, *, is_override: bool) -> str:
    """Say that a setting needs a text in quotes, and how to write it.

    Args:
        label: Name of the setting.
        value: The whole value of the setting.
        found: The part of it that YAML does not read as text.
        is_override: Whether the setting is on the command line, where the advice is quoted for the shell too.
    """
    text = _written(found)
    if isinstance(found, Word):
        problem = f"must be text, {f'not {text}' if text else 'and nothing is stated'}"
    else:
        problem = f"must be text, and YAML reads {'a list' if isinstance(found, list) else 'a key and its value'} here"
    texts = [_written(item) for item in value] if isinstance(value, list) else []
    if is_override and texts and None not in texts:
        return f"{problem}. Put it in quotes: {list_override(label, [str(item) for item in texts])}"
    quoted = "" if text is None else json.dumps(text, ensure_ascii=False)
    if is_override and quoted:
        return f"{problem}. Put it in quotes: {shlex.quote(f'{label}={quoted}')}"
    return f"{problem}. Put it in quotes{f': {quoted}' * bool(quoted)}"


def _written(value: Any) -> str | None:
    """Return the text that a value of YAML was probably meant as; None where that is unknown."""
    if isinstance(value, Word):
        return value.text or None
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, item),) = value.items()
        after = _written(item)
        return None if after is None else f"{key}: {after}"
    return value if isinstance(value, str) else None


def list_override(key: str, texts: Sequence[str]) -> str:
    """Return the command-line words that set a list of texts, quoted for YAML and the shell where needed.

    >>> list_override("data.classes", ["cat", "dog"])
    'data.classes=[cat,dog]'
    >>> print(list_override("data.classes", ["no", "x: y"]))
    'data.classes=[no,"x: y"]'
    """
    items = [text if re.fullmatch(r"\w[\w./+-]*", text) else json.dumps(text, ensure_ascii=False) for text in texts]
    plain = all(re.fullmatch(r"[\w./+-]+", item) for item in items)
    override = f"{key}=[{','.join(items)}]"
    return override if plain else shlex.quote(override)
