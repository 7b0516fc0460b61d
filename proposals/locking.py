"""Lock files, each held by one process at a time.

In: a path.  Out: a lock, which ends with its process however that ends.
"""

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
    """Another process holds the lock."""


class Lock:
    """A lock file, held until `release`, which removes the file, or until the process ends.

    The system's own locks are used. Where a platform or a network folder has none, the file holds the number of its
    process and counts as long as a process with that number runs on this machine.

    Args:
        path: The lock file, used for nothing else; its folder must exist.

    Raises:
        InUseError: another Lock holds the file, in this process or in another one.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        while self._file is None:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take(file)
                # The previous holder may have removed the file after it was opened here; then the lock is on no name.
                if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                    self._file = file
            finally:
                if self._file is None:
                    os.close(file)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
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
        try:
            if fcntl is not None:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if msvcrt is not None:
                return msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if msvcrt is not None or isinstance(error, BlockingIOError):
                raise InUseError(f"{self.path}: another process is at work here") from error
            # else a folder without locks, as on some network file systems
        owner = os.read(file, 32)
        if owner.isdigit() and _runs(int(owner)):
            raise InUseError(f"{self.path}: process {int(owner)} is at work here")
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, str(os.getpid()).encode())


def _runs(process: int) -> bool:
    if os.name != "nt":  # where the number 0 would be a signal
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    return True
