"""Time evaluators on a synthetic data set of any size: ours by each protocol, pycocotools, hotcoco; seconds and memory.

Each runs in a fresh process on the same detections, one after the other, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from turns import STOPPED, benchmark_parser, in_fresh_process

from detector.data.ground_truth import ClassTable
from detector.data.ilsvrc import det_classes
from detector.evaluation import coco
from detector.evaluation.bootstrap import bootstrap
from detector.evaluation.matching import match
from detector.evaluation.outcome import Evaluation
from detector.evaluation.protocols import evaluate_ilsvrc, evaluate_voc
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import ILSVRC, Truth
from detector.evaluation.writing import write_results
from detector.measuring import peak_memory
from detector.table import columns

EXAMPLES = """examples:
  python tools/benchmarks/scoring_speed.py --repetitions 5
  python tools/benchmarks/scoring_speed.py --images 1000 --detections 100000 --repetitions 5
"""


@dataclass(frozen=True)
class Cost:
    """Seconds and memory of an evaluator, and its result.

    Attributes:
        seconds: Median of the repetitions, after loading.
        memory: Peak memory of its process, MB.
        loaded: Peak memory before it began, with the data in memory, MB.
        value: Its mean AP; None where it only reads.
    """

    seconds: float
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


def run_scoring_benchmark(images: int, detections: int, repetitions: int, peers: bool) -> dict[str, Cost]:
    """Time each evaluator; peers that are not installed are left out."""
    contestants: dict[str, Callable[..., Cost]] = {
        "ours, ILSVRC (relaxed and plain)": partial(_evaluate, evaluate_ilsvrc),
        "ours, VOC area": partial(_evaluate, evaluate_voc),
        "ours, interval of 1,000 resamples": _interval,
        "ours, reading ILSVRC's text": partial(_read, "found.txt"),
        "ours, reading COCO's JSON": partial(_read, "found.json"),
    }
    if peers:
        contestants["hotcoco, IoU 0.5"] = partial(_peer, "hotcoco")
        contestants["pycocotools, IoU 0.5"] = partial(_peer, "pycocotools")
    result = {}
    for name, contestant in contestants.items():
        turns = 1 if name.startswith("pycocotools") else repetitions
        with contextlib.suppress(ImportError):
            result[name] = in_fresh_process(contestant, images, detections, turns)
    return result


def format_scoring(images: int, detections: int, rows: dict[str, Cost]) -> str:
    """Format a line per evaluator."""
    lines = [("evaluator", "seconds", "peak MB", "MB with the data loaded", "mean AP")]
    for name, cost in rows.items():
        value = "-" if cost.value is None else f"{cost.value:.6f}"
        lines.append((name, f"{cost.seconds:.2f}", f"{cost.memory:.0f}", f"{cost.loaded:.0f}", value))
    return "\n".join([f"{images:,} images, 200 classes, {detections:,} detections", *columns(lines)])


def _timed(action: Callable[[], float | None], repetitions: int) -> Cost:
    loaded = peak_memory()
    seconds, value = [], None
    for _ in range(repetitions):
        started = time.perf_counter()
        value = action()
        seconds.append(time.perf_counter() - started)
    return Cost(float(np.median(seconds)), peak_memory(), loaded, value)


def _evaluate(
    evaluator: Callable[[Truth, DetectionTable], Evaluation], images: int, detections: int, repetitions: int
) -> Cost:
    evaluator(*make_case(20, 100))  # its compiled code is loaded
    case = make_case(images, detections)
    return _timed(lambda: evaluator(*case).mean_ap, repetitions)


def _interval(images: int, detections: int, repetitions: int) -> Cost:
    truth, table = make_case(20, 100)
    bootstrap(truth, match(truth, table, "voc"), table, resamples=2)
    truth, table = make_case(images, detections)
    matches = match(truth, table, "voc")
    return _timed(lambda: bootstrap(truth, matches, table).value, repetitions)


def _read(name: str, images: int, detections: int, repetitions: int) -> Cost:
    truth, table = make_case(images, detections)
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_results(path, truth, table)
        del table

        def read() -> None:
            read_results(path, truth)

        return _timed(read, repetitions)


def _peer(backend: str, images: int, detections: int, repetitions: int) -> Cost:
    """Time COCO's evaluation at one IoU and one range of areas."""
    truth, table = make_case(images, detections)
    coco_class, evaluator_class = coco.classes_of(backend)
    with contextlib.redirect_stdout(io.StringIO()):
        real, found = coco.in_memory(coco_class, truth, table)
        del table

        def evaluate() -> float:
            evaluator = evaluator_class(real, found, "bbox")
            evaluator.params.iouThrs = np.array([0.5])
            evaluator.params.areaRng = [[0, 1e10]]
            evaluator.params.areaRngLbl = ["all"]
            evaluator.params.maxDets = [100]
            evaluator.evaluate()
            evaluator.accumulate()
            precision = np.asarray(evaluator.eval["precision"])
            return float(precision[precision > -1].mean())

        return _timed(evaluate, repetitions)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    from detector.commands.arguments import at_least, start

    parser = benchmark_parser("scoring_speed", __doc__, EXAMPLES)
    for name, default in (("--images", 10_000), ("--detections", 1_000_000), ("--repetitions", 3)):
        parser.add_argument(name, type=at_least(1), default=default, help="(default: %(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="leave pycocotools and hotcoco out")
    return start(parser, arguments, _work, stopped=STOPPED, printed_only=True)


def _work(options: argparse.Namespace) -> None:
    rows = run_scoring_benchmark(options.images, options.detections, options.repetitions, peers=not options.no_peers)
    print(format_scoring(options.images, options.detections, rows))


if __name__ == "__main__":
    sys.exit(main())
