"""YAML whose words keep how they are written, so that a text is what its author typed.

In: YAML.  Out: mappings, lists, texts, and a Word for each word that YAML reads as a number, a bool or null; as_typed
then takes it as its setting's type says. YAML alone would turn the class names no, 010, 1e3 and 12:30 into others.
"""

from __future__ import annotations

import json
import re
import shlex
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]

QUOTING = ". A text with one of : # & * ! @ % ` | > [ ] { } , in it belongs in quotes"


@dataclass(frozen=True)
class Word:
    """A word that YAML reads as something else than text; which is meant depends on the setting.

    Attributes:
        text: as it is written.
        value: as YAML reads it: a number, a bool or None.
    """

    text: str
    value: Any

    def __repr__(self) -> str:
        return repr(self.value)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain values, words that are no text as Word, and keys as they are written."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        self.flatten_mapping(node)  # "<<"
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


for _kind in ("bool", "int", "float", "null"):
    _read = getattr(yaml.constructor.SafeConstructor, f"construct_yaml_{_kind}")
    _Loader.add_constructor(
        f"tag:yaml.org,2002:{_kind}", lambda loader, node, read=_read: Word(node.value, read(loader, node))
    )
for _kind in ("merge", "value"):  # "<<" and "=" outside the places where they mean something
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", lambda loader, node: node.value)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # 1e-3 and 1.5e3, which YAML 1.1 takes for texts
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str) -> Any:  # what YAML can state
    """A YAML document; its keys are texts.

    Raises:
        yaml.YAMLError: it is malformed, or a key stands twice, is no word, or an alias holds itself.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node, (), set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_nodes(node: Any, above: tuple[Any, ...], checked: set[int]) -> None:
    if node in above:
        raise yaml.constructor.ConstructorError(None, None, "an alias holds itself", node.start_mark)
    if id(node) in checked or isinstance(node, yaml.ScalarNode):
        return
    checked.add(id(node))
    children = node.value
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {key.value}", key.start_mark)
            seen.add(key.value)
        children = [value for _, value in node.value]
    for child in children:
        _check_nodes(child, (*above, node), checked)


def as_typed(hint: Any, value: Any, *, top: bool = True) -> Any:
    """A value in which each word is what its setting's type says: text as written, else as YAML reads it.

    Raises:
        Unquoted: where text belongs there is something that cannot be meant as one.
    """
    kind = without_none(hint)
    if isinstance(value, Word):
        takes_none = kind is not hint
        is_text = kind is Path or (isinstance(kind, type) and issubclass(kind, (str, Enum)))
        if not is_text or (takes_none and value.value is None):
            return value.value
        if not value.text or (top and value.value is None):  # [null] can only be a text; "name: null" could be neither
            raise Unquoted(value)
        return value.text
    if isinstance(value, Mapping):
        if kind is str or kind is Path:
            raise Unquoted(value)
        known = get_type_hints(kind) if is_dataclass(kind) else {}
        below = get_args(kind)[1] if get_origin(kind) is dict else Any
        return {name: as_typed(known.get(name, below), item, top=False) for name, item in value.items()}
    if isinstance(value, list):
        if kind is str or kind is Path:
            raise Unquoted(value)
        items = get_args(kind) if get_origin(kind) in (list, tuple) else ()
        hints = items if len(items) == len(value) and Ellipsis not in items else (*items[:1], Any)[:1] * len(value)
        return [as_typed(one, item, top=False) for one, item in zip(hints, value, strict=True)]
    return value


class Unquoted(Exception):
    """Something of YAML's own where a text belongs; the argument is it."""


def _written(value: Any) -> str | None:
    """The text that a value of YAML was probably meant as; None where there is no telling."""
    if isinstance(value, Word):
        return value.text or None
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, item),) = value.items()
        after = _written(item)
        return None if after is None else f"{key}: {after}"
    return value if isinstance(value, str) else None


def unquoted(label: str, value: Any, found: Any, *, is_override: bool) -> str:
    """What to say of YAML's own where a text belongs."""
    if isinstance(found, Word):
        problem = "must be text, and nothing is stated" if not found.text else f"must be text, not {found.text}"
        quoted = f'"{found.text}"'
    else:
        kind = "a list" if isinstance(found, list) else "a key and its value"
        problem, text = f"must be text, and YAML reads {kind} here", _written(found)
        quoted = "" if text is None else json.dumps(text, ensure_ascii=False)
    texts = [_written(item) for item in value] if isinstance(value, list) else []
    if is_override and texts and None not in texts:
        return f"{problem}. Put it in quotes: {list_override(label, cast(list[str], texts))}"
    if is_override and quoted:
        return f"{problem}. Put it in quotes: {shlex.quote(f'{label}={quoted}')}"
    return f"{problem}. Put it in quotes{f': {quoted}' * bool(quoted)}"


def list_override(key: str, texts: Sequence[str]) -> str:
    """The words that set a list of texts on a command line, quoted for YAML and the shell where they must be.

    >>> list_override("data.classes", ["cat", "dog"])
    'data.classes=[cat,dog]'
    >>> print(list_override("data.classes", ["no", "x: y"]))
    'data.classes=[no,"x: y"]'
    """
    items = [text if re.fullmatch(r"\w[\w./+-]*", text) else json.dumps(text, ensure_ascii=False) for text in texts]
    plain = all(re.fullmatch(r"[\w./+-]+", item) for item in items)
    override = f"{key}=[{','.join(items)}]"
    return override if plain else shlex.quote(override)


def without_none(hint: Any) -> Any:
    """X of "X | None", else the hint itself."""
    if get_origin(hint) in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        return options[0] if len(options) == 1 else hint
    return hint
