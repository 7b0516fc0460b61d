"""The process that compiles selective search: when it is started, and that it never outlives or fails the command."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector.commands import compiling_aside as module
from detector.commands.compiling_aside import compiling_aside
from proposals import compiling
from proposals.selective import colour
from proposals.settings import ProposalConfig

ROOT = Path(__file__).parent.parent


@pytest.fixture
def children(monkeypatch):
    """The processes that are started, where selective search is said to be cold."""
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    monkeypatch.setattr(compiling, "is_cold", lambda package: True)
    monkeypatch.setattr(compiling._Announcer, "announced", True)
    for kernel in compiling._kernels(module.PACKAGE):  # what `before_loading` sets is undone
        monkeypatch.setattr(kernel._cache, "load_overload", kernel._cache.load_overload)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    return started


def program(monkeypatch, tmp_path, text):
    """Let a shell script be what is started as Python."""
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))


def test_a_kernel_waits_for_the_process_before_it_looks_into_the_cache(monkeypatch, tmp_path, children):
    program(monkeypatch, tmp_path, "sleep 0.5")
    with compiling_aside(ProposalConfig()) as aside:
        assert aside
        assert children[0].poll() is None
        colour._to_hsv._cache.load_overload(None, colour._to_hsv.targetctx)
        assert children[0].returncode == 0


def test_leaving_the_block_waits_too(monkeypatch, tmp_path, children):
    program(monkeypatch, tmp_path, "sleep 0.3")
    with compiling_aside(ProposalConfig()):
        pass
    assert children[0].returncode == 0


def test_a_failed_or_endless_process_delays_and_prints_nothing(monkeypatch, tmp_path, children, capfd):
    monkeypatch.setattr(module, "LONGEST", 0.2)
    for text in ("echo no; echo no >&2; exit 3", "kill -9 $$", "exec sleep 60"):
        program(monkeypatch, tmp_path, text)
        begin = time.perf_counter()
        with compiling_aside(ProposalConfig()) as aside:
            assert aside
        assert time.perf_counter() - begin < 10
    assert [child.returncode for child in children] in ([3, -9, -9], [-9, -9, -9])  # a busy machine
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_command_ends_the_process_at_once(monkeypatch, tmp_path, children):
    program(monkeypatch, tmp_path, "exec sleep 60")
    with pytest.raises(KeyboardInterrupt), compiling_aside(ProposalConfig()):
        raise KeyboardInterrupt
    assert children[0].returncode == -9


def test_the_process_ends_when_its_parent_does(tmp_path):
    code = f"from {module.__name__} import compile_selective_search; compile_selective_search()"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=ROOT, env=environment)
    child.stdin.close()  # as the system does for a parent that was killed
    assert child.wait(60) == 1
    assert not list(tmp_path.rglob("grouping._group*.nbc"))  # the last kernel


@pytest.mark.parametrize("case", ["no interpreter", "frozen", "no such file", "one core", "warm", "nothing to search"])
def test_no_process(monkeypatch, tmp_path, children, case):
    config = ProposalConfig(selective_search=case != "nothing to search", own={"x": str(tmp_path)})
    if case == "no interpreter":
        monkeypatch.setattr(sys, "executable", "")
    elif case == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif case == "no such file":
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    elif case == "one core":
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
    elif case == "warm":
        monkeypatch.setattr(compiling, "is_cold", lambda package: False)
    with compiling_aside(config) as aside:
        assert not aside
    assert children == []
