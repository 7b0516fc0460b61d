"""What a terminal sees and a file does not: bars, colours, tables cut to its width; in a pty."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from detector import progress as module
from detector.commands.run import run
from detector.progress import Lines, progress, shown, span
from detector.table import cells, columns, wrapped
from detector.terminal import coloured, is_terminal, paint, table_width
from proposals.errors import UserError

ROOT = Path(__file__).parent.parent


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def in_a_terminal(code: str, width: int = 80, **environment: str) -> str:
    """Run a program whose three streams are a terminal; return what it shows."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, "TERM": "xterm", **environment},
        stdin=end,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    found = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        found += part
    os.close(main)
    assert process.wait() == 0
    return found.decode()


LOOP = """
from detector.commands.run import run
from detector.progress import progress
def work():
    for _ in progress(range(3), "photos"):
        pass
run("detect", work, stopped="")
"""


# ---- progress


def test_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    shown = in_a_terminal(LOOP)
    assert "photos: 100%" in shown
    assert "\r" in shown.replace("\r\n", "\n")
    assert "%" not in in_a_terminal(LOOP, TERM="dumb")
    piped = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, cwd=ROOT)
    assert re.fullmatch(r"detect: photos: 3/3 images, [\d.]+ images/s\n", piped.stderr)
    assert piped.stdout == ""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines_of(count: int, seconds: float, capsys: pytest.CaptureFixture[str], **options: object) -> list[str]:
    """The lines of a loop whose items take the same time each."""
    clock = Clock()
    for _ in Lines(range(count), "detect: photos", clock=clock, **options):  # type: ignore[arg-type]
        clock.now += seconds
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_line_a_minute_and_a_last_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of(10, 25, capsys) == [
        "detect: photos: 3/10 images, 25.0 s/image, 3 min left",
        "detect: photos: 6/10 images, 25.0 s/image, 2 min left",
        "detect: photos: 9/10 images, 25.0 s/image, 25 s left",
        "detect: photos: 10/10 images, 25.0 s/image, in 4 min",
    ]
    assert lines_of(1000, 0.25, capsys)[0] == "detect: photos: 240/1000 images, 4.0 images/s, 3 min left"
    assert len(lines_of(1_000_000, 0.001, capsys)) == 17  # 16 minutes and the end, not a million updates


def test_what_was_done_before_is_no_part_of_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    (first, *_) = lines_of(10, 30, capsys, total=110, initial=100)
    assert first == "detect: photos: 102/110 images, 30.0 s/image, 4 min left"


def test_short_loops(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of(3, 0.5, capsys, leave=False) == []
    assert lines_of(3, 0.5, capsys, delay=3) == []
    assert lines_of(8, 0.5, capsys, delay=3) == ["detect: photos: 8/8 images, 2.0 images/s, in 4.0 s"]
    assert lines_of(0, 0.5, capsys) == []
    assert len(lines_of(3, 40, capsys, leave=False)) == 2


def test_a_bar_that_the_caller_updates(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Lines(None, "epoch 1/2", "batch", total=4, clock=clock) as bar:
        bar.set_postfix(loss="0.5", refresh=False)
        for _ in range(4):
            clock.now += 70
            bar.update()
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1/2: 1/4 batches, 70.0 s/batch, 4 min left, loss 0.5"
    assert len(lines) == 5


def test_a_loop_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    for number in Lines(iter(range(5)), "a", clock=Clock()):
        if number == 2:
            break
    assert capsys.readouterr().err == "a: 2 images\n"


def test_disabled(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("detect"):
        assert list(progress(range(3), "photos", disable=True)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert module._prefix is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0.4 s"), (89, "89 s"), (91, "2 min"), (3599, "1 h 00 min"), (7260, "2 h 01 min")]
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


# ---- colours


@pytest.mark.parametrize(
    ("variables", "terminal", "file"),
    [
        ({}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_who_gets_colours(
    variables: dict[str, str], terminal: bool, file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert coloured(Screen()) == terminal
    assert coloured(io.StringIO()) == file
    assert paint("x", "red", Screen()) == ("\x1b[31mx\x1b[0m" if terminal else "x")


def test_a_closed_stream_is_no_terminal() -> None:
    stream = Screen()
    stream.close()
    assert not is_terminal(io.TextIOWrapper(io.BytesIO()))
    assert isinstance(is_terminal(stream), bool)


def test_the_name_before_an_error_is_red_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "from detector.commands.run import run, warn\n"
        "from proposals.errors import UserError\n"
        "def work():\n    warn('detect', ['small']); raise UserError('a.jpg: no image')\n"
        "run('detect', work, stopped='')"
    )
    assert in_a_terminal(code) == (
        "detect: \x1b[33mwarning:\x1b[0m small\r\n\x1b[31mdetect:\x1b[0m a.jpg: no image\r\n"
    )
    assert "\x1b" not in in_a_terminal(code, NO_COLOR="1")

    def work() -> None:
        raise UserError("a.jpg: no image")

    assert run("detect", work, stopped="") == 1
    assert capsys.readouterr().err == "detect: a.jpg: no image\n"


# ---- widths

TABLE = [
    ("model", "where", "AP", "seconds"),
    ("shared_voc0712", "VOC2007 test500, 20 classes", "0.641", "0.39"),
    ("another", "-", "0.5", "1.25"),
]


def test_only_a_terminal_has_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from detector.terminal import table_width; print(table_width())"
    assert in_a_terminal(code, 137).strip() == "137"
    assert in_a_terminal(code, 20).strip() == "40"
    assert table_width() is None


def test_no_limit_cuts_nothing() -> None:
    assert columns(TABLE, cut=(1,), left=(0, 1)) == [
        "model           where                           AP  seconds",
        "shared_voc0712  VOC2007 test500, 20 classes  0.641     0.39",
        "another         -                              0.5     1.25",
    ]
    assert columns(TABLE, cut=(1,), left=(0, 1), width=200) == columns(TABLE, left=(0, 1))


def test_texts_are_cut_before_a_table_is_folded() -> None:
    assert columns(TABLE, width=44, cut=(1,), left=(0, 1)) == [
        "model           where            AP  seconds",
        "shared_voc0712  VOC2007 tes…  0.641     0.39",
        "another         -               0.5     1.25",
    ]
    assert columns(TABLE, width=34, cut=(1,), left=(0, 1)) == [
        "model           where        AP",
        "shared_voc0712  VOC2007…  0.641",
        "another         -           0.5",
        "",
        "model           seconds",
        "shared_voc0712     0.39",
        "another            1.25",
    ]


@pytest.mark.parametrize("width", range(40, 90))
def test_no_number_is_lost_at_any_width(width: int) -> None:
    rows = [("class", *(f"column {number}" for number in range(8))), ("x" * 70, *(f"{n}.12345" for n in range(8)))]
    lines = columns(rows, width=width, footer=1)
    assert max(map(len, lines)) <= width
    for number in range(8):
        assert sum(f"{number}.12345" in line for line in lines) == 1
        assert sum(f"column {number}" in line for line in lines) == 1


def test_a_footer_stands_below_a_rule() -> None:
    assert columns([("a", "b"), ("x", "1"), ("mean", "1")], footer=1) == ["a     b", "x     1", "-------", "mean  1"]


def test_wide_characters() -> None:
    assert [cells(text) for text in ("Käfer", "Ka\u0308fer", "猫", "")] == [5, 5, 2, 0]
    lines = columns([("class", "AP"), ("猫猫猫猫", "1"), ("Ka\u0308fer", "2")])
    assert [cells(line) for line in lines] == [12, 12, 12]
    assert cells(columns([("猫" * 30, "1")], width=40)[0]) <= 40


def test_prose_breaks_between_words() -> None:
    line = "the difference is not statistically significant: p = 0.31"
    assert wrapped(line, None) == line
    assert wrapped(line, 30).splitlines() == ["the difference is not", "  statistically significant: p", "  = 0.31"]
