"""Time proposal methods against each other on the same photographs, in one process, taking turns image by image.

In: a data set and contestants.  Out: seconds per image, how many times as fast as the first contestant (pair by pair on
each image), boxes, recall and MABO; peak memory of a process of each; seconds by image size. Medians and quartiles: the
machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING
from tqdm import tqdm

from detector.config import config_to_dict
from detector.data.dataset import DataConfig
from detector.data.ground_truth import Dataset
from detector.data.image import Image
from detector.measuring import Quartiles, peak_memory, quartiles
from detector.table import columns
from proposals.files import write_whole
from proposals.merging import propose
from proposals.recall import average_best_overlap, best_overlaps, recall
from proposals.settings import ProposalConfig

EXAMPLES = """OpenCV's selective search is in its contrib build only, which cannot stand beside this project's:
  python -m venv .venv-contrib
  .venv-contrib/bin/pip install opencv-contrib-python numba omegaconf pillow tqdm pycocotools selectivesearch
  PYTHONPATH=. .venv-contrib/bin/python tools/benchmarks/proposal_speed.py --config tools/benchmarks/opencv.yaml

examples:
  python tools/benchmarks/proposal_speed.py --config tools/benchmarks/package.yaml data.root=VOC2012
  python tools/benchmarks/proposal_speed.py --config tools/benchmarks/opencv.yaml --json runs/opencv.json
"""


@dataclass(frozen=True)
class Contestant:
    """What is timed.

    Attributes:
        proposals: its settings.
        threads: that it may use.
        growth: largest of the growth table's sizes that it is timed at, megapixels; some never finish beyond.
    """

    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    threads: int = 1
    growth: float = 0.0


@dataclass(frozen=True)
class BenchmarkConfig:
    """A benchmark.

    Attributes:
        data: photographs and objects.
        contestants: by the name to print; the others are compared with the first.
        images: the first so many of the data set; 0 takes all.
        memory_images: photographs that a fresh process of each contestant works on for its peak memory; 0 skips that.
        megapixels: sizes of the growth table; the first photograph is enlarged to them.
    """

    data: DataConfig
    contestants: dict[str, Contestant] = MISSING
    images: int = 0
    memory_images: int = 3
    megapixels: list[float] = field(default_factory=lambda: [0.05, 0.2, 0.8, 3.0, 12.0])

    def __post_init__(self) -> None:
        if not self.contestants:
            raise ValueError("contestants must name at least one")
        for name, contestant in self.contestants.items():
            if contestant.threads < 1:
                raise ValueError(f"contestants.{name}.threads must be at least 1, not {contestant.threads}")


@dataclass(frozen=True)
class Timing:
    """What a contestant did.

    Attributes:
        seconds: per image.
        speed: the first contestant's seconds on an image over this one's.
        boxes: mean per image.
        recall: of objects that are not difficult or crowd, at IoU 0.5; NaN without any.
        mabo: mean over classes of the mean best overlap.
        memory: peak resident memory of a fresh process after its images, and before them, MB; None where skipped.
        growth: seconds by megapixels of an image that is not resized.
    """

    seconds: Quartiles
    speed: Quartiles
    boxes: float
    recall: float
    mabo: float
    memory: tuple[float, float] | None
    growth: dict[float, float]


def run_benchmark(dataset: Dataset, config: BenchmarkConfig) -> dict[str, Timing]:
    """Time the contestants.

    Raises:
        ImportError: a contestant needs what is not installed.
        ImageError: a photograph cannot be read.
    """
    records = dataset.records[: config.images or None]
    names = list(config.contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    boxes: dict[str, list[int]] = {name: [] for name in names}
    overlaps: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    warm_up = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for contestant in config.contestants.values():
        _run(warm_up, contestant)
    for number, record in enumerate(tqdm(records, desc=dataset.name, unit="image", dynamic_ncols=True)):
        image = record.read()
        objects = record.boxes[~(record.difficult | record.crowd)]
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found, spent = _run(image, config.contestants[name])
            seconds[name].append(spent)
            boxes[name].append(len(found))
            overlaps[name].append(best_overlaps(objects, found))
    labels = np.concatenate([record.labels[~(record.difficult | record.crowd)] for record in records])
    first = np.array(seconds[names[0]])
    result = {}
    for name, contestant in config.contestants.items():
        best = np.concatenate(overlaps[name])
        abo = average_best_overlap(best, labels, len(dataset.classes))
        memory = _memory([record.path for record in records[: config.memory_images]], contestant)
        result[name] = Timing(
            seconds=quartiles(seconds[name]),
            speed=quartiles(first / seconds[name]),
            boxes=float(np.mean(boxes[name])),
            recall=recall(best),
            mabo=float(np.nanmean(abo)) if len(best) else math.nan,
            memory=memory if config.memory_images else None,
            growth=_growth(records[0].read(), contestant, config.megapixels),
        )
    return result


def format_benchmark(dataset: Dataset, config: BenchmarkConfig, rows: Mapping[str, Timing]) -> str:
    """A table of a line per contestant, and one of seconds by image size where that was asked for."""
    lines = [("contestant", "threads", "s/image", "quartiles", "speed", "quartiles", "boxes", "recall", "MABO", "MB")]
    for name, row in rows.items():
        lines.append(
            (
                name,
                str(config.contestants[name].threads),
                f"{row.seconds[1]:.3f}",
                f"{row.seconds[0]:.3f}-{row.seconds[2]:.3f}",
                f"{row.speed[1]:.1f}",
                f"{row.speed[0]:.1f}-{row.speed[2]:.1f}",
                f"{row.boxes:.0f}",
                f"{row.recall:.4f}",
                f"{row.mabo:.4f}",
                f"{row.memory[0]:.0f} ({row.memory[1]:.0f} idle)" if row.memory else "-",
            )
        )
    count = len(dataset.records[: config.images or None])
    parts = [f"{dataset.name}: {count} images, OpenCV {cv2.__version__}, NumPy {np.__version__}", *columns(lines)]
    growing = {name: row.growth for name, row in rows.items() if row.growth}
    if growing:
        table = [("seconds at megapixels", *(f"{size:g}" for size in config.megapixels))]
        for name, growth in growing.items():
            table.append((name, *(f"{growth[size]:.2f}" if size in growth else "-" for size in config.megapixels)))
        parts += ["", *columns(table)]
    return "\n".join(parts)


def write_benchmark(path: Path, dataset: Dataset, config: BenchmarkConfig, rows: Mapping[str, Timing]) -> None:
    """Write data (its name), contestants (Timing by name), versions and config (resolved) as JSON."""
    content = {
        "data": dataset.name,
        "contestants": {name: config_to_dict(row) for name, row in rows.items()},
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
        "config": config_to_dict(config),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _run(image: Image, contestant: Contestant) -> tuple[NDArray[np.float32], float]:
    """Boxes [N, 4] and seconds."""
    started = time.perf_counter()
    found = propose(image, contestant.proposals, threads=contestant.threads)
    return found.boxes, time.perf_counter() - started


def _memory(paths: Sequence[Path], contestant: Contestant) -> tuple[float, float]:
    """Peak memory of a fresh process after and before its work, MB."""
    if not paths:
        return 0.0, 0.0
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(_peak, paths, contestant).result()


def _peak(paths: Sequence[Path], contestant: Contestant) -> tuple[float, float]:
    from detector.data.image import read_image

    images = [read_image(path) for path in paths]
    before = peak_memory()
    for image in images:
        _run(image, contestant)
    return peak_memory(), before


def _growth(image: Image, contestant: Contestant, megapixels: Sequence[float]) -> dict[float, float]:
    own_size = replace(contestant, proposals=replace(contestant.proposals, width=0))
    result = {}
    for size in megapixels:
        if size > contestant.growth:
            continue
        factor = math.sqrt(size * 1e6 / (image.shape[0] * image.shape[1]))
        shape = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        resized = np.asarray(cv2.resize(image, shape, interpolation=method), np.uint8)
        _, result[size] = _run(resized, own_size)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of a benchmark, or the name of a preset")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers to this file too")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    options = parser.parse_intermixed_args(arguments)

    from detector.commands.run import run

    return run("proposal_speed", lambda: _work(options), stopped="nothing is kept of a benchmark")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    from detector.commands.run import say
    from detector.commands.targets import check_target
    from detector.config import load_config
    from detector.data import open_dataset
    from detector.data.readable import readable_part

    config = load_config(BenchmarkConfig, options.config, options.overrides)
    check_target(options.json, "a benchmark", [options.config])
    dataset = open_dataset(config.data)
    for warning in dataset.warnings:
        say("proposal_speed", f"warning: {warning}")
    chosen, unread = readable_part(replace(dataset, records=dataset.records[: config.images or None]))
    rows = run_benchmark(chosen, config)
    if options.json:
        write_benchmark(options.json, chosen, config, rows)
    print(format_benchmark(chosen, config, rows))
    for line in unread:
        say("proposal_speed", f"{line}; left out")
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
