"""The first run on a machine: another process compiles selective search while this one imports torch and loads weights.

In: the settings of proposals, before torch is imported.  Out: kernels in numba's cache, each compiled once.
Selective search is over half of what is compiled. `rehearse` compiles the detector's own kernels meanwhile. Where no
process can be started or it fails, this one compiles everything at the first image.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cores import usable_cores
from proposals.settings import ProposalConfig

if TYPE_CHECKING:
    from detector.pipeline import Detector

PACKAGE = "proposals.selective"
LONGEST = 120  # seconds after which another process has failed, on a very busy machine too


@contextmanager
def compiling_aside(config: ProposalConfig) -> Iterator[bool]:
    """Compile selective search in another process where that is still to be done, until the end of the block.

    Kernels of selective search that are called in the block wait for it. The process ends with this one, however that
    ends, and with a block that is left by an exception.

    Args:
        config: What will be proposed.

    Yields:
        Whether there is such a process.
    """
    child = _start() if config.selective_search and config.method == "native" else None
    if child is None:
        yield False
        return
    from proposals.compiling import announce, before_loading

    announce()
    before_loading(PACKAGE, lambda: _wait(child))
    try:
        yield True
        _wait(child)
    finally:
        child.kill()
        _wait(child)
        if child.stdin:
            child.stdin.close()


def rehearse(detector: Detector) -> None:
    """Compile the kernels that a detector calls after it has proposed."""
    import numpy as np
    import torch

    from detector.regions.maps import roi_align
    from detector.regions.warp import warp
    from detector.suppression import class_nms, class_soft_nms, voted

    image, box, score = np.zeros((9, 9, 3), np.uint8), np.array([[0, 0, 9, 9]], np.float32), np.ones((1, 1), np.float32)
    for member in detector.members if detector.device.type == "cpu" else []:
        if member.shared:
            roi_align(torch.zeros(1, 1, 9, 9), box, member.shared.grid)
        else:
            warp(image, box, member.regions, member.convention.mean)
    config = detector.config
    if not config.suppression.soft_sigma or config.cascade.near < 1:
        class_nms(box[:, None], score, 0.0, 1.0)
    if config.suppression.soft_sigma:
        class_soft_nms(box[:, None], score, 0.0, config.suppression.soft_sigma)
    if config.suppression.vote:
        voted(box[:, None], np.ones((1, 2)), box.astype(np.float64), np.zeros(1, np.int64), config.suppression.vote)


def compile_selective_search() -> None:
    """Be the other process: fill numba's cache, and end at once when standard input does, as when its writer ends."""

    def end_with_parent() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import numpy as np

    from proposals.selective.search import selective_search

    selective_search(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def _start() -> subprocess.Popen[bytes] | None:
    """Start the other process if it has work to do and a core to do it on."""
    if not sys.executable or getattr(sys, "frozen", False) or usable_cores() < 2:
        return None
    import proposals.selective.search  # its kernels are asked next
    from proposals.compiling import is_cold

    if not is_cold(PACKAGE):
        return None
    # The same files as here, whatever put them on the path: the cache knows kernels by their files.
    path = [entry for entry in [*sys.path, str(Path(proposals.__file__).parent.parent)] if isinstance(entry, str)]
    work = compile_selective_search.__name__
    program, quiet = f"import sys; sys.path[:] = {path!r}; from {__name__} import {work}; {work}()", subprocess.DEVNULL
    with suppress(OSError, ValueError, MemoryError, subprocess.SubprocessError):
        return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    return None


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Wait for the other process to end."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(LONGEST)
        return
    child.kill()
    child.wait()
