"""What a user gets to see of an image: the table, the JSON, the annotated photograph."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detector import output
from detector.data.ground_truth import ClassTable
from detector.data.image import Image, read_image
from detector.detections import Detections
from detector.output import detect_files, format_run, result_names, result_record, write_result
from detector.pipeline import Run
from detector.settings import DetectorConfig
from proposals.boxes import Boxes

CLASSES = ClassTable(("cat", "naïve dog"), ("n02121808", None), (1, 2))
IMAGE = np.full((60, 80, 3), 90, np.uint8)
SECONDS = {"proposals": 0.25, "warp": 0.125, "network": 1.5, "suppression": 0.001}


def make_run(count: int, regions: int = 3) -> Run:
    """A run of `regions` boxes with `count` detections."""
    boxes = np.array([[1, 2, 30.25, 40], [5, 6, 70, 50.126], [0, 0, 80, 60]], np.float32)[:regions]
    scores = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05]], np.float32)[:regions]
    found = Detections(boxes[:count], np.array([0.7, 0.6, 0.05])[:count], np.array([1, 0, 0])[:count])
    return Run(boxes, boxes, scores, found, SECONDS)


class StubDetector:
    """Finds the same in every image."""

    config = DetectorConfig(models=["stub"])
    classes = CLASSES

    def run(self, image: Image, boxes: Boxes | None = None, *, content: bytes | None = None) -> Run:
        return make_run(2)


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(IMAGE).save(path)
    return path


def test_doctest() -> None:
    assert doctest.testmod(output).failed == 0


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/cat.jpg"], ["cat"]),
        (["cat.jpg", "cat.png"], ["cat.jpg", "cat.png"]),
        (["a/cat.jpg", "b/cat.jpg", "b/dog.jpg"], ["a_cat.jpg", "b_cat.jpg", "dog"]),
        (["a/b/cat.jpg", "c/b/cat.jpg"], ["a_b_cat.jpg", "c_b_cat.jpg"]),
        (["x/cow.jpg", "y/cow.png", "z/cow.jpg.png"], ["x_cow.jpg", "cow.png", "z_cow.jpg.png"]),
        ([], []),
    ],
)
def test_results_have_names_of_their_own(paths: list[str], names: list[str]) -> None:
    assert result_names([Path(path) for path in paths]) == names


def test_the_table_of_an_image() -> None:
    lines = format_run(Path("photos/a.jpg"), IMAGE, make_run(2), CLASSES).splitlines()
    assert lines[0] == (
        "photos/a.jpg  80×60, 3 regions, 1.88 s (proposals 0.25, warp 0.12, network 1.50, suppression 0.00)"
    )
    assert lines[1].split() == ["class", "score", "x1", "y1", "x2", "y2"]
    assert lines[2].split() == ["naïve", "dog", "0.700", "1", "2", "30", "40"]
    assert lines[3].split() == ["cat", "0.600", "5", "6", "70", "50"]
    assert len(lines) == 4


def test_nothing_found_says_what_came_closest() -> None:
    text = format_run(Path("a.jpg"), IMAGE, make_run(0), CLASSES)
    assert text.endswith(
        "  nothing above the threshold; the best was naïve dog 0.700 (lower suppression.min_score to see it)"
    )
    nowhere = format_run(Path("a.jpg"), IMAGE, make_run(0, regions=0), CLASSES)
    assert nowhere.endswith("  nothing: no box of this image is large enough to propose")


def test_the_record() -> None:
    assert result_record(Path("photos/a.jpg"), IMAGE, make_run(2), CLASSES, ["googlenet_voc"]) == {
        "image": "photos/a.jpg",
        "width": 80,
        "height": 60,
        "detections": [
            {"label": "naïve dog", "wnid": None, "score": 0.7, "box": [1.0, 2.0, 30.25, 40.0]},
            {"label": "cat", "wnid": "n02121808", "score": 0.6, "box": [5.0, 6.0, 70.0, 50.13]},
        ],
        "regions": 3,
        "seconds": SECONDS,
        "model": ["googlenet_voc"],
    }


def test_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "results"
    write_result(folder, "a", Path("a.jpg"), IMAGE, make_run(2), CLASSES, ["stub"])
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a_detections.jpg"]
    record = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert record == result_record(Path("a.jpg"), IMAGE, make_run(2), CLASSES, ["stub"])
    assert "naïve" in (folder / "a.json").read_text(encoding="utf-8")
    drawn = read_image(folder / "a_detections.jpg")
    assert drawn.shape == IMAGE.shape
    assert (np.abs(drawn.astype(int) - 90) > 30).any()


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [photo(tmp_path / "one.png"), tmp_path / "bad.png", photo(tmp_path / "two.png")]
    paths[1].write_text("no image")
    failed = detect_files(StubDetector(), paths, tmp_path / "results")  # type: ignore[arg-type]
    assert len(failed) == 1
    assert failed[0].startswith(f"{paths[1]}: not an image")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "one.json",
        "one_detections.jpg",
        "two.json",
        "two_detections.jpg",
    ]
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines() if line.startswith(str(tmp_path))] == [
        str(paths[0]),
        str(paths[2]),
    ]
    assert f"detect: {failed[0]}" in captured.err
    summary = captured.err.splitlines()[-3:]
    assert summary == [f"2 of 3 images done, results in {tmp_path}/results/", "could not be read:", f"  {failed[0]}"]


def test_one_file_gets_no_bar_and_no_second_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    failed = detect_files(StubDetector(), [tmp_path / "bad.png"], tmp_path / "results")  # type: ignore[arg-type]
    assert failed == [f"{tmp_path}/bad.png: empty, no bytes in it"]
    assert capsys.readouterr().err.splitlines() == [
        f"detect: {tmp_path}/bad.png: empty, no bytes in it",
        f"0 of 1 images done, results in {tmp_path}/results/",
    ]
