"""The trace of a selective search against the search itself."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from proposals.selective.search import search, selective_search
from proposals.selective.traced import segmentations, trace_search
from proposals.settings import MODES, ProposalConfig

IMAGE = np.ascontiguousarray(skimage.data.chelsea()[::2, ::2])


@pytest.mark.parametrize(("mode", "scale"), [("fast", 1.0), ("fast", 2.0), ("single", 1.0)])
def test_the_trace_has_the_boxes_of_the_search(mode: str, scale: float) -> None:
    trace = trace_search(IMAGE, ProposalConfig(mode=mode, superpixel_scale=scale, width=0, seed=3))
    expected = selective_search(IMAGE, mode=mode, superpixel_scale=scale, seed=3)
    assert np.array_equal(trace.ranked.boxes, expected.boxes)
    assert np.array_equal(trace.ranked.scores, expected.scores)
    merges = search(IMAGE, MODES[mode], scale, 1)
    boxes = [found.boxes for found in trace.segmentations] + [one.tree.boxes for one in trace.hierarchies]
    assert sorted(map(tuple, np.concatenate(boxes).tolist())) == sorted(map(tuple, merges.boxes.tolist()))
    assert len(trace.hierarchies) == len(trace.segmentations) * len(MODES[mode].similarities)


def test_superpixels_are_the_pixels_of_their_labels() -> None:
    for found in segmentations(IMAGE, "fast", 1.0):
        assert found.labels.shape == IMAGE.shape[:2]
        for number, box in enumerate(found.boxes.tolist()):
            rows, columns = np.nonzero(found.labels == number)
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box
            assert len(rows) >= min(found.min_size, IMAGE[..., 0].size)


def test_ranks_are_places_among_the_proposals() -> None:
    trace = trace_search(IMAGE, ProposalConfig(width=0, max_boxes=50))
    for one in trace.hierarchies:
        for box, place in zip(one.tree.boxes.tolist(), trace.ranks(one.tree.boxes).tolist(), strict=True):
            listed = [index for index, other in enumerate(trace.ranked.boxes.tolist()) if other == box]
            assert listed == ([place] if place >= 0 else [])
    proposed = {place for one in trace.hierarchies for place in trace.ranks(one.tree.boxes).tolist()}
    proposed |= {place for found in trace.segmentations for place in trace.ranks(found.boxes).tolist()}
    assert proposed - {-1} == set(range(50))
