"""Fit what makes a detector fast to its weights: ranges for int8, the rejection layer, the thresholds.

In: a detector's config, images of train and val.  Out: ranges beside the weights that have none; in runs/NAME/ the
layer, the detector's config with the thresholds, and a table and a picture of the alternatives. Everything that depends
on the weights and is no weight is made here, by one command, but for the operating points, which eval_map measures.

0. Weights without ranges of their activations (detector.experiments.ranges) get them from images of train.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import find_checkpoint, read_ranges, write_ranges
from detector.config import check_range, save_config
from detector.data.dataset import Sources, open_dataset, resolved_sources
from detector.data.ground_truth import Dataset, Record
from detector.data.image import Image, ImageError
from detector.device import keep_freed_memory
from detector.evaluation.protocols import Protocol
from detector.evaluation.truth_files import read_truth
from detector.experiments.detection_run import labels_in
from detector.experiments.ranges import fit_ranges
from detector.experiments.score_store import UNREADABLE
from detector.extraction import settings_of
from detector.members import SharedMember, build_members
from detector.multibox import find_multibox
from detector.pipeline import Detector
from detector.progress import progress
from detector.regions.maps import ImageMaps
from detector.regions.rejection import RejectionLayer, RejectionLayerConfig
from detector.rejection import RejectionModel, fingerprint, save_rejection
from detector.scores import RegionScores
from detector.settings import CascadeConfig, DetectorConfig, RejectionConfig
from detector.training.record import TrainingError
from detector.training.rejection import Example, divergence, fit_rejection
from detector.training.thresholds import Choice, Scored, choose, draw_choices, format_choices, reach
from detector.views import View
from proposals.files import write_whole
from proposals.store import digest

_LOG = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

PRICED = ("proposals", "trunk"), ("regions",), ("warp", "network")  # stages of the seconds that Scored keeps
CALIBRATION = 32  # images for the ranges
HELD_OUT = 8  # every eighth image of train measures the layer


@dataclass(frozen=True)
class CascadeFitConfig:
    """What to fit, and on which images.

    Attributes:
        detector: The detector. Its rejection and the thresholds of its cascade are replaced; there is a rejection layer
            where its first model cuts regions from maps.
        train: Images that the rejection layer learns from, a data set or a list of them; their labels are not used.
        val: Images on which thresholds are chosen by mean AP, likewise.
        name: Name of the folder in runs/ that everything is written to.
        images: Number of images of train, drawn at random; 0 takes all.
        val_images: Number of images of val, likewise.
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
    train: Sources
    val: Sources
    name: str = "cascade"
    images: int = 240
    val_images: int = 0
    layer: RejectionLayerConfig = field(default_factory=RejectionLayerConfig)
    epochs: int = 6
    learning_rate: float = 0.002
    protocol: Protocol = Protocol.voc
    rejection_loss: float = 0.005
    cascade_loss: float = 0.0015
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "images", "val_images")
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
class Fitted:
    """The result of a fit.

    Attributes:
        layer: File of the rejection layer; None without one.
        detector: File of the detector's config.
        choices: All alternatives.
        chosen: The one that was taken.
    """

    layer: Path | None
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
    plain = replace(
        config.detector, rejection=RejectionConfig(), cascade=CascadeConfig(), mirror=False, operating_points=""
    )
    config = replace(config, train=resolved_sources(config.train), val=resolved_sources(config.val))
    train, val = open_dataset(config.train), open_dataset(config.val)
    records = _drawn(train, config.images, config.seed)
    val = replace(val, records=tuple(_drawn(val, config.val_images, config.seed)))
    _calibrate(plain, records[:: max(1, len(records) // CALIBRATION)])
    detector = Detector.load(plain, device=device)
    config.folder.mkdir(parents=True, exist_ok=True)
    save_config(config, config.folder / "config.yaml")
    keep_freed_memory()
    model = None
    if detector.members[0].shared:
        layer, quality = _fit_layer(config, detector, records, unread)
        provenance = {
            "data": f"{len(records)} images of {train.name}; thresholds: {val.name}",
            "result": f"divergence from the network's probabilities {quality:.4f} nats on images held out",
        }
        model = RejectionModel(layer, 0.0, fingerprint(detector.members[0].network), provenance)
    scored = _score_val(config, detector, model.layer if model else None, val, unread)
    if not scored:
        raise TrainingError(f"no image of val can be read: {'; '.join(unread[-1:]) or 'it has none'}")
    truth, names = read_truth(config.val), {one.record.image_id for one in scored}
    choices, chosen = choose(
        scored,
        truth.part(np.array([image_id in names for image_id in truth.image_ids])),
        labels_in(val, detector),
        len(detector.members) - 1,
        suppression=config.detector.suppression,
        protocol=config.protocol,
        rejection_loss=config.rejection_loss,
        cascade_loss=config.cascade_loss,
    )
    cascade, rejection, saved = _with_fitted(config.detector.cascade, chosen.cascade), RejectionConfig(), None
    if model:
        saved = config.folder / "rejection.safetensors"
        save_rejection(saved, replace(model, threshold=chosen.rejection))
        rejection = RejectionConfig(str(saved))
    file = config.folder / "detector.yaml"
    save_config(replace(config.detector, mirror=False, rejection=rejection, cascade=cascade), file)
    with write_whole(config.folder / "front.txt") as temporary:
        temporary.write_text(format_choices(choices, chosen) + "\n", encoding="utf-8")
    draw_choices(choices, chosen, config.folder / "front.png")
    return Fitted(saved, file, choices, chosen)


def _with_fitted(given: CascadeConfig, fitted: CascadeConfig | None) -> CascadeConfig:
    """The fitted thresholds, with what the given cascade does besides; one model needs them for that alone."""
    if fitted is None:
        return given if given.mirror or given.second_pass else CascadeConfig()
    return replace(given, threshold=fitted.threshold, best=fitted.best, near=fitted.near)


def _drawn(dataset: Dataset, count: int, seed: int) -> list[Record]:
    """Draw images at random, in the order of the data set; all of them if `count` is 0."""
    drawn = np.random.default_rng(seed).permutation(len(dataset))[: count or None]
    return [dataset.records[index] for index in np.sort(drawn)]


def _calibrate(config: DetectorConfig, records: Sequence[Record]) -> None:
    """Write the ranges of all weights of a detector that have none; an image that cannot be read is left out."""
    multibox = config.proposals.multibox.weights
    files = [*map(find_checkpoint, config.models), *([find_multibox(multibox)] if multibox else [])]
    for file in files:
        if read_ranges(file) is None:
            images = _readable(progress(records, f"ranges of {file.name}"))
            _LOG.info("wrote %s", write_ranges(file, fit_ranges(file, images)))


def _readable(records: Iterable[Record]) -> Iterator[Image]:
    for record in records:
        with suppress(ImageError, OSError):  # the next stage names it
            yield record.read()


def _fit_layer(
    config: CascadeFitConfig, detector: Detector, records: Sequence[Record], unread: list[str]
) -> tuple[RejectionLayer, float]:
    """Fit the layer; return it and its divergence on the images held out."""
    first = build_members(detector.members[:1], detector.config, detector.device)[0]
    assert isinstance(first, SharedMember)
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
    if not examples:
        raise TrainingError(f"no image of train can be read: {'; '.join(unread[:1]) or 'it has none'}")
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


def _score_val(
    config: CascadeFitConfig, detector: Detector, layer: RejectionLayer | None, val: Dataset, unread: list[str]
) -> list[Scored]:
    """Score the images of val."""
    (first,) = build_members(detector.members[:1], detector.config, detector.device)
    others = build_members(detector.members[1:], detector.config, detector.device)
    weights = [member.networks for member in others]

    def scores(view: View) -> Arrays:
        own, objects = first.score([view]), np.ones(len(view), np.float32)
        if layer is not None and isinstance(first, SharedMember):
            network = first.network
            with torch.inference_mode():
                maps = network.trunk([view])[0]
                logits = layer(maps.levels.__getitem__, view.boxes, maps.size, network.regions, network.config)
            objects = logits.sigmoid().cpu().numpy()
        arrays = {"boxes": view.boxes, "size": np.array(view.image.shape[:2]), "layer": objects}
        arrays |= _arrays("first", own)
        rows = reach(own, arrays["layer"], view.boxes) if others else np.zeros(0, np.int64)
        mean = RegionScores.mean([one.score([view[rows]]) for one in others], weights) if len(rows) else own[rows]
        spent = [sum(view.seconds.get(stage, 0.0) for stage in stages) for stages in PRICED]
        return arrays | {"rows": rows, "seconds": np.array(spent)} | _arrays("others", mean)

    result = []
    folder = config.folder / f"val-{_key(detector, len(detector.members), *([layer] if layer else []))}"
    for record, arrays in _kept(folder, detector, val.records, scores, f"scores {val.name}", unread):
        size = int(arrays["size"][0]), int(arrays["size"][1])
        each = [RegionScores(arrays[f"{name}_p"], arrays.get(f"{name}_o")) for name in ("first", "others")]
        own, others_ = each
        rest = arrays["rows"], others_, arrays["seconds"]
        result.append(Scored(record, arrays["boxes"], size, own, arrays["layer"], *rest))
    return result


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
