"""Summaries of measurements: quartiles of values, and the peak memory of this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Quartiles = tuple[float, float, float]
"""Lower quartile, median, upper quartile."""


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
