"""Settings: a YAML file and key=value overrides -> a frozen dataclass, checked.

In: a dataclass that declares every setting with its type and default, a YAML file with the settings that differ, and
key=value overrides.  Out: an instance of the dataclass, or a ConfigError: one line with file, section, key.

A text stays as it is written (words.py). A file may begin with `extends: other.yaml`, a path relative to itself, and
then states only what differs from that file. So may a section, with a file or preset of that section alone:
`detector: {extends: fast.yaml}`, or the override detector.extends=fast. Where a section may also be a list of sections,
a list replaces all that was stated before it, a list of one is that section, and train.0.root=DIR changes a key of the
first. A dataclass may list settings of earlier versions in RETIRED, with the value that is now the only one: files that
state it still load.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

import yaml  # type: ignore[import-untyped]

from detector.words import (
    QUOTING,
    Misfit,
    Unquoted,
    Word,
    hints_of,
    is_section,
    item_of,
    parse_yaml,
    typed,
    unquoted,
    without_none,
)
from proposals.errors import UserError
from proposals.files import write_whole

T = TypeVar("T")

PRESETS = (Path(__file__).parent / "presets", Path(__file__).parent.parent / "configs")
"""Folders of the shipped presets: inside the package of a wheel, beside it in a checkout."""

OVERRIDES = "overrides"

MISSING: Any = "???"
"""Default of a setting that has none and stands behind settings that have one."""


class ConfigError(UserError):
    """A setting that cannot be used; the message is one line that names the file, the section and the key."""


def load_config(schema: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Load settings: the defaults of a dataclass, then a file's, then the overrides.

    Args:
        schema: A frozen dataclass; its fields are numbers, texts, enums, paths, lists, tuples, dicts and dataclasses.
        path: A YAML file or the name of a preset (see find_config), or None for the defaults alone.
        overrides: Texts such as "proposals.limit=500"; the value is read as YAML. A backslash before a dot makes it
            part of the key.

    Raises:
        ConfigError: there is no such file; malformed YAML or a repeated key; an unknown key; a value of the wrong type
            or one that the dataclass rejects; a setting without a value; an override without "=".
    """
    file = None if path is None else find_config(path)
    where = " + ".join([str(file)] * (file is not None) + [OVERRIDES] * bool(overrides)) or "defaults"
    tree: dict[str, Any] = {}
    for source, key, value in _settings(file, overrides):
        _set(tree, schema, key, value, source)
    missing: list[str] = []
    try:
        result = _built(schema, tree, (), missing)
    except ValueError as error:  # a dataclass's own check
        raise ConfigError(f"{where}: {_first_line(error)}") from error
    if missing:
        names = ", ".join(map(repr, sorted(missing)))
        raise ConfigError(f"{where}: no value for {names}. Give it as {min(missing)}=...")
    return cast(T, result)


def peek(path: str | Path, overrides: Sequence[str], key: str) -> object:
    """Return the value of one top-level key before a schema is chosen; None where neither file nor overrides state it.

    Raises:
        ConfigError: the file or an override cannot be read.
    """
    found = [value for _, where, value in _settings(find_config(path), overrides) if where == (key,)]
    value = found[-1] if found else None
    return value.value if isinstance(value, Word) else value


def find_config(name: str | Path) -> Path:
    """Find a YAML file by its path, else the shipped preset of that name ("detect" or "detect.yaml").

    Raises:
        ConfigError: neither exists; the message lists those that do.
    """
    path = Path(name)
    if path.is_file():
        return path
    presets = next((folder for folder in PRESETS if folder.is_dir()), PRESETS[-1])
    if presets.is_relative_to(Path.cwd()):
        presets = presets.relative_to(Path.cwd())  # messages say configs/detect.yaml
    preset = presets / (path.name if path.suffix in (".yaml", ".yml") else f"{path.name}.yaml")
    is_bare = path.parent == Path()
    if is_bare and preset.is_file():
        return preset
    folder = presets if is_bare else path.parent
    found = sorted(file.stem if is_bare else file.name for file in folder.glob("*.y*ml"))
    kind = "presets" if is_bare else f"in {folder}"
    empty = f"{folder} holds no .yaml file" if folder.is_dir() else f"there is no folder {folder}"
    listing = f"{kind}: {', '.join(found)}" if found else empty
    problem = "a folder, not a file" if path.is_dir() else "no such config"
    raise ConfigError(f"{name}: {problem}.{_suggestion(path.stem if is_bare else path.name, found)} ({listing})")


def config_to_dict(config: object) -> dict[str, Any]:
    """Convert a dataclass instance to dicts and lists that YAML and JSON can hold; enums by name, paths as text."""
    return {field.name: _plain(getattr(config, field.name)) for field in fields(cast(Any, config))}


def to_yaml(config: object) -> str:
    """Return every setting as YAML, which `load_config` with the same schema reads back as an equal instance."""
    return cast(str, yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True))


def save_config(config: object, path: Path) -> None:
    """Write every setting to a YAML file; load_config with the same schema reads back an equal instance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


Setting = tuple[str, tuple[str, ...], Any]
"""The file that states a setting, or OVERRIDES; the path of keys; the value."""


def _settings(file: Path | None, overrides: Sequence[str]) -> Iterator[Setting]:
    """Yield what a file, the files it extends and the overrides state; a later value replaces an earlier one."""
    if file is not None:
        yield from _in_file(file, (), ())
    for override in overrides:
        yield from _in_mapping(_parse_override(override), (), Path(), OVERRIDES, ())


def _in_file(path: Path, above: tuple[str, ...], inner: tuple[Path, ...]) -> Iterator[Setting]:
    if path.resolve() in inner:
        chain = " -> ".join(file.name for file in (*inner, path))
        raise ConfigError(f"{path}: 'extends' goes round in a circle: {chain}")
    yield from _in_mapping(_read_yaml(path), above, path.parent, str(path), (*inner, path.resolve()))


def _in_mapping(
    content: Mapping[str, Any], above: tuple[str, ...], folder: Path, source: str, inner: tuple[Path, ...]
) -> Iterator[Setting]:
    """Yield the settings of a mapping, below those of the file that it extends."""
    base = content.get("extends")
    if base is not None:
        label = ".".join((*above, "extends"))
        if not isinstance(base, str):
            raise ConfigError(f"{source}: {label} must be one file name, not {base!r}")
        try:
            path = folder / base if (folder / base).is_file() else find_config(base)
        except ConfigError as error:
            raise ConfigError(f"{source}: {label} {error}") from error
        yield from _in_file(path, above, inner)
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _in_mapping(value, (*above, name), folder, source, inner)
        elif name != "extends":
            yield source, (*above, name), value


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return the top-level mapping of a YAML file."""
    try:
        content = parse_yaml(path.read_bytes().decode("utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: {position}{error.problem}{_quoting(path, mark)}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: no YAML of 'key: value' lines: {_first_line(error)}") from error
    if isinstance(content, list | Word):
        found = "a list" if isinstance(content, list) else repr(content.text)
        raise ConfigError(f"{path}: expected 'key: value' lines, found {found}")
    return {content: None} if isinstance(content, str) else content or {}


def _parse_override(override: str) -> dict[str, Any]:
    """Parse "section.key=value" to {"section": {"key": value}}."""
    name, equals, text = override.strip().partition("=")
    key = tuple(part.replace("\\.", ".").strip() for part in re.split(r"(?<!\\)\.", name))
    if not equals or not all(key):
        raise ConfigError(f"{OVERRIDES}: expected key=value, not {override!r}")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        hint = QUOTING if re.search(r": |[#&*!@%`|>]", text) else ""
        problem = f"{override!r}: the value is malformed YAML: {_first_line(error)}{hint}"
        raise ConfigError(f"{OVERRIDES}: {problem}") from error
    except UnicodeError as error:  # bytes that are no text
        raise ConfigError(f"{OVERRIDES}: {override!r}: the value is no text in UTF-8") from error
    return cast(dict[str, Any], _nested(key, value))


def _quoting(path: Path, mark: Any) -> str:
    """Return advice for a malformed line that contains characters with a meaning in YAML."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    return QUOTING if re.search(r": .*: |[&*!@%`]", line) else ""


def _set(tree: dict[str, Any], schema: type, key: tuple[str, ...], value: Any, source: str) -> None:
    """Put one value into the tree of settings; a value that does not fit becomes a ConfigError that names its key."""
    is_override = source == OVERRIDES
    hint: Any = schema
    stated: Any = tree
    for depth, name in enumerate(key):
        section = without_none(hint)
        item = item_of(section)
        if item is not None and _is_list(stated):
            if name not in stated:
                raise ConfigError(f"{source}: {_no_such_item('.'.join(key[:depth]), len(stated), name)}")
            hint = item
        elif item is not None and name == "0":  # one section is the first
            return _set(tree, schema, (*key[:depth], *key[depth + 1 :]), value, source)
        elif is_section(item or section):
            section = item or section
            known = hints_of(section)
            if name not in known:
                if (name, value) in getattr(section, "RETIRED", {}).items():
                    return
                label = f"no key {'.'.join(key)!r}" if is_override else f"{_section(key[:depth])}has no key {name!r}"
                suggestion = _suggestion(name, list(known), ".".join((*key[:depth], "")) if is_override else "")
                raise ConfigError(f"{source}: {label}.{suggestion or ' Known: ' + ', '.join(known)}")
            hint = known[name]
        elif get_origin(section) is dict:
            hint = get_args(section)[1]
        else:  # the key goes on below a plain value
            key, value = key[:depth], _nested(key[depth:], value)
            break
        stated = stated.get(name) if isinstance(stated, dict) else None
    kind = without_none(hint)
    if item_of(kind) is not None and isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        _set_list(tree, schema, key, value, source)
        return
    label = ".".join(key) if is_override else f"{_section(key[:-1])}{key[-1]}"
    if is_override and value is None and hint is str:
        value = ""  # nothing behind the "="
    for name in key[:-1]:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    if value == {} and (is_section(item_of(kind) or kind) or get_origin(kind) is dict):
        is_cleared = is_override and get_origin(kind) is dict  # groups={}
        tree[key[-1]] = {} if is_cleared else tree.get(key[-1]) or {}
        return
    try:
        tree[key[-1]] = typed(hint, value)
    except Unquoted as error:
        problem = unquoted(label, value, error.args[0], is_override=is_override)
        raise ConfigError(f"{source}: {label} {problem}") from error
    except (Misfit, TypeError) as error:  # the latter: an item without a value that it needs
        raise ConfigError(f"{source}: {label} must be {_describe(hint)}, not {value!r}") from error
    except ValueError as error:  # an item's own check
        raise ConfigError(f"{source}: {label}: {_first_line(error)}") from error


def _set_list(tree: dict[str, Any], schema: type, key: tuple[str, ...], items: Sequence[Any], source: str) -> None:
    """Put a list of sections into the tree, keyed by position; a list of one is that section."""
    node = tree
    for name in key[:-1]:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    single = len(items) == 1
    node[key[-1]] = {} if single else {str(position): {} for position in range(len(items))}
    for position, item in enumerate(items):
        for name, value in item.items():
            _set(tree, schema, (*key, *([] if single else [str(position)]), name), value, source)


def _is_list(node: Any) -> bool:
    """Whether a node of the tree is a list of sections, keyed by position."""
    return isinstance(node, dict) and "0" in node


def _no_such_item(key: str, count: int, name: str) -> str:
    if name.isdecimal():
        return f"{key} is a list of {count}, {key}.0 to {key}.{count - 1}; there is no {key}.{name}"
    return f"{key} is a list of {count}: name one of them, as {key}.0.{name}, or replace the list by {key}=[{{...}}]"


def _built(hint: Any, node: Any, key: tuple[str, ...], missing: list[str]) -> Any:
    """Make the dataclasses of a tree of settings; settings without a value are added to `missing`."""
    kind = without_none(hint)
    if not isinstance(node, dict):
        return node
    item = item_of(kind)
    if item is not None and _is_list(node):
        return tuple(_built(item, one, (*key, position), missing) for position, one in node.items())
    kind = item or kind
    if not is_section(kind):
        return {name: _built(get_args(kind)[1], item, (*key, name), missing) for name, item in node.items()}
    values = {}
    for field in fields(kind):
        if field.name in node:
            values[field.name] = _built(hints_of(kind)[field.name], node[field.name], (*key, field.name), missing)
        elif field.default in (dataclasses.MISSING, MISSING) and field.default_factory is dataclasses.MISSING:
            missing.append(".".join((*key, field.name)))
    return None if missing else kind(**values)


def _nested(key: tuple[str, ...], value: Any) -> Any:
    """("a", "b"), 3 -> {"a": {"b": 3}}."""
    for name in reversed(key):
        value = {name: value}
    return value


def _describe(hint: Any) -> str:
    """Describe the values of a type, for a message."""
    kind = without_none(hint)
    ending = "" if kind is hint else " or null"
    if item_of(kind) is not None:
        return f"{_describe(item_of(kind))}, or a list of such sections{ending}"
    if is_section(kind):
        return f"a section with keys {', '.join(field.name for field in fields(kind))}{ending}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(member.name for member in kind)}{ending}"
    if get_origin(kind) in (list, tuple) and is_section(get_args(kind)[0]):
        return f"a list, each {_describe(get_args(kind)[0])}"
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return f"{name}{ending}"


def _section(key: Sequence[str]) -> str:
    return f"[{'.'.join(key)}] " if key else ""


def _suggestion(name: str, known: Sequence[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {prefix + close[0]!r}?" if close else ""


def _first_line(error: Exception) -> str:
    problem = getattr(error, "problem", None)  # a YAML error's second line says more than its first
    return str(problem or (str(error).strip().splitlines() or [type(error).__name__])[0])


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return config_to_dict(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def check_range(config: object, interval: str, *names: str) -> None:
    """Check that settings lie in an interval, for the `__post_init__` of a configuration.

    Args:
        config: The configuration.
        interval: The interval as it is written, such as "[0, 1)", "(0, inf)".
        names: The settings; of a dotted name the last part is the attribute, and the message has the whole.

    Raises:
        ValueError: a setting lies outside, or is not a number.
    """
    low, high = map(float, interval[1:-1].split(","))
    for name in names:
        value = getattr(config, name.rpartition(".")[2])
        above = value >= low if interval[0] == "[" else value > low
        if not (above and (value <= high if interval[-1] == "]" else value < high)):
            at_least = f"{'at least' if interval[0] == '[' else 'above'} {low:g}"
            raise ValueError(f"{name} must be {at_least if math.isinf(high) else f'in {interval}'}, not {value}")


def check_choice(config: object, name: str, choices: Sequence[str]) -> None:
    """Check that a setting is one of some texts; the name as in check_range.

    Raises:
        ValueError: it is none of them.
    """
    value = getattr(config, name.rpartition(".")[2])
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
