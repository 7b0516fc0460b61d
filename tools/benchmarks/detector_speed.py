"""Time whole detectors stage by stage, taking turns on each image, beside a straightforward R-CNN.

In: images, presets.  Out: seconds of each stage, medians; of all together, with quartiles; peak memory.
The straightforward R-CNN is a first implementation: 2,000 boxes of selective search at R-CNN's scale (ours, which
favours it), each cut out and resized by OpenCV, batches of 64 through the same layers and weights in eager float32,
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

import cv2
import numpy as np
import torch
from network_speed import plain_copy
from torchvision.ops import nms
from tqdm import tqdm
from turns import STOPPED, benchmark_parser, in_fresh_process, readable_images

from detector.checkpoint import find_checkpoint, load_checkpoint
from detector.data.image import Image, read_image
from detector.device import keep_freed_memory
from detector.measuring import Quartiles, peak_memory, quartiles, timed
from detector.pipeline import Detector
from detector.table import columns
from detector.views import STAGES
from proposals.merging import propose
from proposals.settings import ProposalConfig

EXAMPLES = """examples:
  python tools/benchmarks/detector_speed.py examples
  python tools/benchmarks/detector_speed.py photo.jpg --detectors default mine.yaml --repetitions 5
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
    """

    regions: float
    stages: dict[str, float]
    total: Quartiles
    peak: float


def time_detectors(names: Sequence[str], paths: Sequence[Path], repetitions: int) -> dict[str, Timing]:
    """Time every contestant on every image, taking turns; the first round is not timed.

    Args:
        names: Presets or files of detectors, and "straightforward".
        paths: The images.
        repetitions: Number of timed rounds.

    Raises:
        ConfigError, CheckpointError, ImageError: One line each, for the user.
    """
    keep_freed_memory()
    images = [read_image(path) for path in paths]
    built = {name: _build(name) for name in names}
    runs: dict[str, list[tuple[int, dict[str, float], float]]] = {name: [] for name in names}
    rounds = [(number, image) for number in range(repetitions + 1) for image in images]
    for number, image in tqdm(rounds, unit="image", dynamic_ncols=True):
        for name, detect in built.items():
            started = time.perf_counter()
            regions, seconds = detect(image)
            if number:
                runs[name].append((regions, seconds, time.perf_counter() - started))
    result = {}
    for name, rows in runs.items():
        stages = {stage: statistics.median(seconds.get(stage, 0.0) for _, seconds, _ in rows) for stage in STAGES}
        count = statistics.fmean(regions for regions, *_ in rows)
        total = quartiles([total for *_, total in rows])
        result[name] = Timing(count, stages, total, in_fresh_process(_peak, name, paths[0]))
    return result


def format_timings(timings: dict[str, Timing]) -> str:
    """Format a line per contestant."""
    rows: list[tuple[str, ...]] = [("detector", "regions", *STAGES, "seconds", "quartiles", "process MB")]
    for name, timing in timings.items():
        low, median, high = timing.total
        stages = (f"{timing.stages[stage]:.2f}" for stage in STAGES)
        spread = f"{low:.2f}-{high:.2f}"
        rows.append((name, f"{timing.regions:,.0f}", *stages, f"{median:.2f}", spread, f"{timing.peak:,.0f}"))
    return "\n".join(columns(rows))


def straightforward(model: str = "googlenet_voc") -> Detect:
    """Make a first implementation of R-CNN with the same weights."""
    member = load_checkpoint(find_checkpoint(model))
    member.network.regression = None
    network = plain_copy(member.network).eval()
    size = member.regions.size
    mean = np.array(member.convention.mean, np.float32)
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
                scores.append(network(x).softmax(dim=1))
        with timed(seconds, "suppression"):
            corners = torch.from_numpy(boxes)
            probabilities = torch.cat([torch.zeros(0, 1 + len(member.classes)), *scores])
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
    from detector.commands.arguments import at_least, start

    parser = benchmark_parser("detector_speed", __doc__, EXAMPLES)
    parser.add_argument("source", nargs="+", type=Path, help="image files and folders")
    names = ["fast", "default", "straightforward"]
    parser.add_argument("--detectors", nargs="+", default=names, help=f"presets or files (default: {' '.join(names)})")
    parser.add_argument("--repetitions", type=at_least(1), default=3, help="timed rounds (default: %(default)s)")
    return start(parser, arguments, _work, stopped=STOPPED, printed_only=True)


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    paths, complete = readable_images("detector_speed", options.source)
    print(format_timings(time_detectors(options.detectors, paths, options.repetitions)))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
