"""Time proposal methods against each other on the same images, in one process, taking turns image by image.

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
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from opencv_search import MODES, SEARCHES
from turns import STOPPED, benchmark_parser, in_fresh_process

from detector.config import MISSING, config_to_dict
from detector.data.dataset import DataConfig
from detector.data.ground_truth import Dataset
from detector.data.image import Image, read_image
from detector.measuring import Quartiles, peak_memory, quartiles
from detector.progress import progress
from detector.table import columns
from proposals.files import write_whole
from proposals.merging import at_width, propose
from proposals.recall import average_best_overlap, best_overlaps, recall
from proposals.settings import ProposalConfig

EXAMPLES = """OpenCV's selective search is in its contrib build only, which cannot stand beside this project's:
  python -m venv .venv-contrib
  .venv-contrib/bin/pip install opencv-contrib-python numba msgspec pyyaml pillow tqdm pycocotools selectivesearch
  PYTHONPATH=. .venv-contrib/bin/python tools/benchmarks/proposal_speed.py --config tools/benchmarks/opencv.yaml

examples:
  python tools/benchmarks/proposal_speed.py --config tools/benchmarks/package.yaml data.root=VOC2012
  python tools/benchmarks/proposal_speed.py --config tools/benchmarks/opencv.yaml --json runs/opencv.json
"""


@dataclass(frozen=True)
class Contestant:
    """A method that is timed.

    Attributes:
        proposals: Settings of the proposals.
        threads: Threads it may use.
        growth: Largest size of the growth table at which it is timed, megapixels; some never finish beyond.
        search: Another search in place of selective search, as "SEARCH MODE" with OpenCV's modes fast and quality:
            "opencv fast" is OpenCV's own, "ours fast" this project's with OpenCV's settings. Empty for none.
    """

    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    threads: int = 1
    growth: float = 0.0
    search: str = ""


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of a benchmark.

    Attributes:
        data: Images and objects.
        contestants: Methods by the name to print; the others are compared with the first.
        images: Number of images, the first ones of the data set; 0 takes all.
        memory_images: Number of images on which the peak memory of each contestant is measured; 0 skips that.
        megapixels: Sizes of the growth table, to which the first image is resized.
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
            searches = [f"{search} {mode}" for search in SEARCHES for mode in MODES]
            if contestant.search not in ("", *searches):
                known = ", ".join(searches)
                raise ValueError(f"contestants.{name}.search must be one of {known}, not {contestant.search!r}")


@dataclass(frozen=True)
class Timing:
    """Speed, boxes and memory of one contestant.

    Attributes:
        seconds: Quartiles of the seconds per image.
        speed: Quartiles of the first contestant's seconds on an image over this one's.
        boxes: Mean number of boxes per image.
        recall: Recall at IoU 0.5 of the objects that are not difficult or crowd; NaN without any.
        mabo: Mean over classes of the mean best overlap.
        memory: Peak resident memory of a fresh process after its images, and before them, MB; None where skipped.
        growth: Seconds by megapixels of an image that is not resized.
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
        ImportError: A contestant needs a library that is not installed.
        ImageError: A image cannot be read.
    """
    records = dataset.records[: config.images or None]
    names = list(config.contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    boxes: dict[str, list[int]] = {name: [] for name in names}
    overlaps: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    warm_up = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for contestant in config.contestants.values():
        _run(warm_up, contestant)
    for number, record in enumerate(progress(records, dataset.name)):
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
        paths = [record.path for record in records[: config.memory_images]]
        result[name] = Timing(
            seconds=quartiles(seconds[name]),
            speed=quartiles(first / seconds[name]),
            boxes=float(np.mean(boxes[name])),
            recall=recall(best),
            mabo=float(np.nanmean(abo)) if len(best) else math.nan,
            memory=in_fresh_process(_peak, paths, contestant) if paths else None,
            growth=_growth(records[0].read(), contestant, config.megapixels),
        )
    return result


def format_benchmark(dataset: Dataset, config: BenchmarkConfig, rows: Mapping[str, Timing]) -> str:
    """Format a line per contestant, and a table of seconds by image size where some contestant has one."""
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
    """Return boxes [N, 4] and seconds."""
    config = contestant.proposals
    started = time.perf_counter()
    if contestant.search:
        search, mode = contestant.search.split()
        boxes, _ = at_width(image, config.width, lambda rgb: SEARCHES[search](rgb, config, mode, contestant.threads))
    else:
        boxes = propose(image, config, threads=contestant.threads).boxes
    return boxes, time.perf_counter() - started


def _peak(paths: Sequence[Path], contestant: Contestant) -> tuple[float, float]:
    """Return the peak memory of this process after and before its work, MB."""
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
    """Measure, print and write; return the exit code."""
    from detector.commands.arguments import start

    parser = benchmark_parser("proposal_speed", __doc__, EXAMPLES)
    parser.add_argument("--config", required=True, help="YAML file of a benchmark, or the name of a preset")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers to this file too")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    return start(parser, arguments, _work, stopped=STOPPED)


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    from detector.commands.run import say_unread, warn
    from detector.commands.targets import check_target
    from detector.config import load_config
    from detector.data import open_dataset
    from detector.data.dataset import readable_part

    config = load_config(BenchmarkConfig, options.config, options.overrides)
    check_target(options.json, "a benchmark", [options.config])
    dataset = open_dataset(config.data)
    warn("proposal_speed", dataset.warnings)
    chosen, unread = readable_part(replace(dataset, records=dataset.records[: config.images or None]))
    rows = run_benchmark(chosen, config)
    if options.json:
        write_benchmark(options.json, chosen, config, rows)
    print(format_benchmark(chosen, config, rows))
    return say_unread("proposal_speed", unread, "they are left out")


if __name__ == "__main__":
    sys.exit(main())
