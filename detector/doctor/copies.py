"""The same or nearly the same image twice, in two parts or in one.

In: facts of image files.  Out: findings, and groups of near-copies, which a split keeps together.

Equal files have equal digests. Near-copies have difference hashes that differ in at most 8 of 64 bits, and thumbnails
whose correlation is 0.9 or more. Among 8.4 million pairs of PASCAL VOC's photographs the hash alone took 60 wrongly,
both together none. They find a photograph again that was saved at quality 20, halved or brightened in 99 % of cases,
one that was cut by 2 % in 84 (BCCD) to 90 (VOC), and the one pair of overlapping fields of view among BCCD's 364.

Of two hashes that differ in 8 bits one of 9 bands is equal, so that only images with an equal band are compared. Of a
camera that stands still all images may be: an image is then compared with some of them, spread over the others, which
still joins them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detector.doctor.findings import Finding, at, finding
from detector.doctor.images import ImageFacts

RADIUS = 8  # bits
SIMILAR = 0.9  # correlation of thumbnails
MOST_HASHES, MOST_THUMBNAILS = 4096, 64
"""Most images whose hashes, and most whose thumbnails, an image is compared with in a band."""
FLATTEST = 1.0  # standard deviation of a thumbnail below which it shows nothing to compare

_BITS = np.array([bin(number).count("1") for number in range(1 << 16)], np.uint8)

Indices = NDArray[np.int64]


def check_copies(parts: Sequence[tuple[str, Sequence[ImageFacts]]]) -> list[Finding]:
    """Find images that occur twice, in two parts (a leak) or in one.

    Args:
        parts: Name and image files of each part. An image of a later part counts that is in an earlier one too.
    """
    facts = [fact for _, some in parts for fact in some]
    part = np.repeat(np.arange(len(parts)), [len(some) for _, some in parts])

    def named(index: int, other: int, sign: str) -> str:
        one, two = (at(parts[part[place]][0], facts[place].path.name) for place in (index, other))
        return f"{one} {sign} {two}"

    leaks, doubles = [], []
    first: dict[str, int] = {}
    own: dict[tuple[str, int], int] = {}
    for index, fact in enumerate(facts):
        if not fact.sha256:
            continue
        earlier, before = first.setdefault(fact.sha256, index), own.setdefault((fact.sha256, int(part[index])), index)
        if part[earlier] != part[index]:
            leaks.append(named(index, earlier, "="))
        if before != index:
            doubles.append(named(index, before, "="))
    across: dict[int, int] = {}
    within: dict[int, int] = {}
    for index, others in near_copies(facts):
        for place in others[[facts[other].sha256 != facts[index].sha256 for other in others]].tolist():
            found, (low, high) = within if part[place] == part[index] else across, sorted((index, place))
            found.setdefault(high, low)
    return [
        *finding("splits.leak", "images are in two parts", leaks),
        *finding("splits.near", "images are nearly the same as one of another part", _pairs(across, named)),
        *finding("images.double", "images are in one part twice", doubles),
        *finding("images.near", "images are nearly the same as another one of their part", _pairs(within, named)),
    ]


def copy_groups(facts: Sequence[ImageFacts]) -> Indices:
    """Group images that are the same or nearly the same, directly or by way of others.

    Returns:
        [N], the number of each image's group, 0 to groups - 1.
    """
    groups = np.arange(len(facts))
    first: dict[str, int] = {}
    for index, fact in enumerate(facts):
        if fact.sha256:
            groups[index] = groups[first.setdefault(fact.sha256, index)]
    for index, others in near_copies(facts):
        together = np.unique(groups[[index, *others]])
        if len(together) > 1:
            groups[np.isin(groups, together)] = together[0]
    return np.unique(groups, return_inverse=True)[1].reshape(-1).astype(np.int64)


def near_copies(facts: Sequence[ImageFacts]) -> Iterator[tuple[int, Indices]]:
    """Yield an image and later ones that are nearly the same; a pair may come more than once.

    Of very many that are alike not all pairs come, see above.
    """
    readable = np.array([index for index, fact in enumerate(facts) if fact.readable], np.int64)
    if len(readable) < 2:
        return
    hashes = np.array([facts[index].hash for index in readable], np.uint64)
    pixels = np.stack([facts[index].thumbnail.ravel() for index in readable])
    mean, deviation = pixels.mean(axis=1), pixels.std(axis=1)
    for bucket in _buckets(hashes):
        for place, index in enumerate(bucket[:-1].tolist()):
            later = _spread(bucket[place + 1 :], MOST_HASHES)
            close = later[_distance(hashes[index], hashes[later]) <= RADIUS]
            close = _spread(close[np.minimum(deviation[close], deviation[index]) >= FLATTEST], MOST_THUMBNAILS)
            if len(close):
                product = pixels[close].astype(np.float32) @ pixels[index].astype(np.float32) / pixels.shape[1]
                alike = (product - mean[close] * mean[index]) / (deviation[close] * deviation[index]) >= SIMILAR
                if alike.any():
                    yield int(readable[index]), readable[close[alike]]


def _buckets(hashes: NDArray[np.uint64]) -> Iterator[Indices]:
    """Yield the positions of hashes that agree in a band, of each band in turn, in order."""
    edges = np.linspace(0, 64, RADIUS + 2).astype(np.uint64)
    for low, high in pairwise(edges):
        band = (hashes >> low) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(band[order])) + 1)


def _spread(items: Indices, most: int) -> Indices:
    """Return as many of the items, evenly spread."""
    return items[:: max(1, -(-len(items) // most))]


def _distance(one: np.uint64, others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Count the bits in which hashes differ."""
    words = (others ^ one).view(np.uint16).reshape(-1, 4)
    result: Indices = _BITS[words].sum(axis=1, dtype=np.int64)
    return result


def _pairs(found: dict[int, int], named: Callable[[int, int, str], str]) -> list[str]:
    return [named(index, other, "~") for index, other in sorted(found.items())]
