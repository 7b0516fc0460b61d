"""Files that a command is told to write: an earlier one of its kind is replaced, nothing else is."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from detector.checkpoint import load_checkpoint, save_checkpoint
from detector.classification.ensemble import Predictions
from detector.commands.targets import BEGINNINGS, TargetError, check_apart, check_target
from detector.network.export import to_onnx
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig

PHOTOGRAPH = io.BytesIO()
PIL.Image.new("RGB", (8, 8)).save(PHOTOGRAPH, "PNG")
FOREIGN = {
    "labelme": json.dumps({"version": "5.0", "shapes": []}).encode(),
    "coco truth": json.dumps({"images": [], "annotations": [], "categories": []}).encode(),
    "coco truth, indented": json.dumps({"info": {}, "images": []}, indent=2).encode(),
    "another's results": json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]).encode(),
    "text": b"notes\n",
    "image list": b"val1 1\nval2 2\n",
    "photograph": PHOTOGRAPH.getvalue(),
    "page": b"<!DOCTYPE html><html><head><title>My cats</title></head></html>",
    "zip": b"PK\x03\x04" + bytes(26) + b"cats.jpg",
    "weights": (20).to_bytes(8, "little") + b'{"__metadata__":{"format":"pt"}}',
    "model": b"\x08\x07\x12\x05caffe",
    "yaml": b"name: x\n",
}


@pytest.mark.parametrize("kind", BEGINNINGS)
@pytest.mark.parametrize("content", FOREIGN)
def test_what_another_program_wrote_stays(tmp_path: Path, kind: str, content: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(FOREIGN[content])
    with pytest.raises(TargetError) as caught:
        check_target(path, kind)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_commands_write_may_be_written_again(tmp_path: Path, toy_checkpoint: Path) -> None:
    member = load_checkpoint(toy_checkpoint)
    save_checkpoint(tmp_path / "weights", member)
    check_target(tmp_path / "weights", "weights")
    pytest.importorskip("onnxscript")
    network = GoogLeNet(GoogLeNetConfig(classes=2, width=0.25)).eval()
    (tmp_path / "model.onnx").write_bytes(to_onnx(network, 64))
    check_target(tmp_path / "model.onnx", "an ONNX model")
    Predictions(1, 1, ("a",), np.zeros(1, np.int64), np.ones((1, 2), np.float32), 0.1).save(tmp_path / "a.npz")
    check_target(tmp_path / "a.npz", "predictions")
    for suffix in ("png", "svg", "pdf", "eps"):
        figure = Figure()
        figure.subplots().plot([1, 2])
        figure.savefig(tmp_path / f"curves.{suffix}")
        check_target(tmp_path / f"curves.{suffix}", "curves")


@pytest.mark.parametrize("target", ["new.json", "deep/er/new.json", "empty.json", "/dev/null", "link_to_nowhere", None])
def test_what_may_be_written(tmp_path: Path, target: str | None) -> None:
    (tmp_path / "empty.json").touch()
    (tmp_path / "link_to_nowhere").symlink_to(tmp_path / "gone")
    check_target(tmp_path / target if target else None, "a report")


def test_what_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    report = tmp_path / "report.json"
    report.write_text('{\n  "protocol": "voc"')
    check_target(report, "a report", [None, tmp_path / "file", tmp_path / "gone"])
    (tmp_path / "link.json").symlink_to(report)
    for path, inputs in (
        (tmp_path / "file/below.json", []),
        (tmp_path / "folder", []),
        (report, [report]),
        (report, [tmp_path / "link.json"]),
        (tmp_path / "link.json", [os.path.relpath(report)]),
    ):
        with pytest.raises(TargetError, match=path.name):
            check_target(path, "a report", inputs)


def test_two_results_are_two_files(tmp_path: Path) -> None:
    check_apart((tmp_path / "a", None, tmp_path / "b", Path(os.devnull), Path(os.devnull)))
    (tmp_path / "link").symlink_to("a")
    for other in (tmp_path / "a", tmp_path / "x" / ".." / "a", tmp_path / "link"):
        with pytest.raises(TargetError, match=str(other)):
            check_apart((tmp_path / "a", None, other))
