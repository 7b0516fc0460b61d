"""Images that cannot be read while a training reads them: each is reported by name, and the next one takes its place.

Where all images are read before the work begins, `detector.data.dataset.readable_part` leaves them out instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from multiprocessing.sharedctypes import RawArray

from detector.data.image import Image, ImageError

_LOG = logging.getLogger(__name__)


class Reader:
    """Reads images by number, and the next readable one in place of an image that cannot be read.

    Args:
        read: Number -> image; raises ImageError with the file's name.
        count: Number of images.

    Attributes:
        failed: 1 for each image that could not be read, else 0; shared with the worker processes of a loader.
    """

    def __init__(self, read: Callable[[int], Image], count: int) -> None:
        self.read, self.failed = read, RawArray("B", count)

    def __call__(self, index: int) -> tuple[int, Image]:
        """Read an image; returns the number of the one that was read, and the image.

        Raises:
            ImageError: none can be read.
        """
        last = "each has been named"
        for number in (*range(index, len(self.failed)), *range(index)):
            if self.failed[number]:
                continue
            try:
                return number, self.read(number)
            except ImageError as error:
                self.failed[number] = 1
                last = f"the last: {error}"
                _LOG.warning("%s; the next image takes its place", error)
        raise ImageError(f"none of {len(self.failed)} images can be read; {last}")
