"""Boxes drawn on an image: a coloured frame per object with a text such as "cat 0.97".

In: an image, boxes [D, 4] px, labels [D], D texts.  Out: a new image of the same shape. Lines and letters scale with
the image, and a class has the same colour in every image.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.image import Image, ImageSource, read_image
from proposals.boxes import Boxes

FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_boxes(image: ImageSource, boxes: Boxes, labels: Sequence[int], texts: Sequence[str]) -> Image:
    """Copy an image and draw a frame and a text for each box, the last on top.

    Args:
        image: The image, as read_image takes it; an array stays unchanged.
        boxes: [D, 4] px; they are cut at the image's edge.
        labels: D classes, which decide the colours.
        texts: D texts.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        ImageError: The file cannot be read.
        ValueError: The array is rejected by proposals.selective.colour.to_rgb.
    """
    rgb = read_image(image)
    result = rgb.copy() if isinstance(image, np.ndarray) else rgb
    height, width = result.shape[:2]
    limit = np.array([width - 1, height - 1, width - 1, height - 1])
    frames = np.clip(np.rint(boxes) - [0, 0, 1, 1], 0, limit).astype(int).tolist()
    thickness = max(1, round(min(height, width) / 200))
    for frame, label in zip(frames, labels, strict=True):
        cv2.rectangle(result, frame[:2], frame[2:], class_colour(label), thickness)
    for frame, label, text in zip(frames, labels, texts, strict=True):
        _draw_label(result, text, frame, class_colour(label), thickness)
    return result


def class_colour(label: int) -> tuple[int, int, int]:
    """Give each class a colour, RGB 0..255: hues one golden angle apart, so that neighbouring labels differ most."""
    hue, saturation, value = (0.36 + label * 0.618034) % 1.0, (0.85, 0.6)[label % 2], (0.95, 1.0)[label % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_label(
    canvas: NDArray[np.uint8], text: str, frame: Sequence[int], colour: tuple[int, int, int], thickness: int
) -> None:
    """Write text on a filled background above the frame's top left corner, inside it where there is no room above."""
    height, width = canvas.shape[:2]
    size = max(0.35, min(height, width) / 900)
    stroke = max(1, round(size * 1.6))
    (text_width, text_height), descent = cv2.getTextSize(text, FONT, size, stroke)
    margin = max(2, round(text_height / 4))
    box_width, box_height = text_width + 2 * margin, text_height + descent + 2 * margin
    left = max(0, min(frame[0] - thickness // 2, width - box_width))
    top = frame[1] - box_height if frame[1] >= box_height else min(frame[1], max(0, height - box_height))
    cv2.rectangle(canvas, (left, top), (left + box_width - 1, top + box_height - 1), colour, cv2.FILLED)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if luminance > 128 else (255, 255, 255)
    cv2.putText(canvas, text, (left + margin, top + margin + text_height), FONT, size, ink, stroke, cv2.LINE_AA)
