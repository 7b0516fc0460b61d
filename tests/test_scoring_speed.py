"""tools/benchmarks/scoring_speed.py: evaluators in turns, each in a process of its own; those of a group agree."""

import importlib
import os
import re
import time

import pytest
from evaluators import AT_HALF, EVALUATORS, TWELVE, silently
from scoring_speed import installed, make_case
from turns import in_fresh_process_within


def test_evaluators_side_by_side(tool, capsys):
    """On a small made-up data set, each in a process of its own."""
    options = ["--images", "60", "--detections", "2000", "--repetitions", "1", "--no-peers"]
    assert tool("scoring_speed")(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "60 images, 200 classes, 2,000 detections"
    rows = {re.split(r"\s{2,}", line)[0]: line.split() for line in lines[1:] if line.startswith("ours")}
    assert len(rows) == 6
    for row in rows.values():
        seconds, low, high, busy, peak, loaded = map(float, row[-7:-1])
        assert 0 <= low == seconds == high
        assert busy >= 0
        assert peak >= loaded > 0
    assert 0 < float(rows["ours, VOC area"][-1]) <= 1
    assert rows["ours, reading COCO's JSON"][-1] == "-"


def test_evaluators_of_a_group_agree():
    """But for ILSVRC's rules, and VOC's beside COCO's."""
    case = make_case(20, 300)
    values = {
        name: silently(evaluator.prepare(*case))
        for name, evaluator in EVALUATORS.items()
        if evaluator.group in (AT_HALF, TWELVE) and (not evaluator.package or installed(evaluator))
    }
    equal = {
        "pycocotools": ("hotcoco", "faster-coco-eval"),
        "pycocotools, all": ("hotcoco, all", "faster-coco-eval, all", "torchmetrics", "supervision"),
        "ours, COCO by pycocotools": ("pycocotools, all", "ours, COCO by hotcoco"),
        "ours, VOC area": ("object-detection-metrics",),
    }
    for name, others in equal.items():
        for other in others:
            assert values.get(other, values[name]) == pytest.approx(values[name], abs=1e-6), other


def test_an_evaluator_that_takes_too_long_is_given_up():
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        in_fresh_process_within(1, time.sleep, 60)
    assert time.monotonic() - started < 30
    with pytest.raises(ModuleNotFoundError):
        in_fresh_process_within(60, importlib.import_module, "no_such_module")
    with pytest.raises(EOFError):
        in_fresh_process_within(60, os._exit, 1)
    assert in_fresh_process_within(60, max, 1, 2) == 2
