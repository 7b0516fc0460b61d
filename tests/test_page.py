"""The page of an evaluation: what it says, that it needs nothing else, and that no name on it becomes markup."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pages import Reader, read, words
from skimage import data

from detector.config import load_config
from detector.data.ground_truth import ClassTable
from detector.evaluation.matching import match
from detector.evaluation.operating_points import points_at
from detector.evaluation.protocols import Protocol
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import HALF_OPEN, VOC, Truth, convert
from detector.experiments.evaluation_run import EvaluationConfig, analyse
from detector.report.contents import Report
from detector.report.page import write_page

HOSTILE = '<b>x</b> "quoted" \'&amp; $\\frac$'


def make_truth(folder: Path, names: Sequence[str] = ("cat", "cup", "dog"), *, images: int = 3) -> Truth:
    """Photographs of 512 x 512 or less with two objects each, of the first two classes; VOC's pixels."""
    photographs = [data.astronaut(), data.coffee()[:, :450], data.chelsea()]
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"photo_{index}.png" for index in range(images))
    for path, photograph in zip(paths, photographs, strict=False):
        PIL.Image.fromarray(photograph).save(path)
    boxes = np.tile([[21.0, 31.0, 120.0, 140.0], [201.0, 101.0, 300.0, 220.0]], (images, 1))
    count = len(boxes)
    return Truth(
        name="toy val",
        classes=ClassTable(tuple(names), (None,) * len(names), tuple(range(1, len(names) + 1))),
        image_ids=tuple(f"photo_{index}" for index in range(images)),
        paths=paths,
        sizes=np.tile([[512, 512]], (images, 1)),
        numbers=None,
        image_index=np.repeat(np.arange(images), 2),
        labels=np.tile([0, 1], images),
        boxes=boxes,
        difficult=np.zeros(count, np.bool_),
        crowd=np.zeros(count, np.bool_),
        areas=np.full(count, 10_000.0),
        convention=VOC,
    )


def make_table(truth: Truth) -> DetectionTable:
    """Every object of image 0 found; in image 1 a cat found and a cup missed; in image 2 only something false."""
    boxes = np.asarray(convert(truth.boxes, VOC, HALF_OPEN), np.float64)
    false = np.array([[300.0, 5.0, 340.0, 60.0]])
    return DetectionTable(
        np.array([0, 0, 1, 2, 1]),
        np.array([0, 1, 0, 1, 1]),
        np.array([0.9, 0.8, 0.7, 0.6, 0.2]),
        np.concatenate([boxes[:3], false, boxes[3:4]]),
    )


CONFIG = EvaluationConfig(name="toy", resamples=20)


def page_of(
    path: Path, truth: Truth, table: DetectionTable, config: EvaluationConfig = CONFIG
) -> tuple[Report, Reader]:
    others = {"mine.json": table, "other.json": table[:2]}
    report = analyse(config, truth, table, details=True, others=others)
    write_page(path, config, truth, table, report, others=others)
    return report, read(path, scripts=2)


def test_page_says_what_was_found(tmp_path: Path) -> None:
    truth = make_truth(tmp_path / "images")
    table = make_table(truth)
    report, reader = page_of(tmp_path / "new" / "page.html", truth, table)
    text = words(reader)
    evaluation = report.evaluation
    # Two of three cats without a false one; the cups: a hit, a false positive, a hit.
    assert evaluation.ap == pytest.approx({"cat": 2 / 3, "cup": 1 / 3 + 2 / 3 / 3, "dog": None})
    assert "toy val PASCAL VOC2010+, area under the curve, IoU 0.5" in text
    assert f"mean AP {(2 / 3 + 5 / 9) / 2:.4f}" in text
    assert "median AP 0.6111 images 3 objects 6 detections 5 classes 3" in text
    assert report.interval
    assert f"(20 bootstrap resamples of the images): {report.interval.low:.4f} to {report.interval.high:.4f}" in text
    # Best F1: of the cups two of three found from 0.2 on with a false one, of the cats two of three without one.
    # Worst first; shown from 0.5 there are two cups missed with a false positive, and a cat missed.
    assert re.search(
        r"cup 0\.5556 3 2 1 0\.67 0\.2000 3 cat 0\.6667 3 1 0 0\.80 0\.7000 2 Precision", text
    )  # worst first
    assert "All classes by one threshold: 0.7273 from score 0.2000." in text  # 4 of 6 objects, one false positive
    assert "1 class has no objects in these images and is not in the mean" in text
    assert "other.json against mine.json" in text
    assert report.comparison
    (pair,) = report.comparison.pairs
    assert f"p = {pair.p_value:.3g}" in text
    assert pair.by_class[0]
    assert f"cat {pair.by_class[0].value:+.4f}" in text
    assert "Found by mine.json, missed by other.json: 1" in text  # the cat of image 1
    assert report.diagnosis
    for kind, gain in report.diagnosis.gains.items():
        assert re.search(rf"{kind} [^+-]* {report.diagnosis.counts[kind]} {re.escape(f'{gain:+.4f}')}", text), kind
    assert "resamples: 20" in text
    assert "Python 3." in text


def test_curves_are_those_of_the_classes(tmp_path: Path) -> None:
    _, reader = page_of(tmp_path / "page.html", (truth := make_truth(tmp_path)), make_table(truth))
    plots = [attributes["aria-label"] for tag, attributes in reader.elements if tag == "svg" and "role" in attributes]
    assert plots[0].startswith("Precision over recall: 2 classes")
    assert plots[1:3] == ["Precision over recall of cup", "Precision over recall of cat"]
    assert plots[3].startswith(
        "Precision, recall and F1 of all classes against the score threshold; F1 is greatest, 0.73"
    )
    assert [plot.split(" against")[0] for plot in plots[4:6]] == [
        "Precision, recall and F1 of cup",
        "Precision, recall and F1 of cat",
    ]


def test_photographs_show_hits_misses_and_false_positives(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    _, reader = page_of(tmp_path / "page.html", truth, make_table(truth))
    text = words(reader)
    pictures = [attributes for tag, attributes in reader.elements if tag == "image"]
    named = [attributes["aria-label"] for tag, attributes in reader.elements if "aria-label" in attributes]
    assert [name for name in named if name.startswith("Image ")] == [
        "Image photo_2: 0 of 2 objects found, 1 false positives",  # F1 0, then 2 / 3, then 1
        "Image photo_1: 1 of 2 objects found, 0 false positives",
        "Image photo_0: 2 of 2 objects found, 0 false positives",
    ]
    assert "photo_1 F1 0.67" in text
    content = base64.b64decode(pictures[2]["href"].removeprefix("data:image/jpeg;base64,"))
    assert PIL.Image.open(io.BytesIO(content)).size == (480, 480)
    assert "false positive: cup 0.60" in text
    assert "object, missed: missed cup" in text
    assert "cup 0.20" not in text  # below the score
    # VOC's pixels 21..120 are 20 up to 120 in ours; a photograph of 512 px became 480.
    frames = [attributes for tag, attributes in reader.elements if tag == "rect" and attributes.get("class") == "line"]
    expected = {"x": 20 * 480 / 512, "y": 30 * 480 / 512, "width": 100 * 480 / 512, "height": 110 * 480 / 512}
    assert any(all(abs(float(frame[key]) - value) < 0.11 for key, value in expected.items()) for frame in frames), (
        frames
    )


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    truth = make_truth(tmp_path, (HOSTILE, "</style><script>alert(1)</script>", "dog"))
    truth = replace(truth, name=HOSTILE, image_ids=(HOSTILE, "<img src=x onerror=y>", "a\" onload='z"))
    config = replace(CONFIG, name=HOSTILE)
    _, reader = page_of(tmp_path / "page.html", truth, make_table(truth), config)  # read() counts scripts
    assert not any(tag == "b" for tag, _ in reader.elements)
    assert HOSTILE in words(reader)
    assert any(attributes.get("aria-label", "").endswith(HOSTILE) for _, attributes in reader.elements)


def test_missing_photographs_take_one_line(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    truth = replace(truth, paths=tuple(tmp_path / "nowhere" / path.name for path in truth.paths))
    _, reader = page_of(tmp_path / "page.html", truth, make_table(truth))
    assert "(first: photo_2.png: no such file)" in words(reader)
    assert not any(tag == "image" for tag, _ in reader.elements)
    assert not any("data-show" in attributes for _, attributes in reader.elements)  # no number leads nowhere
    assert str(tmp_path) not in words(reader)


def test_a_damaged_photograph_is_named(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    content = truth.paths[1].read_bytes()
    truth.paths[1].write_bytes(content[: len(content) // 2])
    _, reader = page_of(tmp_path / "page.html", truth, make_table(truth))
    assert "Not shown: photo_1.png: damaged or cut short" in words(reader)
    assert sum(tag == "image" for tag, _ in reader.elements) == 2


def test_zero_detections_and_no_optional_parts(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    table = make_table(truth)[:0]
    report = analyse(replace(CONFIG, resamples=0), truth, table)
    assert report.interval is report.diagnosis is report.fates is report.perfect is report.comparison is None
    assert report.thresholds is report.confusion is report.sizes is report.calibration is report.suspects is None
    write_page(tmp_path / "page.html", CONFIG, truth, table, report)
    reader = read(tmp_path / "page.html", scripts=1)
    text = words(reader)
    assert "mean AP 0.0000" in text
    assert "cat 0.0000 3 3 0 – – 0" in text
    assert "one threshold" not in text
    assert "Worst class cat, AP 0.0000 on 3 objects" in text
    assert "0 of its 3 objects are found. Of the 3 missed, 3 found at no score." in text
    assert sum(tag == "image" for tag, _ in reader.elements) == 3
    for absent in ("Errors", "Stages", "Comparison", "resamples of", "Warnings", "Thresholds", "Calibration", "Labels"):
        assert absent not in text


def test_stages_and_warnings(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    table = make_table(truth)
    report = replace(
        analyse(CONFIG, truth, table),
        fates={"found": 3, "never proposed": 1},
        perfect={"proposals": 0.75},
        warnings=("a <odd> file",),
    )
    write_page(tmp_path / "page.html", CONFIG, truth, table, report)
    text = words(read(tmp_path / "page.html", scripts=1))
    assert "The 4 objects by the stage that lost them" in text
    assert "found 3 75.0 % never proposed 1 25.0 %" in text
    assert f"proposals 0.7500 {0.75 - report.evaluation.mean_ap:+.4f}" in text
    assert "Warnings a <odd> file" in text


@pytest.mark.parametrize("protocol", Protocol)
def test_every_protocol(protocol: Protocol, tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    truth = replace(truth, classes=replace(truth.classes, wnids=("n02121808", "n03147509", "n02084071")))
    report, reader = page_of(tmp_path / "page.html", truth, make_table(truth), replace(CONFIG, protocol=protocol))
    text = words(reader)
    assert f"mean AP {report.evaluation.mean_ap:.4f}" in text
    for name, value in report.evaluation.summary.items():
        assert f"{name} {'–' if value is None else f'{value:.4f}'}" in text
    if protocol is Protocol.ilsvrc:
        assert "cat n02121808 0.6667 0.6667 3 1 0" in text
        assert "mean at IoU 0.5 for all sizes" in text


def test_two_writes_are_the_same_bytes(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    for name in ("first.html", "second.html"):
        page_of(tmp_path / name, truth, make_table(truth))
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()


def test_command_and_settings_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/home/me/tools/eval_map.py", "--json=/home/me/a b.json", f"{Path.cwd()}/x.json", "score=0.3"]
    )
    truth = make_truth(tmp_path)
    config = load_config(EvaluationConfig, None, ["score=0.3", "resamples=0"])
    _, reader = page_of(tmp_path / "page.html", truth, make_table(truth), config)
    assert "eval_map.py '--json=a b.json' x.json score=0.3" in words(reader)
    assert "score: 0.3" in words(reader)


def test_two_hundred_classes_and_twenty_thousand_images(tmp_path: Path) -> None:
    images, classes = 20_000, 200
    truth = make_truth(tmp_path, [f"class_{label}" for label in range(classes)], images=images)
    truth = replace(truth, labels=np.arange(2 * images) % (classes - 1))
    rng = np.random.default_rng(0)
    boxes = np.asarray(convert(truth.boxes, VOC, HALF_OPEN), np.float64)
    kept = rng.random(len(boxes)) < 0.5 * (1 + truth.labels / classes)
    table = DetectionTable(
        truth.image_index[kept],
        truth.labels[kept],
        rng.random(kept.sum()),
        boxes[kept] + rng.normal(0, 9, (kept.sum(), 4)),
    )
    report = analyse(replace(CONFIG, resamples=0), truth, table)
    write_page(tmp_path / "page.html", CONFIG, truth, table, report)
    assert (tmp_path / "page.html").stat().st_size < 3_000_000
    reader = read(tmp_path / "page.html", scripts=1)
    drawn = [attributes["aria-label"] for tag, attributes in reader.elements if tag == "svg" and "role" in attributes]
    plots = [label for label in drawn if label.startswith("Precision")]
    assert len(plots) == 1 + 12 + 12
    assert len(drawn) - len(plots) == 3  # three images exist, of the worst, the best and those behind numbers
    ranked = sorted((ap, key) for key, ap in report.evaluation.ap.items() if ap is not None)
    assert [plots[1], plots[13]] == [f"Precision over recall of {key}" for key in (ranked[0][1], ranked[-1][1])]
    text = words(reader)
    assert f"{len(ranked)} classes, worst first" in text
    assert "1 class has no objects in these images and is not in the mean" in text
    assert "class_199" not in text


def test_numbers_lead_to_the_pictures_behind_them(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    _, reader = page_of(tmp_path / "page.html", truth, make_table(truth))
    figures = {
        item["id"]: item["data-tags"].split() for tag, item in reader.elements if tag == "figure" and "id" in item
    }
    links = {item["data-show"]: item["href"][1:] for tag, item in reader.elements if "data-show" in item}
    for tag, first in links.items():
        shown = [name for name, tags in figures.items() if tag in tags]
        assert first == shown[0], tag  # without a script, the first of them
    frames = [
        item["data-tags"].split()
        for tag, item in reader.elements
        if tag == "g" and "data-tags" in item and item["class"].startswith("frame")
    ]
    for tag, count in {
        "missed-0": 1,
        "missed-1": 2,
        "false-1": 1,
        "found-0": 4,  # two objects and the detections on them
        "found-1": 2,
        "error-background": 1,
        "cell-0-3": 1,  # a cat missed
        "cell-1-3": 2,
        "cell-3-1": 1,  # nothing taken for a cup
    }.items():
        assert sum(tag in tags for tags in frames) == count, tag
        assert tag in links, tag
    assert not any(tag.startswith("cell-0-1") for tag in links)


def test_an_image_is_embedded_once(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    _, reader = page_of(tmp_path / "page.html", truth, make_table(truth))
    content = (tmp_path / "page.html").read_text()
    sources = re.findall(r"data:image/jpeg;base64,[\w+/=]+", content)
    assert len(sources) == len(set(sources)) == 3
    photos = {item["id"] for tag, item in reader.elements if tag == "image"}
    used = [
        item["href"][1:] for tag, item in reader.elements if tag == "use" and item.get("href", "").startswith("#photo")
    ]
    assert used  # the comparison shows a part of them again
    assert set(used) <= photos


def test_only_its_own_script_may_run(tmp_path: Path) -> None:
    _, reader = page_of(tmp_path / "page.html", (truth := make_truth(tmp_path)), make_table(truth))
    content = (tmp_path / "page.html").read_text()
    (policy,) = [item["content"] for tag, item in reader.elements if item.get("http-equiv")]
    (script,) = re.findall(r"<script>(.*?)</script>", content, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_slider_has_what_the_thresholds_are_worth(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    table = make_table(truth)
    page_of(tmp_path / "page.html", truth, table)
    content = (tmp_path / "page.html").read_text()
    (text,) = re.findall(r'<script type="application/json" id="score-data">(.*?)</script>', content)
    slider = json.loads(text)
    assert slider["scores"] == [round(step / 100, 2) for step in range(101)]
    matches = match(truth, table, "voc")
    for step, score in enumerate(slider["scores"]):
        points = points_at(matches, table, [score] * 3)
        for row, label in zip(slider["rows"], (1, 0), strict=True):  # worst first
            shown, found, point = row["shown"][step], row["found"][step], points[label]
            assert row["objects"] == 3
            assert shown == ((table.labels == label) & (table.scores >= score)).sum()
            if point is None:
                assert shown == 0
            else:
                assert (found / shown, found / 3) == (point.precision, point.recall)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_filters_the_pictures(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    page_of(tmp_path / "page.html", truth, make_table(truth))

    def opened(anchor: str) -> str:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
        command = [str(CHROMIUM), *options, "--dump-dom", f"{(tmp_path / 'page.html').as_uri()}{anchor}"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    def hidden(page: str) -> list[bool]:
        return ["hidden" in figure for figure in re.findall(r'<figure id="image-\d"[^>]*>', page)]

    whole, part = opened(""), opened("#show=missed-0")
    assert hidden(whole) == [False, False, False]
    assert re.search(r'id="filter-status"[^>]*>All 3 pictures<', whole)
    assert hidden(part) == [False, True, True]  # the cat of photo_2 alone is missed
    assert re.search(r'id="filter-status"[^>]*>1 of 3 pictures: missed objects, cat<', part)
    kinds = re.findall(r'<g class="frame (\w+)( dim)?" data-tags', part)
    first = [kind for kind in kinds if kind[0] in ("missed", "false")]
    assert sorted(first)[:1] == [("false", " dim")]
    assert ("missed", "") in first
    assert re.search(r'id="score-output"[^>]*>0.50<', whole)
    assert 'id="score-control" hidden' not in whole


def test_refuses_a_table_of_another_split(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    table = make_table(truth)
    report = analyse(CONFIG, truth, table)
    with pytest.raises(ValueError, match="image 9, toy val has 3"):
        write_page(tmp_path / "page.html", CONFIG, truth, replace(table, image_index=np.full(5, 9)), report)


def test_starts_without_torch() -> None:
    program = "import sys, detector.report.page; print('torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    root = Path(__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout == "False False\n"
