"""Spread a compiled kernel over threads.

In: a kernel and its arrays.  Out: the arrays, filled by as many threads as torch uses.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from numpy.typing import NDArray

from detector.cores import usable_cores

Array = NDArray[Any]
Kernel = Callable[..., None]


def spread(kernel: Kernel, arrays: list[Array]) -> None:
    """Run a compiled kernel over equal parts of the arrays' first axis, on as many threads as torch uses."""
    parts = min(torch.get_num_threads(), len(arrays[0]))
    if parts <= 1:
        return kernel(*arrays)
    edges = [len(arrays[0]) * i // parts for i in range(parts + 1)]
    pieces = [[array[begin:end] for array in arrays] for begin, end in itertools.pairwise(edges)]
    waiting = [_workers(os.getpid()).submit(kernel, *piece) for piece in pieces[1:]]
    kernel(*pieces[0])
    for future in waiting:
        future.result()


@lru_cache(maxsize=1)
def _workers(process: int) -> ThreadPoolExecutor:
    """Return this process's thread pool; a forked child does not inherit threads and gets its own."""
    return ThreadPoolExecutor(max(usable_cores(), torch.get_num_threads()), thread_name_prefix="kernels")
