"""data.yaml, in which YOLO's tools state the parts and classes of a data set -> YoloSettings.

path: ..            folder to which the others are relative
train: images/a     a folder, a text file of images, or a list of them; so val, test
names: [a, b]       or a mapping of numbers; nc: 2 may stand beside or in place of them
kpt_shape: [17, 3]  rows have key points behind the box
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from detector.data.ground_truth import DataError, composed, read_lines
from detector.data.trees import is_part
from detector.words import Word, parse_yaml

YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True)
class YoloSettings:
    """What data.yaml states.

    Attributes:
        path: The file.
        base: Folder to which its paths are relative.
        parts: Paths of each part.
        names: Names of classes 0, 1, ...; empty where there are none.
        count: Number of classes; 0 where it is not stated.
        points: Numbers behind the box of a row, of key points.
    """

    path: Path
    base: Path
    parts: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    count: int
    points: int = 0


def read_settings(root: Path) -> YoloSettings | None:
    """Read data.yaml, or the only YAML file in a folder that states the parts or classes of a YOLO data set.

    Raises:
        DataError: the file is malformed, or its names and count disagree; several files might be meant.
    """
    named = next((root / name for name in YAMLS if (root / name).is_file()), None)
    if named is not None:
        return _settings(named, _parsed(named))
    others = {path: _parsed(path, strict=False) for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")])}
    alike = [path for path, content in others.items() if "names" in content and {"train", "val"} & content.keys()]
    if len(alike) > 1:
        raise DataError(f"{alike[0]} and {alike[1].name} may each describe the data set; rename one to data.yaml")
    return _settings(alike[0], others[alike[0]]) if alike else None


def _parsed(path: Path, *, strict: bool = True) -> dict[str, Any]:
    try:
        content = parse_yaml("\n".join(_lines_as_written(path)))
    except (DataError, yaml.YAMLError) as error:
        if not strict:
            return {}
        if isinstance(error, DataError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{where}: malformed YAML ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(content, dict):
        if strict:
            raise DataError(f"{path}: holds no settings of a YOLO data set, which are path, train, val, names")
        return {}
    return content


def _lines_as_written(path: Path) -> list[str]:
    """Return the lines of a text file with the blanks at their ends, which YAML needs."""
    read_lines(path)  # which reports what cannot be read
    return path.read_text(encoding="utf-8-sig").split("\n")


def _settings(path: Path, content: Mapping[str, Any]) -> YoloSettings:
    names = _names(path, content.get("names"))
    count = _whole(content.get("nc"))
    if count is None:
        raise DataError(f"{path}: nc is {_text(content['nc'])!r}, not the number of classes")
    if names and count not in (0, len(names)):
        raise DataError(f"{path}: nc is {count}, and names has {len(names)}; one of them is of another data set")
    stated = _text(content.get("path")).replace("\\", "/")
    candidates = [Path(stated).expanduser(), path.parent / stated] if stated else []
    base = next((place for place in candidates if place.is_absolute() and place.is_dir()), path.parent / stated)
    parts = {}
    for key, value in content.items():
        if is_part(key) and _text(value):
            parts[key] = tuple(_paths(path, key, value))
    shape = (
        [_whole(one) for one in content.get("kpt_shape") or []] if isinstance(content.get("kpt_shape"), list) else []
    )
    points = (shape[0] or 0) * (shape[1] or 0) if len(shape) == 2 else 0
    return YoloSettings(path, base if base.is_dir() else path.parent, parts, names, count, points)


def _names(path: Path, value: object) -> tuple[str, ...]:
    """Return the class names of data.yaml, a list or a mapping of numbers."""
    if isinstance(value, dict):
        numbers = {key.strip(): name for key, name in value.items()}
        wanted = [str(number) for number in range(len(numbers))]
        if missing := [number for number in wanted if number not in numbers]:
            raise DataError(
                f"{path}: names has {len(numbers)} classes and no number {missing[0]}; they are numbered 0, 1, ... "
                "without gaps"
            )
        value = [numbers[number] for number in wanted]
    if value is None or (isinstance(value, Word) and value.value is None):
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str | Word) and _text(name) for name in value):
        raise DataError(f"{path}: names is no list of class names, nor a mapping of numbers to names")
    names = tuple(composed(_text(name)) for name in value)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path}: names has {twice!r} twice")
    return names


def _paths(path: Path, key: str, value: object) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str | Word) or not _text(one):
            raise DataError(f"{path}: {key} is no path, nor a list of paths")
        yield _text(one)


def _text(value: object) -> str:
    """Return a value of YAML as it is written; empty for none."""
    if isinstance(value, Word):
        return "" if value.value is None else value.text
    return "" if value is None else str(value).strip()


def _whole(value: object) -> int | None:
    """Return a whole number; 0 where nothing is stated, None for anything else."""
    text = _text(value)
    return int(text) if text.isdecimal() and len(text) < 10 else (None if text else 0)
