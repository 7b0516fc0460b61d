"""Where to compute: the text of a --device option -> a torch device that exists."""

from __future__ import annotations

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
