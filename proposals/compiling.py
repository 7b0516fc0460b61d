"""The decorator of all compiled kernels.

Numba caches compiled code beside the source or in the user's cache folder. Where neither can be written (a read-only
container) it raises at import; here such a process compiles for itself. The first compilation of a process is logged.
A program may compile a package's kernels in another process where `is_cold`, and await them by `before_loading`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from numba import njit
from numba.core import event

_LOG = logging.getLogger("proposals")  # warnings go to stderr unless the program says otherwise
_KERNELS: set[Any] = set()

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:
    """Compile a function at its first call, free of the global interpreter lock; takes the options of `numba.njit`."""

    def decorate(function: Function) -> Function:
        try:
            kernel: Any = njit(cache=True, nogil=True, **options)(function)
            _ignore_cache_errors(kernel)
        except RuntimeError:  # "cannot cache function": no folder can be written
            kernel = njit(nogil=True, **options)(function)
        _KERNELS.add(kernel)
        result: Function = kernel
        return result

    return decorate


def _ignore_cache_errors(kernel: Any) -> None:
    """Use compiled code even where it cannot be cached."""
    cache = getattr(kernel, "_cache", None)
    save = getattr(cache, "save_overload", None)
    if save is None:
        return

    def save_if_possible(*arguments: Any) -> None:
        with suppress(OSError):
            save(*arguments)

    cache.save_overload = save_if_possible  # type: ignore[union-attr]


def is_cold(package: str) -> bool:
    """Return whether a kernel of an imported package is missing in a cache that can be written.

    A cache counts that was made by the same source, version of numba and kind of processor.

    Args:
        package: Name of the package, such as "proposals.selective".
    """
    with suppress(Exception):  # numba names none of this publicly; where it changes, each process compiles for itself
        for kernel in _kernels(package):
            processor = kernel.targetctx.codegen().magic_tuple()
            if all(key[1] != processor for key in kernel._cache._cache_file._load_index()):
                return True
    return False


def before_loading(package: str, wait: Callable[[], None]) -> None:
    """Call a function whenever a kernel of an imported package, not compiled yet, is about to be sought in the cache.

    It may be called in any thread, and numba compiles nothing meanwhile.
    """
    for kernel in _kernels(package):
        kernel._cache.load_overload = _after(wait, kernel._cache.load_overload)


def announce() -> None:
    """Log that kernels are being compiled, once in a process."""
    if not _Announcer.announced:
        _Announcer.announced = True
        _LOG.warning(
            "compiling once for this machine, about 10 seconds in all, on a slow or busy one up to a minute; "
            "later runs find it done where they may write"
        )


def _kernels(package: str) -> list[Any]:
    return [kernel for kernel in _KERNELS if kernel.__module__.startswith(f"{package}.")]


def _after(wait: Callable[[], None], load: Callable[..., Any]) -> Callable[..., Any]:
    def load_after(*arguments: Any) -> Any:
        wait()
        return load(*arguments)

    return load_after


class _Announcer(event.Listener):
    """Announces the first compilation of the process; numba reports none for code in its cache."""

    announced = False

    def on_start(self, started: Any) -> None:
        if started.data.get("dispatcher") in _KERNELS:
            announce()

    def on_end(self, _: Any) -> None:
        pass


event.register("numba:compile", _Announcer())  # type: ignore[no-untyped-call]
