"""What measurements are told by: quartiles of their values, and the memory that a process took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Quartiles = tuple[float, float, float]
"""Lower quartile, median, upper quartile."""


def quartiles(values: Sequence[float] | NDArray[np.float64]) -> Quartiles:
    """Lower quartile, median and upper quartile."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def peak_memory() -> float:
    """Peak resident memory of this process, MB; not a number where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts ru_maxrss on from the process that started this one
        high_water = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high_water.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows does not say
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
