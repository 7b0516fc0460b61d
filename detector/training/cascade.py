"""Fit what makes a detector fast to its weights: the rejection layer, and the thresholds of rejection and cascade.

In: a detector's config, images of train and val.  Out: in runs/NAME/ the layer, the detector's config with the
thresholds, and a table of the alternatives. Everything that depends on the weights and is no weight is made here, by
one command, so that new weights need no other work.

1. The layer learns the first model's object probabilities on images of train (detector.training.rejection).
2. Val images are scored once: by the first model everywhere, by the others where the widest cascade looks.
3. From these scores every threshold's mean AP is computed. The largest rejection threshold is taken that costs the
   first model nothing measurable, and then the cascade that warps the fewest regions for nearly the best mean AP.

What was computed for an image is kept in the folder, so that a stopped run continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.config import check_range, save_config
from detector.data.dataset import DataConfig, open_dataset
from detector.data.ground_truth import Dataset, Record
from detector.data.image import ImageError
from detector.detections import Detections
from detector.device import keep_freed_memory
from detector.evaluation.bootstrap import compare
from detector.evaluation.matching import Matches, match
from detector.evaluation.protocols import RULES, Protocol, ScoringConfig, evaluate_table
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth_files import read_truth
from detector.experiments.detection_run import labels_in, relabelled
from detector.experiments.score_store import UNREADABLE
from detector.extraction import settings_of
from detector.members import SharedMember, build_members
from detector.pipeline import Detector
from detector.progress import progress
from detector.regions.maps import ImageMaps
from detector.regions.rejection import RejectionLayer, RejectionLayerConfig
from detector.rejection import RejectionModel, fingerprint, save_rejection
from detector.scores import RegionScores
from detector.scoring import cascaded, passes
from detector.settings import CascadeConfig, DetectorConfig, RejectionConfig
from detector.suppression import suppress
from detector.table import columns
from detector.training.record import TrainingError
from detector.training.rejection import Example, divergence, fit_rejection
from detector.views import View
from proposals.boxes import Boxes
from proposals.files import write_whole
from proposals.store import digest

_LOG = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

LOWEST = 0.001  # score that a detection must exceed: AP needs the low ones
REJECTIONS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12)
CASCADES = tuple(
    CascadeConfig(threshold, best, near)
    for threshold in (0.1, 0.2, 0.3, 0.5)
    for best in (0, 30)
    for near in (1.0, 0.85, 0.8, 0.75, 0.7)
)
WIDEST = CascadeConfig(0.1, 30)
HELD_OUT = 8  # every eighth image of train measures the layer


@dataclass(frozen=True)
class CascadeFitConfig:
    """What to fit, and on which images.

    Attributes:
        detector: The detector; its first model cuts regions from maps. Its rejection and cascade are replaced.
        train: Images that the rejection layer learns from; their labels are not used.
        val: Images on which thresholds are chosen by mean AP.
        name: Name of the folder in runs/ that everything is written to.
        images: Number of images of train, drawn at random; 0 takes all.
        layer: Architecture of the rejection layer.
        epochs: Passes over the images of train.
        learning_rate: Highest learning rate of the layer.
        protocol: Rules of scoring: voc, voc07 or ilsvrc.
        rejection_loss: Mean AP that rejection may cost the first model alone, by the lower limit of the 95 % interval
            of the paired difference, in [0, 1].
        cascade_loss: Mean AP that the cascade may cost below that of its widest form, in [0, 1].
        seed: Seed of the draw of images, of the initial weights and of the order.
    """

    detector: DetectorConfig
    train: DataConfig
    val: DataConfig
    name: str = "cascade"
    images: int = 240
    layer: RejectionLayerConfig = field(default_factory=RejectionLayerConfig)
    epochs: int = 6
    learning_rate: float = 0.002
    protocol: Protocol = Protocol.voc
    rejection_loss: float = 0.005
    cascade_loss: float = 0.0015
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "images")
        check_range(self, "[1, inf)", "epochs")
        check_range(self, "[0, 1]", "rejection_loss", "cascade_loss")
        check_range(self, "(0, inf)", "learning_rate")
        if self.protocol is Protocol.coco:
            raise ValueError("protocol must be voc, voc07 or ilsvrc here")

    @property
    def folder(self) -> Path:
        """Folder that everything is written to."""
        return Path("runs") / self.name


@dataclass(frozen=True)
class Choice:
    """One alternative of the table.

    Attributes:
        rejection: Threshold of rejection; 0 rejects none.
        cascade: Condition of the cascade; None with one model.
        cut: Regions cut from maps, mean over the images.
        warped: Regions that the other models score, mean over the images.
        mean_ap: Mean AP over the classes.
    """

    rejection: float
    cascade: CascadeConfig | None
    cut: float
    warped: float
    mean_ap: float


@dataclass(frozen=True)
class Fitted:
    """The result of a fit.

    Attributes:
        layer: File of the rejection layer.
        detector: File of the detector's config.
        choices: All alternatives.
        chosen: The one that was taken.
    """

    layer: Path
    detector: Path
    choices: list[Choice]
    chosen: Choice


def fit_cascade(config: CascadeFitConfig, device: str = "auto", unread: list[str] | None = None) -> Fitted:
    """Fit the layer and the thresholds, and write them.

    Args:
        config: What to fit.
        device: Name of the device, see `detector.device.choose_device`.
        unread: Receives a line for each image that cannot be read; the fit goes on without it.

    Raises:
        UserError: A model, a setting or the data is wrong; one line.
    """
    unread = [] if unread is None else unread
    plain = replace(config.detector, rejection=RejectionConfig(), cascade=CascadeConfig(), mirror=False)
    train, val = open_dataset(config.train), open_dataset(config.val)
    detector = Detector.load(plain, device=device)
    first = build_members(detector.members[:1], plain, detector.device)[0]
    if not isinstance(first, SharedMember):
        raise TrainingError(
            f"{plain.models[0]} warps its regions one by one, so that no layer can reject them on maps; "
            "put a model of mode=shared first in detector.models"
        )
    config.folder.mkdir(parents=True, exist_ok=True)
    save_config(config, config.folder / "config.yaml")
    keep_freed_memory()
    layer, quality = _fit_layer(config, detector, first, train, unread)
    model = RejectionModel(layer, 0.0, fingerprint(detector.members[0].network))
    scored = _score_val(config, detector, model, val, unread)
    choices, chosen = _choose(config, detector, val, scored)
    provenance = {
        "data": f"{config.images or len(train)} images of {train.name}; thresholds: {val.name}",
        "result": f"divergence {quality:.4f} nats on images held out; mean AP {chosen.mean_ap:.4f}",
    }
    files = config.folder / "rejection.safetensors", config.folder / "detector.yaml"
    save_rejection(files[0], replace(model, threshold=chosen.rejection, provenance=provenance))
    cascade = chosen.cascade or CascadeConfig()
    rejection = RejectionConfig(str(files[0]))
    save_config(replace(config.detector, mirror=False, rejection=rejection, cascade=cascade), files[1])
    with write_whole(config.folder / "front.txt") as path:
        path.write_text(format_choices(choices, chosen) + "\n", encoding="utf-8")
    return Fitted(*files, choices, chosen)


def format_choices(choices: Sequence[Choice], chosen: Choice) -> str:
    """Format the alternatives that no cheaper one beats, and the chosen one, a line each."""
    rows: list[tuple[str, ...]] = [("rejection", "cascade", "best", "near", "regions cut", "warped", "mean AP", "")]
    for one in choices:
        cheaper = [o for o in choices if o.cut <= one.cut and o.warped <= one.warped and o.mean_ap > one.mean_ap]
        if cheaper and one is not chosen:
            continue
        cascade = one.cascade
        parts = (f"{cascade.threshold:g}", f"{cascade.best}", f"{cascade.near:g}") if cascade else ("-",) * 3
        mark = "chosen" if one is chosen else ""
        rows.append((f"{one.rejection:g}", *parts, f"{one.cut:.0f}", f"{one.warped:.0f}", f"{one.mean_ap:.4f}", mark))
    return "\n".join(columns(rows))


def _fit_layer(
    config: CascadeFitConfig, detector: Detector, first: SharedMember, train: Dataset, unread: list[str]
) -> tuple[RejectionLayer, float]:
    """Fit the layer; return it and its divergence on the images held out."""
    drawn = np.random.default_rng(config.seed).permutation(len(train))[: config.images or None]
    records = [train.records[index] for index in np.sort(drawn)]
    network = first.network

    def example(view: View) -> Arrays:
        with torch.inference_mode():
            maps = network.trunk([view])[0]
        objects = 1 - first.score([view]).probabilities[:, 0]
        arrays = {"boxes": view.boxes, "objects": objects, "size": np.array(maps.size)}
        for level, (features, scale) in maps.levels.items():
            arrays |= {f"map{level}": features.half().cpu().numpy(), f"scale{level}": np.array(scale)}
        return arrays

    examples = []
    for _, arrays in _kept(config.folder / f"maps-{_key(detector, 1)}", detector, records, example, "maps", unread):
        levels = {
            int(name.removeprefix("map")): (torch.from_numpy(array), tuple(arrays[name.replace("map", "scale")]))
            for name, array in arrays.items()
            if name.startswith("map")
        }
        maps = ImageMaps((int(arrays["size"][0]), int(arrays["size"][1])), levels)
        examples.append(Example(maps, arrays["boxes"], arrays["objects"]))
    held_out = examples[::HELD_OUT] if len(examples) > HELD_OUT else examples
    learned = [one for index, one in enumerate(examples) if index % HELD_OUT] or examples
    layer = fit_rejection(
        learned,
        config.layer,
        network.regions,
        network.config,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
    quality = divergence(layer, held_out, network.regions, network.config)
    _LOG.info("the layer's probabilities diverge from the network's by %.4f nats on images held out", quality)
    return layer, quality


@dataclass(frozen=True, eq=False)
class Scored:
    """The stored scores of a val image: of the first model, of the layer, of the others where WIDEST looks."""

    record: Record
    boxes: Boxes
    size: tuple[int, int]
    first: RegionScores
    layer: NDArray[np.float32]
    rows: NDArray[np.int64]
    others: RegionScores

    def cascade(self, threshold: float, config: CascadeConfig | None, count: int) -> tuple[RegionScores, int, int]:
        """Combine the scores as the detector would; also return the numbers of regions cut and warped."""
        first, cut = kept_scores(self.first, self.layer, threshold), int((self.layer >= threshold).sum())
        if config is None:
            return first, cut, 0
        passing = passes(first, self.boxes, config)
        others = self.others[np.searchsorted(self.rows, passing.scored)]
        return cascaded(first, passing, others, count), cut, len(passing.scored)


def kept_scores(scores: RegionScores, layer: NDArray[np.float32], threshold: float) -> RegionScores:
    """Return the first model's scores as early rejection leaves them: below the threshold a region is background."""
    kept = layer >= threshold
    background = RegionScores.background(len(kept), scores.classes, offsets=scores.offsets is not None)
    return background.updated(kept, scores[kept])


def reach(scores: RegionScores, layer: NDArray[np.float32], boxes: Boxes) -> NDArray[np.int64]:
    """Return the positions of all regions that pass in any of the alternatives, ascending."""
    thresholds = (0.0, *REJECTIONS)
    each = [passes(kept_scores(scores, layer, threshold), boxes, WIDEST).scored for threshold in thresholds]
    return np.unique(np.concatenate(each))


def _score_val(
    config: CascadeFitConfig, detector: Detector, model: RejectionModel, val: Dataset, unread: list[str]
) -> list[Scored]:
    """Score the images of val."""
    settings = replace(config.detector, rejection=RejectionConfig(), mirror=False)
    first, *_ = build_members(detector.members[:1], settings, detector.device)
    assert isinstance(first, SharedMember)
    others = build_members(detector.members[1:], settings, detector.device)
    weights, network = [member.networks for member in others], first.network

    def scores(view: View) -> Arrays:
        own = first.score([view])
        with torch.inference_mode():
            maps = network.trunk([view])[0]
            logits = model.layer(maps.levels.__getitem__, view.boxes, maps.size, network.regions, network.config)
        arrays = {"boxes": view.boxes, "size": np.array(maps.size), "layer": logits.sigmoid().cpu().numpy()}
        arrays |= _arrays("first", own)
        rows = reach(own, arrays["layer"], view.boxes) if others else np.zeros(0, np.int64)
        mean = RegionScores.mean([one.score([view[rows]]) for one in others], weights) if len(rows) else own[rows]
        return arrays | {"rows": rows} | _arrays("others", mean)

    result = []
    folder = config.folder / f"val-{_key(detector, len(detector.members), model.layer)}"
    for record, arrays in _kept(folder, detector, val.records, scores, f"scores {val.name}", unread):
        size = int(arrays["size"][0]), int(arrays["size"][1])
        each = [RegionScores(arrays[f"{name}_p"], arrays.get(f"{name}_o")) for name in ("first", "others")]
        result.append(Scored(record, arrays["boxes"], size, each[0], arrays["layer"], arrays["rows"], each[1]))
    return result


def _choose(
    config: CascadeFitConfig, detector: Detector, val: Dataset, scored: Sequence[Scored]
) -> tuple[list[Choice], Choice]:
    """Compute every alternative's mean AP; return them and the one to take."""
    truth, labels = read_truth(config.val), labels_in(val, detector)
    count = len(detector.members) - 1

    def table(threshold: float, cascade: CascadeConfig | None) -> tuple[DetectionTable, float, float]:
        found: dict[str, Detections] = {}
        cut, warped = [], []
        for one in scored:
            scores, regions_cut, regions_warped = one.cascade(threshold, cascade, count)
            boxes = scores.boxes(one.boxes, one.size[1], one.size[0])
            suppression = replace(config.detector.suppression, min_score=LOWEST)
            found[one.record.image_id] = relabelled(suppress(boxes, scores.probabilities, suppression), labels)
            cut.append(regions_cut)
            warped.append(regions_warped)
        return DetectionTable.from_images(truth, found), float(np.mean(cut)), float(np.mean(warped))

    def choice(threshold: float, cascade: CascadeConfig | None) -> Choice:
        found, cut, warped = table(threshold, cascade)
        mean_ap = evaluate_table(truth, found, ScoringConfig(protocol=config.protocol)).mean_ap
        return Choice(threshold, cascade, cut, warped, mean_ap)

    def matched(threshold: float) -> tuple[Matches, DetectionTable]:
        found = table(threshold, None)[0]
        return match(truth, found, rule, 0.5), found

    rule, points = RULES[config.protocol]
    choices, chosen = [choice(0.0, None)], 0.0
    everything = matched(0.0)
    for threshold in progress(REJECTIONS, "rejection", "threshold"):
        choices.append(choice(threshold, None))
        if compare(truth, [everything, matched(threshold)], points=points).difference.low >= -config.rejection_loss:
            chosen = threshold
    alone = next(one for one in choices if one.rejection == chosen)
    if not count:
        return choices, alone
    more = [choice(chosen, cascade) for cascade in progress((WIDEST, *CASCADES), "cascade", "threshold")]
    within = [one for one in more if one.mean_ap >= more[0].mean_ap - config.cascade_loss]
    return choices + more, min(within, key=lambda one: one.warped)


def _key(detector: Detector, models: int, *layers: RejectionLayer) -> str:
    """Return a text that differs for other weights or proposals, of which nothing kept may be used."""
    prints = [fingerprint(one) for one in (*(member.network for member in detector.members[:models]), *layers)]
    proposals = settings_of(detector.config.proposals)  # includes the contents of MultiBox's weights
    return hashlib.sha256(json.dumps([prints, proposals], sort_keys=True).encode()).hexdigest()[:8]


def _kept(
    folder: Path,
    detector: Detector,
    records: Sequence[Record],
    compute: Callable[[View], Arrays],
    label: str,
    unread: list[str],
) -> Iterator[tuple[Record, Arrays]]:
    """Yield what `compute` returns for each image, kept in a folder; images without boxes are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in progress(records, label):
        try:
            path = folder / f"{digest(record.path.read_bytes())[:32]}.npz"
            arrays = _read(path)
            if arrays is None:
                view = detector.view(record.path)
                arrays = compute(view) if len(view) else {}
                with write_whole(path) as part, part.open("wb") as file:
                    np.savez(file, allow_pickle=False, **arrays)
        except (ImageError, OSError) as error:
            unread.append(str(error))
            continue
        if arrays:
            yield record, arrays


def _read(path: Path) -> Arrays | None:
    """Return the arrays of a file; None where it is missing or damaged."""
    try:
        with np.load(path) as file:
            return dict(file)
    except UNREADABLE:
        return None


def _arrays(name: str, scores: RegionScores) -> Arrays:
    offsets = {} if scores.offsets is None else {f"{name}_o": scores.offsets}
    return {f"{name}_p": scores.probabilities, **offsets}
