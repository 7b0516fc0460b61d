"""Records what each member of an ensemble makes of an image's regions.

In: the calls of a scoring (detector.views.Recorder).  Out: a Look for each member and side, and what was passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.scores import RegionScores
from proposals.boxes import Boxes


@dataclass(frozen=True, eq=False)
class Look:
    """The scores that one member gives to some regions.

    Attributes:
        member: Position of the member in the detector.
        mirrored: Whether it saw their mirror images.
        phase: 0 for the members that see all regions, 1 for what the cascade passes on, 2 for the second pass.
        rows: [n] positions of the regions.
        scores: Of these regions; those of mirror images are turned back.
    """

    member: int
    mirrored: bool
    phase: int
    rows: NDArray[np.int64]
    scores: RegionScores


class Votes:
    """A Recorder of the scoring of one image.

    Args:
        members: The detector's members.
        count: Number N of the image's regions.

    Attributes:
        looks: In the order in which they were made.
        objects: [N] probability of any object by the rejection layer; None without one.
        threshold: Least of these that is not rejected.
        scored: Positions of the regions that the cascade passes on; None without a cascade.
        copies: Positions of their near-copies.
        second: [M, 4] px, regions of a second pass, which have the positions N, N + 1, ...; none without one.
    """

    def __init__(self, members: Sequence[object], count: int) -> None:
        self._members, self._count = list(members), count
        self._rows: NDArray[np.int64] = np.arange(count)
        self._phase = 0
        self.looks: list[Look] = []
        self.objects: NDArray[np.float32] | None = None
        self.threshold = 0.0
        self.scored: NDArray[np.int64] | None = None
        self.copies: NDArray[np.int64] = np.zeros(0, np.int64)
        self.second: Boxes = np.zeros((0, 4))

    def rejection(self, probabilities: NDArray[np.float32], threshold: float) -> None:
        """Note the rejection layer's probabilities [N]."""
        self.objects, self.threshold = probabilities, threshold

    def look(
        self,
        classifier: object,
        mirrored: bool,
        probabilities: NDArray[np.float32],
        offsets: NDArray[np.float32] | None,
    ) -> None:
        """Note a look at the regions of now; of those that the layer rejects no member sees any."""
        member = next(index for index, one in enumerate(self._members) if one is classifier)
        rows, scores = self._rows, RegionScores(probabilities, offsets)
        if self.objects is not None and self._phase == 0:
            seen = np.flatnonzero(self.objects >= self.threshold)
            rows, scores = rows[seen], scores[seen]
        self.looks.append(Look(member, mirrored, self._phase, rows, scores))

    def passed(self, scored: NDArray[np.int64], copies: NDArray[np.int64]) -> None:
        """Note what the cascade passes on."""
        self.scored, self.copies = scored, copies
        self._rows, self._phase = scored, 1

    def moved(self, boxes: Boxes) -> None:
        """Note the regions of the second pass."""
        self.second = boxes
        self._rows, self._phase = self._count + np.arange(len(boxes)), 2
