"""Orders of many detections against NumPy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from detector.evaluation.ordering import best_first, grouped

GENERATOR = np.random.default_rng(0)
SCORES = {
    "none": np.zeros(0),
    "one": np.ones(1),
    "distinct": GENERATOR.random(5000),
    "with ties": GENERATOR.random(5000).round(2),
    "of single precision": GENERATOR.random(200_000, np.float32).astype(np.float64),
    "all equal": np.full(3000, 0.5),
    "both zeros": np.array([0.0, -0.0, 0.0, -0.0, -1.0, 1.0] * 50),
    "logits": GENERATOR.normal(size=5000).round(1),
}


@pytest.mark.parametrize("name", SCORES)
def test_best_first_is_stable(name: str) -> None:
    scores = SCORES[name]
    before = scores.copy()
    order = best_first(scores)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(order, np.argsort(-scores, kind="stable"))
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(("count", "groups"), [(0, 3), (1, 1), (1000, 1), (1000, 7), (50, 4000)])
def test_groups_keep_the_order(count: int, groups: int) -> None:
    keys = GENERATOR.integers(0, groups, count)
    for order in (np.arange(count), GENERATOR.permutation(count), GENERATOR.permutation(count)[: count // 2]):
        rows, starts = grouped(keys, order, groups)
        np.testing.assert_array_equal(rows, order[np.argsort(keys[order], kind="stable")])
        np.testing.assert_array_equal(starts, np.searchsorted(keys[rows], np.arange(groups + 1)))
