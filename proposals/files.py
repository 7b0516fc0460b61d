"""Write files whole or not at all.

A run may be killed, a machine may lose power and a disk may fill at any byte. A file written here has its old content,
its new content, or does not exist.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_whole(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` when the block ends, and is removed when it fails.

    The temporary file has the suffix of `path`, by which libraries choose a format. File and folder are flushed to the
    disk before and after the rename, unless `flush` is off: for small files that can be made again a power cut matters
    less than the milliseconds. A `path` that exists and is no regular file (/dev/stdout, a pipe) is written
    directly; a link keeps pointing to its file.

    Raises:
        OSError: the folder does not exist or cannot be written, or the disk is full; it names a file.
    """
    path = Path(path)
    direct = path.exists() and not path.is_file()
    path = path if direct else path.resolve()
    temporary = path if direct else path.with_name(f".{uuid.uuid4().hex}.part{path.suffix[:32]}")
    try:
        yield temporary
        if not direct:
            if flush:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if flush:
                flush_folder(path.parent)
    except OSError as error:
        # The system names no file when a disk is full, and the temporary one where the folder cannot be written.
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename = str(path)
        raise
    finally:
        if not direct:
            temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk; otherwise a power cut may undo a rename."""
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
