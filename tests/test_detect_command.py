"""detect as its users call it: options, formats that eval_map scores, pipes, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from test_detect_sources import make_video

from detector import Detector
from detector.evaluation import DetectionTable, evaluate_coco, read_coco_truth, read_voc_truth
from detector.evaluation.names import Names

ROOT = Path(__file__).parent.parent
Main = Callable[[list[str]], int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def settings(toy_checkpoint: Path) -> list[str]:
    """The toy network and few proposals, all of which are shown."""
    return [
        *(f"models=[{toy_checkpoint}]", "precision=float32", "regression=false", "suppression.min_score=0.001"),
        *("proposals.width=0", "proposals.min_width=8", "proposals.max_boxes=20", "cascade.threshold=0"),
        *("cascade.second_pass=false", "cascade.mirror=false", "rejection.weights="),
        "proposals.multibox.weights=",
    ]


@pytest.fixture
def detect(tool: Callable[[str], Main], settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """tools/detect.py in an empty folder; arguments stand in front of the settings."""
    monkeypatch.chdir(tmp_path)
    main = tool("detect")
    return lambda arguments: main([*settings, "--device", "cpu", *arguments])


@pytest.fixture
def photos(shapes: Path, tmp_path: Path) -> Path:
    (tmp_path / "photos").symlink_to(shapes / "JPEGImages")
    return tmp_path / "photos"


def records(folder: str = "detections") -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]


def exit_code(detect: Main, arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        detect(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


# ---- what is shown


def test_score_classes_and_the_number_of_detections(detect: Main, photos: Path) -> None:
    assert detect(["photos", "--no-images"]) == 0
    whole = records()
    assert not list(Path("detections").glob("*.jpg"))
    middle = float(np.median([one["score"] for record in whole for one in record["detections"]]))

    def expected(record: dict[str, Any]) -> list[Any]:
        return [one for one in record["detections"] if one["score"] >= middle and one["label"] == "disc"][:2]

    more = ["--score", str(middle), "--max-detections", "2", "--no-images", "--output", "some"]
    assert detect(["photos", *more, "--classes", "disc"]) == 0
    assert [record["detections"] for record in records("some")] == [expected(record) for record in whole]
    assert 0 < sum(len(expected(record)) for record in whole) < sum(len(record["detections"]) for record in whole)


def test_an_unknown_class_is_wrong_usage(detect: Main, photos: Path, capsys: Capture) -> None:
    assert detect(["photos/val0.png", "--classes", "square", "disk"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "detect: --classes: no class 'disk'. Did you mean 'disc'?",
        "detect: there are square, disc",
    ]
    assert not Path("detections").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png", "--format", "jsn"], "no format 'jsn'; did you mean json?"),
        (["a.png", "--format", "coco,"], "no format ''"),
        (["a.png", "--score", "1.5"], "expected a number from 0 to 1, not '1.5'"),
        (["a.png", "--score", "half"], "expected a number from 0 to 1, not 'half'"),
        (["a.png", "--max-detections", "0"], "expected a number from 1, not '0'"),
        (["clip.mp4", "--every", "1m"], "expected seconds such as 1s, or a number of frames such as 25, not '1m'"),
        (["a.png", "--json", "found.jsonl"], "invalid choice: 'found.jsonl'"),
        (["-", "a.png", "-"], "standard input can be read once"),
        (
            ["a.png", "--resume", "--format", "voc"],
            "--resume reads what is done from its JSON files; add json to --format",
        ),
        (["a.png", "--resume", "--json", "-"], "--resume reads what is done from its JSON files"),
        (["a.png", "--confidence"], "--confidence is for labels; name one of yolo, voc and labelme as --format"),
        (["--classes", "cat"], "name at least one image, folder or video"),
    ],
)
def test_wrong_usage(detect: Main, arguments: list[str], said: str, capsys: Capture) -> None:
    assert exit_code(detect, arguments) == 2
    assert said in capsys.readouterr().err


def test_settings_behind_classes_are_settings(detect: Main, photos: Path) -> None:
    assert detect(["photos/val0.png", "--no-images", "--classes", "disc", "suppression.limit=1"]) == 0
    assert [one["label"] for one in records()[0]["detections"]] == ["disc"]


# ---- formats


def test_coco_is_scored_by_eval_map_as_the_detectors_own_results(
    detect: Main, tool: Callable[[str], Main], photos: Path, shapes: Path, settings: list[str], capsys: Capture
) -> None:
    """Unchanged, against a COCO file of the same images, whose ids are numbers of its own."""
    names = [f"{split}{number}" for split, count in (("train", 4), ("val", 3)) for number in range(count)]
    voc = read_voc_truth(shapes / "Annotations", names, ("square", "disc"))
    boxes = voc.boxes - [1, 1, 0, 0]
    truth = {
        "images": [
            {"id": 100 + index, "file_name": f"{name}.png", "width": 96, "height": 80}
            for index, name in enumerate(names)
        ],
        "categories": [{"id": 7, "name": "disc"}, {"id": 44, "name": "square"}],
        "annotations": [
            {
                **{"id": row + 1, "image_id": 100 + int(voc.image_index[row]), "category_id": (44, 7)[voc.labels[row]]},
                **{"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0},
            }
            for row, (x1, y1, x2, y2) in enumerate(boxes.tolist())
        ],
    }
    Path("truth.json").write_text(json.dumps(truth))
    assert detect(["photos", "--format", "coco", "--no-images"]) == 0
    scored = ["--detections", "detections/detections.coco.json", "--annotations", "truth.json", "--protocol", "coco"]
    assert tool("eval_map")([*scored, "--json", "report.json"]) == 0
    report = json.loads(Path("report.json").read_text())

    detector = Detector.load(overrides=settings, device="cpu")
    whole = read_coco_truth(Path("truth.json"))
    found = {str(100 + index): detector(photos / f"{name}.png") for index, name in enumerate(names)}
    table = DetectionTable.from_images(whole, found)
    own = DetectionTable(table.image_index, 1 - table.labels, table.scores, table.boxes)  # disc comes first there
    wanted = evaluate_coco(whole, own)
    assert report["mean_ap"] == pytest.approx(wanted.mean_ap, abs=1e-12)
    assert report["ap"] == pytest.approx(wanted.ap, abs=1e-12)
    assert 0.01 < wanted.mean_ap < 0.99


def test_ilsvrc_needs_one_of_its_classes(detect: Main, photos: Path, capsys: Capture) -> None:
    assert detect(["photos", "--format", "ilsvrc", "--no-images"]) == 1
    assert (
        capsys.readouterr().err == "detect: --format ilsvrc: none of the classes is one of ILSVRC's 200: square, disc\n"
    )


def test_classes_of_voc_are_known_to_coco_by_either_name(shapes: Path) -> None:
    for mine, other in (("aeroplane", "airplane"), ("dining table", "diningtable")):
        truth = read_voc_truth(shapes / "Annotations", ["val0"], ("square", "disc", mine))
        assert Names(truth).label(other, number=False) == Names(truth).label(mine, number=False) == 2


# ---- lines


def test_lines_alone_write_no_files(detect: Main, photos: Path, capsys: Capture) -> None:
    assert detect(["photos/val*.png", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["image"] for line in captured.out.splitlines()] == [f"photos/val{i}.png" for i in range(3)]
    assert not Path("detections").exists()
    assert "photos/val0.png  96×80" in captured.err
    assert detect(["photos/val0.png", "--json", "-", "--output", "found"]) == 0
    assert json.loads(capsys.readouterr().out) == records("found")[0]


def test_a_reader_that_goes_ends_the_command_quietly(photos: Path, settings: list[str], tmp_path: Path) -> None:
    """`detect ... | head -n 1`, and paths from a pipe that stays open."""
    words = [sys.executable, str(ROOT / "tools/detect.py"), "-", "--json", "-", "--device", "cpu", *settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write(b"photos/val0.png\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["image"] == "photos/val0.png"  # though more may come
        child.stdout.close()
        child.stdin.write(b"photos/val1.png\nphotos/val2.png\n")
        child.stdin.flush()
        assert child.wait(300) == 0
        err = child.stderr.read().decode()
        assert "Traceback" not in err
        assert "Broken pipe" not in err


# ---- resuming, videos, errors


def test_resume_and_another_score(detect: Main, photos: Path, capsys: Capture) -> None:
    assert detect(["photos/val0.png", "photos/val1.png"]) == 0
    capsys.readouterr()
    assert detect(["photos", "--resume"]) == 0
    captured = capsys.readouterr()
    assert "detect: skipped, for they were done before: 2" in captured.err
    assert captured.out.count("96×80") == 5
    assert detect(["photos", "--resume", "--score", "0.4"]) == 0
    assert "detect: done again: 7 done with another model or settings" in capsys.readouterr().err


def test_a_video(detect: Main, tmp_path: Path, capsys: Capture) -> None:
    make_video(tmp_path / "clip.mp4")
    assert detect(["clip.mp4", "--every", "15"]) == 0
    assert [(record["time"], record["frame"]) for record in records()] == [(0.0, 0), (1.5, 15)]
    assert "clip.mp4 at 1.500 s  96×64" in capsys.readouterr().out


def test_a_missing_file_is_skipped_or_stops(detect: Main, photos: Path, capsys: Capture) -> None:
    arguments = ["gone.png", "photos/val0.png"]
    assert detect([*arguments, "--on-error", "stop"]) == 1
    assert capsys.readouterr().err == "detect: no such file or folder: gone.png\n"
    assert not Path("detections").exists()
    assert detect(arguments) == 1
    assert [path.name for path in Path("detections").glob("*.json")] == ["val0.json"]


def test_an_address_is_told_in_one_line(detect: Main, capsys: Capture) -> None:
    assert detect(["https://example.org/cat.jpg"]) == 1
    assert capsys.readouterr().err == (
        "detect: https://example.org/cat.jpg: an address, and detect reads files; "
        "download it first:  curl -O https://example.org/cat.jpg\n"
    )


def test_names_with_blanks_and_umlauts(detect: Main, shapes: Path) -> None:
    source = Path("Bilder für uns/Größe 1.jpg")
    source.parent.mkdir()
    PIL.Image.open(shapes / "JPEGImages/val0.png").save(source)
    formats = ["--format", "json,voc,yolo,labelme,csv,coco", "--crops"]
    assert detect(["Bilder für uns", *formats, "--output", "Was da ist"]) == 0
    labels = json.loads(Path("Was da ist/labelme/Größe 1.json").read_text(encoding="utf-8"))
    assert (Path("Was da ist/labelme") / labels["imagePath"]).samefile(source)


def test_a_folder_that_cannot_be_written(
    detect: Main, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path).name != "locked")
    Path("locked").mkdir()
    assert detect(["photos/val0.png", "--output", "locked/deep"]) == 1
    assert "locked: a folder that cannot be written; choose another --output" in capsys.readouterr().err
