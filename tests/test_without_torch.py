"""Scoring in an environment that has a few small packages: no torch, and no other package that it does not use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED = ("numpy", "numba", "llvmlite", "msgspec", "PIL", "tqdm", "yaml", "pycocotools")
PAGES = ("matplotlib", "mpl_toolkits", "cycler", "dateutil", "kiwisolver", "packaging", "pyparsing", "six", "contourpy")
PAGES += ("fontTools", "jinja2", "markupsafe", "cv2")

BLOCKER = """
import importlib.abc, sys

ALLOWED = {{"detector", "proposals", *{allowed!r}}} | set(sys.stdlib_module_names)

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and not top.startswith("_") and top != "cython_runtime":
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
for name in ("torch", "torchvision", "albumentations", "selectivesearch", "pandas", "scipy"):
    try: __import__(name)
    except ModuleNotFoundError: continue
    raise SystemExit(name + " was not blocked")
"""


def run(code: str, allowed: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    program = BLOCKER.format(allowed=allowed) + code
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=environment)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    truth = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 17, "bbox": [10, 10, 40, 50], "area": 2000, "iscrowd": 0}
        ],
    }
    found = [{"image_id": 1, "category_id": 17, "bbox": [10, 10, 40, 49], "score": 0.9}]
    for name, content in (("truth.json", truth), ("found.json", found)):
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path / "truth.json", tmp_path / "found.json"


def test_the_library(files: tuple[Path, Path]) -> None:
    truth, found = files
    code = f"""
import pickle
from detector import Detections, Evaluator, evaluate
for protocol in ("voc", "voc07", "ilsvrc", "coco"):
    print(round(evaluate({str(truth)!r}, {str(found)!r}, protocol).mean_ap, 3))
evaluator = Evaluator(["cat"], "coco")
evaluator.update(1, {{"boxes": [[10, 10, 50, 60]], "labels": [0]}}, Detections([[10, 10, 50, 59]], [0.9], [0]))
print(round(pickle.loads(pickle.dumps(evaluator)).result().mean_ap, 3))
print(evaluate({str(truth)!r}, {str(found)!r}, "all"))
"""
    done = run(code, ALLOWED)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:5] == ["1.0"] * 5
    assert lines[6].split() == ["protocol", "mean", "AP", "objects"]


@pytest.mark.parametrize("page", [False, True])
def test_the_command(files: tuple[Path, Path], page: bool, tmp_path: Path) -> None:
    truth, found = files
    words = ["--protocol", "coco", "--annotations", str(truth), "--detections", str(found), "--diagnose"]
    words += ["--json", str(tmp_path / "out.json"), *(["--report", str(tmp_path / "out.html")] if page else [])]
    done = run(
        f"from detector.commands.eval_map import main\nraise SystemExit(main({words!r}))", ALLOWED + PAGES * page
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^mean +1\.0000", done.stdout, re.MULTILINE), done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["ap"]["cat"] == pytest.approx(1)
    assert (tmp_path / "out.html").exists() == page


def test_the_docs_name_what_is_needed() -> None:
    """The install lines name each distribution of what is allowed above, and no other."""
    text = (ROOT / "docs" / "python.md").read_text()
    (block,) = re.findall(r"```sh\n(pip install --no-deps \. .*?)```", text, re.DOTALL)
    _, small, large = (line.partition("#")[0].split()[2:] for line in block.strip().splitlines())
    distributions = {"PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv-python-headless"}
    assert set(small) == {distributions.get(name, name) for name in ALLOWED if name != "llvmlite"}
    assert set(large) == {"matplotlib", "jinja2", "opencv-python-headless"}
