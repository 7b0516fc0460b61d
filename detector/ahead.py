"""Work ahead of a loop: a function of the next items runs in threads while the loop is busy with the items before.

In: items, a function.  Out: the items in order, each with its outcome.
Reading, proposing and the networks leave Python's lock free, so that several threads do work at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def ahead(
    items: Iterable[Item], work: Callable[[Item], Outcome], *, workers: int, depth: int
) -> Generator[tuple[Item, Future[Outcome]], None, None]:
    """Run a function over items in threads, some items ahead of the consumer.

    Args:
        items: The items; read only as far as the work goes.
        work: The function; where there are several workers it runs in several threads at once.
        workers: Number of threads.
        depth: Number of items beyond the one just given out that are begun or done, which bounds the memory.

    Yields:
        (item, its future, whose `result` may wait), in order. An error of the function is its future's alone. When the
        generator is closed, items that are not begun never are; nobody waits for the others.
    """
    waiting: deque[tuple[Item, Future[Outcome]]] = deque()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    try:
        for item in items:
            waiting.append((item, executor.submit(work, item)))
            if len(waiting) > depth:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def one_torch_thread(otherwise: int) -> Iterator[None]:
    """Let torch compute with one thread in the calling thread; afterwards it, and new threads, have `otherwise`."""
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(otherwise)
