"""Progress bars of long loops: on stderr while a command runs, silent in a program that uses the library."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_shown = False


def progress(items: Iterable[Any] | None, label: str, unit: str = "image", **options: Any) -> Any:
    """Wrap a loop in a progress bar, which is silent unless a command shows it.

    Args:
        items: Items of the loop; None for a bar that the caller updates.
        label: Text in front of the bar.
        unit: Name of one item.
        **options: Further arguments of tqdm.

    Returns:
        A tqdm bar. Of several processes under torchrun only the first one shows it.
    """
    silent = not _shown or os.environ.get("RANK", "0") != "0"
    return tqdm(items, desc=label, unit=unit, dynamic_ncols=True, **{"disable": silent, **options})


@contextmanager
def shown() -> Iterator[None]:
    """Show progress bars while the block runs."""
    global _shown
    before, _shown = _shown, True
    try:
        yield
    finally:
        _shown = before
