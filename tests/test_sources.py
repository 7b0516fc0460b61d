"""Proposals in the image's own pixels."""

import math

import cv2
import numpy as np
import pytest
import skimage.data

from proposals import selective_search
from proposals.merging import TALLEST, propose
from proposals.result import source_names
from proposals.settings import MultiBoxSettings, ProposalConfig


def photograph():
    """[150, 250, 3]."""
    return skimage.data.astronaut()[100:250, 130:380].copy()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- resized and mapped back


@pytest.mark.parametrize(("width", "method"), [(100, cv2.INTER_AREA), (500, cv2.INTER_LINEAR), (333, cv2.INTER_LINEAR)])
def test_boxes_are_those_of_the_resized_image_mapped_back(width, method):
    image = photograph()
    height = round(width * 150 / 250)
    resized = cv2.resize(image, (width, height), interpolation=method)
    there = selective_search(resized, superpixel_scale=2, min_width=20)
    here = propose(image, ProposalConfig(width=width))
    assert here.boxes == pytest.approx(there.boxes * ([250 / width, 150 / height] * 2), rel=1e-6)
    assert np.array_equal(here.scores, there.scores)
    assert here.boxes.dtype == np.float32
    assert len({tuple(box) for box in here.boxes.tolist()}) == len(here.boxes)
    assert [0, 0, 250, 150] in here.boxes.tolist()


@pytest.mark.parametrize("width", [0, 250])
def test_an_image_of_the_width_is_not_resized(width):
    image = photograph()
    expected = selective_search(image, superpixel_scale=2)
    assert np.array_equal(propose(image, ProposalConfig(width=width)).boxes, expected.boxes)


def test_settings_are_passed_on():
    image = photograph()
    settings = {"mode": "single", "superpixel_scale": 0.5, "min_width": 31, "seed": 7}
    config = ProposalConfig(width=0, max_boxes=40, **settings)
    expected = selective_search(image, max_boxes=40, **settings)
    result = propose(image, config, threads=2)
    assert np.array_equal(result.boxes, expected.boxes)
    assert len(result.boxes) == 40


def test_defaults_are_googlenets():
    """Superpixels x2 (§8); width 500 and 20 px as R-CNN."""
    config = ProposalConfig()
    assert (config.superpixel_scale, config.width, config.min_width, config.max_boxes) == (2, 500, 20, 0)


IMAGES = {
    "photograph": photograph(),
    "mirrored view": photograph()[:, ::-1],
    "one pixel": noise(1, 1),
    "a row": noise(1, 700),
    "a short row": noise(1, 30),
    "a column": noise(700, 1),
    "tall": noise(900, 7),
    "larger than the width": noise(200, 777),
    "constant": np.full((31, 47, 3), 9, np.uint8),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("min_width", [0, 20])
def test_boxes_are_inside_the_image_and_unlike(image, min_width):
    height, width, _ = image.shape
    boxes, scores, sources = propose(image, ProposalConfig(width=100, min_width=min_width))
    assert boxes.shape == (len(scores), 4)
    assert boxes.dtype == scores.dtype == np.float32
    assert sources.dtype == np.uint8
    assert [source_names(ProposalConfig())[source] for source in sources] == ["selective search"] * len(boxes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len({tuple(box) for box in boxes.tolist()}) == len(boxes)


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_the_whole_image_is_a_box(image):
    assert [0, 0, image.shape[1], image.shape[0]] in propose(
        image, ProposalConfig(width=100, min_width=0)
    ).boxes.tolist()


def test_a_column_of_pixels_does_not_fill_the_memory(monkeypatch):
    shapes = []

    def spy(image, **settings):
        shapes.append(image.shape)
        return selective_search(image, **settings)

    monkeypatch.setattr("proposals.selective.search.selective_search", spy)
    propose(noise(4000, 2), ProposalConfig(width=50))
    propose(noise(TALLEST * 50, 50), ProposalConfig(width=50))
    propose(noise(3, 4000), ProposalConfig(width=50))
    propose(noise(300, 100), ProposalConfig(width=50))
    assert shapes == [(TALLEST * 50, 1, 3), (TALLEST * 50, 50, 3), (1, 50, 3), (150, 50, 3)]


def test_other_arrays_are_converted_before_they_are_resized():
    grey = photograph()[:, :, 0]
    expected = propose(np.repeat(grey[:, :, None], 3, axis=2), ProposalConfig(width=100))
    for same in (grey, grey / 255, grey.astype(np.uint16) * 257):
        assert np.array_equal(propose(same, ProposalConfig(width=100)).boxes, expected.boxes)


def test_multibox_weights_without_the_network_say_what_to_pass():
    with pytest.raises(ValueError, match=r"multibox_voc.*multibox=detector\.multibox\.load_source"):
        propose(photograph(), ProposalConfig(multibox=MultiBoxSettings("multibox_voc")))


def test_refuses_no_image():
    with pytest.raises(ValueError, match=r"^image .*uint8 \[20, 0, 3\]$"):
        propose(np.zeros((20, 0, 3), np.uint8), ProposalConfig())


@pytest.mark.parametrize(
    "setting",
    [
        {"superpixel_scale": 0.0},
        {"superpixel_scale": math.nan},
        {"method": "edges"},
        {"mode": "slow"},
        {"width": -1},
        {"min_width": -1},
        {"max_boxes": -1},
        {"seed": -1},
    ],
    ids=str,
)
def test_refuses_other_settings(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=rf"^proposals\.{name} .*{value}"):
        ProposalConfig(**setting)


# ---- photographs


@pytest.mark.data
def test_photographs_have_half_the_boxes_at_twice_the_superpixel_size(data_dir):
    """Mean over the photographs; one alone may be smoother or rougher."""
    paths = sorted((data_dir / "voc12" / "JPEGImages").glob("*.jpg"))[:12]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    single, double = (
        np.mean([len(propose(image, ProposalConfig(superpixel_scale=factor)).boxes) for image in images])
        for factor in (1.0, 2.0)
    )
    assert 0.4 <= double / single <= 0.6
    assert 1000 <= single <= 4000  # R-CNN: 2403 on ILSVRC
