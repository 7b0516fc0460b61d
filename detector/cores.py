"""The processor cores that this process may use: what threads and worker processes are counted by.

In: OMP_NUM_THREADS, the affinity, and the quotas of the control groups of Linux.  Out: a number.
A container with a quota of one core on a machine of 64 is given 64 cores' time slices in turn by the kernel: 64 threads
would use up the quota together and then all wait.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores() -> int:
    """Return how many threads this process should run at once, at least 1.

    That is OMP_NUM_THREADS where the user, `--threads` or torchrun set it, else `allowed_cores`.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is of nested levels
    return int(wanted) if wanted.isdecimal() and int(wanted) else allowed_cores()


def allowed_cores(root: Path = Path("/")) -> int:
    """Return the number of logical cores that the system lets this process use, at least 1.

    Args:
        root: Folder in which proc/self/cgroup and sys/fs/cgroup are.
    """
    quota = min(_quotas(root), default=math.inf)
    return max(1, min(affine_cores(), math.ceil(quota) if math.isfinite(quota) else affine_cores()))


def affine_cores() -> int:
    """Return the number of logical cores that this process may be scheduled on, without regard to quotas."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota of each control group that this process is in, in cores."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        names = [f"cgroup/{controllers}", "cgroup/cpu"] if "cpu" in controllers.split(",") else []
        for name in names if controllers else ("cgroup", "cgroup/unified"):
            top = root / "sys/fs" / name
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):  # a container may see its group at the top, under another name
                yield from _quota(folder)
                if folder == top:
                    break


def _quota(group: Path) -> Iterator[float]:
    """Yield a group's limit, by version 2 (`cpu.max`, "max 100000") or version 1 of control groups."""
    words = _text(group / "cpu.max").split()
    words = words or [*_text(group / "cpu.cfs_quota_us").split(), *_text(group / "cpu.cfs_period_us").split()]
    if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):  # "max" and -1: no limit
        yield int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
