"""All protocols of one reading, and an Evaluation as table, DataFrame and curves."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from detector import evaluate
from detector.evaluation import (
    AllProtocols,
    DetectionTable,
    Evaluator,
    MissingPackageError,
    Truth,
    average_precision,
    format_protocols,
)


def tables(seed: int = 0) -> tuple[Truth, DetectionTable]:
    random = np.random.default_rng(seed)
    evaluator = Evaluator(["cat", "dog", "bird"])
    for image in range(12):
        corner = random.integers(0, 80, (6, 2))
        boxes = np.concatenate([corner, corner + random.integers(6, 60, (6, 2))], axis=1)
        labels = random.integers(0, 2, 6)
        found = boxes + random.integers(-4, 5, (6, 4))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        truth = {"boxes": boxes, "labels": labels, "difficult": random.random(6) < 0.2}
        evaluator.update(image, truth, {"boxes": found, "labels": labels, "scores": random.random(6)})
    return evaluator.tables()


def test_each_row_is_its_protocols_own_number() -> None:
    truth, table = tables()
    blacklisted = replace(truth, blacklist=frozenset({(0, int(truth.labels[0]))}))
    together = evaluate(blacklisted, table, "all", min_iou=0.6)
    assert isinstance(together, AllProtocols)
    own = {name: evaluate(truth, table, name, min_iou=0.6) for name in ("voc", "voc07")}
    own["coco"] = evaluate(truth, table, "coco")
    own["ilsvrc"] = evaluate(blacklisted, table, "ilsvrc", min_iou=0.6)
    for name, evaluation in own.items():
        assert getattr(together, name) == evaluation
    rows = together.rows()
    summary = own["coco"].summary
    assert [row.mean_ap for row in rows] == [
        *(own[name].mean_ap for name in ("ilsvrc", "voc", "voc07")),
        *(summary[key] for key in ("AP50", "AP75", "AP")),
    ]
    assert [row.name for row in rows] == [
        "ILSVRC DET, IoU 0.6",
        "PASCAL VOC 2010, area, IoU 0.6",
        "PASCAL VOC 2007, 11 points, IoU 0.6",
        *("COCO, IoU 0.5", "COCO, IoU 0.75", "COCO, IoU 0.5:0.95"),
    ]
    assert len({row.mean_ap for row in rows}) == 6
    assert rows[0].objects > rows[1].objects == rows[3].objects  # ILSVRC knows no difficult objects


def test_the_text_has_a_sentence_for_each_row() -> None:
    together = evaluate(*tables(), "all")
    lines = format_protocols(together, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    for row in together.rows():
        assert f"{row.mean_ap:.4f}" in str(together)
        assert sum(line.startswith(f"{row.name}: ") for line in lines) == 1
        assert row.why.endswith(".")
        assert row.why.count(". ") == 0
    assert str(together) == format_protocols(together)


@pytest.mark.parametrize("protocol", ["voc", "ilsvrc"])
def test_the_table_of_an_evaluation(protocol: str) -> None:
    evaluation = evaluate(*tables(), protocol)
    rows = evaluation.table()
    assert len({len(row) for row in rows}) == 1
    assert ("AP plain" in rows[0]) == (protocol == "ilsvrc")
    assert [row[0] for row in rows] == ["class", "cat", "dog", "mean", "median"]  # no object is a bird
    assert rows[1][1] == f"{evaluation.ap['cat']:.4f}"
    text = str(evaluation)
    assert text.startswith(f"{protocol}, IoU 0.5: 12 images, 3 classes\n")
    assert all(row[1] in text for row in rows)
    assert "scored" not in repr(evaluation)


def test_a_data_frame() -> None:
    pytest.importorskip("pandas")
    evaluation = evaluate(*tables(), "ilsvrc")
    frame = evaluation.to_pandas()
    assert list(frame.index) == ["cat", "dog", "bird"]
    assert list(frame)[:3] == ["name", "ap", "plain_ap"]
    assert frame["ap"].mean() == pytest.approx(evaluation.mean_ap)
    assert np.isnan(frame.loc["bird", "ap"])
    point = evaluation.operating_points["cat"]
    assert point is not None
    assert tuple(frame.loc["cat", ["score", "precision", "recall", "f1"]]) == (
        point.score,
        point.precision,
        point.recall,
        point.f1,
    )
    assert "plain_ap" not in evaluate(*tables()).to_pandas()


def test_curves_have_the_average_precision_of_their_legend() -> None:
    evaluation = evaluate(*tables(), "voc")
    figure = evaluation.plot_curves()
    (axes,) = figure.axes
    assert len(axes.lines) == 2
    for line, key in zip(axes.lines, ("cat", "dog"), strict=True):
        recall, precision = (np.asarray(values, np.float64)[1:] for values in line.get_data())
        assert average_precision(recall, precision) == pytest.approx(evaluation.ap[key])
        assert line.get_label() == f"{evaluation.ap[key]:.4f}  {key}"
    assert [line.get_label()[8:] for line in evaluation.plot_curves(["dog"]).axes[0].lines] == ["dog"]
    with pytest.raises(ValueError, match="no curve of class 'bird'; classes with objects: cat, dog"):
        evaluation.plot_curves(["bird"])
    with pytest.raises(ValueError, match="does not have the detections"):
        replace(evaluation, scored=None).plot_curves()


def test_curves_without_detections() -> None:
    truth, table = tables()
    evaluation = evaluate(truth, table[:0])
    assert [line.get_label() for line in evaluation.plot_curves().axes[0].lines] == ["0.0000  cat", "0.0000  dog"]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = evaluate(*tables())
    for package in ("pandas", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match="pip install pandas"):
        evaluation.to_pandas()
    with pytest.raises(MissingPackageError, match="pip install matplotlib"):
        evaluation.plot_curves()


def test_lists_beside_names_are_refused() -> None:
    cat = {"boxes": [[1, 1, 9, 9]], "labels": [0], "scores": [0.5]}
    for truth, found, message in (
        ([cat], {"0": cat}, "both keyed by image id, or both as lists"),
        ({"a": cat}, [cat], "both keyed by image id, or both as lists"),
        ([cat, cat], [cat], "ground truth of 2 images, and detections of 1"),
        ({"photo": cat}, {"foto": cat}, "unknown image 'foto', not in the ground truth. Did you mean 'photo'"),
        (tables()[0], [cat], "key them by image id or file name"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(truth, found, classes=["cat"])  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="are for files"):
        evaluate([cat], [cat], classes=["cat"], image_list="val.txt")
    with pytest.raises(ValueError, match="classes are missing"):
        evaluate([cat], [cat])
