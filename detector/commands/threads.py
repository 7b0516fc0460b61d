"""How many threads a command uses, and how they wait: chosen by environment variables, before torch and OpenCV load.

torch's wheels bring GNU's OpenMP on Linux, LLVM's on macOS and Intel's on Windows; each reads its variables once, when
it is loaded. Threads that spin while they wait for their next task take the core from a thread that has one as soon as
anything else runs on the machine. Nothing here imports torch or OpenCV.
"""

from __future__ import annotations

import os
import sys

from detector.cores import affine_cores, allowed_cores, usable_cores


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user chose OMP_WAIT_POLICY."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # LLVM's and Intel's spin for 200 ms before they sleep


def set_threads(count: int | None = None) -> None:
    """Set the threads of torch, of OpenCV and of the kernels, which use as many as torch.

    Args:
        count: Number of threads, for loaded libraries too. None keeps what the user set in the environment, else what
            the libraries choose by cores and affinity, limited by the quota of this process's control group.
    """
    if count is None:
        if allowed_cores() < affine_cores():
            os.environ.setdefault("OMP_NUM_THREADS", str(allowed_cores()))
        os.environ.setdefault("OPENCV_FOR_THREADS_NUM", str(usable_cores()))
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):  # torch prefers MKL's to OpenMP's
        os.environ[name] = str(count)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)
    if "cv2" in sys.modules:
        import cv2

        cv2.setNumThreads(count)
