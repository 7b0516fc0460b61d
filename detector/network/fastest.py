"""precision=auto of a network that scores: the fastest number format on this machine, measured once and kept.

In: a device, and whether the network may compute in int8.  Out: float32, bfloat16 or int8. `choose_precision` decides
between the first two by what the processor has; whether int8 is faster than that depends on more, so it is measured:
a second once for a processor, a version of torch, a number of threads. Delete the file to measure again.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from detector.device import choose_precision
from detector.network.googlenet import GoogLeNet
from detector.network.quantised import has_int8, prepare_trunk
from proposals.files import write_whole

MARGIN = 1.25  # int8 loses some accuracy, so it must be this much faster
ROUNDS = 5
RESTRICTIONS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")

_LOG = logging.getLogger(__name__)


def scoring_precision(name: str, device: torch.device, *, calibrated: bool) -> str:
    """Choose the number format of networks that score; results state its answer.

    Args:
        name: float32, bfloat16 and int8 are returned as they are; auto is the fastest.
        device: Device of the networks.
        calibrated: Whether all of them have ranges of their activations, without which int8 is not considered.
    """
    if name != "auto":
        return name
    plain = str(choose_precision(name, device)).removeprefix("torch.")
    if not calibrated or device.type != "cpu" or not has_int8() or not _capabilities().get("avx2"):
        return plain
    return _fastest(plain, _machine())


def measured(plain: str) -> dict[str, float] | None:
    """Return the seconds of int8 and of another precision that were measured on this machine; None before that."""
    try:
        kept = json.loads(cache_file().read_text())[f"{plain}, {_machine()}"]
        return {name: float(kept[name]) for name in (plain, "int8")}
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):  # no home, no file, or a damaged one
        return None


def faster(seconds: dict[str, float], plain: str) -> str:
    """Return int8 where it is enough faster than another precision, else that precision."""
    return "int8" if MARGIN * seconds["int8"] < seconds[plain] else plain


def cache_file() -> Path:
    """Return the file that keeps what was measured."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "googlenet-rcnn" / "precision.json"


@lru_cache
def _fastest(plain: str, machine: str) -> str:
    key = f"{plain}, {machine}"
    seconds = measured(plain)
    if seconds is None:
        seconds = measure(plain)
        kept: dict[str, dict[str, float]] = {}
        with suppress(OSError, ValueError, RuntimeError):
            kept = json.loads(cache_file().read_text())
        _LOG.info("measured on this machine: %s", ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in seconds.items()))
        with suppress(OSError, RuntimeError, TypeError, ValueError):  # then the next process measures again
            cache_file().parent.mkdir(parents=True, exist_ok=True)
            with write_whole(cache_file()) as temporary:
                temporary.write_text(json.dumps({**kept, key: seconds}, indent=1) + "\n")
    return faster(seconds, plain)


def measure(plain: str) -> dict[str, float]:
    """Time the trunk on a square of 224 px in int8 and in another precision: seconds, the least of some rounds."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        runs = {name: _trunk(name) for name in (plain, "int8")}
        x = torch.rand(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        seconds = dict.fromkeys(runs, float("inf"))
        for turn in range(ROUNDS + 1):
            for name, run in runs.items():
                started = perf_counter()
                run(x)
                if turn:  # the first is a warm-up
                    seconds[name] = min(seconds[name], perf_counter() - started)
    return seconds


def _trunk(precision: str) -> Callable[[Tensor], Tensor]:
    trunk = GoogLeNet().eval().trunk
    ranges = {name: 100.0 for name, _ in trunk.named_modules()}  # the speed does not depend on them
    trunk, dtype = prepare_trunk(trunk, precision, torch.device("cpu"), ranges)
    return lambda x: trunk(x.to(dtype))


def _capabilities() -> dict[str, object]:
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older PyTorch does not say
    return found


def _machine() -> str:
    model = platform.processor()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    has = " ".join(sorted(name for name, there in _capabilities().items() if there is True))
    limits = [f"{name}={os.environ[name]}" for name in RESTRICTIONS if name in os.environ]
    return ", ".join([model, has, *limits, f"torch {torch.__version__}", f"{torch.get_num_threads()} threads"])
