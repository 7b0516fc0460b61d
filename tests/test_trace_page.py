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
import pytest
from test_trace import CONFIG, IMAGE, make

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
    assert "made in" not in text


def test_stages_have_words_and_the_run_s_numbers(found: ImageTrace) -> None:
    from detector.trace.data import page_data

    data = page_data(found)
    stages = stages_of(data)
    assert [stage.id for stage in stages] == STAGES
    counts = {stage.id: stage.count for stage in stages}
    assert re.fullmatch(r"80 boxes, \d+\.\d\d s", counts["proposals"])
    assert counts["merging"].endswith("merges")  # its time is within that of the proposals
    by_all = len(found.votes.scored)  # type: ignore[arg-type]
    assert counts["cascade"].startswith(f"{by_all} by all members")
    assert counts["votes"].startswith("2 members, ")
    root = Path(__file__).parent.parent
    for stage in stages:
        assert all(stage.text)
        assert stage.question.endswith("?")
        assert stage.answer.endswith((".", ")"))
        for name in stage.source.split(", "):
            assert (root / name).is_file()
    assert next(stage for stage in stages if stage.id == "suppression").settings[-1] == "suppression.limit=200"
