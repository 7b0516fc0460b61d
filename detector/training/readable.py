"""Images that cannot be read, in training: each is named and costs itself, not the run.

Where all images are read before training begins (proposals, MultiBox) they are left out (detector.data.readable); where
they are first read in the midst of it (whole images, of which there may be a million) the next one takes the place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detector.data.image import Image, ImageError
from detector.training.record import TrainingError


class Reader:
    """Reads images by number; for one that cannot be read comes the next that can.

    What failed is shared with the worker processes of a loader, so that each is named once and all are known here.

    Args:
        read: number -> image, or an ImageError that names it.
        count: images.
    """

    def __init__(self, read: Callable[[int], Image], count: int) -> None:
        self.read = read
        self.failed: Tensor = torch.zeros(count, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def __call__(self, index: int) -> tuple[int, Image]:
        """The number of the image that was read, and the image.

        Raises:
            ImageError: none can be read.
        """
        count = len(self.failed)
        last = "each has been named"
        for place in (*range(index, count), *range(index)):
            if self.failed[place]:
                continue
            try:
                return place, self.read(place)
            except ImageError as error:
                self.failed[place] = 1
                last = f"the last: {error}"
                print(f"warning: {error}; the next image takes its place", file=sys.stderr)
        raise ImageError(f"none of {count} images can be read; {last}")


def report_unread(count: int, lines: Sequence[str] = ()) -> None:
    """End a finished training with what it could not read.

    Raises:
        TrainingError: there was something.
    """
    if count:
        first = f" (the first: {lines[0]})" if lines else ""
        raise TrainingError(
            f"trained to the end without {count} images that cannot be read{first}; mend or remove them"
        )
