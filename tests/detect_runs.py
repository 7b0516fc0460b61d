"""A detector that finds the same in every image, and a run of detect with it, as the command makes one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from detector.commands.detecting import Manner, Run
from detector.commands.outputs import Outputs, Wanted
from detector.commands.result_names import Names
from detector.commands.results import Item, item_of
from detector.commands.sources import collect
from detector.data.ground_truth import ClassTable
from detector.data.image import Image, read_image
from detector.data.video import is_video
from detector.detections import Detections
from detector.pipeline import ScoredImage
from detector.scores import RegionScores
from detector.settings import DetectorConfig, SuppressionConfig
from proposals.errors import UserError

CLASSES = ClassTable(("cat", "naïve dog"), ("n02121808", None), (1, 2))
IMAGE = np.full((60, 80, 3), 90, np.uint8)
SECONDS = {"proposals": 0.25, "trunk": 0.5, "regions": 0.375, "warp": 0.125, "network": 0.625, "suppression": 0.001}
COUNTS = {"regions_cut": 3, "trunk_pixels": 25_600}


def make_scored(count: int, regions: int = 3, image: Image = IMAGE) -> ScoredImage:
    """`regions` boxes with `count` detections."""
    boxes = np.array([[1, 2, 30.25, 40], [5, 6, 70, 50.126], [0, 0, 80, 60]], np.float32)[:regions]
    scores = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05]], np.float32)[:regions]
    thresholds = SuppressionConfig(min_score=0.0 if count else 0.99, limit=max(count, 1))
    return ScoredImage(image, boxes, RegionScores(scores), thresholds, CLASSES.names, dict(SECONDS), COUNTS)


def make_both(count: int, regions: int = 3) -> tuple[ScoredImage, Detections]:
    """The same and its detections, after exactly SECONDS."""
    scored = make_scored(count, regions)
    found = scored.detections()
    scored.seconds.update(SECONDS)
    return scored, found


class StubDetector:
    """Finds the same in every image.

    Attributes:
        seen: Names of the images that it was given.
    """

    config = DetectorConfig(models=["stub"])
    classes = CLASSES
    min_scores: Any = None

    def __init__(self, count: int = 2) -> None:
        self.count, self.seen = count, list[str]()

    def score(self, source: Any) -> ScoredImage:
        scored = make_scored(self.count, image=read_image(source))
        return scored if self.min_scores is None else replace(scored, min_scores=self.min_scores)

    def score_many(
        self, items: Iterable[Item], prepare: Callable[[Item], tuple[Any, None]]
    ) -> Iterator[tuple[Item, ScoredImage | Exception]]:
        for item in items:
            self.seen.append(item.name)
            try:
                yield item, self.score(prepare(item)[0])
            except (UserError, OSError) as error:
                yield item, error


def photo(path: Path, image: Image = IMAGE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(path)
    return path


def make_run(
    sources: Iterable[str | Path],
    folder: Path,
    *formats: str,
    detector: Any = None,
    manner: Manner | None = None,
    settings: str = "digest",
    recursive: bool = False,
    **wanted: bool,
) -> Run:
    """Run detect on sources with a stub, in the steps of the command."""
    collected = collect([str(source) for source in sources], recursive=recursive)
    planned = [*collected.before, *collected.after]
    images = [one for one in planned if not is_video(one.path)]
    names = Names(one.relative for one in images)
    chosen = Wanted(formats or ("json",), **wanted)
    outputs = Outputs(folder, chosen, (os.path.realpath(one.path) for one in planned))
    for number, one in enumerate(images, 1):
        outputs.check(item_of(one, names, number))
    run = Run(detector or StubDetector(), outputs, names, manner or Manner(), lambda: settings)
    run(collected.batches(recursive), len(images))
    run.failures[:0] = collected.failures
    return run


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but for detect's journal."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".detect.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
