"""Say that code is being compiled: the first search on a machine would otherwise be silent for 15 seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event

_LOG = logging.getLogger("proposals")  # warnings go to stderr unless the program says otherwise


class _Announcer(event.Listener):
    """Logs the first compilation of the process; numba reports none for what its disk cache holds."""

    announced = False

    def on_start(self, _: Any) -> None:
        if not _Announcer.announced:
            _Announcer.announced = True
            _LOG.warning("compiling selective search; only the first run on this machine does, for about 15 seconds")

    def on_end(self, _: Any) -> None:
        pass


@contextmanager
def announced() -> Iterator[None]:
    """Within it the first compilation is announced."""
    with event.install_listener("numba:compile", _Announcer()):
        yield
