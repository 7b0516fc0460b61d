"""Where to compute, and in what numbers: the texts of options -> a device that exists, a dtype that it is fast in."""

from __future__ import annotations

import ctypes

import torch

from proposals.errors import UserError
from proposals.settings import PRECISIONS


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
    raise UserError(f"no device {name!r} here; there is {', '.join(here)}")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type that convolutions compute in; what is stored, summed or normalised stays float32.

    Args:
        name: float32; bfloat16: 8 bits of mantissa for 24, half the memory traffic; or auto: bfloat16 where the device
            multiplies it faster: CUDA from compute capability 8, processors with AVX-512 BF16 or AMX.
        device: where the network runs.

    Raises:
        ValueError: no such precision.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}")
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """A context in which networks of float32 weights compute in that precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        can: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older PyTorch does not say
        return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return False


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
