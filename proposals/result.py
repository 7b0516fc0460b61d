"""What proposing gives: boxes with scores and where each comes from."""

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
"""An image [H, W, 3] uint8 RGB -> what it proposes."""


class Proposals(NamedTuple):
    """N boxes of an image, source by source, of each the best first.

    Attributes:
        boxes: [N, 4] float32 px, far edge exclusive.
        scores: [N] float32, comparable within a source.
        sources: [N] uint8, positions in the config's source_names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    sources: NDArray[np.uint8]


def source_names(config: ProposalConfig) -> tuple[str, ...]:
    """What Proposals.sources counts; a source that is off keeps its place."""
    return (SELECTIVE_SEARCH, MULTIBOX, *config.own)
