"""The frame of every command: messages, log, signals, the standard streams, exit codes.

In: the command's name and the work to do.  Out: the exit code.

    0    done
    1    something failed that the user can fix (UserError, OSError, a library that is not installed): a line each
    2    wrong usage (argparse)
    130  interrupted, by Ctrl-C or SIGTERM

Any other exception is a fault of the program and keeps its traceback. What is printed never decides what is done:
characters that a terminal lacks are escaped, and a reader that goes away (`| head`) ends the printing, not the work.
Results go to standard output; messages, and what the library logs, to standard error.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO, cast

from detector.invocation import label
from detector.terminal import paint
from proposals.errors import UserError

DONE, FAILED, INTERRUPTED = 0, 1, 130
OURS = ("detector", "proposals")


def run(name: str, work: Callable[[], int | None], *, stopped: str, printed_only: bool = False) -> int:
    """Do a command's work; return the exit code.

    Args:
        name: The command; begins each line of a message.
        work: Returns the exit code, None for done.
        stopped: Message for a user who interrupted the command: what is kept and how to resume.
        printed_only: The printed lines are the only result, so the work may end once their reader is gone.
    """
    from detector.progress import shown

    with _streams(printed_only) as output, _sigterm_as_interrupt(), _log(name), shown(label(name)):
        try:
            code = work() or DONE
        except _ReaderGone:
            return DONE
        except KeyboardInterrupt:
            say(name, f"stopped; {stopped}")
            return INTERRUPTED
        except (UserError, OSError, ImportError) as error:
            if _is_ours(error):
                raise
            say(name, message_of(error), "red")
            return FAILED
        output.flush()
        if output.failure is not None:
            say(name, f"the output could not be printed: {message_of(output.failure)}", "red")
            return FAILED
        return code


def say(name: str, message: str, colour: str = "") -> None:
    """Print a message on standard error, each of its lines behind the command's name.

    Args:
        name: The command.
        message: One line or more.
        colour: Colour of the name on a terminal: red for an error; empty for none.
    """
    beginning = paint(f"{label(name)}:", colour, sys.stderr) if colour else f"{label(name)}:"
    for line in message.splitlines() or [""]:
        print(f"{beginning} {line}", file=sys.stderr)


def warn(name: str, warnings: Iterable[str]) -> None:
    """Print warnings on standard error."""
    for line in warnings:
        say(name, f"{paint('warning:', 'yellow', sys.stderr)} {line}")


def say_unread(name: str, unread: Sequence[str], consequence: str) -> int:
    """Print a line for each image that could not be read, and what follows; return the exit code."""
    for line in unread:
        say(name, line)
    if unread:
        say(name, f"{len(unread)} images could not be read; {consequence}")
    return FAILED if unread else DONE


def message_of(error: BaseException) -> str:
    """Return what an exception tells the user; for an error of the system, file and reason without its number."""
    if isinstance(error, OSError) and error.strerror:
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{names}: {error.strerror.lower()}" if names else error.strerror.lower()
    return str(error) or type(error).__name__


def _is_ours(error: BaseException) -> bool:
    """Whether a module of this program cannot be imported: a fault of the program, not of the installation."""
    return isinstance(error, ImportError) and (error.name or "").partition(".")[0] in OURS


class _ReaderGone(BaseException):
    """Nobody reads the output any more. Not an Exception: handlers of an item's failure must not catch it."""


class _Stream:
    """A standard stream that can be written to after its reader has gone.

    Attributes:
        failure: The error by which lines were lost, unless their reader had gone; None without one.
    """

    def __init__(self, stream: TextIO, *, ends_with_reader: bool) -> None:
        self.failure: OSError | None = None
        self._stream, self._ends_with_reader, self._lost = stream, ends_with_reader, False

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            action()
        except OSError as error:
            self._lost = True
            _drop(self._stream)
            if not isinstance(error, BrokenPipeError):
                self.failure = error
            elif self._ends_with_reader:
                raise _ReaderGone from None


def _drop(stream: TextIO) -> None:
    """Discard what a stream still holds, or Python would report an error at its end."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # a stream in memory
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def _streams(printed_only: bool) -> Iterator[_Stream]:
    """Standard output and error that take any character and outlive their readers; yields the output."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # for a stream that was closed before we began (>&-)
        streams = [stream or nowhere for stream in before]
        for stream in streams:
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace", line_buffering=True)
        output = _Stream(streams[0], ends_with_reader=printed_only)
        sys.stdout = cast(TextIO, output)
        sys.stderr = cast(TextIO, _Stream(streams[1], ends_with_reader=False))
        try:
            yield output
        finally:
            sys.stdout, sys.stderr = before


class _Said(logging.Handler):
    """Shows what the library logs as messages of the command."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.INFO)
        self.command = name

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):  # above the progress bars
            if record.levelno >= logging.WARNING:
                warn(self.command, [record.getMessage()])
            else:
                say(self.command, record.getMessage())


@contextmanager
def _log(name: str) -> Iterator[None]:
    """Show what the packages log, from INFO on, while a command runs."""
    handler, loggers = _Said(name), [logging.getLogger(package) for package in OURS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM, by which schedulers stop a job, as Ctrl-C in this process; a forked worker is ended by it."""
    if threading.current_thread() is not threading.main_thread():  # Python takes signals in that one only
        yield
        return
    process = os.getpid()

    def interrupt(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
