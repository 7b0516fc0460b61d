"""A text file that names images -> those of a data set that it names.

In: the setting image_list, a file with one image a line, by stem, file name, id or the end of its path.
Out: the chosen items, in the data set's order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from detector.data.ground_truth import DataError, composed, read_lines

Item = TypeVar("Item")

TAIL = 4
"""Most folders by which a line may tell images of the same name apart."""


def chosen(items: Sequence[Item], names_of: Callable[[Item], tuple[str, Path]], image_list: str) -> list[Item]:
    """Keep the images that a text file names.

    Args:
        items: The images.
        names_of: Image -> its id and its file.
        image_list: The file, relative to the working directory; empty keeps all.

    Raises:
        DataError: the file cannot be read or is empty; it names images that are not there, of which the message has
            three; or a name fits several images.
    """
    if not image_list:
        return list(items)
    path = Path(image_list).expanduser()
    lines = {number: line for number, line in enumerate(read_lines(path), 1) if line}
    if not lines:
        raise DataError(f"{path}: no images in this list")
    found: dict[str, set[int]] = {}
    exact: dict[str, int] = {}
    for place, item in enumerate(items):
        image_id, file = names_of(item)
        exact.setdefault(composed(image_id), place)
        for name in _names(image_id, file):
            found.setdefault(name, set()).add(place)
    kept: set[int] = set()
    absent: list[str] = []
    for number, line in lines.items():
        name = composed(line.replace("\\", "/").removeprefix("./"))
        places = {exact[name]} if name in exact else found.get(name, set())
        if len(places) > 1:
            several = sorted(str(names_of(items[place])[1]) for place in places)
            raise DataError(f"{path}, line {number}: {line} may be {several[0]} or {several[1]}; name its folder too")
        kept |= places
        if not places:
            absent.append(line)
    if absent:
        first = ", ".join(absent[:3]) + (f" and {len(absent) - 3:,} more" if len(absent) > 3 else "")
        raise DataError(
            f"{path}: {len(absent):,} of {len(lines):,} names are none of the {len(items):,} images of the data set: "
            f"{first}; check data.image_list, data.root and data.split"
        )
    return [item for place, item in enumerate(items) if place in kept]


def _names(image_id: str, file: Path) -> set[str]:
    """Return the texts that name an image."""
    texts = {image_id, image_id + file.suffix, file.as_posix(), Path(os.path.abspath(file)).as_posix()}
    for count in range(1, min(TAIL + 1, len(file.parts)) + 1):
        texts |= {"/".join(file.parts[-count:]), "/".join((*file.parts[-count:-1], file.stem))}
    return {composed(text) for text in texts}
