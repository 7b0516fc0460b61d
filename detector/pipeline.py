"""START HERE: the whole detector, image -> proposals -> warped regions -> scores -> NMS -> detections (paper §8).

In: an image, as a path, bytes, a PIL image or an array.  Out: Detections, best first.
Each proposed box is classified on its own, as in R-CNN: warped to a square, or cut from maps of the whole image.
Several classifiers make the paper's ensemble by the mean of their softmax, followed by one suppression. Beyond the
paper are regions cut from maps, box regression and its second pass, mirrored regions, soft-NMS, box voting and the
cascade, off unless a preset asks for them; configs/default.yaml has some of them.

N boxes, K classes, S side of a region.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from detector.ahead import ahead, one_torch_thread
from detector.checkpoint import RegionClassifier, find_checkpoint, load_checkpoint
from detector.class_order import in_order_of
from detector.config import PRESETS, ConfigError, load_config
from detector.data.ground_truth import ClassTable
from detector.data.image import Image, ImageError, ImageSource, read_image
from detector.detections import Detections
from detector.device import choose_device
from detector.evaluation.operating_points import SHOWN
from detector.measuring import timed
from detector.model_files import CheckpointError
from detector.multibox import load_source
from detector.operating_points import find_min_scores
from detector.rejection import find_rejection
from detector.scores import RegionScores
from detector.scoring import RegionScorer
from detector.settings import DetectorConfig, SuppressionConfig
from detector.suppression import suppress
from detector.views import Recorder, View
from proposals.boxes import Boxes, floating
from proposals.errors import UserError
from proposals.merging import find, merge_sources
from proposals.own import check_source
from proposals.result import Found

_LOG = logging.getLogger(__name__)

IMAGES_GPU = 8
"""Images whose regions share batches on a GPU. On a CPU an image by itself fills its batches, and more take memory."""
IMAGES_CPU = 8
"""Most images in work at once on a CPU, one a thread: each takes some 150 MB."""

Source = TypeVar("Source")


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """An image's proposals and their scores, from which `detections` takes milliseconds.

    Attributes:
        image: [H, W, 3] uint8 RGB, upright.
        boxes: [N, 4] px, the regions: the proposals and, behind them, the moved ones of a second pass.
        scores: Mean over the members, of each region.
        suppression: The preset's thresholds.
        names: The K class names.
        seconds: Time spent so far, by stage (detector.views.STAGES).
        counts: Work done: regions_cut, regions_warped, network_passes, trunk_pixels (detector.views.View).
        min_scores: [K] lowest score that is shown of each class; None where suppression.min_score is a number.
    """

    image: Image
    boxes: Boxes
    scores: RegionScores
    suppression: SuppressionConfig
    names: tuple[str, ...]
    seconds: dict[str, float]
    counts: dict[str, int]
    min_scores: NDArray[np.float64] | None = None

    @cached_property
    def class_boxes(self) -> Boxes:
        """[N, K, 4] px, the box of each class: moved by box regression, or the regions themselves."""
        height, width, _ = self.image.shape
        return self.scores.boxes(self.boxes, width, height)

    def detections(
        self,
        *,
        min_score: float | None = None,
        max_iou: float | None = None,
        soft_sigma: float | None = None,
        limit: int | None = None,
        vote: float | None = None,
    ) -> Detections:
        """Turn the scores into detections, any number of times with other thresholds (see SuppressionConfig).

        A threshold that is left out is the preset's. The presets show each class from its own score (min_scores), which
        holds for the preset's own suppression: where max_iou or soft_sigma is given, min_score is 0.5. Soft-NMS has no
        use for max_iou: giving max_iou without soft_sigma selects greedy suppression.

        Raises:
            ValueError: A threshold outside its range.
        """
        if max_iou is not None and soft_sigma is None:
            soft_sigma = 0.0
        given: dict[str, Any] = {
            "min_score": min_score,
            "max_iou": max_iou,
            "soft_sigma": soft_sigma,
            "limit": limit,
            "vote": vote,
        }
        config = replace(self.suppression, **{name: value for name, value in given.items() if value is not None})
        min_scores = self.min_scores if min_score is None else None
        if min_scores is not None and not (max_iou is None and soft_sigma is None):
            min_scores = np.full_like(min_scores, SHOWN)
        with timed(self.seconds, "suppression"):
            found = suppress(self.class_boxes, self.scores.probabilities, config, min_scores)
        return replace(found, names=self.names)


class Detector:
    """A detector of K classes of objects, made by `Detector.load` or from region classifiers in memory.

    Images are paths, bytes of image files, PIL images, or arrays [H, W, 3] uint8 RGB, grey, RGBA, or in uint16, bool or
    float in [0, 1] (detector.data.image.read_image).

    Args:
        members: Region classifiers of the ensemble, at least one, all with the same classes in any order. They stay
            unchanged and may be shared between detectors.
        config: Proposals, suppression and batch size.
        device: Where the networks run.

    Raises:
        ValueError: There is no member.
        CheckpointError: The members' classes differ, a member lacks what the config asks for, or MultiBox's weights or
            the rejection layer are missing.
        DeviceError: The device lacks the backend or the precision.
        OperatingPointsError: The file of operating points is missing or belongs to another detector.
        SourceError, StoreError: A source of own boxes does not exist.
        ImportError: The config asks for onnxruntime, which is not installed.

    >>> model = Detector.load("fast", overrides=["suppression.min_score=0.3"])
    >>> for one in model("examples/chelsea.jpg"):
    ...     print(one.name)
    cat
    """

    def __init__(
        self, members: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device | str = "cpu"
    ) -> None:
        if not members:
            raise ValueError("a detector needs at least one region classifier")
        self.device = torch.device(device)
        for name, where in config.proposals.own.items():
            check_source(name, where)
        first = f"the first ({_name(config, 0)})"
        self.members = [
            in_order_of(
                member, members[0].classes, (f"model {number} of {len(members)} ({_name(config, number - 1)})", first)
            )
            for number, member in enumerate(members, 1)
        ]
        self.rejection = find_rejection(config, self.members[0])
        self.min_scores = find_min_scores(config, self.members, self.rejection)
        self._scorer = RegionScorer(self.members, config, self.device, self.rejection)
        self._multibox = (
            load_source(config.proposals.multibox, self.device) if config.proposals.multibox.weights else None
        )
        self.config = config

    @classmethod
    def load(
        cls, config: DetectorConfig | str | Path = "default", *, device: str = "auto", overrides: Sequence[str] = ()
    ) -> Detector:
        """Load a detector that is ready to use.

        Args:
            config: Name of a preset (`Detector.presets()`), a YAML file, or settings. The default preset needs nothing
                but this package.
            device: auto, cpu, cuda, cuda:N or mps.
            overrides: Settings that differ, such as "suppression.min_score=0.3"; for a preset or a file.

        Raises:
            ConfigError, CheckpointError, OperatingPointsError, DeviceError: One line that says what is missing and what
                to do.
        """
        if not isinstance(config, DetectorConfig):
            config = load_config(DetectorConfig, config, overrides)
        elif overrides:
            raise ConfigError("overrides are for a preset or a file; of a DetectorConfig use dataclasses.replace")
        members = []
        for number, name in enumerate(config.models, 1):
            try:
                members.append(load_checkpoint(find_checkpoint(name, len(config.models))))
            except CheckpointError as error:
                if len(config.models) == 1:
                    raise
                raise CheckpointError(f"model {number} of {len(config.models)}: {error}") from error
        return cls(members, config, choose_device(device))

    @staticmethod
    def presets() -> list[str]:
        """List the names that `load` accepts: the shipped presets of detectors whose weights are present.

        >>> Detector.presets()
        ['default', 'fast']
        """
        found = []
        for file in sorted(next(folder for folder in PRESETS if folder.is_dir()).glob("*.yaml")):
            try:
                config = load_config(DetectorConfig, file)
                for name in (*config.models, config.proposals.multibox.weights):
                    if name:
                        find_checkpoint(name, len(config.models))
                found.append(file.stem)
            except (ConfigError, CheckpointError):  # a preset of another command, or weights to be trained
                continue
        return found

    @property
    def precision(self) -> str:
        """Number format in which the regions are scored: float32, bfloat16 or int8, the answer to precision=auto."""
        return self._scorer.precision

    @property
    def classes(self) -> ClassTable:
        """The K classes that labels are numbers of."""
        return self.members[0].classes

    def __call__(self, image: ImageSource) -> Detections:
        """Detect the objects in an image; the errors are those of `score`."""
        return self.score(image).detections()

    def score(self, image: ImageSource, boxes: Boxes | None = None, *, recorder: Recorder | None = None) -> ScoredImage:
        """Propose boxes and score them, which takes seconds; the result gives detections in milliseconds.

        Args:
            image: A path, bytes, a PIL image or an array.
            boxes: [N, 4] px, proposals to use instead of the detector's own.
            recorder: Takes note of what the scoring does.

        Raises:
            ImageError: The file cannot be read; the message names it.
            ValueError: The array is no image, or a box is not finite, has no area or lies outside the image.
            SourceError, StoreError: A source of own boxes does not know the image, or gives no boxes.

        >>> scored = Detector.load("fast").score("examples/chelsea.jpg")
        >>> len(scored.detections(min_score=0.01)) > len(scored.detections(min_score=0.01, max_iou=0.1))
        True
        """
        return self._score([replace(self.view(image, boxes), recorder=recorder)])[0]

    def score_by_all(self, image: ImageSource, boxes: Boxes, *, recorder: Recorder | None = None) -> RegionScores:
        """Score boxes [N, 4] px by every member, without rejection, cascade and second pass; the errors of `score`."""
        return self._scorer.by_all([replace(self.view(image, boxes), recorder=recorder)])[0]

    def stream(
        self, paths: Iterable[str | Path], *, on_error: Callable[[Path, Exception], None] | None = None
    ) -> Iterator[tuple[Path, Detections]]:
        """Detect in many files, in order, as `score_many`; a file that fails is left out and does not stop the others.

        Args:
            paths: The image files.
            on_error: Called with the path and the error of each file that fails; by default a warning is logged.

        Yields:
            (path, detections) of each file that could be read.

        >>> failed = {}
        >>> model = Detector.load("fast")
        >>> for path, found in model.stream(["examples/chelsea.jpg", "nothing.jpg"], on_error=failed.__setitem__):
        ...     print(path, found[0].name)
        examples/chelsea.jpg cat
        >>> print(failed)
        {PosixPath('nothing.jpg'): ImageError('nothing.jpg: no such file')}
        """
        for path, scored in self.score_many(map(Path, paths)):
            if isinstance(scored, ScoredImage):
                yield path, scored.detections()
            elif on_error is not None:
                on_error(path, scored)
            else:
                _LOG.warning("%s", scored if isinstance(scored, ImageError) else f"{path}: {scored}")

    def score_many(
        self, sources: Iterable[Source], prepare: Callable[[Source], tuple[ImageSource, Boxes | None]] | None = None
    ) -> Iterator[tuple[Source, ScoredImage | UserError | OSError]]:
        """Score many images, in order, several at a time.

        On a CPU each thread scores images of its own, with one of torch's threads: nothing waits for a slower thread.
        On a GPU threads read and propose the next images while the networks score those before, several together.
        Scores equal those of `score` to rounding: a sum's order depends on the number of threads and on the batch.

        Args:
            sources: The images, read only a few ahead, or whatever `prepare` makes an image from.
            prepare: Returns the image of a source and boxes in it, or None for the detector's own proposals. It runs in
                other threads, several calls at a time unless there are sources of the user's own.

        Yields:
            (source, scored image), or the error in its place where the image cannot be read or proposed.
        """
        (group, workers), threads = self._at_a_time(), torch.get_num_threads()
        sources = iter(sources)
        head = list(islice(sources, 2))

        def work(source: Source) -> View | ScoredImage:
            # A single image has no others to leave the other cores to.
            with one_torch_thread(threads) if len(head) > 1 else nullcontext():
                view = self.view(*(prepare(source) if prepare else (cast(ImageSource, source), None)))
                return self._score([view])[0] if group == 1 else view

        some: list[tuple[Source, View | ScoredImage | UserError | OSError]] = []
        with closing(ahead(chain(head, sources), work, workers=workers, depth=group + workers)) as done:
            for source, future in done:
                try:
                    some.append((source, future.result()))
                except (UserError, OSError) as error:
                    some.append((source, error))
                if sum(isinstance(one, View) for _, one in some) in (0, group):
                    yield from self._score_some(some)
                    some = []
        yield from self._score_some(some)

    def view(self, image: ImageSource, boxes: Boxes | None = None) -> View:
        """Read an image, and propose boxes unless some are given."""
        pixels = read_image(image)
        seconds: dict[str, float] = {}
        if boxes is None:
            with timed(seconds, "proposals"):
                boxes = merge_sources(self.find(pixels, image), self.config.proposals).boxes
        return View(pixels, floating(np.asarray(boxes)), seconds)

    def _at_a_time(self) -> tuple[int, int]:
        """Number of images to score together, and of threads that work on images at once."""
        # Functions of the user's own may not stand several threads.
        workers = 1 if self.config.proposals.own else min(torch.get_num_threads(), IMAGES_CPU)
        return (1 if self.device.type == "cpu" else IMAGES_GPU), workers

    def _score_some(
        self, some: Sequence[tuple[Source, View | ScoredImage | UserError | OSError]]
    ) -> Iterator[tuple[Source, ScoredImage | UserError | OSError]]:
        scored = iter(self._score([one for _, one in some if isinstance(one, View)]))
        for source, one in some:
            yield source, next(scored) if isinstance(one, View) else one

    def _score(self, views: Sequence[View]) -> list[ScoredImage]:
        """Score images together."""
        suppression, names = self.config.suppression, self.classes.names
        return [
            ScoredImage(view.image, view.boxes, scores, suppression, names, view.seconds, view.counts, self.min_scores)
            for view, scores in self._scorer.score(views)
        ]

    def find(self, pixels: Image, source: ImageSource) -> dict[str, Found]:
        """Return the boxes of each source of proposals, keyed by its name, in its order (proposals.merging.find).

        Args:
            pixels: [H, W, 3] uint8 RGB.
            source: What the pixels were read from; a store of own boxes knows an image by its file.
        """
        content = None
        if self.config.proposals.own:
            content = source if isinstance(source, bytes) else None
            content = Path(source).read_bytes() if isinstance(source, str | Path) else content
        return find(
            pixels, self.config.proposals, multibox=self._multibox, content=content, threads=torch.get_num_threads()
        )


def _name(config: DetectorConfig, index: int) -> str:
    return config.models[index] if index < len(config.models) else "unnamed"
