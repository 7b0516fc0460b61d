"""A bar on stderr where reading many files takes long."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Sequence[T], label: str, unit: str) -> Iterator[T]:
    """The items, with a bar where that takes long; under torchrun the first process alone shows it."""
    silent = os.environ.get("RANK", "0") != "0"
    yield from tqdm(items, desc=label, unit=unit, delay=3, dynamic_ncols=True, disable=silent)
