"""The benchmark of whole detectors: what it times, what it prints, its command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import detector_speed as detector_benchmark
import numpy as np
import pytest
from detector_speed import STAGES, Timing, format_timings, straightforward, time_detectors

from detector.data.image import read_image

Main = Callable[[list[str]], int]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).repeat(20, axis=0).repeat(20, axis=1)
    cv2.imwrite(str(tmp_path / "photo.png"), blocks.astype(np.uint8))
    return tmp_path / "photo.png"


@pytest.fixture
def preset(toy_checkpoint: Path, tmp_path: Path) -> str:
    (tmp_path / "toy.yaml").write_text(
        f"models: [{toy_checkpoint}]\nprecision: float32\nproposals: {{max_boxes: 20}}\n"
    )
    return str(tmp_path / "toy.yaml")


def test_straightforward_looks_at_every_box(photo: Path, toy_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_benchmark, "BOXES", 7)
    monkeypatch.setattr(detector_benchmark, "BATCH", 3)
    regions, seconds = straightforward(str(toy_checkpoint))(read_image(photo))
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
    fast, slow = (dict(zip(STAGES, row, strict=True)) for row in ((0.1, 0.8, 0.4, 0, 0, 0.01), (0.5, 0, 0, 9, 80, 1)))
    timings = {
        "fast": Timing(1234.4, fast, (1.2, 1.3, 1.5), 912.3),
        "slow": Timing(2000, slow, (88, 90, 99), 3000),
    }
    lines = [line.split() for line in format_timings(timings).splitlines()]
    assert lines[1] == ["fast", "1,234", "0.10", "0.80", "0.40", "0.00", "0.00", "0.01", "1.30", "1.20-1.50", "912"]
    assert lines[2] == [
        "slow",
        "2,000",
        "0.50",
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
