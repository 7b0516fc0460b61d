"""Batches that other processes prepare; those must not start OpenCV's threads, nor end before the run does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import cv2
from torch.utils.data import DataLoader

from detector.data.image import ImageError
from detector.extraction import one_opencv_thread

GRACE = 30  # s


def start_worker(_: int) -> None:
    """For torch's DataLoader as worker_init_fn."""
    cv2.setNumThreads(1)
    # Both are sent to the whole group; the parent ends the run, after the batch under way. Ignored for good, SIGTERM
    # would let a parent that fails wait for its workers forever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


def prepared_batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches; its processes end with the iteration, whatever ends it."""
    with one_opencv_thread():
        prepared = iter(loader)
    try:
        yield from prepared
    except ImageError as error:  # from another process it comes with that one's traceback
        last = str(error).strip().splitlines()[-1]
        raise ImageError(last.removeprefix(f"{ImageError.__module__}.{ImageError.__name__}: ")) from None
    finally:
        shutdown = getattr(prepared, "_shutdown_workers", None)  # a traceback would keep them until exit
        if shutdown:
            shutdown()
