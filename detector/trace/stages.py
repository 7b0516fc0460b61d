"""The stages of the page: the words of stages.yaml with the numbers of a run.

In: the page's data.  Out: Stages, in the order of the detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

WORDS = Path(__file__).parent / "stages.yaml"


@dataclass(frozen=True)
class Stage:
    """A stage, as the page shows it.

    Attributes:
        id: Its address on the page.
        title: Its name in the bar.
        count: What it left in this run, in a few words.
        heading: Its heading.
        text: What it does, paragraph by paragraph.
        question: A question for a student.
        answer: The answer.
        paper: Where the paper has it.
        source: The file that does it.
        seconds: The time that it took; empty where it took none of its own.
        note: Said in place of the time.
        settings: The settings in force, each as key=value.
    """

    id: str
    title: str
    count: str
    heading: str
    text: tuple[str, ...]
    question: str
    answer: str
    paper: str
    source: str
    seconds: str
    note: str
    settings: tuple[str, ...]


def stages_of(data: dict[str, Any]) -> list[Stage]:
    """Describe the stages of a run, from `detector.trace.data.page_data`."""
    counts = _counts(data)
    return [
        Stage(
            **{key: words[key] for key in ("id", "title", "heading", "question", "answer", "paper", "source")},
            text=tuple(words["text"]),
            count=counts[words["id"]],
            seconds=_time(data["seconds"], words.get("seconds", [])),
            note=words.get("note", ""),
            settings=tuple(_setting(data["settings"], key) for key in words.get("settings", [])),
        )
        for words in yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    ]


def _counts(data: dict[str, Any]) -> dict[str, str]:
    """Say what each stage left."""
    search, settings = data["search"], data["settings"]
    proposals = data["proposals"]["boxes"]["shape"][0]
    seen = next((look["rows"]["shape"][0] for look in data["looks"]), 0)
    by_all = data["cascade"]["scored"]["shape"][0] if data["cascade"] else seen
    segmentations = search["scales"][search["scale"]] if search else []
    return {
        "superpixels": f"{sum(one['boxes']['shape'][0] for one in segmentations):,} pieces" if search else "none",
        "merging": f"{sum(one['parts']['shape'][0] for one in search['hierarchies']):,} merges" if search else "none",
        "proposals": counted(proposals, "box", "boxes"),
        "regions": f"{seen:,} looked at",
        "votes": counted(len(data["members"]), "member"),
        "cascade": f"{by_all:,} by all members",
        "regression": "moves boxes" if settings["regression"] else "off",
        "suppression": "soft" if settings["suppression"]["soft_sigma"] else "hard",
        "why": "ask",
        "result": counted(len(data["detections"]["scores"]), "detection"),
    }


def counted(number: int, one: str, several: str = "") -> str:
    """Write a number with its noun.

    >>> counted(1, "box", "boxes"), counted(1200, "box", "boxes")
    ('1 box', '1,200 boxes')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _setting(settings: dict[str, Any], key: str) -> str:
    value = reduce(lambda inner, name: inner[name], key.split("."), settings)
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _time(seconds: dict[str, float], stages: list[str]) -> str:
    spent = [seconds[stage] for stage in stages if stage in seconds]
    if not spent:
        return ""
    return f"{sum(spent):.2f} s" if sum(spent) >= 0.005 else "under 0.01 s"
