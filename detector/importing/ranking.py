"""Whether the boxes with the highest scores are the best ones, seen by the objects that they cover.

In: boxes with scores, objects.  Out: nothing, or one line. Some programs give their best box the lowest score, the
selective search of detection-proposals among them; read the other way, every curve over the number of boxes is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.importing.given import Given, ProposalFileError
from detector.importing.layout import ERRORS, OBJECTS
from proposals.boxes import Boxes
from proposals.recall import best_overlaps

SHARE = 10  # one box of so many, from either end of the order, is compared
FEWEST = 20  # objects below which nothing is said


def check_best_first(given: Given, objects: Sequence[Boxes]) -> None:
    """Reject scores of which the lowest tenth of each image's boxes covers its objects clearly better than the highest.

    Args:
        given: Boxes px from 0, far edge exclusive, with scores.
        objects: Objects of each image, [M, 4] px.

    Raises:
        ProposalFileError: the mean best overlap is better by more than `layout.ERRORS` standard errors of the paired
            differences, over the first `layout.OBJECTS` objects.
    """
    if given.scores is None:
        return
    high: list[NDArray[np.float64]] = []
    low: list[NDArray[np.float64]] = []
    count = 0
    for image, own in enumerate(objects):
        rows = slice(*given.starts[image : image + 2])
        order = np.argsort(-given.scores[rows], kind="stable")
        if count >= OBJECTS:
            break
        if len(own) and len(order) > 1:
            part = -(-len(order) // SHARE)
            count += len(own)
            high.append(best_overlaps(own, given.boxes[rows][order[:part]]))
            low.append(best_overlaps(own, given.boxes[rows][order[-part:]]))
    if count < FEWEST:
        return
    highest, lowest = np.concatenate(high), np.concatenate(low)
    difference = lowest - highest
    if difference.mean() > ERRORS * difference.std() / np.sqrt(count):
        raise ProposalFileError(
            f"{given.path}: boxes with the lowest scores cover the objects clearly better than those with the highest "
            f"(mean best IoU {lowest.mean():.2f} and {highest.mean():.2f}); give --best low or first, or --best high "
            "if you are sure"
        )
