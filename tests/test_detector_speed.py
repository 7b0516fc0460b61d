"""The benchmark of whole detectors: what it times, what it prints, its command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import detector_speed as detector_benchmark
import numpy as np
import pytest
from detector_speed import STAGES, Timing, format_timings, straightforward, time_detectors
from turns import busy_machine

from detector.data.image import read_image

Main = Callable[[list[str]], int]
ROOT = Path(__file__).parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).repeat(20, axis=0).repeat(20, axis=1)
    cv2.imwrite(str(tmp_path / "photo.png"), blocks.astype(np.uint8))
    return tmp_path / "photo.png"


def test_straightforward_looks_at_every_box(photo: Path, toy_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_benchmark, "BOXES", 7)
    monkeypatch.setattr(detector_benchmark, "BATCH", 3)
    regions, seconds = straightforward([str(toy_checkpoint)] * 2)(read_image(photo))
    assert regions == 7
    assert set(seconds) == {"proposals", "warp", "network", "suppression"} < set(STAGES)
    assert all(value > 0 for value in seconds.values())


def test_contestants_are_timed(photo: Path, preset: str) -> None:
    (timing,) = time_detectors([preset], [photo], 2).values()
    low, median, high = timing.total
    assert 0 < low <= median <= high
    assert timing.regions == 20
    assert 0 < sum(timing.stages.values()) <= high
    assert timing.peak > 100


def test_a_line_each() -> None:
    fast, slow = (
        dict(zip(STAGES, row, strict=True)) for row in ((0.1, 0.8, 0.05, 0.4, 0, 0, 0.01), (0.5, 0, 0, 0, 9, 80, 1))
    )
    timings = {
        "fast": Timing(1234.4, fast, (1.2, 1.3, 1.5), 912.3),
        "slow": Timing(2000, slow, (88, 90, 99), 3000),
    }
    lines = [line.split() for line in format_timings(timings).splitlines()]
    assert lines[1] == [
        "fast",
        "1,234",
        "0.10",
        "0.80",
        "0.05",
        "0.40",
        "0.00",
        "0.00",
        "0.01",
        "1.30",
        "1.20-1.50",
        "912",
    ]
    assert lines[2] == [
        "slow",
        "2,000",
        "0.50",
        "0.00",
        "0.00",
        "0.00",
        "9.00",
        "80.00",
        "1.00",
        "90.00",
        "88.00-99.00",
        "3,000",
    ]


def test_images_a_minute(
    tool: Callable[[str], Main], photo: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = detector_benchmark.time_throughput([preset], [photo] * 3, 2)[preset]
    assert all(0 < low <= middle <= high for low, middle, high in (rates.single, rates.many))
    lines = detector_benchmark.format_rates({"fast": detector_benchmark.Rates((50, 60.04, 70), (80, 90, 99))})
    assert lines.splitlines()[1].split() == ["fast", "60.0", "50.0-70.0", "90.0", "80.0-99.0"]
    arguments = [str(photo), "--throughput", "--detectors", preset, "straightforward", "--repetitions", "1"]
    assert tool("detector_speed")(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_command(tool: Callable[[str], Main], photo: Path, preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("detector_speed")([str(photo), "--detectors", preset, "--repetitions", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "20"
    assert tool("detector_speed")([str(photo), "--detectors", "nothing"]) == 1
    assert "detector_speed: nothing: no such config" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool("detector_speed")([str(photo), "--repetitions", "0"])


# ---- a busy machine


def children() -> set[int]:
    listed = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return {int(number) for number in listed if b"while True" in Path(f"/proc/{number}/cmdline").read_bytes()}


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@linux
@pytest.mark.parametrize("end", [None, KeyboardInterrupt, RuntimeError])
def test_busy_processes_run_and_end_with_the_block(end: type[BaseException] | None) -> None:
    before = children()
    with contextlib.suppress(KeyboardInterrupt, RuntimeError), busy_machine(2):
        inside = children() - before
        assert len(inside) == 2
        for process in inside:
            os.kill(process, signal.SIGINT)  # the terminal sends Ctrl-C to them too
        time.sleep(0.5)
        assert all(cpu_seconds(process) > 0.05 for process in inside)
        if end:
            raise end
    assert children() == before


@linux
def test_busy_processes_end_with_a_killed_parent() -> None:
    code = "from turns import busy_machine; import time\nwith busy_machine(1): print('in', flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools/benchmarks'}"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"in\n"
        (child,) = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        parent.kill()
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_busy_rounds_are_timed_beside_quiet_ones(photo: Path, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beside: list[int] = []
    calls: list[int] = []

    @contextlib.contextmanager
    def recorded(count: int) -> Iterator[None]:
        beside.append(count)
        yield
        beside.append(0)

    def detect(image: object) -> tuple[int, dict[str, float]]:
        now = beside[-1] if beside else 0
        calls.append(now)
        time.sleep(0.06 if now else 0.02)
        return 1, {}

    monkeypatch.setattr(detector_benchmark, "busy_machine", recorded)
    monkeypatch.setattr(detector_benchmark, "_build", lambda name: detect)
    monkeypatch.setattr(detector_benchmark, "in_fresh_process", lambda *_: 1.0)
    (timing,) = time_detectors([preset], [photo], 3, busy=2).values()
    assert calls == [0, 0, 2, 0, 2, 0, 2]
    assert timing.busy
    assert 2 < timing.busy[1] <= 3.1
    assert timing.total[1] < 0.05  # busy rounds are not among the seconds
    (timing,) = time_detectors([preset], [photo], 1).values()
    assert timing.busy is None


def test_the_ratio_has_columns() -> None:
    stages = dict.fromkeys(STAGES, 0.1)
    head, line = format_timings({"fast": Timing(9, stages, (1, 1, 1), 900, (1.9, 2.04, 2.2))}).splitlines()
    assert head.split()[-2:] == ["busy/quiet", "quartiles"]
    assert line.split()[-2:] == ["2.04", "1.90-2.20"]
