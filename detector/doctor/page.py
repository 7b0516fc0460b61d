"""The doctor's report as text for a terminal of 80 columns, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from detector.doctor.checkup import Checkup
from detector.doctor.findings import Finding, Level
from detector.table import columns

WIDTH = 80
INDENT = " " * 9
OF_CLASSES = ("proposals.reach",)
"""Ids that count objects and whose examples are classes."""
SHOWN = 30
"""Most classes in the table; of more classes it shows the rarest."""


def format_counts(checkup: Checkup) -> list[str]:
    """Format the table of images and of the objects of each class, a column a part."""
    counts = checkup.counts
    names = list(dict.fromkeys(name for one in counts for name in one.names))
    objects = {name: [_count(one.names, one.objects.tolist(), name) for one in counts] for name in names}
    if len(names) > SHOWN:
        names.sort(key=lambda name: objects[name][0])
    shown = [(name, *(f"{count:,}" for count in objects[name])) for name in names[:SHOWN]]
    images = ("images", *(f"{one.total:,}" for one in counts))
    lines = columns([("", *(one.part or "all" for one in counts)), images, *shown])
    return [*lines, f"and {len(names) - SHOWN} classes with more objects"] if len(names) > SHOWN else lines


def format_findings(findings: Sequence[Finding], levels: Sequence[Level] = tuple(Level)) -> list[str]:
    """Format the findings of some levels, and the number of the others."""
    lines: list[str] = []
    for one in findings:
        if one.level in levels:
            head = f"{one.level.value:<8} {one.id}: "
            lines += _wrapped(head + one.title.splitlines()[0], "")
            lines += [INDENT + line for line in one.title.splitlines()[1:]]
            more = one.count - len(one.examples) if one.id not in OF_CLASSES else 0
            for example in one.examples:
                lines += _wrapped(f"  {example}", INDENT)
            lines += [f"{INDENT}  and {more:,} more"] * bool(one.examples and more > 0)
            lines += _wrapped(one.advice, INDENT)
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    told = [f"{count} {level.value}{'s' * (count != 1)}" for level, count in counts.items() if count]
    return [*lines, f"doctor: {', '.join(told) or 'nothing found'}"]


def as_json(checkup: Checkup, about: dict[str, Any]) -> str:
    """Return the report as JSON.

    Args:
        checkup: The report.
        about: Further keys, first of all.
    """
    content: dict[str, Any] = {"doctor": 1, **about}
    content["parts"] = {
        one.part or "all": {"images": one.total, "objects": dict(zip(one.names, one.objects.tolist(), strict=True))}
        for one in checkup.counts
    }
    reach = checkup.reach
    content["proposals"] = reach and {
        "images": reach.images,
        "objects": len(reach.overlaps),
        "boxes_per_image": round(reach.proposals, 1),
        "reached": {f"{iou:g}": round(reach.share(iou), 4) for iou in (0.5, 0.7)},
    }
    content["findings"] = [
        {
            "id": one.id,
            "level": one.level.value,
            "count": one.count,
            "text": one.text,
            "examples": list(one.examples),
            "advice": one.advice,
        }
        for one in checkup.findings
    ]
    return json.dumps(content, ensure_ascii=False, indent=2)


def _count(names: Sequence[str], values: Sequence[int], name: str) -> int:
    return values[names.index(name)] if name in names else 0


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=INDENT + "  " * (text[:2] == "  "), break_on_hyphens=False
    )
