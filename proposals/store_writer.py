"""Writing a proposal store (proposals.store) image by image, so that a kill at any moment loses nothing.

In: names of images, settings, and the proposals of each image.  Out: a finished store.
The rows of an image are appended to the arrays first and its line to the journal last. Rows of images that are not in
the journal are cut off when the store is opened again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proposals.files import write_whole
from proposals.locking import InUseError, Lock
from proposals.result import MULTIBOX, SELECTIVE_SEARCH, Proposals
from proposals.store import ARRAYS, StoreError, compare


def shard_of(name: str, shards: int) -> int:
    """Return the shard, 1 to `shards`, of an image; it depends on the image's name alone."""
    return zlib.crc32(name.encode()) % shards + 1


class StoreWriter:
    """An open store; a context manager. An image is stored, whole, as soon as `append` returns.

    Args:
        folder: Folder of the store; a new one is made, an unfinished store is resumed.
        settings: Everything that the boxes depend on; texts, numbers and lists.
        names: Names of the images of the whole store, all shards together.
        shard: Number of the shard, from 1, and count of the shards.
        sources: Names of the sources of boxes.

    Attributes:
        done: Names of the images that are stored.
        todo: Names of this shard's images that are not, in the order of `names`.

    Raises:
        StoreError: the folder's store was made with other settings, holds an image that is not in `names`, is damaged,
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
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.callback(Lock(self.folder / ".lock").release)
                self._journal = stack.enter_context((self.folder / "journal.jsonl").open("a+b", buffering=0))
            except InUseError as error:
                raise StoreError(f"{self.folder}: another process is writing this store; let it finish") from error
            except OSError as error:
                raise self._unwritable(error) from error
            self._images = self._resume()
            self._count: int = self._images[-1]["end"] if self._images else 0
            self.done = {image["name"] for image in self._images}
            foreign = sorted(self.done.difference(names))
            if foreign:
                more = f" (and of {len(foreign) - 1} more)" if foreign[1:] else ""
                raise StoreError(
                    f"{self.folder}: holds proposals of {foreign[0]}, which is not on the list of images{more}; "
                    "name another folder"
                )
            self.todo = [name for name in names if name not in self.done and shard_of(name, shards) == number]
            if self.todo:
                (self.folder / "manifest.json").unlink(missing_ok=True)
            self._files = {key: stack.enter_context(self._opened(key)) for key in ARRAYS}
            self._open = stack.pop_all()

    def append(self, name: str, sha256: str, size: tuple[int, int], found: Proposals, seconds: float = 0.0) -> None:
        """Store an image's proposals.

        Args:
            name: Name of the image, as on the list.
            sha256: Digest of its file.
            size: Width and height, px.
            found: The N proposals, best first.
            seconds: Time spent on proposing them.

        Raises:
            ValueError: the image is stored already, or the arrays do not fit together or are not finite; nothing is
                written, and the store can be resumed.
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
                raise self._unwritable(error) from error
            raise
        self._count = end
        self._length += len(line)
        self._images.append(image)
        self.done.add(name)

    def finish(self) -> None:
        """Complete the store: write the arrays' headers, the offsets and, last, the manifest."""
        for key, (kind, shape) in ARRAYS.items():
            with (self.folder / f"{key}.npy").open("r+b", buffering=0) as again:  # the other is opened to append
                _write(again, _npy_header(kind, (self._count, *shape)))
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
        self._open.close()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"{self.folder}: cannot be written ({error.strerror or error})")

    def _checked(self, name: str, found: Proposals) -> dict[str, NDArray[Any]]:
        """Return the arrays of an image as they are written; raise ValueError unless all are right."""
        rows = len(found.boxes)
        arrays = {}
        for key, (kind, shape) in ARRAYS.items():
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
        """Remove the rows and the line of an unfinished append."""
        try:
            self._journal.truncate(self._length)
            for key, file in self._files.items():
                file.truncate(self._size(key))
        except OSError:  # opening the store anew cuts it
            self.close()

    def _size(self, key: str) -> int:
        """Return the bytes of an array's file according to the journal."""
        kind, shape = ARRAYS[key]
        return len(_npy_header(kind, (0, *shape))) + self._count * kind.itemsize * int(np.prod(shape, dtype=np.int64))

    def _resume(self) -> list[dict[str, Any]]:
        """Return the images in the journal, without a torn last line; a new journal gets its header."""
        self._journal.seek(0)
        *lines, torn = self._journal.read().split(b"\n")
        try:
            header, *images = map(json.loads, lines or [b"{}"])
            for image in images:
                _ = image["end"], image["name"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.folder}/journal.jsonl: damaged; delete the folder to start anew") from error
        self._length = sum(len(line) + 1 for line in lines)
        if torn:
            self._journal.truncate(self._length)
        if lines:
            compare(self.folder, header, self._header)
        else:
            self._length = _write(self._journal, json.dumps(self._header).encode() + b"\n")
        return images

    def _opened(self, key: str) -> io.FileIO:
        """Open an array at the end of the rows of the images in the journal."""
        path = self.folder / f"{key}.npy"
        if self._count == 0:
            kind, shape = ARRAYS[key]
            with write_whole(path) as new:
                new.write_bytes(_npy_header(kind, (0, *shape)))
        elif not path.is_file() or path.stat().st_size < self._size(key):
            raise StoreError(f"{path}: shorter than its journal requires; delete the folder to start anew")
        file = path.open("ab", buffering=0)
        file.truncate(self._size(key))
        return file


def _write(file: io.FileIO, content: bytes) -> int:
    """Write all of the content: an unbuffered file may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    return len(content)


def _npy_header(kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the beginning of an .npy file; NumPy leaves room in it, so that its length does not depend on the rows."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
