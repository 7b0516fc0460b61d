"""What library code shows: nothing but warnings in a program, bars and log lines in a command."""

from __future__ import annotations

import logging

import pytest

from detector.progress import progress, shown

LOG = logging.getLogger("detector.somewhere")


def test_a_program_sees_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress(range(3), "images")
    assert list(bar) == [0, 1, 2]
    bar.set_postfix(loss=1)
    with progress(None, "images", total=2) as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")


def test_a_command_sees_bars_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("detect"):
        assert list(progress(range(3), "photos")) == [0, 1, 2]
        LOG.info("resumed")
        LOG.warning("small\nand grey")
        LOG.debug("never")
    LOG.info("too late")
    assert list(progress(range(3), "more")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "photos: 100%" in err
    lines = err.splitlines()
    for line in ("detect: resumed", "detect: warning: small", "detect: warning: and grey"):
        assert line in lines
    assert "never" not in err
    assert "late" not in err
    assert "more" not in err


def test_the_first_process_alone_shows_bars(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with shown("train"):
        assert list(progress(range(3), "batches")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
