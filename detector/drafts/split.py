"""Split images in two by image: near-copies stay together, and rare classes are in both parts as far as possible.

In: the classes of each image, the group of each image.  Out: which images are for val.
Iterative stratification (Sechidis et al., ECML 2011): images are dealt class by class, the rarest first, each to the
part that lacks most of that class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LARGEST = 0.1
"""Share of the images from which a group of near-copies, as of a camera that stands still, is divided."""

Mask = NDArray[np.bool_]


def split_images(present: Mask, groups: NDArray[np.int64], share: float, seed: int) -> Mask:
    """Choose the images of val.

    Args:
        present: [N, K], whether an image has an object of a class.
        groups: [N], number of each image's group of near-copies.
        share: Share of the images for val, in (0, 1).
        seed: Seed of the order.

    Returns:
        [N], whether an image is for val. A class that is in two groups or more is in both parts, unless these groups
        were given by rarer classes; one that is in a single group is in train.

    Raises:
        ValueError: the share is outside (0, 1), or there are fewer than two groups.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of val must be in (0, 1), not {share}")
    groups = np.unique(groups, return_inverse=True)[1].reshape(-1)
    count = int(groups.max(initial=-1)) + 1
    if count < 2:
        raise ValueError("fewer than two images, or all of them nearly the same, cannot be split")
    sizes = np.bincount(groups, minlength=count)
    has = np.zeros((count, present.shape[1]), bool)
    np.logical_or.at(has, groups, present)
    order = np.random.default_rng(seed).permutation(count)
    in_classes = has.sum(axis=0)
    wanted = np.maximum(share * in_classes, np.where(in_classes > 1, 1.0, 0.0))
    need = np.stack([in_classes - wanted, wanted])  # [2, K]: groups of each class that train and val lack
    room = np.array([(1 - share) * len(groups), share * len(groups)])  # images
    part = np.full(count, -1)
    while (part < 0).any():
        left = (has & (part < 0)[:, None]).sum(axis=0)
        if left.any():
            rarest = int(np.where(left > 0, left, count + 1).argmin())
            waiting = [group for group in order.tolist() if part[group] < 0 and has[group, rarest]]
        else:
            rarest, waiting = -1, [group for group in order.tolist() if part[group] < 0]
        for group in waiting:
            lacks = need[:, rarest] if rarest >= 0 else room
            to = int(lacks[1] > lacks[0]) if lacks[0] != lacks[1] else int(room[1] > room[0])
            part[group] = to
            need[to, has[group]] -= 1
            room[to] -= sizes[group]
    if not part.any():  # every class in one group, and few images
        part[order[int(sizes[order].argmin())]] = 1
    return np.asarray(part[groups] == 1)


def divided(groups: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int64]:
    """Divide groups that are too large to stay together into runs of images that follow each other by name.

    Args:
        groups: [N], number of each image's group.
        names: N names by which the images are ordered.

    Returns:
        [N], numbers of groups of which none has more than a tenth of the images, or more than one.
    """
    largest = max(1, int(LARGEST * len(groups)))
    result, free = groups.copy(), int(groups.max(initial=-1)) + 1
    for group in np.flatnonzero(np.bincount(groups) > largest).tolist():
        members = sorted(np.flatnonzero(groups == group).tolist(), key=lambda index: names[index])
        for place, index in enumerate(members):
            result[index] = free + place // largest
        free = int(result.max()) + 1
    return result
