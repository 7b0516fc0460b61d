"""Progress: nothing in a program, shown in a command, by the first of several processes (more: test_terminal.py)."""

from __future__ import annotations

import logging

import pytest

from detector.commands.run import run
from detector.progress import progress, shown


def test_a_program_sees_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress(range(3), "images")
    assert list(bar) == [0, 1, 2]
    bar.set_postfix(loss=1)
    with progress(None, "images", total=2) as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")


def test_a_command_sees_progress_and_whole_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        for number in progress(range(3), "photos"):
            logging.getLogger("detector.somewhere").warning("photo %d is grey", number)

    assert run("detect", work, stopped="") == 0
    assert list(progress(range(3), "more")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "detect: photos: 3/3 images" in err
    assert "more" not in err
    lines = err.replace("\r", "\n").splitlines()
    for number in range(3):
        assert f"detect: warning: photo {number} is grey" in lines


def test_the_first_process_alone_shows_bars(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with shown():
        assert list(progress(range(3), "batches")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
