"""A video file -> some of its frames, each with its time.

In: a path and how often a frame is wanted.  Out: frames [H, W, 3] uint8 RGB, turned as the file's metadata says, which
OpenCV does. Times are those that the file gives its frames, so that a variable rate does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detector.data.image import Image, ImageError

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv"),
    *(".mts", ".m2ts"),
)
"""Suffixes by which a file is taken for a video, in either case."""
TOLERANCE = 5e-4  # s; times are stored in milliseconds or finer


@dataclass(frozen=True)
class Every:
    """How often a frame is taken, the first one included: one of the two is positive, the other 0.

    Attributes:
        seconds: Time between two frames that are taken.
        frames: Number of frames of which one is taken.
    """

    seconds: float = 0.0
    frames: int = 0

    def __post_init__(self) -> None:
        if (self.seconds > 0) == (self.frames > 0) or min(self.seconds, self.frames) < 0:
            raise ValueError(f"either seconds or frames must be positive, not {self.seconds} and {self.frames}")

    @classmethod
    def parse(cls, text: str) -> Every:
        """Read "1s" or "0.5s" as seconds and "25" as frames.

        Raises:
            ValueError: It is neither, or 0.

        >>> Every.parse("0.5s"), Every.parse("25")
        (Every(seconds=0.5, frames=0), Every(seconds=0.0, frames=25))
        """
        if found := re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*s", text.strip(), re.ASCII):
            return cls(seconds=float(found[1]))
        if re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII):
            return cls(frames=int(text))
        raise ValueError(f"expected seconds such as 1s, or a number of frames such as 25, not {text!r}")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        time: Seconds from the beginning.
        number: Position among all frames, from 0.
    """

    image: Image
    time: float
    number: int


def is_video(path: str | Path) -> bool:
    """Return whether a file's name is that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def sample_frames(path: str | Path, every: Every) -> Iterator[Frame]:
    """Yield frames of a video in order, one at a time.

    Args:
        path: The file.
        every: How often.

    Raises:
        ImageError: "PATH: reason" in one line: there is no such file, or it is no video that OpenCV reads; or, behind
            the frames that could be read, that it is cut short or damaged.
    """
    if not Path(path).is_file():
        raise ImageError(f"{path}: {'a folder, not a video' if Path(path).is_dir() else 'no such file'}")
    capture = cv2.VideoCapture(str(path))
    try:
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        number, time, due = 0, 0.0, 0.0
        while capture.grab():
            stated = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            time = stated if stated > 0 or not number or rate <= 0 else number / rate
            if (number % every.frames == 0) if every.frames else (time >= due - TOLERANCE):
                if every.seconds:
                    due = (np.floor((time + TOLERANCE) / every.seconds) + 1) * every.seconds
                read, pixels = capture.retrieve()
                if read:
                    yield Frame(np.ascontiguousarray(pixels[:, :, ::-1]), time, number)
            number += 1
        if not number:
            raise ImageError(f"{path}: not a video that OpenCV reads, or damaged at its beginning")
        # The number of frames is an estimate where the file does not state it, and the last frame may be a long one.
        if number < 0.98 * count and rate > 0 and time + 1 / rate < 0.95 * count / rate:
            raise ImageError(f"{path}: cut short or damaged: {number} of {count:.0f} frames, up to {time:.1f} s")
    finally:
        capture.release()
