"""Time whole detectors stage by stage, taking turns on each image, beside a straightforward R-CNN.

In: images, presets.  Out: seconds of each stage, medians; of all together, with quartiles; peak memory. On request
beside busy processes, or images a minute, one by one and several at once.
The straightforward R-CNN is a first implementation: 2,000 boxes of selective search at R-CNN's scale (ours, which
favours it), each cut out and resized by OpenCV, batches of 64 through the networks of `default` in eager float32,
channels first, with `F.local_response_norm`, torchvision's NMS class by class.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from turns import (  # first: chooses how threads wait
    STOPPED,
    benchmark_parser,
    busy_machine,
    in_fresh_process,
    readable_images,
)

# isort: split
import cv2
import numpy as np
import torch
from network_speed import plain_copy
from torchvision.ops import nms

from detector.checkpoint import find_checkpoint, load_checkpoint
from detector.config import load_config
from detector.data.image import Image, read_image
from detector.device import keep_freed_memory
from detector.measuring import Quartiles, peak_memory, quartiles, timed
from detector.pipeline import Detector, ScoredImage
from detector.progress import progress
from detector.settings import DetectorConfig
from detector.table import columns
from detector.views import STAGES
from proposals.merging import propose
from proposals.settings import ProposalConfig

EXAMPLES = """examples:
  python tools/benchmarks/detector_speed.py examples
  python tools/benchmarks/detector_speed.py photo.jpg --detectors default mine.yaml --repetitions 5
  python tools/benchmarks/detector_speed.py examples --detectors fast default --busy 2
  python tools/benchmarks/detector_speed.py photographs --throughput
"""

STRAIGHTFORWARD = "straightforward"
BOXES, BATCH, MIN_SCORE, MAX_IOU = 2000, 64, 0.001, 0.3

Detect = Callable[[Image], tuple[int, dict[str, float]]]
"""Image -> number of regions, seconds by stage."""


@dataclass(frozen=True)
class Timing:
    """The speed and memory of one contestant.

    Attributes:
        regions: Mean number of regions per image.
        stages: Median seconds per image in each of STAGES.
        total: Quartiles of the seconds per image.
        peak: Peak memory of a process that only detects in the first image, MB, Python and PyTorch included.
        busy: Quartiles of the seconds beside busy processes, in units of the same image's quiet seconds just before;
            None where that was not measured.
    """

    regions: float
    stages: dict[str, float]
    total: Quartiles
    peak: float
    busy: Quartiles | None = None


def time_detectors(names: Sequence[str], paths: Sequence[Path], repetitions: int, busy: int = 0) -> dict[str, Timing]:
    """Time every contestant on every image, taking turns; the first round is not timed.

    Args:
        names: Presets or files of detectors, and "straightforward".
        paths: The images.
        repetitions: Number of timed rounds.
        busy: Number of processes beside which each detection is timed once more; 0 leaves that out.

    Raises:
        ConfigError, CheckpointError, ImageError: One line each, for the user.
    """
    keep_freed_memory()
    images = [read_image(path) for path in paths]
    built = {name: _build(name) for name in names}
    runs: dict[str, list[tuple[int, dict[str, float], float]]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    rounds = [(number, image) for number in range(repetitions + 1) for image in images]
    for number, image in progress(rounds, "images"):
        for name, detect in built.items():
            started = time.perf_counter()
            regions, seconds = detect(image)
            quiet = time.perf_counter() - started
            if not number:
                continue
            runs[name].append((regions, seconds, quiet))
            if busy:
                with busy_machine(busy):
                    started = time.perf_counter()
                    detect(image)
                    ratios[name].append((time.perf_counter() - started) / quiet)
    result = {}
    for name, rows in runs.items():
        stages = {stage: statistics.median(seconds.get(stage, 0.0) for _, seconds, _ in rows) for stage in STAGES}
        count = statistics.fmean(regions for regions, *_ in rows)
        total = quartiles([total for *_, total in rows])
        peak = in_fresh_process(_peak, name, paths[0])
        result[name] = Timing(count, stages, total, peak, quartiles(ratios[name]) if busy else None)
    return result


@dataclass(frozen=True)
class Rates:
    """Images a minute of a detector, quartiles over the rounds.

    Attributes:
        single: Images scored one after the other.
        many: The same images by `Detector.score_many`, several at once.
    """

    single: Quartiles
    many: Quartiles


def time_throughput(names: Sequence[str], paths: Sequence[Path], repetitions: int) -> dict[str, Rates]:
    """Time detectors on many images, one by one and several at once, taking turns round by round.

    Args:
        names: Presets or files of detectors.
        paths: The images.
        repetitions: Number of timed rounds over all images.

    Raises:
        ConfigError, CheckpointError, ImageError: One line each, for the user.
    """
    keep_freed_memory()
    result = {}
    for name in names:
        detector = Detector.load(name)

        def single(detector: Detector = detector) -> None:
            for path in paths:
                detector(path)

        def many(detector: Detector = detector) -> None:
            for _, scored in detector.score_many(paths):
                if not isinstance(scored, ScoredImage):
                    raise scored
                scored.detections()

        detector(paths[0])
        seconds: dict[str, list[float]] = {"single": [], "many": []}
        for _ in progress(range(repetitions), name, "round"):
            for kind, run in (("single", single), ("many", many)):
                started = time.perf_counter()
                run()
                seconds[kind].append(time.perf_counter() - started)
        rates = {kind: quartiles([60 * len(paths) / one for one in times]) for kind, times in seconds.items()}
        result[name] = Rates(rates["single"], rates["many"])
    return result


def format_rates(rates: dict[str, Rates]) -> str:
    """Format a line per detector."""
    rows: list[tuple[str, ...]] = [
        ("detector", "one by one, images/min", "quartiles", "several, images/min", "quartiles")
    ]
    for name, one in rates.items():
        cells = ((f"{middle:.1f}", f"{low:.1f}-{high:.1f}") for low, middle, high in (one.single, one.many))
        rows.append((name, *(cell for pair in cells for cell in pair)))
    return "\n".join(columns(rows))


def format_timings(timings: dict[str, Timing]) -> str:
    """Format a line per contestant."""
    busy = any(timing.busy for timing in timings.values())
    head = ("detector", "regions", *STAGES, "seconds", "quartiles", "process MB")
    rows: list[tuple[str, ...]] = [(*head, "busy/quiet", "quartiles") if busy else head]
    for name, timing in timings.items():
        low, median, high = timing.total
        stages = (f"{timing.stages[stage]:.2f}" for stage in STAGES)
        spread = f"{low:.2f}-{high:.2f}"
        row = (name, f"{timing.regions:,.0f}", *stages, f"{median:.2f}", spread, f"{timing.peak:,.0f}")
        if timing.busy:
            low, median, high = timing.busy
            row += (f"{median:.2f}", f"{low:.2f}-{high:.2f}")
        rows.append(row)
    return "\n".join(columns(rows))


def straightforward(models: Sequence[str] = ()) -> Detect:
    """Make a first implementation of R-CNN with the same weights.

    Args:
        models: Region classifiers that all score each warped region, whose softmax is averaged; by default those of the
            preset `default`.
    """
    models = models or load_config(DetectorConfig, "default").models
    members = [load_checkpoint(find_checkpoint(model)) for model in models]
    networks = []
    for member in members:
        member.network.regression = None
        networks.append(plain_copy(member.network).eval())
    size = members[0].regions.size
    mean = np.array(members[0].convention.mean, np.float32)
    config = ProposalConfig(superpixel_scale=1.0, max_boxes=BOXES)

    def detect(image: Image) -> tuple[int, dict[str, float]]:
        seconds: dict[str, float] = {}
        with timed(seconds, "proposals"):
            boxes = propose(image, config, threads=torch.get_num_threads()).boxes
        scores = []
        for start in range(0, len(boxes), BATCH):
            with timed(seconds, "warp"):
                regions = []
                for x1, y1, x2, y2 in boxes[start : start + BATCH].round().astype(int).tolist():
                    part = np.ascontiguousarray(image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])
                    regions.append(cv2.resize(part, (size, size)).astype(np.float32) - mean)
                x = torch.from_numpy(np.stack(regions).transpose(0, 3, 1, 2).copy())
            with timed(seconds, "network"), torch.inference_mode():
                scores.append(torch.stack([network(x).softmax(dim=1) for network in networks]).mean(dim=0))
        with timed(seconds, "suppression"):
            corners = torch.from_numpy(boxes)
            probabilities = torch.cat([torch.zeros(0, 1 + len(members[0].classes)), *scores])
            for label in range(1, probabilities.shape[1]):
                rows = torch.nonzero(probabilities[:, label] > MIN_SCORE)[:, 0]
                nms(corners[rows], probabilities[rows, label], MAX_IOU)
        return len(boxes), seconds

    return detect


def _build(name: str) -> Detect:
    if name == STRAIGHTFORWARD:
        return straightforward()
    detector = Detector.load(name)

    def detect(image: Image) -> tuple[int, dict[str, float]]:
        scored = detector.score(image)
        scored.detections()
        return len(scored.boxes), scored.seconds

    return detect


def _peak(name: str, path: Path) -> float:
    keep_freed_memory()
    _build(name)(read_image(path))
    return peak_memory()


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    from detector.commands.arguments import add_threads, at_least, start

    parser = benchmark_parser("detector_speed", __doc__, EXAMPLES)
    add_threads(parser)
    parser.add_argument("source", nargs="+", type=Path, help="image files and folders")
    names = ["fast", "default", "straightforward"]
    parser.add_argument("--detectors", nargs="+", default=names, help=f"presets or files (default: {' '.join(names)})")
    parser.add_argument("--repetitions", type=at_least(1), default=3, help="timed rounds (default: %(default)s)")
    text = "processes beside which each detection is timed once more (default: %(default)s)"
    parser.add_argument("--busy", type=at_least(0), default=0, metavar="N", help=text)
    parser.add_argument("--throughput", action="store_true", help="images a minute, one by one and several at once")
    return start(parser, arguments, _work, stopped=STOPPED, printed_only=True)


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    paths, complete = readable_images("detector_speed", options.source)
    if options.throughput:
        names = [name for name in options.detectors if name != STRAIGHTFORWARD]
        print(format_rates(time_throughput(names, paths, options.repetitions)))
    else:
        print(format_timings(time_detectors(options.detectors, paths, options.repetitions, options.busy)))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
