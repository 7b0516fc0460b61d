"""Which parts of a data set to train on, to measure on while training, and to test on.

In: the parts by name, as recognised.  Out: their roles.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from detector.data.ground_truth import DataError, listed


@dataclass(frozen=True)
class Choice:
    """The roles of parts.

    Attributes:
        train: Name of the part to train on; it is split where val is None.
        val: Name of the part to measure on; None where there is none.
        test: Name of the part that is left for a test; None where there is none.
    """

    train: str
    val: str | None
    test: str | None


def choose_parts(names: Collection[str]) -> Choice:
    """Choose the parts by their names: train, val2017, testing; a folder without parts, "", is split.

    Raises:
        DataError: there are several parts, and none is called train.
    """
    train, val, test = (_first(role, names) for role in ("train", "val", "test"))
    if train is None:
        train = _first("trainval", names)
        val = None
    if train is None and len(names) == 1:
        (train,), val, test = names, None, None
    if train is None:
        raise DataError(
            f"the parts are {listed(list(names))}, and none is called train; name the parts in a config by hand, or "
            "move the images into one folder, which is then split"
        )
    return Choice(train, val, test)


def _first(role: str, names: Collection[str]) -> str | None:
    """Return the part of that name, else the shortest that begins with it and goes on with no letter."""
    fitting = [name for name in names if re.fullmatch(rf"{role}(?![a-z]).*", name, re.IGNORECASE | re.DOTALL)]
    return min(fitting, key=lambda name: (name != role, len(name), name), default=None)
