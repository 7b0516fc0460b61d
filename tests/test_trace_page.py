"""The page of a trace: one file without network; each control moved in a browser, skipped where there is none."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from test_trace import CONFIG, IMAGE, make

from detector.data.voc_xml import read_annotation
from detector.trace.objects import Objects
from detector.trace.page import write_page
from detector.trace.stages import stages_of
from detector.trace.tracing import ImageTrace, trace

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    "--virtual-time-budget=120000",
)
STAGES = [
    "superpixels",
    "merging",
    "proposals",
    "regions",
    "votes",
    "cascade",
    "regression",
    "suppression",
    "why",
    "result",
]
needs_browser = pytest.mark.skipif(not BROWSER, reason="needs Chromium")

DRIVE = (Path(__file__).parent / "drive.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found() -> ImageTrace:
    return trace(make(), IMAGE, "a <b> & c.jpg")


def objects(found: ImageTrace) -> Objects:
    """The best detection, and one that no proposal covers."""
    boxes = np.array([found.detections.boxes[0], [1, 1, 4, 4], [50, 20, 90, 70]])
    labels = np.array([int(found.detections.labels[0]), 0, -1])
    return Objects(boxes, labels, ("square", "square", "ring"), np.array([False, False, True]))


def driven(path: Path, *options: str) -> dict[str, Any]:
    """What the script finds that moves every control of the page."""
    content = path.read_text(encoding="utf-8")
    listen = (
        "<script>window.errors = []; window.onerror = (text) => errors.push(text);"
        "window.onunhandledrejection = (event) => errors.push(String(event.reason));"
        "console.error = console.warn = (...texts) => errors.push(texts.join());</script>"
    )
    content = content.replace("<head>", "<head>" + listen, 1).replace("</body>", f"<script>{DRIVE}</script></body>", 1)
    test = path.with_name("driven.html")
    test.write_text(content, encoding="utf-8")
    profile = path.with_name("profile")
    command = [BROWSER, *OPTIONS, *options, f"--user-data-dir={profile}", "--dump-dom", test.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    report = re.search(r'<pre id="driven">(.*?)</pre>', done.stdout, re.S)
    assert report, done.stderr[-2000:]
    return json.loads(html.unescape(report[1]))  # type: ignore[no-any-return]


@needs_browser
@pytest.mark.parametrize("size", ["1280,900", "360,740"])
def test_every_control_in_a_browser(found: ImageTrace, tmp_path: Path, size: str) -> None:
    page = tmp_path / "page.html"
    write_page(page, found, objects(found))
    report = driven(page, f"--window-size={size}")
    assert report["errors"] == []
    assert report["fetched"] == []
    assert report["stages"] == [f"stage-{name}" for name in STAGES]
    assert report["moved"] > 40
    assert report["pressed"] >= 5  # regions, detections and objects on the picture
    assert report["drawn"] == 2  # a box at the proposals, and one at the question why
    assert {name for name, count in report["keys"].items() if not count} <= {"stage-superpixels"}
    assert report["changes"].startswith("You changed: ")
    assert report["isBack"]
    assert report["focus"] == [False, "SELECT"]  # built again, and focused again
    assert report["next"] == ["#cascade", "h-cascade"]
    assert (report["small"], report["nameless"], report["wide"]) == (0, 0, 0)
    assert "superpixels; none is smaller than" in report["texts"]["stage-superpixels"]
    assert "of 2 objects found" in report["texts"]["stage-result"]


@needs_browser
@pytest.mark.parametrize("change", ["no search", "blank", "all by all"])
def test_other_detectors_and_images(change: str, tmp_path: Path) -> None:
    """No selective search of ours; an image without a box that counts; no cascade."""
    from dataclasses import replace

    from detector.settings import CascadeConfig

    config, image = CONFIG, IMAGE
    if change == "no search":
        config = replace(CONFIG, proposals=replace(CONFIG.proposals, method="selectivesearch", superpixel_scale=1.0))
    elif change == "blank":
        image = np.full((40, 50, 3), 128, np.uint8)
    else:
        config = replace(CONFIG, cascade=CascadeConfig())
    page = tmp_path / "page.html"
    write_page(page, trace(make(config), image, change))
    report = driven(page)
    assert report["errors"] == []
    assert len(report["stages"]) == len(STAGES)


def test_one_file_without_network(found: ImageTrace, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    write_page(page, found)
    text = page.read_text(encoding="utf-8")
    assert "<title>a &lt;b&gt; &amp; c.jpg: inside an R-CNN</title>" in text
    assert not re.search(r"(src|href)=[\"'](?!#|data:)", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.count("</script>") == 2  # no data ends a script early
    data = json.loads(re.search(r'id="trace">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert data["name"] == "a <b> & c.jpg"
    assert str(Path.cwd()) not in text
    for name in STAGES:
        assert f'id="stage-{name}"' in text


def test_stages_have_words_and_the_run_s_numbers(found: ImageTrace) -> None:
    from detector.trace.data import page_data

    data = page_data(found)
    stages = stages_of(data)
    assert [stage.id for stage in stages] == STAGES
    counts = {stage.id: stage.count for stage in stages}
    assert counts["proposals"] == "80 boxes"
    assert counts["cascade"] == f"{len(found.votes.scored)} by all members"  # type: ignore[arg-type]
    assert counts["votes"] == "2 members"
    times = {stage.id: stage.seconds for stage in stages}
    assert re.fullmatch(r"\d+\.\d\d s", times["proposals"])
    assert times["merging"] == ""
    root = Path(__file__).parent.parent
    for stage in stages:
        assert all(stage.text)
        assert stage.question.endswith("?")
        assert stage.answer.endswith((".", ")"))
        for name in stage.source.split(", "):
            assert (root / name).is_file()
    assert next(stage for stage in stages if stage.id == "suppression").settings[-1] == "suppression.limit=200"


# ---- the command


@pytest.fixture
def settings(toy_checkpoint: Path) -> list[str]:
    return [
        *(f"models=[{toy_checkpoint}]", "proposals.width=0", "proposals.max_boxes=20", "proposals.multibox.weights="),
        *("precision=float32", "regression=false", "rejection.weights=", "--device", "cpu"),
    ]


def test_the_command_adds_the_objects_of_the_image(
    tool: Any, settings: list[str], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VOC's folder of annotations, found by its XML; the page has the objects in the image's own pixels."""
    monkeypatch.chdir(tmp_path)
    image = next(iter(sorted((shapes / "JPEGImages").iterdir())))
    written = read_annotation(shapes / "Annotations" / f"{image.stem}.xml")
    options = [str(image), "--no-images", "--trace", "page.html", "--annotations", str(shapes / "Annotations")]
    assert tool("detect")([*options, *settings]) == 0
    data = json.loads(re.search(r'id="trace">(.*?)</script>', Path("page.html").read_text(), re.S)[1])  # type: ignore[index]
    assert data["truth"]["names"] == list(written.names)
    np.testing.assert_array_equal(data["truth"]["boxes"], written.boxes - [1, 1, 0, 0])


def test_annotations_that_do_not_help(
    tool: Any, settings: list[str], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(next(iter(sorted((shapes / "JPEGImages").iterdir()))))
    other = tmp_path / "other.png"
    PIL.Image.fromarray(IMAGE).save(other)
    page = ["--trace", str(tmp_path / "page.html"), "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        tool("detect")([image, "--annotations", str(shapes), *settings])
    assert "--annotations is for the page of --trace" in capsys.readouterr().err
    assert tool("detect")([image, *page, "--annotations", str(tmp_path / "none"), *settings]) == 1
    assert "none: no such file or folder of ground truth" in capsys.readouterr().err
    assert tool("detect")([str(other), *page, "--annotations", str(shapes), *settings]) == 1
    assert "unknown image 'other.png'" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
