"""Files of other runs that a comparison of proposals shows beside its own: references and evaluations of a detector.

In: JSON of eval_proposals, or the name of a shipped one, and report.json of eval_map.  Out: Coverage, MeanAP. Numbers
of other images are refused. Shipped references and how they were made: references/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from detector.report.coverage import Coverage, MeanAP
from proposals.errors import UserError

REFERENCES = Path(__file__).parent / "references"
SUFFIX = " (reference)"
"""Ends the names of references, so that they differ from those of the comparison."""


class CoverageFileError(UserError):
    """A file that cannot stand beside a comparison; the message says which, why, and what to do next."""


@dataclass(frozen=True)
class _Earlier:
    data: str
    images: int
    objects: int
    settings: dict[str, Coverage]


@dataclass(frozen=True)
class _Interval:
    low: float
    high: float


@dataclass(frozen=True)
class _Report:
    protocol: str
    min_iou: float
    mean_ap: float
    counts: dict[str, int]
    interval: _Interval | None = None


def shipped() -> list[str]:
    """Return the names of the shipped references."""
    return sorted(path.stem for path in REFERENCES.glob("*.json"))


def read_references(names: Sequence[str], images: int, objects: int) -> dict[str, Coverage]:
    """Read earlier comparisons.

    Args:
        names: Names of shipped references, or files.
        images: Number of images that they must have been made on.
        objects: Number of objects on them.

    Returns:
        Coverage by the name of the method, which ends in SUFFIX.

    Raises:
        CoverageFileError: a file is absent, is no such file, or has other numbers of images or objects; or two have a
            method of one name.
    """
    result: dict[str, Coverage] = {}
    for name in names:
        path = REFERENCES / f"{name}.json" if name in shipped() else Path(name)
        if not path.is_file():
            raise CoverageFileError(
                f"references: no file {name}; shipped are {', '.join(shipped())}, others are files of "
                "eval_proposals --json"
            )
        earlier = _read(path, _Earlier, "eval_proposals --json")
        if (earlier.images, earlier.objects) != (images, objects):
            raise CoverageFileError(
                f"{path}: made on {earlier.data}, {earlier.images} images with {earlier.objects} objects; here are "
                f"{images} with {objects}, and recall is comparable on the same images only"
            )
        for method, row in earlier.settings.items():
            if method + SUFFIX in result:
                raise CoverageFileError(f"{path}: an earlier reference has the method {method!r} too; name only one")
            result[method + SUFFIX] = replace(row, ratio=None, unique=None)
    return result


def read_mean_ap(path: Path, images: int) -> MeanAP:
    """Read the mean AP of an evaluation.

    Args:
        path: report.json of eval_map, or a file of its --json.
        images: Number of images that it must have been made on.

    Raises:
        CoverageFileError: the file is absent, is no such file, or has another number of images.
    """
    if not path.is_file():
        raise CoverageFileError(f"reports: no file {path}; eval_map writes runs/NAME/report.json")
    report = _read(path, _Report, "eval_map")
    if report.counts.get("images") != images:
        raise CoverageFileError(
            f"{path}: made on {report.counts.get('images')} images, here are {images}; evaluate the detector on these"
        )
    interval = (report.interval.low, report.interval.high) if report.interval else None
    return MeanAP(report.mean_ap, interval, report.protocol, report.min_iou)


def check_protocols(found: Mapping[str, MeanAP | None]) -> None:
    """Reject mean AP by different rules in one table.

    Raises:
        CoverageFileError: two of them are by different ones.
    """
    first: tuple[str, MeanAP] | None = None
    for name, ap in found.items():
        if ap is None:
            continue
        first = first or (name, ap)
        if (ap.protocol, ap.min_iou) != (first[1].protocol, first[1].min_iou):
            raise CoverageFileError(
                f"reports: {first[0]!r} was scored by {first[1].protocol} at IoU {first[1].min_iou:g}, {name!r} by "
                f"{ap.protocol} at IoU {ap.min_iou:g}; give evaluations by the same protocol"
            )


T = TypeVar("T")


def _read(path: Path, kind: type[T], command: str) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CoverageFileError(f"{path}: not the JSON of {command} ({error}); run it again") from error
