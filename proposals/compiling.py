"""The decorator of all compiled kernels.

Numba caches compiled code beside the source or in the user's cache folder. Where neither can be written (a read-only
container) it raises at import; here such a process compiles for itself. The first compilation of a process is logged.
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


class _Announcer(event.Listener):
    """Logs the first compilation of the process; numba reports none for code in its cache."""

    announced = False

    def on_start(self, started: Any) -> None:
        if not _Announcer.announced and started.data.get("dispatcher") in _KERNELS:
            _Announcer.announced = True
            _LOG.warning(
                "compiling once for this machine, about 10 seconds in all, on a slow or busy one up to a minute; "
                "later runs find it done where they may write"
            )

    def on_end(self, _: Any) -> None:
        pass


event.register("numba:compile", _Announcer())  # type: ignore[no-untyped-call]
