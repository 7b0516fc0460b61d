"""Drawing: where the paint goes, what stays, what is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from detector.detections import Detections
from detector.drawing import class_colour

NAMES = ("cat", "dog", "person")
GREY = 77


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def one(box: tuple[float, ...], score: float = 0.97, label: int = 0, names: tuple[str, ...] = NAMES) -> Detections:
    return Detections(np.array([box], dtype=np.float64), np.array([score]), np.array([label]), names)


def draw_detections(image: np.ndarray, found: Detections) -> np.ndarray:
    return np.asarray(found.plot(image))


def painted(image: np.ndarray) -> np.ndarray:
    return (image != GREY).any(axis=2)


def test_the_input_stays_and_nothing_found_draws_nothing() -> None:
    image = grey(120, 160)
    result = draw_detections(image, one((20, 40, 90, 100)))
    assert (image == GREY).all()
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert painted(result).any()
    empty = draw_detections(image, Detections.empty())
    assert np.array_equal(empty, image)
    assert not np.shares_memory(empty, image)


def test_the_frame_is_on_the_box_in_the_colour_of_its_class() -> None:
    result = draw_detections(grey(200, 300), one((50, 80, 200, 180), label=1))
    for row, column in ((179, 120), (130, 50), (130, 199), (80, 190)):  # the far edge is exclusive
        assert tuple(result[row, column]) == class_colour(1)
    assert not painted(result)[100:160, 70:180].any()  # inside
    assert not painted(result)[181:].any()
    assert not painted(result)[:, 201:].any()


@pytest.mark.parametrize("size", [(40, 60), (375, 500), (1500, 2000)])
@pytest.mark.parametrize(
    "place", [(0.0, 0.0, 0.4, 0.4), (0.8, 0.0, 1.0, 0.3), (0.8, 0.7, 1.0, 1.0), (0.3, 0.02, 0.6, 1.0)]
)
def test_the_label_is_wholly_inside(
    size: tuple[int, int], place: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = size
    backgrounds = []
    rectangle = cv2.rectangle

    def record(
        canvas: np.ndarray, first: tuple[int, int], last: tuple[int, int], colour: object, thickness: int
    ) -> None:
        if thickness == cv2.FILLED:
            backgrounds.append((*first, *last))
        rectangle(canvas, first, last, colour, thickness)

    monkeypatch.setattr(cv2, "rectangle", record)
    draw_detections(grey(height, width), one(tuple(np.array(place) * [width, height, width, height]), names=("ox",)))
    [(left, top, right, bottom)] = backgrounds
    assert 0 <= left < right < width
    assert 0 <= top < bottom < height


def test_line_and_label_grow_with_the_image() -> None:
    small = draw_detections(grey(300, 400), one((100, 150, 300, 280)))
    large = draw_detections(grey(1200, 1600), one((400, 600, 1200, 1120)))
    assert painted(small)[200, :200].sum() < painted(large)[800, :800].sum()
    assert painted(small)[:140].sum() * 4 < painted(large)[:590].sum()


def test_the_best_is_on_top_whatever_the_order() -> None:
    boxes = np.array([[20.0, 50, 150, 150], [20.0, 50, 150, 150]])
    found = Detections(boxes, np.array([0.3, 0.9]), np.array([0, 1]))
    result = draw_detections(grey(200, 200), found)
    assert tuple(result[149, 80]) == class_colour(1)
    assert np.array_equal(result, draw_detections(grey(200, 200), found[np.array([1, 0])]))


@pytest.mark.parametrize("box", [(-50.0, -50.0, 400.0, 400.0), (500.0, 500.0, 600.0, 600.0), (3.0, 3.0, 3.0, 3.0)])
def test_boxes_outside_or_empty_do_not_fail(box: tuple[float, ...]) -> None:
    assert draw_detections(grey(60, 60), one(box)).shape == (60, 60, 3)
    assert draw_detections(grey(1, 1), one(box)).shape == (1, 1, 3)


def test_a_view_is_drawn_like_its_copy() -> None:
    image = grey(120, 160)[:, ::-1]
    found = one((20, 40, 90, 100))
    assert np.array_equal(draw_detections(image, found), draw_detections(image.copy(), found))


def test_colours_are_distinct_and_stable() -> None:
    colours = [class_colour(label) for label in range(200)]
    assert len(set(colours)) == 200
    assert colours == [class_colour(label) for label in range(200)]
    neighbours = np.abs(np.diff(np.array(colours[:20]), axis=0)).sum(axis=1)
    assert neighbours.min() > 100


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"not int64 \[8, 8, 3\]"):
        draw_detections(np.zeros((8, 8, 3), np.int64), Detections.empty())
    with pytest.raises(ValueError, match=r"label .*0\.\.2"):
        one((1, 1, 9, 9), label=3)
