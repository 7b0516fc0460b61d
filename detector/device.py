"""The device to compute on, and the precision of convolutions.

In: the texts of options.  Out: a device that exists, and the dtype in which it computes.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proposals.errors import UserError
from proposals.settings import PRECISIONS

FULL = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
"""Texts of a RuntimeError when memory is full: CUDA, Apple, CPUs, cuDNN and cuBLAS."""


TRAINING_PRECISIONS = (*PRECISIONS, "float16")
"""Number formats that networks are trained in."""

WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Restrictions of oneDNN, in ONEDNN_MAX_CPU_ISA, that take the processor's bfloat16 away."""


class DeviceError(UserError):
    """A device or precision that this machine lacks."""


def choose_device(name: str) -> torch.device:
    """Return the named device; "auto" is CUDA where available, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: this machine has no such device; the message lists its devices.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        here.append("mps")
    if name == "auto":
        return torch.device("cuda" if "cuda:0" in here else here[-1])
    if name.removesuffix(":0") in ("cpu", "mps"):  # of these there is one
        name = name.removesuffix(":0")
    if name in here or (name == "cuda" and "cuda:0" in here):
        return torch.device(name)
    raise DeviceError(f"no device {name!r} here; there is {', '.join(here)}")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Choose the type in which convolutions compute; what is stored, summed or normalised stays float32.

    This function alone decides what "auto" means on a device; results state its answer.

    Args:
        name: float32; bfloat16 (8 bits of mantissa instead of 24, half the memory traffic); or auto, which is bfloat16
            where the device multiplies it faster: CUDA from compute capability 8, processors with AVX-512 BF16 or AMX.
        device: Device of the network.

    Raises:
        ValueError: another name.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}")
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def training_precision(name: str, device: torch.device) -> torch.dtype:
    """Choose the type in which the layers of a training compute; weights, averages and sums stay float32.

    float16 has 5 bits of exponent instead of 8: gradients must be scaled, which `ScaledSteps` does.

    Args:
        name: float32; bfloat16; float16 (CUDA only); or auto: where the device multiplies bfloat16 faster, bfloat16;
            else float16 on CUDA from compute capability 7 (the first tensor cores); else float32.
        device: Device of the network.

    Raises:
        ValueError: another name.
        DeviceError: float16 on another device than CUDA.
    """
    if name not in TRAINING_PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(TRAINING_PRECISIONS)}, not {name!r}")
    if name == "float16" and device.type != "cuda":
        raise DeviceError(f"precision=float16 trains on CUDA devices, not on {device}; set precision=auto")
    if name == "float16":
        return torch.float16
    if name == "auto" and device.type == "cuda" and (7, 0) <= torch.cuda.get_device_capability(device) < (8, 0):
        return torch.float16
    return choose_precision(name, device)


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which networks with float32 weights compute in a precision.

    Raises:
        DeviceError: this PyTorch lacks the precision on the device.
    """
    if precision == torch.float32:
        return nullcontext()
    try:
        return torch.autocast(device.type, precision)
    except RuntimeError as error:  # Apple's GPUs before PyTorch 2.5
        short = str(precision).removeprefix("torch.")
        raise DeviceError(f"PyTorch {torch.__version__} has no {short} on {device}; set precision=float32") from error


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device; to CUDA by way of pinned memory, so that nothing waits for the copy."""
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))  # which torch needs
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory is full; devices and versions of PyTorch raise different ones."""
    kinds = (MemoryError, *(getattr(module, "OutOfMemoryError", MemoryError) for module in (torch, torch.cuda)))
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and any(text in str(error) for text in FULL))


def free_cached_memory(device: torch.device) -> None:
    """Return the memory of a device that PyTorch caches."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_BFLOAT16:
            return False
        can: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older PyTorch does not say
        return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return False


def keep_freed_memory() -> None:
    """Make the C library keep large freed blocks for reuse (glibc; elsewhere nothing happens).

    Otherwise each large activation needs fresh pages in every batch, which takes a fifth of a training step on a CPU.
    It affects the whole process, so that commands call it and the library does not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
