"""Where to compute: the text of a --device option -> a torch device that exists."""

from __future__ import annotations

import ctypes

import torch


def choose_device(name: str) -> torch.device:
    """The named device; "auto" is CUDA where there is one, then Apple's MPS, then the CPU.

    Raises:
        ValueError: no such device here; names those that are.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        here.append("mps")
    if name == "auto":
        return torch.device("cuda" if "cuda:0" in here else here[-1])
    if name in here or (name == "cuda" and "cuda:0" in here):
        return torch.device(name)
    raise ValueError(f"no device {name!r} here; there is {', '.join(here)}")


def keep_freed_memory() -> None:
    """Let the C library reuse large blocks instead of returning them to the system (glibc; elsewhere nothing happens).

    Each large activation otherwise costs fresh pages at every batch: a fifth of a training step on a CPU. It concerns
    the whole process, so commands call it, not the library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
