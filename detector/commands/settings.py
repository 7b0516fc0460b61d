"""Print a configuration: every key with type, default and documentation, or the resolved values as YAML.

The documentation is that of the dataclasses: the `Attributes:` section of each docstring, base classes included.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

from detector.config import MISSING as REQUIRED
from detector.config import load_config, to_yaml
from detector.words import item_of, without_none

WIDTH = 110


@dataclass(frozen=True)
class Setting:
    """One key of a configuration.

    Attributes:
        key: Dotted, as the command line takes it; NAME stands for a name of the user's choice.
        kind: Type or choices; empty for a section.
        default: As YAML; empty where the user has to give a value.
        text: The documentation; empty where there is none.
    """

    key: str
    kind: str
    default: str
    text: str


def show_settings(options: argparse.Namespace) -> None:
    """Print the keys for --settings, or the resolved values for --print-config."""
    path = options.schema if isinstance(options.schema, str) else options.schema(options)
    module, _, name = path.partition(":")
    schema: type = getattr(import_module(module), name)
    if options.print_config:
        print(to_yaml(load_config(schema, options.config, options.overrides)), end="")
    else:
        print(format_settings(schema))


def format_settings(schema: type) -> str:
    """Format every key: a line of key, type and default, and the documentation."""
    lines = []
    for setting in settings_of(schema):
        value = f" = {setting.default}" if setting.default else " (required)"
        lines.append(f"{setting.key}  {setting.kind}{value}" if setting.kind else f"{setting.key}  (section)")
        lines += textwrap.wrap(setting.text, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def settings_of(schema: type, instance: object = None, above: str = "") -> Iterator[Setting]:
    """Yield every key of a configuration, a section before its keys.

    Args:
        schema: A dataclass.
        instance: Instance that holds the defaults; None for those of the schema.
        above: Prefix of the keys.
    """
    texts, hints = attributes(schema), get_type_hints(schema)
    for field in fields(schema):
        default = _default(field) if instance is None else getattr(instance, field.name)
        hint, key, text = without_none(hints[field.name]), above + field.name, texts.get(field.name, "")
        inner = _section(hint)
        if inner is None:
            yield Setting(key, _kind(hints[field.name]), _yaml(default), text)
            continue
        yield Setting(key, "", "", text)
        key += ".NAME." if get_origin(hint) is dict else "."
        yield from settings_of(inner, default if isinstance(default, inner) else None, key)


def attributes(schema: type) -> dict[str, str]:
    """Return the documentation of a dataclass's fields by their names, from its docstring and those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        section = re.split(r"\n(?=\S)", section)[0]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n(?:      .*)?)*)", section, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def _section(hint: Any) -> type | None:
    """Return the dataclass whose keys follow a key of this type: itself, or the items of a mapping or list."""
    hint = get_args(hint)[1] if get_origin(hint) is dict else item_of(hint) or hint
    return hint if isinstance(hint, type) and is_dataclass(hint) else None


def _default(field: Any) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return REQUIRED if field.default is MISSING else field.default


def _kind(hint: Any) -> str:
    kind = without_none(hint)
    if isinstance(kind, type) and issubclass(kind, Enum):
        text = "|".join(member.name for member in kind)
    else:
        text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return text if kind is hint else f"{text} or null"


def _yaml(value: object) -> str:
    """Format a default on one line, as JSON, which is YAML; empty for a value that has to be given."""
    shown = json.dumps(value, ensure_ascii=False, default=lambda one: one.name if isinstance(one, Enum) else str(one))
    return "" if value == REQUIRED else shown
