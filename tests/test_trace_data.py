"""What the page of a trace gets: the arrays of the run, unrounded, and pictures that a browser reads."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from test_trace import IMAGE, make

from detector.data.ground_truth import ClassTable, DataError
from detector.evaluation.truth import VOC, Truth
from detector.trace import data
from detector.trace.data import page_data, unpacked
from detector.trace.objects import objects_of
from detector.trace.tracing import ImageTrace, trace


def opened(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(";base64,")
    assert kind in ("data:image/jpeg", "data:image/png")
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.fixture(scope="module")
def found() -> ImageTrace:
    return trace(make(), IMAGE, "blocks <of> colours")


@pytest.fixture(scope="module")
def content(found: ImageTrace) -> Any:
    return json.loads(json.dumps(page_data(found)))


def test_scores_are_those_of_the_looks(found: ImageTrace, content: Any) -> None:
    looks = [*found.votes.looks, *found.others]
    assert [one["other"] for one in content["looks"]] == [False] * len(found.votes.looks) + [True] * len(found.others)
    for one, look in zip(content["looks"], looks, strict=True):
        assert np.array_equal(unpacked(one["probabilities"]), look.scores.probabilities)
        assert np.array_equal(unpacked(one["offsets"]), look.scores.offsets)
        assert np.array_equal(unpacked(one["rows"]), look.rows)
        assert (one["member"], one["mirrored"]) == (look.member, look.mirrored)
    assert [one["kind"] for one in content["members"]] == ["maps", "warped"]
    assert np.array_equal(unpacked(content["proposals"]["boxes"]), found.proposals.boxes)
    assert np.array_equal(unpacked(content["cascade"]["scored"]), found.votes.scored)


def test_superpixels_are_pictures_of_their_numbers(found: ImageTrace, content: Any) -> None:
    assert found.search is not None
    own = content["search"]["scales"][content["search"]["scale"]]
    for one, segmentation in zip(own, found.search.segmentations, strict=True):
        pixels = opened(one["map"]).astype(int)
        assert np.array_equal(pixels @ [1, 256, 65536], segmentation.labels)
        assert np.array_equal(unpacked(one["boxes"]), segmentation.boxes)
    assert set(content["search"]["scales"]) == {"1", "2", "0.3"}


def test_merges_are_the_tree(found: ImageTrace, content: Any) -> None:
    assert found.search is not None
    for one, hierarchy in zip(content["search"]["hierarchies"], found.search.hierarchies, strict=True):
        assert np.array_equal(unpacked(one["parts"]), hierarchy.tree.parts)
        assert np.abs(unpacked(one["values"]) / 255 - hierarchy.tree.similarities).max() <= 0.5 / 255 + 1e-9
        superpixels = found.search.segmentations[hierarchy.segmentation].boxes
        ranks = unpacked(one["ranks"])
        assert len(ranks) == len(superpixels) + len(hierarchy.tree.boxes)
        boxes = np.concatenate([superpixels, hierarchy.tree.boxes])
        assert np.array_equal(found.search.ranked.boxes[ranks[ranks >= 0]], boxes[ranks >= 0])


def test_tiles_are_regions_as_the_network_sees_them(found: ImageTrace, content: Any) -> None:
    rows = [tile["row"] for tile in content["tiles"]]
    assert len(rows) == len(set(rows)) == data.TILES
    assert all(opened(tile["image"]).shape == (64, 64, 3) for tile in content["tiles"])
    assert opened(content["image"]).shape == IMAGE.shape
    windows, levels = (unpacked(content["cuts"][0][key]) for key in ("windows", "levels"))
    assert windows.shape == found.proposals.boxes.shape
    assert set(levels.tolist()) <= {0, 1}
    assert content["cuts"][1]["levels"] is None


def test_objects_meet_the_detectors_classes_by_name(found: ImageTrace) -> None:
    """VOC's pixels count from 1; the table of the truth has another order, and a class that the detector lacks."""
    truth = Truth(
        name="own",
        classes=ClassTable(("disc", "ring", "square"), (None,) * 3, (1, 2, 3)),
        image_ids=("a", "b"),
        paths=(Path("photos/a.jpg"), Path("photos/b.jpg")),
        sizes=np.array([[120, 90], [120, 90]]),
        numbers=None,
        image_index=np.array([0, 1, 1, 1]),
        labels=np.array([0, 0, 1, 2]),
        boxes=np.array([[1.0, 1, 5, 5], [11, 11, 50, 60], [1, 1, 20, 20], [6, 6, 9, 9]]),
        difficult=np.array([False, False, False, True]),
        crowd=np.zeros(4, np.bool_),
        areas=np.zeros(4),
        convention=VOC,
    )
    objects = objects_of(truth, Path("elsewhere/b.jpg"), found.detector.classes)
    assert json.loads(json.dumps(page_data(found, objects)["truth"])) == {
        "boxes": [[10, 10, 50, 60], [0, 0, 20, 20], [5, 5, 9, 9]],
        "labels": [1, -1, 0],
        "names": ["disc", "ring", "square"],
        "ignored": [False, False, True],
    }
    assert page_data(found)["truth"] is None
    with pytest.raises(DataError, match=r"unknown image 'c\.jpg', not in own"):
        objects_of(truth, Path("c.jpg"), found.detector.classes)
