"""Measurements and their summaries: seconds by stage, quartiles of values, the peak memory of this process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

Quartiles = tuple[float, float, float]
"""Lower quartile, median, upper quartile."""


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time that the block takes to seconds[stage]."""
    started = perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + perf_counter() - started


def quartiles(values: Sequence[float] | NDArray[np.float64]) -> Quartiles:
    """Return lower quartile, median and upper quartile."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def peak_memory() -> float:
    """Return the peak resident memory of this process, MB; NaN where the system does not state it."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss includes the process that started this one
        high_water = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high_water.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
