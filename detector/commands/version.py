"""What --version prints: the versions and the machine, which a bug report needs.

Nothing here fails: of a library that cannot be imported it prints why. torch and OpenCV are imported when it is asked.
"""

from __future__ import annotations

import platform
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from detector.cores import affine_cores, usable_cores
from detector.invocation import CONSOLE

ROOT = Path(__file__).resolve().parent.parent.parent
OPTIONAL = ("onnx", "onnxscript", "onnxruntime", "argcomplete", "tensorboard")
SHOWN = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Instruction sets that decide which precision is fast, by torch's names."""


def describe_installation() -> list[str]:
    """Describe this program, its libraries and the machine, a line each."""
    optional = [f"{name} {_installed(name)}" for name in OPTIONAL if _installed(name)]
    return [
        f"{CONSOLE} {own_version()}, in {Path(__file__).resolve().parent.parent}",
        f"Python {platform.python_version()}, {platform.platform()}",
        f"torch {_of('torch')}, torchvision {_of('torchvision')}",
        f"OpenCV {_of('cv2')}, NumPy {_of('numpy')}, numba {_installed('numba') or 'not installed'}",
        f"optional: {', '.join(optional) or 'none'}",
        f"devices: {_said(_devices)}",
        f"processor: {processor()}",
        f"instructions: {_said(_instructions)}",
        f"threads: {_said(_threads)}; {usable_cores()} of {affine_cores()} cores to be used",
        f"precision=auto: {_said(_precision)}",
    ]


def own_version() -> str:
    """Return the version of this program: of the checkout that it lies in, else of the installed package."""
    with suppress(OSError, ValueError, KeyError):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == CONSOLE:
            return str(project["version"])
    return _installed(CONSOLE) or "of unknown version"


def processor() -> str:
    """Return the name of the processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _of(module: str) -> str:
    return _said(lambda: str(import_module(module).__version__))


def _said(answer: Callable[[], str]) -> str:
    """Return an answer, or why there is none, which is what the bug report may be about."""
    try:
        return answer()
    except Exception as error:
        return f"none ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"


def _devices() -> str:
    import torch

    found = ["cpu"]
    found += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    return ", ".join([*found, *["mps"] * torch.backends.mps.is_available()])


def _instructions() -> str:
    import torch

    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older PyTorch does not say
    names = [name for name in SHOWN if can.get(name)]
    return ", ".join(names) or f"{platform.machine()}, torch {torch.__version__} names none"


def _threads() -> str:
    import torch

    opencv = f", OpenCV {sys.modules['cv2'].getNumThreads()}" if "cv2" in sys.modules else ""
    return f"torch {torch.get_num_threads()}{opencv}"


def _precision() -> str:
    from detector.device import choose_device, choose_precision
    from detector.network.fastest import faster, measured

    device = choose_device("auto")
    plain = str(choose_precision("auto", device)).removeprefix("torch.")
    seconds = measured(plain) if device.type == "cpu" else None
    if device.type != "cpu":
        return f"{plain} on {device}"
    if seconds is None:
        return f"{plain}, or int8 if it is faster, which the first detection measures"
    times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
    return f"{faster(seconds, plain)} (measured: {times})"
