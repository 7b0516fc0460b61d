"""What the benchmarks share: contestants taking turns, images, fresh processes, their command lines."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ParamSpec, TypeVar

from detector.commands.threads import set_threads, wait_passively

wait_passively()  # here, because the benchmarks load torch before they read their command line
set_threads()

P = ParamSpec("P")
T = TypeVar("T")

STOPPED = "nothing is kept of a benchmark"

# Ends with its parent, however that ends: the pipe to its input closes. Ctrl-C is the parent's.
BUSY = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.SIG_IGN)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print("busy", flush=True)
while True: pass
"""


def benchmark_parser(name: str, text: str | None, examples: str) -> argparse.ArgumentParser:
    """Make the parser of a benchmark, for `detector.commands.arguments.start`."""
    parser = argparse.ArgumentParser(
        description=text, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(command=name, settings=False, print_config=False)
    return parser


def take_turns(contestants: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Return the seconds of each call of each contestant; a first round is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repetition in range(repetitions + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a process that has done nothing else, so that its peak memory is the function's own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(function, *args, **kwargs).result()


def in_fresh_process_within(limit: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a process that has done nothing else, and end that after `limit` seconds.

    Raises:
        TimeoutError: It took longer.
        EOFError: The process was ended from outside, by the system for want of memory perhaps.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args, kwargs))
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            raise TimeoutError
        outcome: T | Exception = receiver.recv()
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _answer(sender: Connection, function: Callable[..., object], args: tuple[object, ...], kwargs: object) -> None:
    assert isinstance(kwargs, dict)
    try:
        sender.send(function(*args, **kwargs))
    except Exception as error:
        sender.send(error)


@contextmanager
def busy_machine(count: int) -> Iterator[None]:
    """Run `count` processes that each keep one core busy, from the beginning of the block to its end."""
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(process)  # waits
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield


def readable_images(command: str, source: Sequence[Path]) -> tuple[list[Path], bool]:
    """List the images of files and folders that can be read, and whether all can; others are reported to the user.

    Raises:
        ImageError: None can.
    """
    from detector.commands.run import say
    from detector.data.image import ImageError, read_image
    from detector.data.listing import list_images

    listing = list_images(source)
    failures, paths = list(listing.failures), []
    for path in listing.paths:
        try:
            read_image(path)
            paths.append(path)
        except ImageError as error:
            failures.append(str(error))
    for line in (*listing.warnings, *failures):
        say(command, line)
    if not paths:
        raise ImageError("no image can be read")
    return paths, not failures
