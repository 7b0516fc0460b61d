"""The frame of the commands: messages, exit codes, signals, streams that cannot take what is printed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from detector.commands.arguments import parse, split_settings
from detector.commands.run import run, say
from proposals.errors import UserError

ROOT = Path(__file__).parent.parent


def fail(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_code_of_what_is_done(result: int | None, code: int) -> None:
    assert run("tool", lambda: result, stopped="") == code


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("a.jpg: no image"), "tool: a.jpg: no image\n"),
        (UserError("one\ntwo"), "tool: one\ntool: two\n"),
        (FileNotFoundError(2, "No such file or directory", "a b.txt"), "tool: a b.txt: no such file or directory\n"),
        (OSError("disk gone"), "tool: disk gone\n"),
        (OSError(28, "No space left on device"), "tool: no space left on device\n"),
        (ModuleNotFoundError("No module named 'onnx'", name="onnx"), "tool: No module named 'onnx'\n"),
        (ImportError("run: pip install onnx"), "tool: run: pip install onnx\n"),
    ],
)
def test_what_a_user_can_mend_is_told_in_lines(
    error: BaseException, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("tool", fail(error), stopped="") == 1
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast together"),
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
        RuntimeError("CUDA error"),
        ZeroDivisionError(),
        KeyError("x"),
        ModuleNotFoundError("No module named 'detector.gone'", name="detector.gone"),
        ImportError("cannot import name 'x'", name="proposals.boxes"),
    ],
)
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(type(error)) as caught:
        run("tool", fail(error), stopped="")
    assert caught.value is error
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("", "")


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tool", fail(KeyboardInterrupt()), stopped="half is done") == 130
    assert capsys.readouterr().err == "tool: stopped; half is done\n"


def test_sigterm_is_an_interrupt_and_the_handler_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run("tool", lambda: signal.raise_signal(signal.SIGTERM), stopped="half is done") == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert "half is done" in capsys.readouterr().err


def test_beside_the_main_thread() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run("tool", lambda: None, stopped="")))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_message_of_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say("tool", "one\n  two")
    assert capsys.readouterr().err == "tool: one\ntool:   two\n"


TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
BENCHMARKS = ["budget", *sorted(path.stem for path in (ROOT / "tools/benchmarks").glob("*_speed.py"))]
ARGUMENTS = {
    "ablate": ["--config", "x"],
    "fit_cascade": ["--config", "x"],
    "budget": ["x"],
    "detector_speed": ["x"],
    "scoring_speed": [],
    "network_speed": [],
    "proposal_speed": ["--config", "x"],
    "classify": ["x"],
    "describe_model": [],
    "detect": ["x"],
    "eval_classifier": ["x", "--models", "y"],
    "eval_map": ["--config", "x"],
    "eval_proposals": ["--config", "x"],
    "extract_proposals": ["x", "--output", "y"],
    "import_proposals": ["x", "--output", "y"],
    "models": ["list"],
    "new_config": ["x"],
    "train_classifier": ["--config", "x"],
    "train_multibox": ["--config", "x"],
}


@pytest.mark.parametrize("name", TOOLS + BENCHMARKS)
def test_every_command_runs_in_the_frame(
    name: str, tool: Callable[[str], Callable[[list[str]], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def frame(name: str, work: Callable[[], int | None], *, stopped: str, printed_only: bool = False) -> int:
        seen.append((name, stopped))
        return 77

    monkeypatch.setattr("detector.commands.run.run", frame)
    assert tool(name)(ARGUMENTS[name]) == 77
    ((given, stopped),) = seen
    assert given == name
    assert stopped


@pytest.mark.parametrize("name", TOOLS)
def test_a_library_that_is_not_there_is_a_line(name: str) -> None:
    code = (
        "import runpy, sys\n"
        "for library in ('torch', 'numpy', 'cv2', 'yaml'): sys.modules[library] = None\n"
        "sys.exit(runpy.run_path(sys.argv[1])['main'](sys.argv[2:]))\n"
    )
    command = [sys.executable, "-c", code, f"tools/{name}.py", *ARGUMENTS[name]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert all(line.startswith(f"{name}: ") for line in done.stderr.splitlines())
    assert done.stderr


# ---- streams, in processes of their own

PROGRAM = """
import sys, time
from detector.commands.run import run, say
def work():
    say("tool", "begun \\udce9 \\u00d7")
    for number in range(50):
        print(f"line {number} \\u00d7 \\udce9")
        time.sleep(float(sys.argv[3]) / 50)
    open(sys.argv[1], "w").write("done")
    return int(sys.argv[2])
sys.exit(run("tool", work, stopped="half is done", printed_only=len(sys.argv) > 4))
"""


def shell(line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", line, "bash", sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize(
    ("line", "printed_only", "code", "done"),
    [
        ('"$@" | head -1; exit ${PIPESTATUS[0]}', False, 0, True),
        ('"$@" | head -1; exit ${PIPESTATUS[0]}', True, 0, False),
        ('"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}', False, 0, True),
        ('PYTHONIOENCODING=ascii "$@"', False, 0, True),
        ('LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "$@"', False, 0, True),
        ('"$@" >&-', False, 0, True),
        ('"$@" >&- 2>&-', False, 0, True),
        ('"$@" > /dev/full', False, 1, True),
    ],
)
def test_printing_does_not_decide_what_is_done(
    tmp_path: Path, line: str, printed_only: bool, code: int, done: bool
) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    ended = shell(line, str(tmp_path / "result"), "0", "0.5", *["only"] * printed_only)
    assert ended.returncode == code, ended.stderr
    assert (tmp_path / "result").exists() == done
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert ("tool: the output could not be printed" in ended.stderr) == (code == 1)
    if "head" in line:
        assert len(ended.stdout.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_stopped_says_so_and_ends_with_130(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "result"), "0", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the work is under way
        time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "tool: stopped; half is done"
    assert "Traceback" not in err


# ---- arguments


def test_settings_and_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.jpg").touch()
    words = ["photos", "a=b.jpg", "x.y=1", "models=[" + "long," * 100 + "]", "./c=d.jpg", "dir/e=f.jpg", "key = 2"]
    files, settings = split_settings(words)
    assert files == ["photos", "a=b.jpg", "./c=d.jpg", "dir/e=f.jpg"]
    assert settings == ["x.y=1", words[3], "key = 2"]


@pytest.mark.parametrize(
    "words",
    [
        ["--", "-a.jpg", "k=v"],
        ["k=v", "--", "-a.jpg"],
        ["--models", "m1", "m2", "--", "-a.jpg", "k=v"],
        ["-r", "--", "-a.jpg", "k=v"],
        ["k=v", "-r", "--", "-a.jpg"],
    ],
)
def test_a_name_that_begins_with_a_dash(words: list[str]) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("source", nargs="+")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("-r", action="store_true")
    options = parse(parser, words)
    assert sorted(str(Path(word)) for word in options.source) == ["-a.jpg", "k=v"]
    assert options.models == (["m1", "m2"] if "m1" in words else None)
