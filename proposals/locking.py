"""Files of which one process at a time is the owner: a lock ends with its process, however that ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from proposals.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None  # type: ignore[assignment]


class InUseError(UserError):
    """Another process has the lock."""


class Lock:
    """A lock file, held from the beginning until `release` or the end of the process; it disappears with the former.

    The system's own locks are used. Where a platform or a network's folder has none, the file holds the number of its
    process, and counts as long as a process of that number runs here.

    Args:
        path: the lock file, used for nothing else; its folder must exist.

    Raises:
        InUseError: another Lock holds it, in this process or in another.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        while self._file is None:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take(file)
                # The one before may have removed the file after it was opened here: then the lock is on no name.
                if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                    self._file = file
            finally:
                if self._file is None:
                    os.close(file)

    def release(self) -> None:
        """Let others have it; a second time does nothing."""
        if self._file is None:
            return
        file, self._file = self._file, None
        if os.name != "nt":  # Windows removes no open file
            self.path.unlink(missing_ok=True)
        os.close(file)
        if os.name == "nt":
            with suppress(OSError):  # another process may have opened it in between
                self.path.unlink(missing_ok=True)

    def _take(self, file: int) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                raise InUseError(f"{self.path}: another process is at work here") from error
            except OSError:  # a folder without locks, as some of networks are
                pass
        elif msvcrt is not None:
            try:
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:
                raise InUseError(f"{self.path}: another process is at work here") from error
        owner = os.pread(file, 32, 0) if hasattr(os, "pread") else os.read(file, 32)
        if owner.isdigit() and _runs(int(owner)):
            raise InUseError(f"{self.path}: process {int(owner)} is at work here")
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, str(os.getpid()).encode())


def _runs(process: int) -> bool:
    if os.name == "nt":  # where the number 0 would be a signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
