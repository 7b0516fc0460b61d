"""Show where a detector's time goes: for each stage the regions, multiply-adds, seconds, and the rate reached.

    selective search   with your own sources of boxes, and the merging of all
    MultiBox           the network that proposes boxes, once for each view of the image
    trunk              whole images, resized, to maps
    rejection          regions rejected on the maps
    regions            regions cut from the maps, and the last modules
    warp, network      regions warped; the networks that score them, a region counted once for each
    suppression        scores to detections; other: everything else

In: images, presets.  Out: a table for each detector, per image: means over the images, medians over the rounds, in
which detectors and matrix products take turns. Multiply-adds are those of convolutions and linear layers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from turns import STOPPED, benchmark_parser, readable_images, take_turns  # first: chooses how threads wait

# isort: split
import torch
from network_speed import matrix_product
from work import UNITS, Work, WorkCounter

from detector.checkpoint import read_ranges
from detector.data.image import Image, read_image
from detector.device import keep_freed_memory
from detector.measuring import Quartiles, quartiles, timed
from detector.multibox import find_multibox, load_source
from detector.network.fastest import scoring_precision
from detector.pipeline import Detector
from detector.progress import progress
from detector.table import columns
from detector.views import STAGES
from proposals.boxes import Boxes
from proposals.merging import propose
from proposals.result import Found

EXAMPLES = """examples:
  python tools/benchmarks/budget.py examples
  python tools/benchmarks/budget.py photo.jpg --detectors default mine.yaml --repetitions 5
"""

MATRIX_SIDE = 1536

SEARCH, MULTIBOX, OTHER = "selective search", "MultiBox", "other"
ROWS = (SEARCH, MULTIBOX, *(stage for stage in STAGES if stage != "proposals"), OTHER)


@dataclass(frozen=True)
class Stage:
    """A stage's share in one image.

    Attributes:
        name: One of ROWS.
        count: Mean number of what it works on.
        unit: What that is.
        multiply_adds: Mean multiply-adds, G.
        seconds: Median seconds.
    """

    name: str
    count: float
    unit: str
    multiply_adds: float
    seconds: float


@dataclass(frozen=True)
class Budget:
    """Where the time of one detector goes.

    Attributes:
        regions: Mean number of boxes per image.
        stages: The stages that ran, in order.
        total: Quartiles of the seconds per image.
        precisions: Number formats of the networks, each once.
    """

    regions: float
    stages: list[Stage]
    total: Quartiles
    precisions: tuple[str, ...]


class _Run(NamedTuple):
    """One detection: seconds of each of ROWS that ran, boxes [N, 4] px, number of detections."""

    seconds: dict[str, float]
    boxes: Boxes
    detections: int


class _Contestant:
    """A detector whose proposals are timed source by source."""

    def __init__(self, name: str) -> None:
        self.detector = Detector.load(name)
        self._config = self.detector.config.proposals
        self._multibox = (
            load_source(self._config.multibox, self.detector.device) if self._config.multibox.weights else None
        )
        self.precisions = precisions_of(self.detector)

    def propose(self, image: Image, path: Path, seconds: dict[str, float]) -> Boxes:
        """Propose boxes as the detector does."""

        def multibox(pixels: Image) -> Found:
            assert self._multibox is not None
            with timed(seconds, MULTIBOX):
                return self._multibox(pixels)

        with timed(seconds, SEARCH):
            source = multibox if self._multibox else None
            content = path.read_bytes() if self._config.own else None
            boxes = propose(
                image, self._config, multibox=source, content=content, threads=torch.get_num_threads()
            ).boxes
        seconds[SEARCH] -= seconds.get(MULTIBOX, 0.0)
        return boxes

    def detect(self, image: Image, path: Path) -> _Run:
        """Detect the objects in an image."""
        seconds: dict[str, float] = {}
        started = time.perf_counter()
        boxes = self.propose(image, path, seconds)
        scored = self.detector.score(image, boxes)
        found = scored.detections()
        total = time.perf_counter() - started
        seconds |= scored.seconds
        return _Run(seconds | {OTHER: total - sum(seconds.values())}, boxes, len(found))


def measure(
    names: Sequence[str], paths: Sequence[Path], repetitions: int
) -> tuple[dict[str, Budget], dict[str, float]]:
    """Measure detectors on every image, taking turns with matrix products.

    Args:
        names: Presets or files of detectors.
        paths: The images.
        repetitions: Number of timed rounds, after one that is not.

    Returns:
        The budget of each, and the rate of the matrix product in each precision in use and in float32, in G
        multiply-adds/s.

    Raises:
        ConfigError, CheckpointError, ImageError: One line each, for the user.
    """
    keep_freed_memory()
    images = [read_image(path) for path in paths]
    contestants = {name: _Contestant(name) for name in names}
    device = next(iter(contestants.values())).detector.device
    precisions = dict.fromkeys(["float32", *(one for each in contestants.values() for one in each.precisions)])
    products = {precision: matrix_product(precision, device, MATRIX_SIDE) for precision in precisions}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    work: dict[str, list[dict[str, Work]]] = {name: [] for name in names}
    multiplied: dict[str, list[float]] = {precision: [] for precision in precisions}
    bar = progress(None, "images", total=(repetitions + 1) * len(names) * len(paths))
    for number in range(repetitions + 1):
        for name, one in contestants.items():
            runs = []
            for image, path in zip(images, paths, strict=True):
                runs.append(one.detect(image, path))
                bar.update()
            if not number:
                counter = WorkCounter(one.detector)
                work[name] = [_work_of(counter, image, run) for image, run in zip(images, runs, strict=True)]
                continue
            rounds[name].append({row: statistics.fmean(run.seconds.get(row, 0.0) for run in runs) for row in ROWS})
            for precision, product in products.items():
                multiplied[precision] += take_turns({"": product}, 1)[""]
    bar.close()
    budgets = {name: _budget(work[name], rounds[name], one.precisions) for name, one in contestants.items()}
    return budgets, {
        precision: MATRIX_SIDE**3 / statistics.median(spent) / 1e9 for precision, spent in multiplied.items()
    }


def precisions_of(detector: Detector) -> tuple[str, ...]:
    """Return the number formats of a detector's networks, each once: those that score, then MultiBox."""
    multibox, names = detector.config.proposals.multibox, [detector.precision]
    if multibox.weights:
        calibrated = read_ranges(find_multibox(multibox.weights)) is not None
        names.append(scoring_precision(multibox.precision, detector.device, calibrated=calibrated))
    return tuple(dict.fromkeys(names))


def format_budget(budget: Budget, rates: dict[str, float]) -> str:
    """Format a line per stage; a rate is compared with that of the matrix product in float32 and in each precision.

    Args:
        budget: A detector's.
        rates: Rate of the matrix product by precision, G multiply-adds/s; others than the detector's are left out.
    """
    rates = {name: rate for name, rate in rates.items() if name in ("float32", *budget.precisions)}
    shares = (f"of {precision}" for precision in rates)
    rows: list[tuple[str, ...]] = [("stage", "count", "of", "G mult-adds", "s", "ms each", "G/s", *shares)]
    work = sum(stage.multiply_adds for stage in budget.stages)
    for stage in [*budget.stages, Stage("total", budget.regions, "regions", work, budget.total[1])]:
        number, unit = (stage.count / 1e6, "Mpx") if stage.unit == "px" else (stage.count, stage.unit)
        each = f"{stage.seconds / number * 1e3:.2f}" if number else ""
        rate, shares = "", ("" for _ in rates)
        if stage.multiply_adds and stage.seconds:
            reached = stage.multiply_adds / stage.seconds
            rate, shares = f"{reached:.1f}", (f"{reached / limit:.0%}" for limit in rates.values())
        multiply_adds = f"{stage.multiply_adds:.2f}" if stage.multiply_adds else ""
        count = f"{number:,.{2 if number < 100 else 0}f}" if unit else ""
        rows.append((stage.name, count, unit, multiply_adds, f"{stage.seconds:.3f}", each, rate, *shares))
    low, _, high = budget.total
    products = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    return "\n".join(
        [
            *columns(rows),
            f"seconds, quartiles: {low:.3f}-{high:.3f}",
            f"precision: {', '.join(budget.precisions)}",
            f"matrix product, G multiply-adds/s: {products}",
        ]
    )


def _work_of(counter: WorkCounter, image: Image, run: _Run) -> dict[str, Work]:
    counts = {SEARCH: Work(len(run.boxes)), "suppression": Work(run.detections)}
    return counts | counter.count(image, run.boxes)


def _budget(work: Sequence[dict[str, Work]], rounds: Sequence[dict[str, float]], precisions: tuple[str, ...]) -> Budget:
    units = {SEARCH: "boxes", "suppression": "detections"} | UNITS
    ran = [name for name in ROWS if any(seconds.get(name, 0.0) for seconds in rounds)]
    stages = []
    for name in ran:
        each = [one.get(name, Work()) for one in work]
        count, used = (statistics.fmean(getattr(one, key) for one in each) for key in ("count", "multiply_adds"))
        seconds = statistics.median(seconds.get(name, 0.0) for seconds in rounds)
        stages.append(Stage(name, count, units.get(name, ""), used / 1e9, seconds))
    regions = statistics.fmean(one[SEARCH].count for one in work)
    return Budget(regions, stages, quartiles([sum(seconds.values()) for seconds in rounds]), precisions)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    from detector.commands.arguments import at_least, start

    parser = benchmark_parser("budget", __doc__, EXAMPLES)
    parser.add_argument("source", nargs="+", type=Path, help="image files and folders")
    names = ["fast", "default"]
    parser.add_argument("--detectors", nargs="+", default=names, help=f"presets or files (default: {' '.join(names)})")
    parser.add_argument("--repetitions", type=at_least(1), default=5, help="timed rounds (default: %(default)s)")
    return start(parser, arguments, _work, stopped=STOPPED, printed_only=True)


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    paths, complete = readable_images("budget", options.source)
    budgets, rates = measure(options.detectors, paths, options.repetitions)
    for name, budget in budgets.items():
        print(f"{name}\n{format_budget(budget, rates)}\n")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
