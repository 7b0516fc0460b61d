"""Settings: YAML file and key=value overrides -> a frozen dataclass, checked.

In: a dataclass that states every setting with its type and default, a YAML file that states what differs, and overrides
from the command line. Out: an instance of the dataclass, or a ConfigError: one line with the file, section and key.

The types and the merging are OmegaConf's; the reading and the messages are ours. A setting that is text takes the word
as it is written: YAML would read no as False, 010 as 8 and 12:30 as 750, which class names do not mean. A file may
begin with `extends: other.yaml` (relative to itself) and then states only what differs from that one. So may a section,
with a file or preset of that section alone: `detector: {extends: fast.yaml}`, or detector.extends=fast on the command
line.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.words import QUOTING, Unquoted, Word, as_typed, parse_yaml, unquoted, without_none
from proposals.errors import UserError
from proposals.files import write_whole

T = TypeVar("T")

PRESETS = (Path(__file__).parent / "presets", Path(__file__).parent.parent / "configs")
"""Where the shipped presets are: inside the package of a wheel, beside it in a checkout."""


class ConfigError(UserError):
    """A setting that cannot be used; the message is one line that names the file, the section and the key."""


def load_config(schema: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """The settings of a schema: its defaults, then the file's, then the overrides'.

    Args:
        schema: a frozen dataclass; its fields are numbers, texts, enums, paths, lists, tuples, dicts, dataclasses.
        path: a YAML file or the name of a preset (see find_config), or None for the defaults alone.
        overrides: texts such as "proposals.limit=500"; the value is read as YAML. A backslash before a dot
            says that it belongs to the key.

    Raises:
        ConfigError: no such file, malformed or repeated YAML, an unknown key, a value of the wrong type or one that the
            dataclass refuses, a setting without a value, an override without "=".
    """
    config = OmegaConf.structured(schema)
    sources = [] if path is None else _layers(find_config(path), ())
    for source, layer in sources:
        for key, value in _leaves(layer, ()):
            config = _merged(config, schema, key, value, source=source)
    for override in overrides:
        layer = _with_sections(_parse_override(override), Path(), "command line", ())
        for key, value in _leaves(layer, ()):
            config = _merged(config, schema, key, value, source="command line")
    where = " + ".join([source for source, _ in sources[-1:]] + ["command line"] * bool(overrides)) or "defaults"
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        result = None if missing else OmegaConf.to_object(config)
    except (OmegaConfBaseException, ValueError, TypeError) as error:  # a broken ${...}, or a dataclass's own check
        raise ConfigError(f"{where}: {_first_line(error)}") from error
    if missing:
        names = ", ".join(repr(key) for key in missing)
        raise ConfigError(f"{where}: no value for {names}. Give it as {missing[0]}=...")
    return cast(T, result)


def peek(path: str | Path, overrides: Sequence[str], key: str) -> object:
    """The value of one top-level key before a schema is chosen; None where neither file nor overrides state it.

    Raises:
        ConfigError: as load_config, as far as it is read.
    """
    value: object = None
    for content in (*(layer for _, layer in _layers(find_config(path), ())), *map(_parse_override, overrides)):
        value = content.get(key, value)
    return value.value if isinstance(value, Word) else value


def find_config(name: str | Path) -> Path:
    """The YAML file of that path, else the shipped preset of that name ("detect" or "detect.yaml").

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
    """A dataclass instance -> nested dicts and lists of what YAML and JSON can hold; enums by name, paths as text."""
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"expected a dataclass instance, not {type(config).__name__}")
    return {field.name: _plain(getattr(config, field.name)) for field in fields(config)}


def to_yaml(config: object) -> str:
    """Return every setting as YAML, which `load_config` with the same schema reads back as an equal instance."""
    return OmegaConf.to_yaml(OmegaConf.create(config_to_dict(config)))


def save_config(config: object, path: Path) -> None:
    """Write every setting as YAML; load_config with the same schema reads back an equal instance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


def _layers(path: Path, inner: tuple[Path, ...]) -> list[tuple[str, dict[str, Any]]]:
    """(name to show, content) of a file and of those it extends, the base first."""
    if path.resolve() in inner:
        chain = " -> ".join(file.name for file in (*inner, path))
        raise ConfigError(f"{path}: 'extends' goes round in a circle: {chain}")
    content = _read_yaml(path)
    base = content.pop("extends", None)
    content = _with_sections(content, path.parent, str(path), (*inner, path.resolve()))
    if base is None:
        return [(str(path), content)]
    if not isinstance(base, str):
        raise ConfigError(f"{path}: 'extends' must be one file name, not {base!r}")
    if not (path.parent / base).is_file():
        raise ConfigError(f"{path}: extends {base!r}, and there is no {path.parent / base}")
    return [*_layers(path.parent / base, (*inner, path.resolve())), (str(path), content)]


def _with_sections(content: Mapping[str, Any], folder: Path, source: str, inner: tuple[Path, ...]) -> dict[str, Any]:
    """The content with each section's `extends` replaced by what that file states and the section does not."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            value = _with_sections(value, folder, source, inner)
            base = value.pop("extends", None)
            if base is not None:
                if not isinstance(base, str):
                    raise ConfigError(f"{source}: {key}.extends must be one file name, not {base!r}")
                beside = folder / base
                layers = _layers(beside if beside.is_file() else find_config(base), inner)
                for _, layer in reversed(layers):
                    value = _filled(value, layer)
        result[str(key)] = value
    return result


def _filled(content: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The content, and what a base states beside it."""
    result = dict(base)
    for key, value in content.items():
        below = base.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = _filled(value, cast(Mapping[str, Any], below)) if both else value
    return result


def _read_yaml(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML file."""
    try:
        content = parse_yaml(path.read_bytes().decode("utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: {position}{error.problem}{_quoting(path, mark)}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: no YAML of 'key: value' lines: {_first_line(error)}") from error
    if isinstance(content, list):
        raise ConfigError(f"{path}: expected 'key: value' lines, found a list")
    if isinstance(content, Word):
        kind = type(content.value).__name__
        raise ConfigError(f"{path}: no YAML of 'key: value' lines: Invalid loaded object type: {kind}")
    return {content: None} if isinstance(content, str) else content or {}


def _parse_override(override: str) -> dict[str, Any]:
    """One "section.key=value" -> {"section": {"key": value}}."""
    name, equals, text = override.strip().partition("=")
    key = tuple(part.replace("\\.", ".").strip() for part in re.split(r"(?<!\\)\.", name))
    if not equals or not all(key):
        raise ConfigError(f"command line: expected key=value, not {override!r}")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        hint = QUOTING if re.search(r": |[#&*!@%`|>]", text) else ""
        problem = f"{override!r}: the value is malformed YAML: {_first_line(error)}{hint}"
        raise ConfigError(f"command line: {problem}") from error
    except UnicodeError as error:  # a byte of the command line that is no text
        raise ConfigError(f"command line: {override!r}: the value is no text in UTF-8") from error
    return cast(dict[str, Any], _nested(key, value))


def _quoting(path: Path, mark: Any) -> str:
    """Advice for a malformed line that holds what YAML reads as its own."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    return QUOTING if re.search(r": .*: |[&*!@%`]", line) else ""


def _leaves(content: Mapping[Any, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path of keys, value) of every value that is not itself a non-empty mapping."""
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, str(name)))
        else:
            yield (*above, str(name)), value


def _merged(config: DictConfig, schema: type, key: tuple[str, ...], value: Any, *, source: str) -> DictConfig:
    """The config with one value replaced; a value that does not fit becomes a ConfigError that names its key."""
    is_override = source == "command line"
    hint: Any = schema
    for depth, name in enumerate(key):
        section = without_none(hint)
        if is_dataclass(section):
            known = get_type_hints(section)
            if name not in known:
                label = f"no key {'.'.join(key)!r}" if is_override else f"{_section(key[:depth])}has no key {name!r}"
                suggestion = _suggestion(name, list(known), ".".join((*key[:depth], "")) if is_override else "")
                raise ConfigError(f"{source}: {label}.{suggestion or ' Known: ' + ', '.join(known)}")
            hint = known[name]
        elif get_origin(section) is dict:
            hint = get_args(section)[1]
        else:  # the key goes on below a plain value
            key, value = key[:depth], _nested(key[depth:], value)
            break
    label = ".".join(key) if is_override else f"{_section(key[:-1])}{key[-1]}"
    if is_override and value is None and hint is str:
        value = ""  # what is written behind the "="
    try:
        value = as_typed(hint, value)
    except Unquoted as error:
        problem = unquoted(label, value, error.args[0], is_override=is_override)
        raise ConfigError(f"{source}: {label} {problem}") from error
    try:
        result = OmegaConf.merge(config, OmegaConf.create(_nested(key, value)))
    except (OmegaConfBaseException, TypeError) as error:  # the latter for a mapping in place of a list
        raise ConfigError(f"{source}: {label} must be {_describe(hint)}, not {value!r}") from error
    return cast(DictConfig, result)


def _nested(key: tuple[str, ...], value: Any) -> Any:
    """("a", "b"), 3 -> {"a": {"b": 3}}."""
    for name in reversed(key):
        value = {name: value}
    return value


def _describe(hint: Any) -> str:
    """What a value of that type looks like, for a message."""
    kind = without_none(hint)
    ending = "" if kind is hint else " or null"
    if is_dataclass(kind):
        return f"a section with keys {', '.join(field.name for field in fields(kind))}{ending}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(member.name for member in kind)}{ending}"
    if get_origin(kind) in (list, tuple) and is_dataclass(get_args(kind)[0]):
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
