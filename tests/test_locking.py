"""Locks: one holder at a time, gone with its process, whatever the platform offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proposals import locking
from proposals.locking import InUseError, Lock

ROOT = Path(__file__).parent.parent
HOLD = (
    "import pathlib, sys, time; from proposals.locking import Lock; lock = Lock(pathlib.Path(sys.argv[1])); "
    "print('held', flush=True); time.sleep(60)"
)
WITHOUT = "import sys; sys.modules['fcntl'] = None; "


@pytest.fixture(params=["the system's", "by number"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by number":
        monkeypatch.setattr(locking, "fcntl", None)
        monkeypatch.setattr(locking, "msvcrt", None)
    return str(request.param)


def test_one_holder_at_a_time(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for _ in range(2):
        first = Lock(path)
        with pytest.raises(InUseError, match="lock"):
            Lock(path)
        first.release()
        first.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
def test_a_lock_ends_with_its_process(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = HOLD if kind == "the system's" else WITHOUT + HOLD
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InUseError):
        Lock(path)
    process.kill()
    process.wait()
    Lock(path).release()


def test_a_folder_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems answer ENOLCK: two runs still do not meet."""

    class Without:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_: object) -> None:
            raise OSError(37, "No locks available")

    monkeypatch.setattr(locking, "fcntl", Without)
    first = Lock(tmp_path / "lock")
    with pytest.raises(InUseError):
        Lock(tmp_path / "lock")
    first.release()
    (tmp_path / "lock").write_text("999999999")  # of a process that is gone
    Lock(tmp_path / "lock").release()
