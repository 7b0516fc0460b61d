"""The names of an image's results: its path below its source, without the suffix.

Where two images of a folder differ in their suffixes alone, both keep them. A name that is taken, or too long for a
file, ends with a hash of the image's whole path.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

LONGEST_ENDING = "_detections.jpg"
LONGEST_NAME = 255 - len(LONGEST_ENDING)  # bytes; Linux, macOS and Windows agree


class Names:
    """Gives each image a name of its own.

    Args:
        planned: Relative paths of the images that are known beforehand.

    >>> names = Names(map(PurePath, ["cat.jpg", "a/cow.jpg", "a/cow.png"]))
    >>> [names.claim(PurePath(path), path) for path in ("cat.jpg", "a/cow.jpg", "a/cow.png", "cat.png")]
    ['cat', 'a/cow.jpg', 'a/cow.png', 'cat.png']
    """

    def __init__(self, planned: Iterable[PurePath] = ()) -> None:
        self._count = Counter(alike(path.with_suffix("").as_posix()) for path in planned)
        self._taken: set[str] = set()
        self._names: dict[tuple[str, str], str] = {}

    def claim(self, relative: PurePath, whole: str, ending: str = "") -> str:
        """Return the name of an image's results, with "/" between folders; each time the same.

        Args:
            relative: Its path below its source.
            whole: Its whole path.
            ending: What distinguishes it from others of this path, such as a frame's time.
        """
        if (whole, ending) in self._names:
            return self._names[whole, ending]
        short, full = (f"{path.as_posix()}{ending}" for path in (relative.with_suffix(""), relative))
        for name in [full] if not ending and self._count[alike(short)] > 1 else [short, full]:
            fits = len(os.fsencode(name.rpartition("/")[2])) <= LONGEST_NAME
            if fits and alike(name) not in self._taken:
                break
        else:
            name = _shortened(short, whole + ending)
        self._taken.add(alike(name))
        self._names[whole, ending] = name
        return name


def alike(name: str) -> str:
    """The same text for names that some file systems do not tell apart: by case (Windows, macOS), by Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shortened(name: str, whole: str) -> str:
    folder, slash, last = name.rpartition("/")
    ending = f"-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:12]}"
    while len(os.fsencode(last + ending)) > LONGEST_NAME:
        last = last[:-1]
    return folder + slash + last + ending
