"""The result of proposing: boxes with scores and sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proposals.settings import ProposalConfig

SELECTIVE_SEARCH = "selective search"
MULTIBOX = "multibox"

Found = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Boxes [N, 4] px and scores [N], best first."""

Source = Callable[[NDArray[np.uint8]], Found]
"""A function from an image [H, W, 3] uint8 RGB to the boxes that it proposes."""


class Proposals(NamedTuple):
    """N boxes of an image, source by source, and best first within a source.

    Attributes:
        boxes: [N, 4] float32 px, far edge exclusive.
        scores: [N] float32, comparable only within a source.
        sources: [N] uint8, positions in source_names(config).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    sources: NDArray[np.uint8]


def source_names(config: ProposalConfig) -> tuple[str, ...]:
    """Return the names to which Proposals.sources refers; a source that is off keeps its number."""
    return (SELECTIVE_SEARCH, MULTIBOX, *config.own)
