"""The file of the scores from which a detector's classes are shown, which belongs to one whole detector.

A score means what weights, cascade, box regression, proposals and suppression make of it together. The file therefore
states the detector that it was measured on, and no other uses it. eval_map writes it for a run on images with labels
(detector.evaluation.operating_points has the rule).

K classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.checkpoint import RegionClassifier
from detector.config import config_to_dict
from detector.data.ground_truth import ClassTable, listed
from detector.evaluation.operating_points import SHOWN, OperatingPoints, shown_scores
from detector.evaluation.results import class_keys
from detector.extraction import settings_of
from detector.invocation import command
from detector.model_files import find_weights
from detector.rejection import RejectionModel, fingerprint
from detector.settings import AUTO, CascadeConfig, DetectorConfig, SuppressionConfig
from proposals.errors import UserError
from proposals.files import write_whole

FORMAT = "googlenet-rcnn operating points 1"
ENDING = ".points.json"

UNDECISIVE = {
    *("models", "batch", "backend", "precision", "operating_points", "suppression.min_score", "suppression.limit"),
    *("rejection.weights", "rejection.threshold", "proposals.multibox.weights", "proposals.multibox.precision"),
}
"""Settings that change no score, or stand in the identity by the content of the file that they name."""

OWN = "proposals.own."

_LOG = logging.getLogger(__name__)

Identity = dict[str, Any]


class OperatingPointsError(UserError):
    """A file of operating points cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class PointsFile:
    """What a file of operating points says.

    Attributes:
        path: The file.
        detector: Identity of the detector that it belongs to.
        scores: Lowest score that is shown of each class, by its key (detector.evaluation.results.class_keys).
        data: The images that it was measured on.
    """

    path: Path
    detector: Identity
    scores: dict[str, float]
    data: str


def identity_of(
    config: DetectorConfig, members: Sequence[RegionClassifier], rejection: RejectionModel | None
) -> Identity:
    """Collect what a detector's scores depend on, as JSON knows it: fingerprints of its files, and its settings.

    Settings that have their defaults are left out, so that a file outlives new settings that are off; so are those that
    another one makes void.
    """
    if len(members) == 1 or not config.cascade.applies:
        config = replace(config, cascade=CascadeConfig())
    if config.suppression.soft_sigma:
        config = replace(config, suppression=replace(config.suppression, max_iou=SuppressionConfig.max_iou))
    settings, defaults = (dict(_flat(config_to_dict(one))) for one in (config, DetectorConfig()))
    differing = {key: value for key, value in settings.items() if value != defaults.get(key, {})}
    result: Identity = {"weights": [_fingerprint(one, config.regression) for one in members]}
    if rejection:
        result["rejection"] = [fingerprint(rejection.layer), rejection.threshold]
    result |= {f"file of {name}": content for name, content in settings_of(config.proposals)["files"].items()}
    result |= {key: value for key, value in differing.items() if key not in UNDECISIVE and not key.startswith(OWN)}
    normalised: Identity = json.loads(json.dumps(result))
    return normalised


def find_min_scores(
    config: DetectorConfig, members: Sequence[RegionClassifier], rejection: RejectionModel | None
) -> NDArray[np.float64] | None:
    """Find the lowest score that is shown of each class, [K]; None where `suppression.min_score` is a number and rules.

    What rules is logged. A file that `auto` finds and that belongs to another detector is left out.

    Args:
        config: The detector's config.
        members: Its models, all with the first one's order of classes.
        rejection: Its rejection layer, if it has one.

    Raises:
        OperatingPointsError: The file that the config names does not exist, is another kind of file, or belongs to
            another detector.
    """
    name, min_score = config.operating_points, config.suppression.min_score
    if min_score is not None:
        if name not in ("", AUTO):
            _LOG.info("suppression.min_score=%g rules, not %s; null leaves it to the file", min_score, name)
        return None
    found: PointsFile | None = None
    if name == AUTO:
        found = _beside(config, members, rejection)
    elif name:
        found = _named(Path(name).expanduser(), identity_of(config, members, rejection))
    keys = class_keys(members[0].classes)
    if found is None:
        return np.full(len(keys), SHOWN)
    absent = [key for key in keys if key not in found.scores]
    if absent:
        raise OperatingPointsError(f"{found.path} has no score of {listed(absent, 3)}; {_remedy()}")
    return np.array([found.scores[key] for key in keys])


def read_points(path: Path) -> PointsFile:
    """Read a file of operating points.

    Raises:
        OperatingPointsError: It does not exist or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        scores = {str(key): float(score) for key, score in content["scores"].items()}
        if not all(0 <= score <= 1 for score in scores.values()):
            raise ValueError("a score is not in [0, 1]")
        return PointsFile(path, dict(content["detector"]), scores, str(content["data"]))
    except FileNotFoundError as error:
        raise OperatingPointsError(f"no operating points {path}; {_remedy()}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OperatingPointsError(
            f"{path} holds no operating points of this project ({error}); {_remedy()}"
        ) from error


def write_points(
    path: Path,
    detector: Identity,
    classes: ClassTable,
    points: OperatingPoints,
    objects: Sequence[int],
    about: Mapping[str, object],
) -> bool:
    """Write operating points; the file appears whole or not at all.

    Args:
        path: The file.
        detector: Identity of the detector that was measured.
        classes: Its K classes.
        points: Its operating points, in the order of these classes.
        objects: [K] number of objects of each class.
        about: What it was measured on: `data`, and whatever else a reader may ask.

    Returns:
        whether there is a file; there is none where no object of any class was found.
    """
    scores = shown_scores(points, objects)
    if scores is None:
        return False
    keys = class_keys(classes)
    measured = {
        key: (asdict(point) if point else {}) | {"objects": count}
        for key, point, count in zip(keys, points.by_class, objects, strict=True)
    }
    content = {
        "format": FORMAT,
        **about,
        "scores": dict(zip(keys, scores, strict=True)),
        "operating_points": measured,
        "pooled_point": points.pooled and asdict(points.pooled),
        "detector": detector,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return True


def _named(path: Path, own: Identity) -> PointsFile:
    found = read_points(path)
    key = _differing(found.detector, own)
    if key is not None:
        raise OperatingPointsError(f"{path} belongs to another detector: {key} differs; {_remedy()}")
    return found


def _beside(
    config: DetectorConfig, members: Sequence[RegionClassifier], rejection: RejectionModel | None
) -> PointsFile | None:
    """Find the file beside the first model that belongs to this very detector."""
    model = find_weights(config.models[0])
    others = []
    paths = sorted(model.parent.glob(f"*{ENDING}")) if model else []
    own = identity_of(config, members, rejection) if paths else {}
    for path in paths:
        try:
            found = read_points(path)
        except OperatingPointsError as error:
            _LOG.warning("%s", error)
            continue
        key = _differing(found.detector, own)
        if key is None:
            low, high = min(found.scores.values()), max(found.scores.values())
            _LOG.info("classes are shown from scores of %.2f to %.2f: %s (%s)", low, high, path.name, found.data)
            return found
        others.append(f"{path.name} differs in {key}")
    reason = f" ({', '.join(others)})" if others else ""
    _LOG.info("detections are shown from a score of %g: no operating points of this detector%s", SHOWN, reason)
    return None


def _differing(one: Identity, other: Identity) -> str | None:
    """Return the first key in which two identities differ."""
    return next((key for key in {**one, **other} if one.get(key) != other.get(key)), None)


def _fingerprint(member: RegionClassifier, regression: bool) -> str:
    """Return the SHA-256 of the weights of a member, and of how it sees a region."""
    shared = asdict(member.shared) if member.shared else None
    form = [asdict(member.regions), asdict(member.convention), shared, member.classes.names]
    weights = fingerprint(member.network, regression=regression)
    return hashlib.sha256(json.dumps([weights, *form]).encode()).hexdigest()


def _remedy() -> str:
    return (
        f"measure this detector: {command('eval_map')} writes operating_points.json to the run's folder; "
        "or leave them out: operating_points=''"
    )


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting in nested mappings."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value
