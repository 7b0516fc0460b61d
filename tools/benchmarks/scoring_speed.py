"""Time evaluators on a synthetic data set of any size, ours beside those of others: seconds and memory.

Each runs in a fresh process on the same detections, so that its peak memory is its own; they take turns. Others take
part where they are installed: pip install hotcoco faster-coco-eval torchmetrics supervision object-detection-metrics
mean-average-precision
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from evaluators import EVALUATORS, Evaluator, silently
from turns import STOPPED, benchmark_parser, in_fresh_process_within  # first: chooses how threads wait

from detector.data.ground_truth import ClassTable
from detector.data.ilsvrc import det_classes
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import ILSVRC, Truth
from detector.measuring import peak_memory
from detector.table import columns

EXAMPLES = """examples:
  python tools/benchmarks/scoring_speed.py --repetitions 5
  python tools/benchmarks/scoring_speed.py --images 1000 --detections 100000 --repetitions 5
"""


LIMIT = "seconds a turn may take, loading included; what takes a tenth of them has one turn (default: %(default)s)"
ONCE = 0.1  # share of the limit: what takes longer is timed once


@dataclass(frozen=True)
class Cost:
    """Seconds and memory of one turn of an evaluator, and its result.

    Attributes:
        seconds: After loading.
        busy: Seconds of processor time of all its threads, which other programs on the machine change less.
        memory: Peak memory of its process, MB.
        loaded: Peak memory before it began, with the data in memory, MB.
        value: Its mean AP; None where it only reads.
    """

    seconds: float
    busy: float
    memory: float
    loaded: float
    value: float | None


def make_case(images: int, detections: int, seed: int = 0) -> tuple[Truth, DetectionTable]:
    """Make about three objects per image, of the 200 classes, and detections: half near an object, half anywhere."""
    generator = np.random.default_rng(seed)
    classes = det_classes()
    count = generator.poisson(2.8, images)
    image_index = np.repeat(np.arange(images), count).astype(np.int64)
    objects = len(image_index)
    labels = generator.integers(0, len(classes), objects)
    corner = generator.integers(0, 350, (objects, 2)).astype(np.float64)
    boxes = np.concatenate([corner, corner + generator.integers(8, 150, (objects, 2))], axis=1)
    flags = np.zeros(objects, np.bool_)
    names = tuple(str(number) for number in range(1, images + 1))
    truth = Truth(
        name="synthetic",
        classes=ClassTable(classes.names, classes.wnids, classes.ids),
        image_ids=names,
        paths=tuple(Path(f"{name}.JPEG") for name in names),
        sizes=np.full((images, 2), 500),
        numbers=np.arange(1, images + 1),
        image_index=image_index,
        labels=labels,
        boxes=boxes,
        difficult=flags,
        crowd=flags,
        areas=np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1),
        convention=ILSVRC,
    )
    near = generator.integers(0, objects, detections // 2)
    far = detections - len(near)
    far_corner = generator.uniform(0, 350, (far, 2))
    found = np.concatenate(
        [
            boxes[near] + generator.normal(0, 8, (len(near), 4)),
            np.concatenate([far_corner, far_corner + generator.uniform(8, 150, (far, 2))], axis=1),
        ]
    )
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    order = generator.permutation(detections)
    table = DetectionTable(
        np.concatenate([image_index[near], generator.integers(0, images, far)])[order],
        np.concatenate([labels[near], generator.integers(0, len(classes), far)])[order],
        generator.random(detections),
        found[order],
        ILSVRC,
    )
    return truth, table


def run_scoring_benchmark(
    images: int, detections: int, repetitions: int, peers: bool, limit: float
) -> dict[str, list[Cost] | str]:
    """Time the evaluators in turns, each time in a fresh process; one that fails or is slow has one turn.

    Returns:
        the costs of each, or why there are none; those that are not installed are left out.
    """
    result: dict[str, list[Cost] | str] = {
        name: [] for name, evaluator in EVALUATORS.items() if not evaluator.package or (peers and installed(evaluator))
    }
    for _ in range(repetitions):
        for name, costs in result.items():
            if isinstance(costs, str) or (costs and costs[-1].seconds > limit * ONCE):
                continue
            try:
                costs.append(in_fresh_process_within(limit, _cost, name, images, detections))
            except TimeoutError:
                result[name] = f"over {limit:g}"
            except (EOFError, MemoryError):
                result[name] = "no memory"
    return result


def installed(evaluator: Evaluator) -> str:
    """Return the version of an evaluator's package, "" where it is not installed."""
    try:
        return version(evaluator.package) if evaluator.package else ""
    except PackageNotFoundError:
        return ""


def format_scoring(images: int, detections: int, rows: Mapping[str, list[Cost] | str]) -> str:
    """Format a table of each group: medians of seconds and memory, the quickest and the slowest turn."""
    lines = [f"{images:,} images, 200 classes, {detections:,} detections"]
    for group in dict.fromkeys(EVALUATORS[name].group for name in rows):
        table = [(group, "seconds", "from", "to", "CPU s", "peak MB", "loaded MB", "mean AP")]
        for name, costs in rows.items():
            if EVALUATORS[name].group != group:
                continue
            title = f"{name.removesuffix(', all')} {installed(EVALUATORS[name])}".strip()
            if isinstance(costs, str):
                table.append((title, costs, "-", "-", "-", "-", "-", "-"))
                continue
            names = ("seconds", "busy", "memory", "loaded")
            seconds, busy, memory, loaded = (np.array([getattr(cost, name) for cost in costs]) for name in names)
            middle, low, high = (f"{value:.2f}" for value in (np.median(seconds), seconds.min(), seconds.max()))
            value = "-" if costs[0].value is None else f"{costs[0].value:.6f}"
            used = f"{np.median(busy):.2f}", f"{np.median(memory):.0f}", f"{np.median(loaded):.0f}"
            table.append((title, middle, low, high, *used, value))
        lines += ["", *columns(table)]
    return "\n".join(lines)


def _cost(name: str, images: int, detections: int) -> Cost:
    prepare = EVALUATORS[name].prepare
    silently(prepare(*make_case(20, 100)))  # its compiled code and its libraries are loaded
    score = prepare(*make_case(images, detections))
    loaded = peak_memory()
    started, busy = time.perf_counter(), time.process_time()
    value = silently(score)
    return Cost(time.perf_counter() - started, time.process_time() - busy, peak_memory(), loaded, value)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    from detector.commands.arguments import at_least, start

    parser = benchmark_parser("scoring_speed", __doc__, EXAMPLES)
    for name, default in (("--images", 10_000), ("--detections", 1_000_000), ("--repetitions", 3)):
        parser.add_argument(name, type=at_least(1), default=default, help="(default: %(default)s)")
    parser.add_argument(
        "--limit",
        type=at_least(1),
        default=600,
        help="seconds after which an evaluator is given up (default: %(default)s)",
    )
    parser.add_argument("--no-peers", action="store_true", help="leave the others out")
    return start(parser, arguments, _work, stopped=STOPPED, printed_only=True)


def _work(options: argparse.Namespace) -> None:
    images, detections = options.images, options.detections
    rows = run_scoring_benchmark(images, detections, options.repetitions, not options.no_peers, options.limit)
    print(format_scoring(images, detections, rows))


if __name__ == "__main__":
    sys.exit(main())
