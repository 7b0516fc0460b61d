"""Other people's selective search behind our function."""

import cv2
import numpy as np
import pytest
import skimage.data

from proposals import selective_search
from proposals.selective.baselines import opencv_boxes, package_boxes

needs_ximgproc = pytest.mark.skipif(
    not hasattr(cv2, "ximgproc"), reason="this OpenCV has no ximgproc; its contrib build runs in another environment"
)


def photograph():
    return skimage.data.astronaut()[60:260, 130:380].copy()


@pytest.mark.skipif(hasattr(cv2, "ximgproc"), reason="this OpenCV has ximgproc")
def test_opencv_without_ximgproc_is_refused_in_one_line():
    with pytest.raises(ImportError) as caught:
        selective_search(photograph(), method="opencv")
    assert str(caught.value) == (
        f"method opencv needs cv2.ximgproc, which this OpenCV {cv2.__version__} lacks: only contrib builds have it. "
        f"In a separate environment: pip install opencv-contrib-python=={cv2.__version__}"
    )


@needs_ximgproc
@pytest.mark.parametrize("mode", ["fast", "quality", "single"])
def test_opencv_is_deterministic_by_seed(mode):
    image = photograph()
    first = selective_search(image, method="opencv", mode=mode, seed=3)
    again = selective_search(image, method="opencv", mode=mode, seed=3)
    other = selective_search(image, method="opencv", mode=mode, seed=4)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.boxes, other.boxes)
    assert {tuple(box) for box in first.boxes} == {tuple(box) for box in other.boxes}


@needs_ximgproc
def test_opencvs_boxes_are_converted():
    image = photograph()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image[:, :, ::-1].copy())
    search.switchToSelectiveSearchFast(150, 150, 0.8)
    expected = {(x, y, x + width, y + height) for x, y, width, height in search.process().tolist()}
    assert {tuple(box) for box in opencv_boxes(image, "fast", 1.0, 0).tolist()} == expected


@needs_ximgproc
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_our_opencv_fast_finds_about_what_opencv_does(name):
    image = getattr(skimage.data, name)()
    theirs = selective_search(image, method="opencv", min_width=1)
    ours = selective_search(image, mode="opencv-fast", min_width=1)
    assert 0.85 <= len(ours.boxes) / len(theirs.boxes) <= 1.15


def test_the_package_misses_a_pixel_and_we_add_it():
    import selectivesearch

    image = photograph()
    _, regions = selectivesearch.selective_search(image, scale=500, sigma=0.9, min_size=10)
    theirs = np.array([region["rect"] for region in regions])
    assert (theirs[:, 0] + theirs[:, 2]).max() == image.shape[1] - 1  # the defect
    boxes = package_boxes(image, 1.0)
    assert len(boxes) == len(regions)
    assert boxes[:, 2:].max(axis=0).tolist() == [image.shape[1], image.shape[0]]
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert [0, 0, image.shape[1], image.shape[0]] in boxes.tolist()


def test_the_packages_boxes_are_filtered_like_ours():
    image = photograph()
    boxes, scores = selective_search(image, method="selectivesearch", min_width=30)
    assert boxes.dtype == scores.dtype == np.float32
    assert len({tuple(box) for box in boxes.tolist()}) == len(boxes) == len(scores) > 10
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 30).all()
    assert (np.diff(scores) < 0).all()
    some = selective_search(image, method="selectivesearch", min_width=30, max_boxes=7)
    assert np.array_equal(some.boxes, boxes[:7])
    fewer = selective_search(image, method="selectivesearch", superpixel_scale=2.0, min_width=30)
    assert len(fewer.boxes) < len(boxes)
    grey = selective_search(image[:, :, 0], method="selectivesearch")  # the package alone raises IndexError
    assert len(grey.boxes)
