"""Other people's selective search: the PyPI package as a method, OpenCV's in the benchmark."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
from opencv_search import MODES, SEARCHES

from proposals.merging import propose
from proposals.selective.baselines import package_boxes
from proposals.selective.colour import COLOUR_SPACES
from proposals.settings import ProposalConfig

needs_ximgproc = pytest.mark.skipif(
    not hasattr(cv2, "ximgproc"), reason="this OpenCV has no ximgproc; its contrib build runs in another environment"
)


def photograph():
    return skimage.data.astronaut()[60:260, 130:380].copy()


def found(search, image, mode="fast", **settings):
    config = ProposalConfig(**{"superpixel_scale": 1.0, "min_width": 1, **settings})
    return SEARCHES[search](image, config, mode, 1)


@pytest.mark.skipif(hasattr(cv2, "ximgproc"), reason="this OpenCV has ximgproc")
def test_opencv_without_ximgproc_is_refused_in_one_line():
    with pytest.raises(ImportError) as caught:
        found("opencv", photograph())
    assert f"opencv-contrib-python=={cv2.__version__}" in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_ximgproc
@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_opencv_is_deterministic_by_seed(mode):
    image = photograph()
    first, again, other = (found("opencv", image, mode, seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert {tuple(box) for box in first} == {tuple(box) for box in other}


@needs_ximgproc
def test_opencvs_boxes_are_converted():
    image = photograph()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image[:, :, ::-1].copy())
    search.switchToSelectiveSearchFast(150, 150, 0.8)
    expected = {(x, y, x + width, y + height) for x, y, width, height in search.process().tolist()}
    assert {tuple(box) for box in found("opencv", image)[0].tolist()} == expected


@needs_ximgproc
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_our_opencv_fast_finds_about_what_opencv_does(name):
    image = getattr(skimage.data, name)()
    assert 0.85 <= len(found("ours", image)[0]) / len(found("opencv", image)[0]) <= 1.15


def test_opencvs_settings_are_the_published_ones():
    """12 and 100 hierarchies; quality finds more, and small regions come first."""
    assert [len(m.ks) * len(m.colour_spaces) * len(m.similarities) for m in MODES.values()] == [12, 100]
    fast, quality = (found("ours", photograph(), mode)[0] for mode in MODES)
    assert len(fast) < len(quality)
    areas = (fast[:, 2:] - fast[:, :2]).prod(axis=1)
    assert areas[: len(areas) // 2].mean() < areas[len(areas) // 2 :].mean()


def test_opencvs_colour_spaces():
    image = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    converted = {name: space.convert(image).astype(int) for name, space in COLOUR_SPACES.items()}
    saturated = converted["hsv"][..., 1] > 40
    hue = np.abs(converted["opencv-hsv"][..., 0] / 180 - converted["hsv"][..., 0] / 255)[saturated]
    assert np.minimum(hue, 1 - hue).max() < 1 / 90
    assert converted["opencv-hsv"][..., 0].max() < 180
    assert np.abs(converted["opencv-hsv"][..., 1:] - converted["hsv"][..., 1:]).max() <= 1
    assert np.abs(converted["opencv-lab"] - converted["lab"]).mean() < 8  # its white is D65
    assert np.array_equal(converted["opencv-h"], converted["opencv-hsv"][..., :1])
    assert np.array_equal(converted["opencv-i"], converted["i"])
    assert np.array_equal(converted["opencv-rgi"], np.concatenate([image[..., :2], converted["i"]], axis=2))


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
    config = ProposalConfig(method="selectivesearch", superpixel_scale=1.0, width=0, min_width=30)
    boxes, scores, _ = propose(image, config)
    assert boxes.dtype == scores.dtype == np.float32
    assert len({tuple(box) for box in boxes.tolist()}) == len(boxes) == len(scores) > 10
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 30).all()
    assert (np.diff(scores) < 0).all()
    assert np.array_equal(propose(image, replace(config, max_boxes=7)).boxes, boxes[:7])
    assert len(propose(image, replace(config, superpixel_scale=2.0)).boxes) < len(boxes)
    assert len(propose(image[:, :, 0], config).boxes)  # the package alone raises IndexError
