"""What --version prints: enough for a bug report, and never a traceback."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

from detector.commands import COMMANDS, main
from detector.commands.version import describe_installation
from detector.network import fastest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("words", [["--version"], ["models", "--version"], ["train-classifier", "--version"]])
def test_versions_and_machine(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert lines[0] == f"googlenet-rcnn {version}, in {ROOT / 'detector'}"
    assert lines[1].startswith(f"Python {platform.python_version()}, ")
    assert lines[2] == f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    assert lines[3].startswith(f"OpenCV {cv2.__version__}, NumPy {np.__version__}, numba ")
    assert lines[5].startswith("devices: cpu")
    assert lines[6].removeprefix("processor: ")
    assert f"torch {torch.get_num_threads()}" in lines[8]


def test_every_command_has_it() -> None:
    from importlib import import_module

    for name in COMMANDS:
        assert "--version" in import_module(f"detector.commands.{name}").parser().format_help()


def test_auto_is_known_once_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert describe_installation()[-1].startswith("precision=auto: float32, or int8 if it is faster")
    file = fastest.cache_file()
    file.parent.mkdir()
    for seconds, answer in ((0.010, "int8"), (0.039, "float32")):
        file.write_text(json.dumps({f"float32, {fastest._machine()}": {"float32": 0.04, "int8": seconds}}))
        expected = f"precision=auto: {answer} (measured: float32 40 ms, int8 {1000 * seconds:.0f} ms)"
        assert describe_installation()[-1] == expected


def test_a_broken_library_is_what_the_report_is_about() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['cv2'] = None\n"
        "from detector.commands import main\nmain(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "torch none (ModuleNotFoundError: import of torch halted" in done.stdout
    assert len(done.stdout.splitlines()) == 10
