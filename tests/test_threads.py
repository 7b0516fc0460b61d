"""How many threads a command uses and how they wait, as the loaded libraries themselves report it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import cv2
import pytest
import torch

from detector.commands import COMMANDS
from detector.commands.threads import set_threads, wait_passively

ROOT = Path(__file__).parent.parent
NAMES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
gnu = pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux only")


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # what a test sets is undone too
        monkeypatch.delenv(name)
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "verbose"} | environment
    return subprocess.run([sys.executable, *words], env=variables, cwd=ROOT, capture_output=True, text=True, check=True)


def spins(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether threads spin before they sleep, by what GNU's OpenMP prints as it is loaded."""
    return set(re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)) != {"0"}


@gnu
@pytest.mark.parametrize(
    "words",
    [
        ["tools/describe_model.py", "--settings"],
        ["-c", "from detector.commands import main; main(['describe-model', '--settings'])"],
        ["tools/benchmarks/detector_speed.py", "--help"],
        ["tools/benchmarks/network_speed.py", "--help"],
    ],
)
def test_threads_sleep_while_they_wait(words: list[str]) -> None:
    assert not spins(run(*words))


@gnu
def test_the_users_wait_policy_wins() -> None:
    assert spins(run("tools/describe_model.py", "--settings", OMP_WAIT_POLICY="ACTIVE"))
    assert spins(run("-c", "import torch, detector, detector.pipeline"))  # the library changes nothing


def test_blocktime_follows_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_passively()
    assert "KMP_BLOCKTIME" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_passively()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["KMP_BLOCKTIME"]) == ("PASSIVE", "0")


COUNTS = """
import sys, detector.commands.threads as threads
{patch}
from detector.commands.describe_model import main
main(sys.argv[1:])
import torch, cv2
print("counts", torch.get_num_threads(), cv2.getNumThreads())
"""


def counts(*words: str, patch: str = "", **environment: str) -> list[int]:
    lines = run("-c", COUNTS.format(patch=patch), "--settings", *words, **environment).stdout.splitlines()
    return [int(number) for number in lines[-1].split()[1:]]


def test_threads_of_the_libraries() -> None:
    """Numbers that any machine has: recent versions of torch take no more threads than there are cores."""
    assert counts("--threads", "1") == [1, 1]
    assert counts("--threads", "1", OMP_NUM_THREADS="2", MKL_NUM_THREADS="2", OPENCV_FOR_THREADS_NUM="2") == [1, 1]
    assert counts(OMP_NUM_THREADS="1") == [1, 1]
    assert counts(OMP_NUM_THREADS="1", OPENCV_FOR_THREADS_NUM="2") == [1, 2]


def test_a_quota_limits_the_default() -> None:
    quota = "import detector.cores as cores; cores._quotas = lambda _: [0.7]; cores.affine_cores = lambda: 8"
    quota += "; threads.affine_cores = cores.affine_cores"
    assert counts(patch=quota) == [1, 1]
    assert counts(patch=quota, OPENCV_FOR_THREADS_NUM="4") == [1, 4]
    assert counts("--threads", "1", patch=quota.replace("0.7", "5")) == [1, 1]


def test_loaded_libraries_are_set_too() -> None:
    set_threads(3)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    set_threads()
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_threads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = import_module(f"detector.commands.{name}").parser()
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--threads", "0"])
    assert "argument --threads: expected a number from 1, not '0'" in capsys.readouterr().err
