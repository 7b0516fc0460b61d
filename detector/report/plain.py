"""A report as JSON: the evaluation's fields, and each further analysis under its own key.

Values by class are keyed like `ap`, images by their id. Curves are thinned; positions of detections are left out, for
they mean nothing outside the program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.analysis.comparing import Alone, Cases, ManyComparison
from detector.analysis.thresholds import ClassThresholds, Thresholds
from detector.evaluation.all_protocols import AllProtocols
from detector.evaluation.truth import Truth
from detector.report.contents import Report
from proposals.files import write_whole

POINTS = 200  # of a curve
CASES = 200  # of what one table of detections has and another lacks


def write_report(path: Path, truth: Truth, report: Report) -> None:
    """Write a report as JSON; the file appears whole or not at all.

    Args:
        path: The file; its folder is created if needed.
        truth: The objects that were scored against.
        report: The numbers.

    Raises:
        OSError: the file cannot be written.
    """
    _write(path, as_plain(truth, report))


def write_protocols(path: Path, protocols: AllProtocols) -> None:
    """Write the evaluations by all protocols as JSON: the rows of their table, and each evaluation by its name.

    Raises:
        OSError: the file cannot be written.
    """
    names = [field.name for field in fields(protocols)]
    content = {
        "protocol": "all",
        "rows": [row._asdict() for row in protocols.rows()],
        "evaluations": {name: getattr(protocols, name).to_dict() for name in names},
    }
    _write(path, content)


def as_plain(truth: Truth, report: Report) -> dict[str, Any]:
    """Return a report as what JSON knows: dicts, lists, texts, numbers and None."""
    keys = list(report.evaluation.ap)
    content = report.evaluation.to_dict()
    parts: dict[str, Any] = {
        "interval": report.interval,
        "causes": {keys[one.label]: _causes(keys, one) for one in report.causes},
        "diagnosis": report.diagnosis,
        "thresholds": report.thresholds and _thresholds(keys, report.thresholds),
        "confusion": report.confusion
        and {
            "rows": [*keys, "background"],
            "columns": [*keys, "missed"],
            "matrix": report.confusion.matrix,
            "score": report.confusion.score,
            "min_iou": report.confusion.min_iou,
        },
        "sizes": report.sizes
        and [{**_fields(row), "ap_by_class": _by_key(keys, row.ap_by_class)} for row in report.sizes],
        "slices": report.slices,
        "object_counts": report.object_counts,
        "calibration": report.calibration
        and {
            **_fields(report.calibration),
            "error_by_class": _by_key(keys, report.calibration.error_by_class),
        },
        "label_errors": None
        if report.suspects is None
        else [
            {
                "kind": suspect.kind,
                "image": truth.image_ids[suspect.image],
                "class": keys[suspect.label],
                "other": None if suspect.other is None else keys[suspect.other],
                "score": suspect.score,
                "box": suspect.box,
            }
            for suspect in report.suspects
        ],
        "fates": report.fates,
        "perfect": report.perfect,
        "comparison": report.comparison and _comparison(keys, truth, report.comparison),
        "warnings": report.warnings or None,
    }
    content |= {key: value for key, value in parts.items() if value is not None and value != {}}
    plain: dict[str, Any] = _plain(content)
    return plain


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _causes(keys: Sequence[str], causes: Any) -> dict[str, Any]:
    taken_for = None if causes.taken_for is None else keys[causes.taken_for]
    return {key: value for key, value in _fields(causes).items() if key != "label"} | {"taken_for": taken_for}


def _thresholds(keys: Sequence[str], found: Thresholds) -> dict[str, Any]:
    return {
        "precision": found.precision,
        "recall": found.recall,
        "pooled": found.pooled and _of_class(found.pooled),
        "by_class": {key: one and _of_class(one) for key, one in zip(keys, found.by_class, strict=True)},
    }


def _of_class(found: ClassThresholds) -> dict[str, Any]:
    count = len(found.curve)
    some = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64)) if count else slice(0)
    curve = {name: values[some] for name, values in _fields(found.curve).items()}
    return {**_fields(found), "curve": curve}


def _comparison(keys: Sequence[str], truth: Truth, comparison: ManyComparison) -> dict[str, Any]:
    return {
        "mean_ap": dict(zip(comparison.names, comparison.mean_ap, strict=True)),
        "score": comparison.score,
        "pairs": [
            {
                **_fields(pair),
                "by_class": _by_key(keys, pair.by_class),
                "first_alone": _alone(keys, truth, pair.first_alone),
                "second_alone": _alone(keys, truth, pair.second_alone),
            }
            for pair in comparison.pairs
        ],
    }


def _alone(keys: Sequence[str], truth: Truth, alone: Alone) -> dict[str, Any]:
    objects = alone.found.objects[:CASES]
    return {
        "found": len(alone.found),
        "false": len(alone.false),
        "found_first": [
            {**case, "class": keys[truth.labels[position]], "box": truth.boxes[position]}
            for case, position in zip(_cases(truth, alone.found), objects.tolist(), strict=True)
        ],
        "false_first": _cases(truth, alone.false),
    }


def _cases(truth: Truth, cases: Cases) -> list[dict[str, Any]]:
    rows = zip(cases.images[:CASES].tolist(), cases.margins[:CASES].tolist(), strict=True)
    return [{"image": truth.image_ids[index], "margin": margin} for index, margin in rows]


def _by_key(keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(keys, values, strict=True))


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _plain(value: Any) -> Any:
    """Make what JSON knows of dataclasses, arrays and numbers; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(_fields(value))
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
