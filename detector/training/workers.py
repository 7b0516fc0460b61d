"""Batches prepared by DataLoader workers.

Workers run one OpenCV thread each. They ignore Ctrl-C so that the parent can finish its batch and save first, and end
30 s after SIGTERM in case the parent has died.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from detector.data.image import ImageError
from detector.extraction import one_opencv_thread

GRACE = 30  # s


def load(
    dataset: TorchDataset[Any], batches: range | Sequence[Sequence[int]], workers: int
) -> Iterator[tuple[Tensor, ...]]:
    """Prepare batches in order; the workers end with the iteration, whatever ends it.

    Args:
        dataset: Position -> example, or batch number -> batch.
        batches: Positions of each batch's examples; a range holds numbers of batches that the data set gives whole.
        workers: Number of processes; 0 prepares in this one.

    Raises:
        ImageError: an image cannot be read.
    """
    whole = isinstance(batches, range)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None if whole else 1,
        sampler=batches if whole else None,
        batch_sampler=None if whole else batches,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    with one_opencv_thread():
        prepared = iter(loader)
    try:
        yield from map(tuple, prepared)
    except ImageError as error:  # from a worker, with the worker's traceback in its text
        last = str(error).strip().splitlines()[-1]
        raise ImageError(last.removeprefix(f"{ImageError.__module__}.{ImageError.__name__}: ")) from None
    finally:
        shutdown = getattr(prepared, "_shutdown_workers", None)  # a traceback would keep them until exit
        if shutdown:
            shutdown()


@lru_cache(maxsize=2)
def _order(seed: int, number: int, count: int) -> Any:
    return np.random.default_rng((seed, number)).permutation(count)


def index_at(seed: int, position: int, count: int) -> int:
    """Index of the example at a position in a stream of passes over `count` examples, each pass in its own order."""
    number, place = divmod(position, count)
    return int(_order(seed, number, count)[place])


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    # Both signals reach the whole process group. Ignoring SIGTERM for good would let a parent that fails wait for its
    # workers forever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
