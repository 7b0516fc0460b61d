"""Proposals of many images on disk: written once, stopped and resumed at will, read through the page cache.

A store is a folder, or one folder per shard within it, of
    boxes.npy    [N, 4] float32 px      scores.npy   [N] float32      sources.npy  [N] uint8, positions in `sources`
    offsets.npy  [M + 1] int64: the boxes of image i are rows offsets[i] to offsets[i + 1]
    manifest.json  settings, the hash of the list of images, and of each image its name, size, SHA-256 and seconds
    journal.jsonl  the same image by image, as they were finished: what a killed run goes on from

Proposals are found by the content of the image file, so a store serves a moved or renamed data set; a changed image is
refused by its name. Any program's boxes can be put into one: see StoreWriter.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proposals.errors import UserError
from proposals.files import write_whole
from proposals.locking import InUseError, Lock
from proposals.result import MULTIBOX, SELECTIVE_SEARCH, Proposals
from proposals.settings import ProposalConfig

CODE = 3
"""Part of every store's settings; raised when the code proposes other boxes for the same image and settings."""

_ARRAYS: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
    "boxes": (np.dtype("<f4"), (4,)),
    "scores": (np.dtype("<f4"), ()),
    "sources": (np.dtype("u1"), ()),
}


class StoreError(UserError):
    """A store that cannot be used or gone on with; the message names the folder and what to do."""


def store_settings(config: ProposalConfig, files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the boxes of our own proposals depend on.

    Args:
        config: the settings.
        files: hashes of what they name: MultiBox's weights, sources of one's own.
    """
    return {"code": CODE, **config.RETIRED, **asdict(config), "files": dict(files or {})}


def digest(content: bytes) -> str:
    """What identifies an image file: the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()


def shard_of(name: str, shards: int) -> int:
    """The shard, 1 to shards, that an image belongs to, whatever else is on the list."""
    return zlib.crc32(name.encode()) % shards + 1


class StoreWriter:
    """An open store; a context manager. An image is in it, whole, as soon as `append` returns.

    Args:
        folder: of the store; made where there is none, gone on with where there is an unfinished one.
        settings: what the boxes depend on; texts, numbers and lists.
        names: of the images of the whole store, all shards together.
        shard: number, from 1, and count of the shards.
        sources: names of what proposes boxes.

    Attributes:
        done: names of the images in it.
        todo: names of those of this shard that are not, in the order of the list.

    Raises:
        StoreError: the folder's store was made with other settings, holds an image that is not on the list, is damaged,
            or is being written by another process; a name occurs twice.

    >>> with StoreWriter(folder, {"method": "mine"}, names) as writer:  # doctest: +SKIP
    ...     for name in writer.todo:
    ...         boxes, scores = mine(read(name))
    ...         writer.append(name, digest(content), (width, height), Proposals(boxes, scores, sources))
    ...     writer.finish()
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        names: Sequence[str],
        *,
        shard: tuple[int, int] = (1, 1),
        sources: Sequence[str] = (SELECTIVE_SEARCH, MULTIBOX),
    ) -> None:
        number, shards = shard
        if not 1 <= number <= shards:
            raise StoreError(f"shard {number} of {shards}: the number must be from 1 to the count")
        if len(set(names)) != len(names):
            twin = next(name for index, name in enumerate(names) if name in names[:index])
            raise StoreError(f"{folder}: image {twin} is on the list twice")
        self.folder = folder if shards == 1 else folder / f"shard-{number}-of-{shards}"
        self._header = {
            "store": 1,
            "settings": json.loads(json.dumps(dict(settings))),
            "shard": list(shard),
            "sources": list(sources),
        }
        self._list = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
        self._images: list[dict[str, Any]] = []
        self._count = 0
        self._files: dict[str, io.FileIO] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.folder / ".lock")
        except InUseError as error:
            raise StoreError(f"{self.folder}: another process is writing this store; let it finish") from error
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
        try:
            self._journal = (self.folder / "journal.jsonl").open("a+b", buffering=0)
        except OSError as error:
            self._lock.release()
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
        try:
            self._resume()
            self.done = {image["name"] for image in self._images}
            foreign = self.done.difference(names)
            if foreign:
                raise StoreError(
                    f"{self.folder}: holds proposals of {min(foreign)}, which is not on the list of images"
                    f"{f' (and of {len(foreign) - 1} more)' if foreign - {min(foreign)} else ''}; name another folder"
                )
            self.todo = [name for name in names if name not in self.done and shard_of(name, shards) == number]
            if self.todo:
                (self.folder / "manifest.json").unlink(missing_ok=True)
            self._open_arrays()
        except BaseException:
            self.close()
            raise

    def append(self, name: str, sha256: str, size: tuple[int, int], found: Proposals, seconds: float = 0.0) -> None:
        """Add an image.

        Args:
            name: as on the list.
            sha256: digest of its file.
            size: width and height, px.
            found: N proposals, best first.
            seconds: spent on proposing them.

        Raises:
            ValueError: the image is in the store already, or the arrays do not fit together or are not finite; nothing
                is written, and the store can be gone on with.
            StoreError: the disk is full or gone; nothing of the image stays.
        """
        if name in self.done:
            raise ValueError(f"{self.folder}: image {name} is already in the store")
        arrays = self._checked(name, found)
        end = self._count + len(found.boxes)
        image = {"name": name, "sha256": sha256, "size": list(size), "seconds": round(seconds, 4), "end": end}
        line = json.dumps(image).encode() + b"\n"
        try:
            for key, array in arrays.items():
                _write(self._files[key], array.tobytes())
            _write(self._journal, line)  # last: what the journal lacks is cut off on resuming
        except BaseException as error:
            self._cut()
            if isinstance(error, OSError):
                raise StoreError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
            raise
        self._count = end
        self._length += len(line)
        self._images.append(image)
        self.done.add(name)

    def finish(self) -> None:
        """Write what readers look for: the offsets, the arrays' headers and, last of all, the manifest."""
        for key, (kind, shape) in _ARRAYS.items():
            with (self.folder / f"{key}.npy").open("r+b") as again:  # the other is opened to append
                if again.write(_npy_header(kind, (self._count, *shape))) != len(_npy_header(kind, (0, *shape))):
                    raise StoreError(f"{self.folder}: NumPy {np.__version__} cannot rewrite the header of {key}.npy")
                again.flush()
                os.fsync(again.fileno())
        os.fsync(self._journal.fileno())
        with write_whole(self.folder / "offsets.npy") as path:
            np.save(path, np.array([0, *(image["end"] for image in self._images)], np.int64))
        columns = {key: [image[key] for image in self._images] for key in ("name", "sha256", "size", "seconds")}
        manifest = {**self._header, "list_sha256": self._list, "boxes": self._count, "images": columns}
        with write_whole(self.folder / "manifest.json") as path:
            path.write_text(json.dumps(manifest) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Close the files; an unfinished store can be opened again."""
        for file in (self._journal, *self._files.values()):
            file.close()
        self._lock.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, name: str, found: Proposals) -> dict[str, NDArray[Any]]:
        """The arrays of an image as they are written; all are right, or ValueError."""
        rows = len(found.boxes)
        arrays = {}
        for key, (kind, shape) in _ARRAYS.items():
            given = np.asarray(getattr(found, key))
            if given.shape != (rows, *shape):
                raise ValueError(f"{key} of {name} must be {[rows, *shape]}, not {list(given.shape)}")
            with np.errstate(over="ignore", invalid="ignore"):
                array = np.ascontiguousarray(given, dtype=kind)
            if key == "sources":
                if not np.array_equal(array, given) or (rows and array.max() >= len(self._header["sources"])):
                    raise ValueError(f"{key} of {name} must be positions in {self._header['sources']}")
            elif not np.isfinite(array).all():
                raise ValueError(f"{key} of {name} are not finite")
            arrays[key] = array
        return arrays

    def _cut(self) -> None:
        """Drop what an unfinished append left behind."""
        try:
            self._journal.truncate(self._length)
            for key, file in self._files.items():
                file.truncate(self._size(key))
        except OSError:  # opening the store anew cuts it
            self.close()

    def _size(self, key: str) -> int:
        """Bytes of an array's file, as long as the journal says."""
        kind, shape = _ARRAYS[key]
        return len(_npy_header(kind, (0, *shape))) + self._count * kind.itemsize * int(np.prod(shape, dtype=np.int64))

    def _resume(self) -> None:
        """Read the journal, without a last line that was torn, and write its header where it is new."""
        self._journal.seek(0)
        *lines, torn = self._journal.read().split(b"\n")
        try:
            header, *images = map(json.loads, lines or [b"{}"])
            ends = [0, *(image["end"] for image in images)]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.folder}/journal.jsonl: damaged; delete the folder to start anew") from error
        self._length = sum(len(line) + 1 for line in lines)
        if torn:
            self._journal.truncate(self._length)
        if not lines:
            self._length = _write(self._journal, json.dumps(self._header).encode() + b"\n")
        else:
            _compare(self.folder, header, self._header)
        self._images, self._count = images, ends[-1]

    def _open_arrays(self) -> None:
        """Open each array at the end of what the journal vouches for."""
        for key, (kind, shape) in _ARRAYS.items():
            path = self.folder / f"{key}.npy"
            if self._count == 0:
                with write_whole(path) as new:
                    new.write_bytes(_npy_header(kind, (0, *shape)))
            elif not path.is_file() or path.stat().st_size < self._size(key):
                raise StoreError(f"{path}: shorter than the journal says; delete the folder to start anew")
            self._files[key] = path.open("ab", buffering=0)
            self._files[key].truncate(self._size(key))


class ProposalStore:
    """A finished store.

    Args:
        folder: of the store, or of its shards.
        settings: what the boxes must have been made with; None takes any.

    Attributes:
        settings: what the boxes were made with.
        sources: names that Proposals.sources counts.
        names: of its images.
        digests: of their files, in the same order.

    Raises:
        StoreError: there is none, it is unfinished or damaged, a shard is absent, shards do not belong together, or it
            was made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        parts = _parts(folder)
        self._parts = []
        self._where: dict[str, tuple[int, int]] = {}
        self.names: list[str] = []
        self.digests: list[str] = []
        self._seconds: list[list[float]] = []
        self._sizes: list[list[list[int]]] = []
        first: dict[str, Any] = {}
        for number, part in enumerate(parts):
            manifest = _read_manifest(part)
            first = first or manifest
            if manifest["list_sha256"] != first["list_sha256"]:
                raise StoreError(f"{part} and {parts[0]} were made for different lists of images; extract them again")
            _compare(part, {**manifest, "shard": []}, {**first, "shard": []})
            images = manifest["images"]
            self._where |= {sha256: (number, row) for row, sha256 in enumerate(images["sha256"])}
            self.names += images["name"]
            self.digests += images["sha256"]
            self._seconds.append(images["seconds"])
            self._sizes.append(images["size"])
            self._parts.append(_map_arrays(part, manifest))
        self.settings: dict[str, Any] = first["settings"]
        self.sources: tuple[str, ...] = tuple(first["sources"])
        self._by_name = dict(zip(self.names, self.digests, strict=True))
        if settings is not None:
            wanted = json.loads(json.dumps(dict(settings)))
            _compare(folder, first, {**first, "settings": wanted})

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, sha256: object) -> bool:
        """Whether it has the proposals of a file of that digest."""
        return sha256 in self._where

    def entry(self, sha256: str) -> tuple[tuple[int, int], Proposals, float]:
        """Width and height, proposals and seconds of a file that it has, by its digest: as StoreWriter takes them."""
        part, row = self._where[sha256]
        width, height = self._sizes[part][row]
        return (width, height), self._rows(sha256), self._seconds[part][row]

    def get(self, name: str, content: bytes) -> Proposals:
        """The proposals of an image.

        Args:
            name: of the image, for the message.
            content: of its file.

        Raises:
            StoreError: the store has none for this content; the message says whether the image changed.
        """
        sha256 = digest(content)
        if sha256 not in self._where:
            problem = (
                f"{name} is not the image it was when its proposals were stored"
                if name in self._by_name
                else f"has no proposals of {name}"
            )
            raise StoreError(f"{self.folder}: {problem}; delete the folder and extract them again")
        return self._rows(sha256)

    def named(self, name: str) -> Proposals:
        """The proposals of the image of that name, whatever has become of its file since.

        Raises:
            StoreError: the store has no image of that name.
        """
        if name not in self._by_name:
            raise StoreError(f"{self.folder}: has no proposals of {name}; delete the folder and extract them again")
        return self._rows(self._by_name[name])

    def seconds(self, content: bytes) -> float:
        """Seconds that proposing took on the image of that content; 0 where they were not measured."""
        part, row = self._where[digest(content)]
        seconds: float = self._seconds[part][row]
        return seconds

    def _rows(self, sha256: str) -> Proposals:
        part, row = self._where[sha256]
        arrays = self._parts[part]
        start, end = arrays["offsets"][row : row + 2]
        return Proposals(arrays["boxes"][start:end], arrays["scores"][start:end], arrays["sources"][start:end])


def _write(file: io.FileIO, content: bytes) -> int:
    """All of it: an unbuffered file may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    return len(content)


def _npy_header(kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The beginning of an .npy file; as long for any number of rows, because NumPy leaves room for them to grow."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def _parts(folder: Path) -> list[Path]:
    """The folders that hold a store's arrays."""
    shards = sorted(folder.glob("shard-*-of-*"))
    if (folder / "journal.jsonl").is_file() or not shards:
        return [folder]
    count = int(shards[0].name.rpartition("-")[2])
    wanted = [folder / f"shard-{number}-of-{count}" for number in range(1, count + 1)]
    if set(wanted) != set(shards):
        odd = min({*wanted} ^ {*shards})
        state = "belongs to another split" if odd in shards else "is absent"
        raise StoreError(f"{folder}: {odd.name} {state}; extract all shards of one count")
    return wanted


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        state = "unfinished; run the same extraction again, it goes on" if folder.is_dir() else "no such folder"
        raise StoreError(f"{folder}: no finished proposals here ({state})")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest["store"] != 1 or not {"settings", "sources", "images", "list_sha256", "boxes"} <= manifest.keys():
            raise KeyError("store")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: no manifest of a proposal store; extract the proposals again") from error
    return manifest


def _map_arrays(folder: Path, manifest: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays, memory-mapped but for the offsets, of the lengths that the manifest says."""
    rows = {"boxes": (manifest["boxes"], 4), "scores": (manifest["boxes"],), "sources": (manifest["boxes"],)}
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for key, shape in rows.items():
            arrays[key] = np.load(folder / f"{key}.npy", mmap_mode="r")
            if arrays[key].shape != shape:
                raise ValueError(f"{key}.npy is {list(arrays[key].shape)}")
        arrays["offsets"] = np.load(folder / "offsets.npy")
        if arrays["offsets"].shape != (len(manifest["images"]["name"]) + 1,):
            raise ValueError(f"offsets.npy is {list(arrays['offsets'].shape)}")
        edges = arrays["offsets"]
        if edges[0] != 0 or edges[-1] != manifest["boxes"] or (np.diff(edges) < 0).any():
            raise ValueError("offsets.npy does not divide the boxes")
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{folder}: damaged ({error}); delete the folder and extract the proposals again") from error
    return arrays


def _compare(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise StoreError, naming the first setting that differs, unless both manifests describe the same proposals."""
    for key in ("store", "shard", "sources"):
        if before.get(key) != now[key]:
            raise StoreError(f"{folder}: made with {key} = {before.get(key)!r}, now {now[key]!r}; name another folder")
    old, new = before.get("settings", {}), now["settings"]
    for key in {**old, **new}:
        if old.get(key, "not set") != new.get(key, "not set"):
            raise StoreError(
                f"{folder}: made with {key} = {old.get(key, 'not set')!r}, now {new.get(key, 'not set')!r}; "
                "name another folder, or delete this one to start anew"
            )
