"""The cores that a process may use, against files as the kernel writes them and the affinity that it was given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detector.cores import affine_cores, allowed_cores, usable_cores

ROOT = Path(__file__).parent.parent
VERSION_2 = "0::/user.slice/job.scope\n"
VERSION_1 = "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/\n1:name=systemd:/\n"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    texts = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # rounded up
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),  # more than there are
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "what\n"}, 8),
        (VERSION_2, {"user.slice/job.scope/cpu.max": "300000 100000\n", "user.slice/cpu.max": "max 100000\n"}, 3),
        (VERSION_2, {"user.slice/job.scope/cpu.max": "max 100000\n", "user.slice/cpu.max": "50000 25000\n"}, 2),
        (VERSION_2, {"cpu.max": "100000 100000\n"}, 1),
        (VERSION_2, {"other.slice/cpu.max": "100000 100000\n"}, 8),
        (VERSION_1, {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n"}, 8),  # without a period
        (VERSION_1, version_1("cpu,cpuacct/docker/abc", 250_000), 3),
        (VERSION_1, version_1("cpu", 400_000), 4),  # as a container sees its own group
        (VERSION_1, version_1("cpu", -1), 8),
        ("1:cpu:/\n0::/\n", version_1("cpu", 500_000), 5),
    ],
)
def test_the_quota_of_the_control_group(tmp_path: Path, groups: str, files: dict[str, str], wanted: int) -> None:
    assert allowed_cores(system(tmp_path, groups, files)) == wanted


def test_affinity_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = system(tmp_path, "0::/\n", {"cpu.max": "600000 100000\n"})
    assert allowed_cores(root) == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 7}, raising=False)
    assert (affine_cores(), allowed_cores(root)) == (2, 2)


def test_a_system_without_affinity_counts_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert affine_cores() == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert affine_cores() == 1


@pytest.mark.parametrize(("text", "wanted"), [("3", 3), ("32", 32), ("4,2", 4), ("0", None), ("", None), ("x", None)])
def test_the_users_number_wins(monkeypatch: pytest.MonkeyPatch, text: str, wanted: int | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert usable_cores() == (wanted or allowed_cores())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_the_affinity_that_the_kernel_reports() -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); from detector.cores import *; print(usable_cores())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout == "1\n"
