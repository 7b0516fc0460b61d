"""Files and folders that a command was given -> image files.

In: paths of files and folders.  Out: a Listing: the images, each once, and a line for each source without any.
Files are recognised by their suffix and not opened. A file that is named outright may end in anything.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from detector.data.image import FORMATS, ImageError

IMAGE_SUFFIXES: tuple[str, ...] = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".jpg_large", ".jpeg_large", ".mpo"),
    *(".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *((".avif",) if "AVIF" in FORMATS else ()),
)
"""Suffixes of images in a folder, in either case."""


@dataclass(frozen=True)
class Listing:
    """The images among the sources of a command.

    Attributes:
        paths: The images, each once.
        failures: A line for each source, or folder within one, that gives no image.
        passed_over: Numbers of files of other kinds in the folders, by suffix.
    """

    paths: tuple[Path, ...]
    failures: tuple[str, ...]
    passed_over: Counter[str]

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line that counts the files passed over; none where there are none."""
        if not self.passed_over:
            return ()
        files = self.passed_over.total()
        return (f"{files} {'file' if files == 1 else 'files'} passed over: {_kinds(self.passed_over)}",)


def list_images(sources: Sequence[str | Path], *, recursive: bool = False) -> Listing:
    """List the images of a command: files as they are, folders replaced by the images in them.

    A folder's images are sorted. Hidden files and folders (".name") are left out; links are followed, each folder once.
    A file that is reached twice is listed once, at its first position.

    Args:
        sources: Files and folders.
        recursive: Whether to look into sub-folders too.

    Raises:
        ImageError: no source gives an image; the message has a line for each.
    """
    found: dict[Path, Path] = {}
    resolved = cache(Path.resolve)
    failures: list[str] = []
    passed_over: Counter[str] = Counter()
    for source in map(Path, sources):
        if os.path.isdir(source):  # Path.is_dir raises for a name that is too long
            inside, others, problems = _images_in(source, recursive)
            if not inside and not problems:
                problems = [f"{source}: no images in this folder: {_what_else(source, others, recursive)}"]
            failures += problems
            passed_over += others
        elif os.path.lexists(source):  # a link to nowhere fails as it is read
            inside = [source]
        else:
            inside = []
            failures.append(f"no such file or folder: {source}")
        for path in inside:
            found.setdefault(resolved(path.parent) / path.name, path)
    if failures and not found:
        raise ImageError("\n".join(failures))
    return Listing(tuple(found.values()), tuple(failures), passed_over)


def _images_in(folder: Path, recursive: bool) -> tuple[list[Path], Counter[str], list[str]]:
    """Return the sorted images in a folder, the other files by suffix, and a line for each folder not listed."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    problems: list[str] = []
    for file in walk(folder, recursive, problems):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            if os.path.exists(file) and not os.path.isfile(file):  # reading one waits for a writer
                problems.append(f"{file}: a pipe or a device, not a file")
            else:
                images.append(file)
        elif os.path.isfile(file):
            others[file.suffix.lower()] += 1
    return sorted(images), others, problems


def walk(folder: Path, recursive: bool, problems: list[str]) -> Iterator[Path]:
    """Yield the files in a folder without hidden ones; dangling links are among them.

    Args:
        folder: The folder to begin with.
        recursive: Whether to go into sub-folders too, each once; hidden ones are left out, links followed.
        problems: Receives a line for each folder that cannot be listed.
    """
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop(0)
        real = current.resolve()
        if real in seen:
            continue
        seen.add(real)
        try:
            names = sorted(os.listdir(current))
        except OSError as error:
            problems.append(f"{current}: a folder that cannot be listed: {(error.strerror or str(error)).lower()}")
            continue
        for path in (current / name for name in names if not name.startswith(".")):
            if not os.path.isdir(path):  # Path.is_dir raises for some links
                yield path
            elif recursive:
                waiting.append(path)


def _kinds(suffixes: Counter[str]) -> str:
    """Describe the numbers of files by suffix, the most frequent first."""
    most = [f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(8)]
    return ", ".join(most + ["..."] * (len(suffixes) > len(most)))


def _what_else(folder: Path, others: Counter[str], recursive: bool) -> str:
    """Describe the content of a folder that has no images."""
    entries = list(folder.iterdir())
    hidden = sum(entry.name.startswith(".") for entry in entries)
    folders = 0 if recursive else sum(entry.is_dir() for entry in entries if not entry.name.startswith("."))
    parts = [f"files of other kinds ({_kinds(others)})"] if others else []
    parts += [f"{hidden} hidden"] if hidden else []
    parts += [f"{folders} sub-folders that were not searched (--recursive searches them)"] if folders else []
    return "; ".join(parts) or ("it is empty" if not entries else "neither in its sub-folders")
