"""What each image file is like, from one pass that reads and decodes all of them.

In: image files.  Out: for each its size, orientation, digest, and a small picture of it for finding copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.cores import usable_cores
from detector.data.frames import Frame
from detector.data.ground_truth import Dataset
from detector.data.image import Image, ImageError, read_image, read_orientation
from detector.doctor.findings import Finding, at, finding
from detector.extraction import one_opencv_thread
from detector.progress import progress
from proposals.store import digest

THUMBNAIL = 32  # px
MIRRORED = range(2, 9)
"""EXIF orientations that turn or mirror an image."""


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """One image file.

    Attributes:
        path: The file.
        fault: Why it cannot be read; empty where it can.
        absent: Whether there is no such file.
        size: Width and height of the upright image, px; (0, 0) where it cannot be read.
        orientation: EXIF's number, 1 for upright.
        sha256: Digest of the file; empty where it cannot be read.
        hash: 64-bit difference hash.
        thumbnail: [32, 32] uint8, grey.
    """

    path: Path
    fault: str = ""
    absent: bool = False
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    sha256: str = ""
    hash: int = 0
    thumbnail: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((THUMBNAIL, THUMBNAIL), np.uint8))

    @property
    def readable(self) -> bool:
        """Whether the image can be read."""
        return not self.fault


def read_facts(paths: Sequence[Path], label: str) -> tuple[ImageFacts, ...]:
    """Read and decode image files, several at a time.

    Args:
        paths: The files; one that is named twice is read once.
        label: Text in front of the progress bar.
    """
    each = list(dict.fromkeys(paths))
    with one_opencv_thread(), ThreadPoolExecutor(usable_cores()) as executor:
        facts = dict(zip(each, progress(executor.map(_facts, each), label, total=len(each), delay=1), strict=True))
    return tuple(facts[path] for path in paths)


def difference_hash(grey: Image) -> int:
    """Return 64 bits, whether each of 8 × 8 cells is darker than its right neighbour (Krawetz's dHash).

    Args:
        grey: [H, W] uint8.
    """
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def check_images(name: str, dataset: Dataset, facts: Sequence[ImageFacts]) -> list[Finding]:
    """Find images that are absent, damaged, of another size than stated, or turned by EXIF.

    Args:
        name: Name of the part.
        dataset: Its labels.
        facts: Its image files, in the order of the records.
    """
    frames = [
        (fact, Frame((record.width, record.height), fact.size, fact.orientation))
        for fact, record in zip(facts, dataset.records, strict=True)
        if fact.readable and record.width and record.height
    ]
    differing = [at(name, f"{fact.path.name} {frame.describe()}") for fact, frame in frames if frame.differs]
    explained = sum(frame.explained for _, frame in frames)
    why = f", {explained:,} of them as EXIF turns them" if explained else ""
    turned = [
        at(name, f"{fact.path.name} (orientation {fact.orientation})")
        for fact, frame in frames
        if fact.orientation in MIRRORED and not frame.differs
    ]
    return [
        *check_files(name, facts),
        *finding("images.resized", f"images are of another size than their labels state{why}", differing),
        *finding("images.turned", "images are turned by EXIF and were labelled in that size", turned),
    ]


def check_files(name: str, facts: Sequence[ImageFacts]) -> list[Finding]:
    """Find image files that are absent or cannot be read."""
    absent = [at(name, str(fact.path)) for fact in facts if fact.absent]
    damaged = [at(name, fact.fault) for fact in facts if fact.fault and not fact.absent]
    return [
        *finding("images.absent", "images are not there", absent),
        *finding("images.unreadable", "images cannot be read", damaged),
    ]


def _facts(path: Path) -> ImageFacts:
    try:
        content = path.read_bytes()
        image = read_image(content) if content else read_image(path)
    except (OSError, ImageError) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        reason = reason.removeprefix("<bytes>: ").removeprefix(f"{path}: ")
        return ImageFacts(path, f"{path}: {reason}", absent=isinstance(error, FileNotFoundError))
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    thumbnail = np.asarray(cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), np.uint8)
    return ImageFacts(
        path,
        size=(image.shape[1], image.shape[0]),
        orientation=read_orientation(content),
        sha256=digest(content),
        hash=difference_hash(grey),
        thumbnail=thumbnail,
    )
