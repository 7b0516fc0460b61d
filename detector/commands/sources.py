"""What the command detect was given -> images and videos: files, folders, globs, lists, and paths from a pipe.

In: the words of the command line.  Out: Sources, each with the folder from which its results are named, and a line
for each source that gives none. A pipe is read as it is written: nobody waits for its end, or for its next line.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from detector.commands.path_lines import PathLines, standard_input
from detector.commands.result_names import alike
from detector.commands.written import is_result
from detector.data.image import ImageError
from detector.data.listing import IMAGE_SUFFIXES, Listing, list_images
from detector.data.video import VIDEO_SUFFIXES, is_video

STDIN = "-"
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
FAR_FROM_TEXT = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Source:
    """An image or a video.

    Attributes:
        path: The file.
        root: Folder from which its results are named; a file outside it is named by its file name.
    """

    path: Path
    root: Path

    @property
    def relative(self) -> PurePath:
        """Its path from the root, which decides the names of its results."""
        path = os.path.relpath(os.path.abspath(self.path), os.path.abspath(self.root))
        return PurePath(self.path.name if path.split(os.sep)[0] == os.pardir else path)


@dataclass
class Collected:
    """The files of a command.

    Attributes:
        before: Those named before "-", or all where there is no "-".
        after: Those named behind "-".
        piped: Whether "-" is among the sources.
        failures: A line for each source that gives none.
        passed_over: Numbers of files of other kinds in folders and globs, by suffix.
        results: Number of pictures in folders that an earlier detect made, which are left out.
    """

    before: list[Source] = field(default_factory=list)
    after: list[Source] = field(default_factory=list)
    piped: bool = False
    failures: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    results: int = 0

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def remarks(self) -> tuple[str, ...]:
        """Return a line for each kind of file that is left out."""
        lines = Listing((), (), self.passed_over).warnings
        videos = sum(count for suffix, count in self.passed_over.items() if suffix in VIDEO_SUFFIXES)
        if videos:
            lines += (f"videos among them: {videos}; name a video by itself, or by a glob in quotes",)
        if self.results:
            lines += (f"{self.results} results of an earlier detect are left out",)
        return lines

    def batches(self, recursive: bool) -> Iterator[Iterator[Source | ImageError]]:
        """Yield the files, and those of standard input as they come: a batch ends where the next is not there yet.

        Args:
            recursive: Whether folders that standard input names are searched within.

        Raises:
            ImageError: Standard input is closed, or there is no image at all.
        """
        if self.before:
            yield iter(self.before)
        if self.piped:
            seen = {_key(one.path) for one in (*self.before, *self.after)}
            for lines in PathLines(standard_input()).batches():
                yield self._piped(lines, recursive, seen)
            if not seen:
                raise ImageError("no path on standard input")
        if self.after:
            yield iter(self.after)

    def _piped(self, lines: Iterator[str], recursive: bool, seen: set[Path]) -> Iterator[Source | ImageError]:
        for line in lines:
            some = Collected()
            found = entry(line, Path(), recursive, some, "from standard input")
            yield from (one for one in found if once(one.path, seen))
            yield from map(ImageError, some.failures)
            if some.failures:
                seen.add(Path(line))


def collect(sources: Sequence[str], *, recursive: bool) -> Collected:
    """Find the files of a command, each once, in the order of its sources.

    A file, a folder (sorted; videos in it are passed over), a glob (sorted; ** for any folders; folders that it matches
    are left out unless it matches nothing else), or @FILE, a list of files and folders, one a line, from its own
    folder on. "-" stands for standard input.

    Args:
        sources: The words; a file that exists is meant wherever a word could mean something else too.
        recursive: Whether folders are searched within.
    """
    result = Collected()
    outright: list[Path] = []
    groups: list[tuple[bool, list[Path], Path | None]] = []  # behind the pipe, files, root
    for source in sources:
        if source == STDIN:
            result.piped = True
        elif os.path.lexists(source) and not os.path.isdir(source):
            outright.append(Path(source))
            groups.append((result.piped, [Path(source)], None))
        elif source.startswith("@") and not os.path.isdir(source):
            groups += [(result.piped, [one.path], one.root) for one in _listed(Path(source[1:]), recursive, result)]
        elif address := _address(source):
            result.failures.append(address)
        elif glob.has_magic(source) and not os.path.isdir(source):
            groups.append((result.piped, _matching(source, recursive, result), _fixed_part(source)))
        else:
            groups.append((result.piped, _in_folder(source, recursive, result), Path(source)))
    roots = _roots(outright)
    seen: set[Path] = set()
    for behind, paths, root in groups:
        for path in paths:
            if once(path, seen):
                found = Source(path, roots.get(path, path.parent) if root is None else root)
                (result.after if behind else result.before).append(found)
    return result


def once(path: Path, seen: set[Path]) -> bool:
    """Whether a file is not among those seen, to which it is added; links to files are files of their own."""
    before = len(seen)
    seen.add(_key(path))
    return len(seen) > before


def entry(text: str, folder: Path, recursive: bool, result: Collected, where: str) -> list[Source]:
    """Find the files that a line of a list means: a file, or the images of a folder.

    Args:
        text: The line.
        folder: Where its path begins.
        recursive: Whether folders are searched within.
        result: Receives failures and what is passed over.
        where: The line's place, for messages.
    """
    path = folder / text
    if os.path.isdir(path):
        return [Source(one, folder) for one in _in_folder(str(path), recursive, result)]
    if os.path.lexists(path):
        return [Source(path, folder)]
    result.failures.append(_address(text) or f"no such file or folder: {path} ({where})")
    return []


def _key(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _listed(file: Path, recursive: bool, result: Collected) -> list[Source]:
    try:
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        result.failures.append(f"{file}: a list that cannot be read: {(error.strerror or str(error)).lower()}")
        return []
    if content[:2] in FAR_FROM_TEXT or b"\0" in content:
        result.failures.append(f"{file}: not a text in UTF-8, with a path on each line")
        return []
    found: list[Source] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        text = os.fsdecode(line.removesuffix(b"\r"))
        if text.strip():
            where = f"{file}, line {number}; paths in a list begin at its folder"
            found += entry(text, file.parent, recursive, result, where)
    if not content.strip():
        result.failures.append(f"{file}: an empty list")
    return found


def _matching(pattern: str, recursive: bool, result: Collected) -> list[Path]:
    """Images and videos that a glob matches, sorted; those in the folders that it matches where it matches no file."""
    paths = sorted(map(Path, glob.glob(os.path.expanduser(pattern), recursive=True)))
    files = [path for path in paths if not os.path.isdir(path)]
    if paths and not files:
        return [one for path in paths for one in _in_folder(str(path), recursive, result, empty=False)]
    taken = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES or is_video(path)]
    result.passed_over.update(path.suffix.lower() for path in {*files} - {*taken})
    if not taken:
        result.failures.append(f"no {'image or video' if files else 'file'} matches {pattern}")
    return taken


def _in_folder(source: str, recursive: bool, result: Collected, *, empty: bool = True) -> list[Path]:
    """Images in a folder; a failure where there are none, unless it may be empty."""
    try:
        listing = list_images([source], recursive=recursive)
    except ImageError as error:
        result.failures += str(error).splitlines() if empty else []
        return []
    result.failures += listing.failures
    result.passed_over += listing.passed_over
    paths = [path for path in listing.paths if not is_result(path)]
    result.results += len(listing.paths) - len(paths)
    return paths


def _address(text: str) -> str:
    """What to do about a web address; empty for any other text."""
    if not ADDRESS.match(text):
        return ""
    advice = f"download it first:  curl -O {text}" if text.startswith("http") else "save it to a file first"
    return f"{text}: an address, and detect reads files; {advice}"


def _fixed_part(pattern: str) -> Path:
    """The folder in front of the first part with a wildcard."""
    parts = Path(os.path.expanduser(pattern)).parts
    first = next(position for position, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _roots(outright: Sequence[Path]) -> dict[Path, Path]:
    """The roots of files named one by one: their folders, or the folder of them all where two share a name."""
    whole = {path: os.path.abspath(path) for path in outright}
    if len({alike(os.path.basename(os.path.splitext(one)[0])) for one in set(whole.values())}) == len(
        set(whole.values())
    ):
        return {}
    common = Path(os.path.commonpath([os.path.dirname(one) for one in whole.values()]))
    return dict.fromkeys(outright, common)
