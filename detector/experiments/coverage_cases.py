"""Objects to look at: those that no proposal method covers, and those that a single one covers.

In: the best IoU of each method with each object.  Out: Cases with the best box of each method, the largest objects
first, at most one of an image in a list. Covered means an IoU of 0.5 or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import Dataset
from detector.experiments.coverage_parts import Mask, Objects
from detector.report.coverage import Case
from proposals.boxes import iou
from proposals.recall import Overlaps, covered
from proposals.store import ProposalStore

MISSED, ALONE = 12, 4
"""Most objects in the list of those missed, and in each list of those that one method covers."""


@dataclass(frozen=True)
class CaseMaker:
    """The M objects and the overlaps of S methods with them.

    Attributes:
        dataset: The images.
        objects: The objects.
        readable: Whether each image can be read; objects of others are in no list.
        stores: Proposals, keyed by method.
        best: [M] highest IoU with each object, keyed by method.
    """

    dataset: Dataset
    objects: Objects
    readable: Sequence[bool]
    stores: Mapping[str, ProposalStore]
    best: Mapping[str, Overlaps]

    @property
    def missed_count(self) -> int:
        """Number of objects that no method covers, those of images that cannot be read included."""
        return int((self._by_how_many() == 0).sum())

    def missed(self) -> tuple[Case, ...]:
        """Return objects that no method covers."""
        return self._cases(self._by_how_many() == 0, MISSED)

    def alone(self) -> dict[str, tuple[Case, ...]]:
        """Return objects that only one method covers, keyed by method; none where there is one method only."""
        if len(self.best) < 2:
            return {}
        once = self._by_how_many() == 1
        return {name: self._cases(once & (covered(best) > 0), ALONE) for name, best in self.best.items()}

    def _by_how_many(self) -> NDArray[np.float64]:
        return np.asarray(np.sum([covered(best) for best in self.best.values()], axis=0))

    def _cases(self, chosen: Mask, limit: int) -> tuple[Case, ...]:
        chosen = chosen & np.array(self.readable)[self.objects.image_index]
        falling = np.argsort(-self.objects.areas, kind="stable")
        largest: dict[int, int] = {}
        for position in falling[chosen[falling]].tolist():
            largest.setdefault(int(self.objects.image_index[position]), position)
        return tuple(self._case(position) for position in list(largest.values())[:limit])

    def _case(self, position: int) -> Case:
        record = self.dataset.records[self.objects.image_index[position]]
        content = record.path.read_bytes()
        box = self.objects.boxes[position]
        boxes = {}
        for name, store in self.stores.items():
            found = store.get(record.image_id, content).boxes.astype(np.float64)
            if len(found):
                boxes[name] = _corners(found[iou(box[None], found)[0].argmax()])
        return Case(
            record.image_id,
            record.path,
            self.objects.names[self.objects.labels[position]],
            _corners(box),
            {name: float(best[position]) for name, best in self.best.items()},
            boxes,
        )


def _corners(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom
