"""Prior boxes of MultiBox: the typical boxes of objects.

In: the boxes of a training set, as shares of their images.  Out: [P, 4] centres of k-means.
Lloyd's algorithm from a k-means++ start on corner coordinates. Each box takes part mirrored too, so that the priors are
mirror-symmetric in distribution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from proposals.boxes import mirrored
from proposals.errors import UserError

Shares = NDArray[np.float64]
"""[N, 4] x1, y1, x2, y2 in [0, 1] of the image's width and height."""

LARGEST = 1_000_000  # boxes that k-means works on


def cluster_priors(boxes: Shares, count: int, *, seed: int = 0, iterations: int = 50) -> Shares:
    """Cluster boxes by k-means; returns the [P, 4] centres, the largest box first.

    Args:
        boxes: [N, 4], corners in order.
        count: Number P of priors.
        seed: Seed of the start, and of the subsample of more than a million boxes.
        iterations: Iterations of Lloyd's algorithm.

    Raises:
        UserError: there are fewer different boxes, mirrored ones included, than priors.
    """
    both = np.concatenate([boxes, mirrored(boxes, 1)])
    generator = np.random.default_rng(seed)
    if len(both) > LARGEST:
        both = both[generator.choice(len(both), LARGEST, replace=False)]
    different = len(np.unique(both, axis=0))
    if different < count:
        raise UserError(f"{different} different boxes cannot have {count} priors; set priors to at most {different}")
    centres, labels = kmeans2(both, count, iter=iterations, minit="++", missing="warn", seed=generator)
    centres = np.asarray(centres, np.float64)
    for empty in np.setdiff1d(np.arange(count), labels):  # a centre that lost all its boxes takes one of them
        centres[empty] = both[generator.integers(len(both))]
    areas = (centres[:, 2:] - centres[:, :2]).prod(axis=1)
    return centres[np.argsort(-areas, kind="stable")]
