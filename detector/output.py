"""What tools/detect.py shows and writes of an image: a table, a JSON file, the annotated photograph.

In: an image and the detector's Run.  Out: text, or <name>.json and <name>_detections.jpg in a folder.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from detector.data.ground_truth import ClassTable
from detector.data.image import Image, ImageError, read_image
from detector.drawing import draw_detections
from detector.pipeline import Detector, Run
from proposals.files import write_whole


def detect_files(detector: Detector, paths: Sequence[Path], folder: Path) -> list[str]:
    """Detect in each file, print the table, write the results; a file that cannot be read does not stop the others.

    Returns:
        a line for each file that could not be read; they were printed as they came, and again at the end.
    """
    failed: list[str] = []
    models = detector.config.models
    bar = tqdm(paths, unit="image", disable=len(paths) == 1, dynamic_ncols=True)
    for path, name in zip(bar, result_names(paths), strict=True):
        try:
            image = read_image(path)
        except ImageError as error:
            failed.append(str(error))
            tqdm.write(f"detect: {error}", file=sys.stderr)
            continue
        run = detector.run(image)
        write_result(folder, name, path, image, run, detector.classes, models)
        tqdm.write(format_run(path, image, run, detector.classes), file=sys.stdout)
    done = len(paths) - len(failed)
    tqdm.write(f"{done} of {len(paths)} images done, results in {folder}/", file=sys.stderr)
    if failed and len(paths) > 1:
        tqdm.write("\n".join(["could not be read:", *(f"  {line}" for line in failed)]), file=sys.stderr)
    return failed


def result_names(paths: Sequence[Path]) -> list[str]:
    """A name for the results of each file: its stem, or as much of its path as tells it from the others.

    >>> result_names([Path("a/cat.jpg"), Path("a/dog.jpg"), Path("b/dog.jpg"), Path("b/cow.jpg"), Path("b/cow.png")])
    ['cat', 'a_dog.jpg', 'b_dog.jpg', 'cow.jpg', 'cow.png']
    """
    parts = [path.resolve().parts for path in paths]
    names = [path.stem for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        count = Counter(names)
        names = [name if count[name] == 1 else "_".join(part[-depth:]) for name, part in zip(names, parts, strict=True)]
    return names


def format_run(path: Path, image: Image, run: Run, classes: ClassTable) -> str:
    """A few lines for a person: what was found, where, and how long each stage took."""
    height, width, _ = image.shape
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in run.seconds.items())
    lines = [f"{path}  {width}×{height}, {len(run.boxes)} regions, {sum(run.seconds.values()):.2f} s ({stages})"]
    found = run.detections
    if len(found):
        lines.append(f"  {'class':<14}{'score':>6}  {'x1':>6} {'y1':>6} {'x2':>6} {'y2':>6}")
        for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True):
            corners = " ".join(f"{corner:6.0f}" for corner in box)
            lines.append(f"  {classes.names[label]:<14}{score:6.3f}  {corners}")
    elif len(run.boxes):
        score = float(run.scores[:, 1:].max())
        name = classes.names[int(run.scores[:, 1:].max(axis=0).argmax())]
        lines.append(
            f"  nothing above the threshold; the best was {name} {score:.3f} (lower suppression.min_score to see it)"
        )
    else:
        lines.append("  nothing: no box of this image is large enough to propose")
    return "\n".join(lines)


def result_record(path: Path, image: Image, run: Run, classes: ClassTable, models: Sequence[str]) -> dict[str, Any]:
    """The content of <name>.json; boxes in px of the upright image, far edge exclusive."""
    height, width, _ = image.shape
    found = run.detections
    return {
        "image": str(path),
        "width": width,
        "height": height,
        "detections": [
            {
                "label": classes.names[label],
                "wnid": classes.wnids[label],
                "score": round(float(score), 6),
                "box": [round(float(corner), 2) for corner in box],
            }
            for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True)
        ],
        "regions": len(run.boxes),
        "seconds": {stage: round(seconds, 4) for stage, seconds in run.seconds.items()},
        "model": list(models),
    }


def write_result(
    folder: Path, name: str, path: Path, image: Image, run: Run, classes: ClassTable, models: Sequence[str]
) -> None:
    """Write <name>.json and <name>_detections.jpg, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw_detections(image, run.detections, classes.names)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    text = json.dumps(result_record(path, image, run, classes, models), indent=1, ensure_ascii=False) + "\n"
    for target, content in ((f"{name}_detections.jpg", encoded), (f"{name}.json", text.encode())):
        with write_whole(folder / target) as temporary:
            temporary.write_bytes(content)
