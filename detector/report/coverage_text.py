"""A comparison of proposal methods as text and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from detector.config import config_to_dict
from detector.report.coverage import GOAL, Bench, Coverage, Part, Span, fastest
from detector.table import columns, wrapped
from proposals.files import write_whole

HEADING = ("proposals", "boxes", "ratio", "coverage", "interval", "IoU 0.7", "AR", "AR interval", "MABO", "unique")


def format_coverage(bench: Bench, width: int | None = None) -> str:
    """Format a table with one line per method, tables of recall by size, shape and class, and a table of the ABO.

    "-" stands where nothing was measured.

    Args:
        bench: The comparison.
        width: Most characters in a line, see `detector.table.columns`; None for no limit.
    """
    rows = bench.all_rows
    has_ap = any(row.ap for row in rows.values())
    lines: list[Sequence[str]] = [(*HEADING, *(("AP", "AP interval") if has_ap else ()), "s/image", "quartiles")]
    for name, row in rows.items():
        texts = [f"{row.boxes:.0f}", number(row.ratio), number(row.coverage), spread(row.coverage_interval)]
        texts += [number(row.recall_by_iou[0.7]), number(row.average_recall), spread(row.average_recall_interval)]
        texts += [number(row.mabo), number(row.unique)]
        if has_ap:
            texts += [number(row.ap.value), spread(row.ap.interval)] if row.ap else ["-", "-"]
        low, middle, high = row.seconds or (None, None, None)
        lines.append((name, *texts, number(middle), f"{low:.3f}-{high:.3f}" if row.seconds else "-"))
    tables = [
        ("recall of size", _recalls(rows, lambda row: row.by_size)),
        ("recall of width/height", _recalls(rows, lambda row: row.by_aspect)),
        ("recall of classes", _recalls(rows, lambda row: row.by_seen)),
        ("recall of class", _recalls(rows, lambda row: row.by_class)),
        ("ABO of class", _values(rows, lambda row: row.abo)),
    ]
    parts = [f"{bench.data}: {bench.images} images, {bench.objects} objects", *columns(lines, width=width)]
    parts += [wrapped(line, width) for line in sentences(bench)]
    for heading, cells in tables:
        if cells:
            parts += ["", *columns([(heading, *rows), *cells], width=width)]
    return "\n".join(parts)


def sentences(bench: Bench) -> list[str]:
    """Say what no method covers, which is fastest, what each source alone covers, and by which rules AP was scored."""
    by_none = "not covered" if len(bench.rows) == 1 else "covered by none of these methods"
    result = [f"{bench.missed} of {bench.objects} objects are {by_none} at IoU 0.5"]
    first = fastest(bench.rows, GOAL)
    if first:
        result.append(f"fastest with coverage {GOAL} or more: {first[0]}, {first[1]:.3f} s/image")
    elif any(row.seconds for row in bench.rows.values()):
        result.append(f"no method with known seconds has coverage {GOAL} or more")
    result += [
        f"{name}: {share:.3f} of the objects are covered by {source} alone"
        for name, row in bench.rows.items()
        for source, share in row.gains.items()
    ]
    scored = next((row.ap for row in bench.all_rows.values() if row.ap), None)
    if scored:
        result.append(f"AP: mean AP of a detector on these boxes, {scored.protocol}, IoU {scored.min_iou:g}")
    return result


def write_coverage(path: Path, bench: Bench, config: object) -> None:
    """Write JSON: data (name), images and objects (counts), settings (Coverage of each method), config (resolved).

    Also `references`, like settings, and `missed`, the number of objects that no method covers.
    """
    content = {
        "data": bench.data,
        "images": bench.images,
        "objects": bench.objects,
        "settings": {name: config_to_dict(row) for name, row in bench.rows.items()},
        "references": {name: config_to_dict(row) for name, row in bench.references.items()},
        "missed": bench.missed,
        "config": config_to_dict(config),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def number(value: float | None) -> str:
    """Format a share or a number of seconds with three decimals."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def spread(span: Span | None) -> str:
    """Format an interval."""
    return f"{span[0]:.3f}-{span[1]:.3f}" if span else "-"


def keys_of(tables: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the keys of all tables in the order in which they come."""
    return list(dict.fromkeys(key for table in tables for key in table))


def _recalls(rows: Mapping[str, Coverage], parts: Callable[[Coverage], Mapping[str, Part]]) -> list[Sequence[str]]:
    return _values(rows, lambda row: {key: part.recall for key, part in parts(row).items()})


def _values(
    rows: Mapping[str, Coverage], values: Callable[[Coverage], Mapping[str, float | None]]
) -> list[Sequence[str]]:
    tables = [values(row) for row in rows.values()]
    return [(key, *(number(table.get(key)) for table in tables)) for key in keys_of(tables)]
