"""What the processes that prepare batches must not do: start OpenCV's threads, or answer signals meant for the run."""

from __future__ import annotations

import signal

import cv2


def start_worker(_: int) -> None:
    """For torch's DataLoader as worker_init_fn."""
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; it is the parent that ends the run
        signal.signal(number, signal.SIG_IGN)
