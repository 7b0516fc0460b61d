"""The box convention: areas and overlaps against sets of pixels, conversions against boxes written by hand."""

import subprocess
import sys

import numpy as np
import pytest

from proposals.boxes import (
    area,
    check_boxes,
    clip,
    from_inclusive,
    from_xywh,
    inside,
    intersection,
    iou,
    mirrored,
    scale,
    to_xywh,
)

EMPTY = np.zeros((0, 4))


def random_boxes(count, seed, side=24):
    """Whole-numbered boxes inside a square, some without area."""
    corners = np.random.default_rng(seed).integers(0, side + 1, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(float)


def pixels(box):
    x1, y1, x2, y2 = box.astype(int)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


@pytest.mark.parametrize("seed", range(3))
def test_areas_and_overlaps_count_pixels(seed):
    first, second = random_boxes(20, seed), random_boxes(15, seed + 100)
    shared, overlap, share = intersection(first, second), iou(first, second), inside(first, second)
    assert area(first).tolist() == [len(pixels(box)) for box in first]
    for i, a in enumerate(map(pixels, first)):
        for j, b in enumerate(map(pixels, second)):
            assert shared[i, j] == len(a & b)
            assert overlap[i, j] == (len(a & b) / len(a | b) if a | b else 0)
            assert share[i, j] == (len(a & b) / len(a) if a else 0)


def test_overlap_by_hand():
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 10, 10]])
    assert iou(boxes[:1], boxes).tolist() == [[1, 1 / 3, 0, 1]]  # the third only touches
    assert iou(boxes, boxes).T.tolist() == iou(boxes, boxes).tolist()
    assert iou(boxes.astype(np.float32), boxes.astype(np.float32)).dtype == np.float32


def test_a_box_turned_inside_out_has_no_area():
    inverted = np.array([[10.0, 10, 0, 0], [10, 0, 0, 10]])
    whole = np.array([[0.0, 0, 20, 20]])
    assert area(inverted).tolist() == [0, 0]
    assert intersection(inverted, whole).tolist() == [[0], [0]]


@pytest.mark.parametrize("function", [area, from_xywh, to_xywh])
def test_no_boxes(function):
    assert len(function(EMPTY)) == 0


def test_no_boxes_of_two():
    some = random_boxes(3, 0)
    assert iou(EMPTY, some).shape == inside(EMPTY, some).shape == (0, 3)
    assert iou(some, EMPTY).shape == (3, 0)
    assert clip(EMPTY, 5, 5).shape == scale(EMPTY, 2, 2).shape == from_inclusive(EMPTY, 1).shape == (0, 4)


def test_clip():
    boxes = np.array([[-5.0, -5, 120, 90], [10, 20, 30, 40], [150, 10, 160, 20]])
    assert clip(boxes, 100, 80).tolist() == [[0, 0, 100, 80], [10, 20, 30, 40], [100, 10, 100, 20]]


def test_scale():
    assert scale(np.array([[1.0, 2, 3, 4]]), 2, 0.5).tolist() == [[2, 1, 6, 2]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.uint8])
def test_boxes_of_whole_numbers_give_floating_point(dtype):
    """Nothing is rounded to their type, and nothing wraps in it."""
    boxes = np.array([[1, 2, 100, 80], [100, 80, 1, 2]], dtype)
    expected = boxes.astype(np.float64)
    for function in (
        area,
        from_xywh,
        to_xywh,
        lambda boxes: scale(boxes, 0.5, 1.7),
        lambda boxes: clip(boxes, 15.7, 90.2),
        lambda boxes: mirrored(boxes, 50),
        lambda boxes: from_inclusive(boxes, 1),
        lambda boxes: iou(boxes, boxes),
        lambda boxes: intersection(boxes, boxes),
    ):
        assert function(boxes).dtype == np.float64
        assert np.array_equal(function(boxes), function(expected))
    assert scale(np.array([[1, 3, 5, 7]], dtype), 0.5, 0.5).tolist() == [[0.5, 1.5, 2.5, 3.5]]
    assert scale(np.array([[1, 2, 3, 4]], np.float32), 0.5, 0.5).dtype == np.float32


def test_boxes_that_show_nothing_of_an_image():
    good = np.array([[0.0, 0, 100, 80], [-5, -5, 1, 1], [99, 79, 300, 300]])
    check_boxes(good, 100, 80)
    check_boxes(np.zeros((0, 4)), 100, 80)
    for bad, reason in (
        ([np.nan, 0, 5, 5], "finite"),
        ([0, 0, np.inf, 5], "finite"),
        ([5, 5, 5, 9], "area"),
        ([9, 0, 5, 5], "area"),
        ([100, 0, 120, 10], "outside"),
        ([0, -9, 10, 0], "outside"),
    ):
        with pytest.raises(ValueError, match=rf"^box 2, .*{reason}"):
            check_boxes(np.concatenate([good[:2], [bad]]), 100, 80)
    with pytest.raises(ValueError, match=r"\[4\]"):
        check_boxes(np.zeros(4), 100, 80)


def test_inclusive():
    """PASCAL VOC writes the whole of a 100 x 80 image as 1 1 100 80; ILSVRC writes it as 0 0 99 79."""
    whole = np.array([[0.0, 0, 100, 80]])
    assert from_inclusive(np.array([[1.0, 1, 100, 80]]), 1).tolist() == whole.tolist()
    assert from_inclusive(np.array([[0.0, 0, 99, 79]]), 0).tolist() == whole.tolist()
    assert area(from_inclusive(np.array([[7.0, 7, 7, 7]]), 1)).tolist() == [1]  # one pixel


def test_xywh():
    assert from_xywh(np.array([[10.0, 20, 30, 40]])).tolist() == [[10, 20, 40, 60]]
    assert to_xywh(np.array([[10.0, 20, 40, 60]])).tolist() == [[10, 20, 30, 40]]


def test_boxes_come_without_numba_and_opencv():
    code = "import sys, proposals.boxes; print([name for name in ('numba', 'cv2', 'torch') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_the_package_exports_selective_search():
    """As a function, also after the modules that use it are loaded."""
    code = (
        "import proposals.store; from proposals import Ranked, selective_search; import proposals\n"
        "print(callable(selective_search), Ranked._fields, proposals.selective_search is selective_search)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "True ('boxes', 'scores') True\n"


def test_the_package_has_no_other_names():
    import proposals

    with pytest.raises(AttributeError, match="'selectivesearch'"):
        _ = proposals.selectivesearch
