"""Proposals in the image's own pixels, their cache on disk, and their recall."""

import math
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from threading import Barrier

import cv2
import numpy as np
import pytest
import skimage.data

import proposals.cache
from proposals import Ranked, selective_search
from proposals.cache import ProposalCache
from proposals.recall import best_overlaps, recall
from proposals.sources import TALLEST, ProposalConfig, propose


def photograph():
    """[150, 250, 3]."""
    return skimage.data.astronaut()[100:250, 130:380].copy()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


SMALL = ProposalConfig(width=120, min_width=10)

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
    config = ProposalConfig(superpixel_scale=1.5, width=0, min_width=31, max_boxes=40, seed=7)
    expected = selective_search(image, superpixel_scale=1.5, min_width=31, max_boxes=40, seed=7)
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
    boxes, scores = propose(image, ProposalConfig(width=100, min_width=min_width))
    assert boxes.shape == (len(scores), 4)
    assert boxes.dtype == scores.dtype == np.float32
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len({tuple(box) for box in boxes.tolist()}) == len(boxes)
    assert min_width or [0, 0, width, height] in boxes.tolist()


def test_a_column_of_pixels_does_not_fill_the_memory(monkeypatch):
    shapes = []

    def spy(image, **settings):
        shapes.append(image.shape)
        return selective_search(image, **settings)

    monkeypatch.setattr("proposals.sources.selective_search", spy)
    propose(noise(4000, 2), ProposalConfig(width=50))
    propose(noise(TALLEST * 50, 50), ProposalConfig(width=50))
    propose(noise(3, 4000), ProposalConfig(width=50))
    propose(noise(300, 100), ProposalConfig(width=50))
    assert shapes == [(TALLEST * 50, 1, 3), (TALLEST * 50, 50, 3), (1, 50, 3), (150, 50, 3)]


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((20, 30), np.uint8), "uint8 [20, 30]"),
        (np.zeros((20, 30, 3), np.float32), "float32 [20, 30, 3]"),  # a resize would have cut it to bytes in silence
        (np.zeros((20, 0, 3), np.uint8), "uint8 [20, 0, 3]"),
    ],
)
def test_refuses_other_images(image, found):
    with pytest.raises(ValueError, match=r"image must be \[H, W, 3\] uint8 with pixels, not ") as caught:
        propose(image, ProposalConfig())
    assert str(caught.value).endswith(found)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"superpixel_scale": 0.0}, "proposals.superpixel_scale must be above 0 and finite, not 0.0"),
        ({"superpixel_scale": math.nan}, "proposals.superpixel_scale must be above 0 and finite, not nan"),
        ({"width": -1}, "proposals.width must not be negative, but is -1"),
        ({"min_width": -1}, "proposals.min_width must not be negative, but is -1"),
        ({"max_boxes": -1}, "proposals.max_boxes must not be negative, but is -1"),
        ({"seed": -1}, "proposals.seed must not be negative, but is -1"),
    ],
)
def test_refuses_other_settings(setting, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ProposalConfig(**setting)


# ---- the cache


class Decoder:
    """Counts its calls; the content chooses the image."""

    def __init__(self):
        self.calls = []

    def __call__(self, content):
        self.calls.append(content)
        return noise(60, 80, seed=len(content))


def same(first, second):
    return np.array_equal(first.boxes, second.boxes) and np.array_equal(first.scores, second.scores)


def only_file(cache):
    (path,) = cache.folder.iterdir()
    return path


def test_a_second_call_reads_the_first_ones_result(tmp_path):
    cache, decode = ProposalCache(tmp_path / "cache", SMALL), Decoder()
    first = cache.get(b"photo", decode)
    assert same(first, propose(noise(60, 80, seed=5), SMALL))
    assert same(cache.get(b"photo", decode), first)
    assert same(ProposalCache(tmp_path / "cache", SMALL).get(b"photo", decode), first)  # another process, say
    assert decode.calls == [b"photo"]
    assert isinstance(first, Ranked)
    assert first.boxes.dtype == first.scores.dtype == np.float32


def test_no_boxes_are_kept_too(tmp_path):
    cache, decode = ProposalCache(tmp_path, ProposalConfig(width=10)), Decoder()
    for _ in range(2):
        assert cache.get(b"tiny", decode).boxes.shape == (0, 4)
    assert len(decode.calls) == 1


def test_another_content_is_computed(tmp_path):
    cache, decode = ProposalCache(tmp_path, SMALL), Decoder()
    first, second = cache.get(b"photo", decode), cache.get(b"photo, edited", decode)
    assert not same(first, second)
    assert decode.calls == [b"photo", b"photo, edited"]
    assert same(cache.get(b"photo", decode), first)


@pytest.mark.parametrize(
    "setting", [{"superpixel_scale": 3.0}, {"width": 121}, {"min_width": 11}, {"max_boxes": 5}, {"seed": 1}]
)
def test_another_setting_is_computed(tmp_path, setting):
    decode = Decoder()
    ProposalCache(tmp_path, SMALL).get(b"photo", decode)
    other = ProposalConfig(**{"width": 120, "min_width": 10} | setting)
    assert same(ProposalCache(tmp_path, other).get(b"photo", decode), propose(noise(60, 80, seed=5), other))
    assert len(decode.calls) == 2


def test_another_version_of_the_code_is_computed(tmp_path, monkeypatch):
    cache, decode = ProposalCache(tmp_path, SMALL), Decoder()
    cache.get(b"photo", decode)
    monkeypatch.setattr(proposals.cache, "VERSION", proposals.cache.VERSION + 1)
    cache.get(b"photo", decode)
    assert len(decode.calls) == 2


def test_a_torn_file_is_computed_again(tmp_path):
    cache, decode = ProposalCache(tmp_path, SMALL), Decoder()
    first = cache.get(b"photo", decode)
    path = only_file(cache)
    whole = path.read_bytes()
    wrong_shape = tmp_path / "wrong.npy"
    np.save(wrong_shape, first.boxes)
    torn = [whole[:length] for length in (0, 1, 5, 6, 9, 50, 127, 128, 129, len(whole) // 2, len(whole) - 1)]
    for content in [*torn, bytes(len(whole)), b"not an array", wrong_shape.read_bytes()]:
        path.write_bytes(content)
        decode.calls.clear()
        assert same(cache.get(b"photo", decode), first)
        assert len(decode.calls) == 1
        assert path.read_bytes() == whole


def test_threads_that_miss_at_the_same_time(tmp_path):
    """All begin before any has stored its result."""
    cache, barrier = ProposalCache(tmp_path, SMALL), Barrier(8)

    def decode(content):
        barrier.wait(timeout=30)
        return noise(60, 80)

    for round_number in range(5):
        content = bytes([round_number])
        with ThreadPoolExecutor(8) as executor:
            results = list(executor.map(lambda _, content=content: cache.get(content, decode), range(8)))
        assert all(same(result, results[0]) for result in results)
    assert {path.suffix for path in cache.folder.iterdir()} == {".npy"}


def get_small(cache, _):
    return cache.get(b"photo", constant_image)


def constant_image(_):
    return noise(60, 80)


def test_processes_that_share_a_folder(tmp_path):
    cache = ProposalCache(tmp_path, SMALL)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        results = list(executor.map(partial(get_small, cache), range(12)))
    assert all(same(result, propose(noise(60, 80), SMALL)) for result in results)
    assert only_file(cache).suffix == ".npy"


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    cache = ProposalCache(tmp_path, SMALL)

    def full(file, rows):
        file.write(b"\x93NUMPY")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("proposals.cache.np.save", full)
        with pytest.raises(OSError, match="no space left on device"):
            cache.get(b"photo", Decoder())
    assert list(cache.folder.iterdir()) == []


def test_an_image_that_cannot_be_decoded_is_not_stored(tmp_path):
    def refuse(_):
        raise ValueError("photo.jpg: cut short")

    cache = ProposalCache(tmp_path, SMALL)
    with pytest.raises(ValueError, match="cut short"):
        cache.get(b"photo", refuse)
    assert not cache.folder.exists()


# ---- recall


def test_recall_by_hand():
    objects = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
    found = np.array([[0.0, 0, 10, 5], [0, 0, 10, 8], [20, 20, 30, 25], [90, 90, 99, 99]], np.float32)
    overlaps = best_overlaps(objects, found)
    assert overlaps.tolist() == [0.8, 0.5, 0]
    assert recall(overlaps) == pytest.approx(2 / 3)  # an IoU of exactly 0.5 counts
    assert recall(overlaps, 0.7) == pytest.approx(1 / 3)
    assert recall(overlaps, 0.81) == 0


def test_recall_is_that_of_all_pairs():
    random = np.random.default_rng(0)
    objects, found = (
        np.concatenate([corner, corner + random.random((count, 2)) * 40], axis=1)
        for count in (15, 30)
        for corner in [random.random((count, 2)) * 60]
    )
    expected = []
    for x1, y1, x2, y2 in objects:
        best = 0.0
        for u1, v1, u2, v2 in found:
            shared = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
            best = max(best, shared / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared))
        expected.append(best)
    assert best_overlaps(objects, found) == pytest.approx(expected)


def test_recall_without_objects_or_proposals():
    nothing, some = np.zeros((0, 4)), np.array([[0.0, 0, 10, 10]])
    assert best_overlaps(some, nothing).tolist() == [0]
    assert best_overlaps(nothing, some).tolist() == []
    assert best_overlaps(nothing, nothing).tolist() == []
    assert recall(best_overlaps(some, nothing)) == 0
    assert math.isnan(recall(best_overlaps(nothing, some)))


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
