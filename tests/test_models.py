"""The command models, and names of models: shipped weights, files, folders of runs, and what is near a wrong name."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from detector import model_files
from detector.checkpoint import (
    ImageClassifier,
    find_checkpoint,
    find_pretrained,
    load_any_classifier,
    load_checkpoint,
    save_checkpoint,
)
from detector.commands import model_facts
from detector.commands.model_export import random_images
from detector.commands.model_facts import describe, list_models, list_presets
from detector.commands.models import format_info, format_list
from detector.model_files import CheckpointError, find_weights
from detector.multibox import find_multibox
from detector.network.export import OnnxNetwork
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.pipeline import Detector

ROOT = Path(__file__).parent.parent
Main = Callable[[list[str]], int]


@pytest.fixture
def models(tool: Callable[[str], Main], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """tools/models.py in an empty folder."""
    monkeypatch.chdir(tmp_path)
    model_facts._evaluations.cache_clear()
    return tool("models")


def run_of(
    folder: Path, weights: Path | None, settings: str = "epochs: 12\ninit: googlenet_voc\n", rows: str = ""
) -> Path:
    """Write the folder of a training by hand."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(settings)
    (folder / "run.json").write_text(json.dumps({"command": "python tools/x.py", "best": "epoch 3, chosen by val_ap"}))
    (folder / "metrics.jsonl").write_text(rows)
    if weights:
        shutil.copyfile(weights, folder / "best.safetensors")
    return folder


def header_by_hand(path: Path) -> dict[str, Any]:
    """The header of a safetensors file by its format's description: a length of 8 bytes, then JSON."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    found: dict[str, Any] = json.loads(content[8 : 8 + length])
    return found


# ---- names


def test_a_run_is_named_by_its_folder(toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    best = run_of(Path("runs/größer als"), toy_checkpoint) / "best.safetensors"
    for find in (find_weights, find_checkpoint, find_pretrained, find_multibox):
        assert find("runs/größer als") == best
        assert find(f"{tmp_path}/runs/größer als/") == tmp_path / best
    model = Detector.load("fast", device="cpu", overrides=["models=[runs/größer als]", "regression=false"])
    assert model.classes.names == ("square", "disc")


def test_shipped_weights_are_found_beside_a_folder_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("googlenet_voc").mkdir()
    assert find_weights("googlenet_voc") == model_files.SHIPPED / "googlenet_voc.safetensors"


MULTIBOX = "epochs: 24\nheads: {epochs: 60}\n"


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ("epochs: 12\n", "", "no epoch is done yet; go on with its training: python tools/train_classifier.py"),
        ("epochs: 12\n", '{"epoch": 0.0}\n{"epoch": 3}\n{"epo', "3 of 12 epochs are done; go on"),
        (MULTIBOX, '{"epoch": 5}\n', "5 of 24 epochs are done; go on with its training: python tools/train_multibox"),
    ],
)
def test_a_run_without_weights_says_how_far_it_is(
    settings: str, rows: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_of(Path("runs/mine"), None, settings, rows)
    for find in (find_weights, find_checkpoint, find_pretrained, find_multibox):
        with pytest.raises(CheckpointError) as caught:
            find("runs/mine")
        assert f"runs/mine has no best.safetensors: {message}" in str(caught.value)
        assert str(caught.value).endswith(" --config runs/mine/config.yaml --resume auto")
        assert "\n" not in str(caught.value)
    Path("runs/mine/last.safetensors").touch()
    with pytest.raises(CheckpointError, match=r", or take runs/mine/last\.safetensors$"):
        find_weights("runs/mine")


def test_a_multibox_run_whose_head_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_of(Path("runs/boxes/head"), None, MULTIBOX, '{"epoch": 20}\n')
    with pytest.raises(CheckpointError, match=r"^runs/boxes has no .*: 20 of 60 epochs of its head are done"):
        find_weights("runs/boxes")


def test_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    with pytest.raises(CheckpointError, match=r"^photos: a folder without best\.safetensors.*models\.py list$"):
        find_weights("photos")
    Path("runs/val").mkdir(parents=True)
    Path("runs/val/detections.jsonl").touch()
    with pytest.raises(CheckpointError, match=r"^runs/val is an evaluation and holds no weights"):
        find_weights("runs/val")


def test_an_unknown_name_gives_the_nearest(
    toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_of(Path("runs/cells"), toy_checkpoint)
    for find, name, nearest in [
        (find_checkpoint, "googlenet_vic", "'googlenet_voc'"),
        (find_pretrained, "shared_voc712", "'shared_voc0712'"),
        (find_checkpoint, "runs/cell/best.safetensors", "'runs/cells'"),
        (find_checkpoint, "cells", "'runs/cells'"),
        (find_multibox, "multibox", "'multibox_voc'"),
        (describe, "shared_voc0712.rejections", "'shared_voc0712.rejection'"),
    ]:
        with pytest.raises(CheckpointError) as caught:
            find(name)
        assert f" {name}. Did you mean {nearest}" in str(caught.value)
    for find in (find_checkpoint, find_pretrained, find_multibox, describe):
        with pytest.raises(CheckpointError) as caught:
            find("zzzz")
        assert "Did you mean" not in str(caught.value)
        assert " zzzz" in str(caught.value)


# ---- list and info


def test_list_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from detector.commands import main\n"
        "print(main(['models', 'list']), main(['models', 'info', 'shared_voc0712']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0 0", done.stderr


def test_the_list_is_what_the_files_say(models: Main, toy_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(Path("runs/cells"), toy_checkpoint)
    assert models(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    found = {one["name"]: one for one in listed["models"]}
    files = {file.stem: file for file in model_files.SHIPPED.glob("*.safetensors")}
    files["runs/cells"] = Path("runs/cells/best.safetensors")
    assert found.keys() == files.keys()
    for name, file in files.items():
        header = header_by_hand(file)["__metadata__"]
        assert found[name]["bytes"] == file.stat().st_size
        assert found[name]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        classes = json.loads(header["header"]).get("classes", {})
        assert found[name]["classes"] == classes.get("names", [])
    assert {name: one["task"] for name, one in found.items() if "voc_" not in name} == {
        "googlenet_voc": "warped",
        "googlenet_voc0712": "warped",
        "multibox_voc": "MultiBox",
        "shared_voc": "maps",
        "shared_voc0712": "maps",
        "shared_voc0712.rejection": "rejection",
        "runs/cells": "warped",
    }
    assert found["runs/cells"]["start"] == "googlenet_voc"
    presets = {one["name"]: one for one in listed["presets"]}
    assert presets["default"]["models"] == ["shared_voc0712", "googlenet_voc0712"]
    assert presets["default"]["multibox"] == "multibox_voc"
    assert len(presets["paper"]["missing"]) == 6
    assert {name for name, one in presets.items() if not one["missing"]} == set(Detector.presets())


def test_measured_figures_are_those_of_the_cards() -> None:
    measured = json.loads((model_files.SHIPPED / "measured.json").read_text())
    cards = (model_files.SHIPPED / "README.md").read_text()
    for name, known in measured["weights"].items():
        card = cards.partition(f"## {name}.safetensors\n")[2].partition("\n## ")[0]
        data, classes, _ = known["on"].split()
        number = {"6": "six", "20": "20"}[classes]
        rows = re.findall(rf"^\| AP, {data.rstrip(',')}, {number}\b.*\| ([\d.]+) ?(.*) \|$", card, re.MULTILINE)
        assert [float(value) for value, _ in rows] == [known["ap"]], name
    readme = (ROOT / "README.md").read_text()
    for name, known in measured["presets"].items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}` |")).split("|")
        assert (float(row[2]), float(row[4])) == (known["ap"], known["seconds"])
    assert measured["weights"].keys() <= {one.name for one in list_models()}
    assert measured["presets"].keys() <= {one.name for one in list_presets()}


def test_ap_of_own_runs(models: Main, toy_checkpoint: Path) -> None:
    """By an evaluation of these weights alone, else by the epoch that was kept; never by a guess."""
    rows = '{"epoch": 2, "val_ap": 0.9}\n{"epoch": 3, "val_ap": 0.25}\n'
    run_of(Path("runs/cells"), toy_checkpoint, rows=rows)
    assert (describe("runs/cells").measured.ap, describe("runs/cells").measured.on) == (0.25, "val")
    sha256 = hashlib.sha256(toy_checkpoint.read_bytes()).hexdigest()
    for name, weights, ap in (("both", [sha256, sha256], 0.7), ("val", [sha256], 0.5), ("other", ["0" * 64], 0.6)):
        folder = Path("runs") / name
        folder.mkdir()
        (folder / "detections.jsonl").write_text(json.dumps({"journal": 1, "settings": {"weights": weights}}) + "\n")
        report = {"mean_ap": ap, "protocol": "voc", "counts": {"images": 7}}
        (folder / "report.json").write_text(json.dumps(report))
    model_facts._evaluations.cache_clear()
    assert (describe("runs/cells").measured.ap, describe("runs/cells").measured.on) == (0.5, "runs/val")
    (Path("runs/val/report.json")).write_text("{")
    model_facts._evaluations.cache_clear()
    assert describe("runs/cells").measured.ap == 0.25


def test_a_damaged_run_does_not_end_the_list(
    models: Main, toy_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(Path("runs/good"), toy_checkpoint)
    run_of(Path("runs/cut"), None, "[: no yaml")
    Path("runs/cut/best.safetensors").write_bytes(toy_checkpoint.read_bytes()[:500])
    assert models(["list"]) == 0
    out = capsys.readouterr().out
    assert "\nruns/good " in out
    assert "runs/cut" not in out
    assert models(["info", "runs/cut"]) == 1
    assert "runs/cut/best.safetensors is no safetensors file" in capsys.readouterr().err


def test_info(models: Main, toy_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert models(["info", "shared_voc0712"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("rejection layer: ") and line.endswith(".rejection.safetensors") for line in lines)
    assert any(line.startswith("ranges of activations") for line in lines)
    assert "presets: default, fast" in lines
    assert "command: python tools/train_classifier.py --config configs/shared_voc0712.yaml" in lines
    assert any(line.startswith("20 classes: aeroplane, bicycle") for line in lines)
    assert models(["info", "shared_voc0712.rejection"]) == 0
    assert "presets: default, fast" in capsys.readouterr().out
    run_of(Path("runs/cells"), toy_checkpoint)
    assert models(["info", "runs/cells"]) == 0
    out = capsys.readouterr().out
    assert "command: python tools/x.py\n" in out
    assert "presets: none\n2 classes: square, disc\n" in out
    save_file({"fc.weight": torch.zeros(2)}, "foreign.safetensors")
    assert models(["info", "foreign.safetensors"]) == 0
    assert "weights of another program" in capsys.readouterr().out
    assert models(["info", "multibox_voc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["header"]["head"]["priors"] == 400


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_the_list_fits_the_terminal(width: int) -> None:
    shown, presets = list_models(), list_presets()
    lines = format_list(shown, presets, width).splitlines()
    assert max(map(len, lines)) <= width
    names = {one.name for one in shown}
    assert names <= {line.split()[0] for line in lines if line}  # a name is to be pasted, and never cut
    if width >= 80:
        assert len(lines) == len(shown) + len(presets) + 4  # one block each
    assert max(map(len, format_info(shown[0], width).splitlines())) <= max(width, 72)  # a hash is not broken


# ---- export


def test_half_the_size_and_more_provenance(
    models: Main, toy_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(toy_checkpoint), "--format", "safetensors", "--output", "out/small.safetensors"]
    assert models([*arguments, "data=three shapes, a=b"]) == 0
    small = Path("out/small.safetensors")
    assert small.stat().st_size < 0.51 * toy_checkpoint.stat().st_size
    assert load_checkpoint(small).provenance == {"data": "three shapes, a=b"}
    stated = re.search(r"outputs as the model's to (\S+) of the largest", capsys.readouterr().out)
    one, other = load_checkpoint(toy_checkpoint), load_checkpoint(small)
    x = random_images(64, one.convention)
    with torch.no_grad():
        expected, found = one.network(x), other.network(x)
    share = ((found - expected).abs().max() / expected.abs().max()).item()
    assert stated
    assert float(stated[1]) == pytest.approx(share, rel=0.1)
    assert 0 < share < 1e-2


def test_an_onnx_model(models: Main, toy_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    run_of(Path("runs/cells"), toy_checkpoint)
    assert models(["export", "runs/cells", "--format", "onnx"]) == 0
    assert "cells.onnx: " in (out := capsys.readouterr().out)
    assert "logits as torch's to" in out
    classifier = load_any_classifier(toy_checkpoint)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.network(x)
    assert torch.allclose(OnnxNetwork(Path("cells.onnx").read_bytes())(x).logits, expected, rtol=1e-3, atol=1e-4)


def test_whole_images_are_exported_too(models: Main) -> None:
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, initialisation="xavier")).eval()
    save_checkpoint(Path("birds.safetensors"), ImageClassifier(network, InputConvention(), 64, ("a", "b", "c")))
    assert models(["export", "birds.safetensors", "--format", "safetensors", "--output", "half.safetensors"]) == 0
    assert load_any_classifier(Path("half.safetensors")).classes == ("a", "b", "c")


def test_what_does_not_agree_is_not_written(
    models: Main, toy_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = load_checkpoint(toy_checkpoint)
    with torch.no_grad():
        large.network.fc.weight[0, 0] = 1e6  # beyond float16
    save_checkpoint(Path("large.safetensors"), replace(large, provenance={}))
    assert models(["export", "large.safetensors", "--format", "safetensors", "--output", "small.safetensors"]) == 1
    assert "the outputs of the copy in float16 differ by inf; nothing was written" in capsys.readouterr().err
    monkeypatch.setattr("detector.network.export.to_onnx", lambda *_: b"")
    monkeypatch.setattr("detector.network.export.largest_difference", lambda *_: 0.01)
    assert models(["export", str(toy_checkpoint), "--format", "onnx"]) == 1
    assert "onnxruntime's logits differ from torch's by 1.0e-02; nothing was written" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["large.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("multibox_voc --format onnx", "is MultiBox, and ONNX is for classifiers"),
        ("shared_voc0712.rejection --format safetensors", "is a rejection layer"),
        ("nothing --format onnx", "no model nothing"),
        ("googlenet_voc --format safetensors --output text", "text: exists and is not weights"),
    ],
)
def test_refusals(models: Main, arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text").write_text("mine")
    assert models(["export", *arguments.split()]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert Path("text").read_text() == "mine"
    assert len(list(Path().iterdir())) == 1


def test_the_copy_of_shipped_weights_is_the_same(models: Main) -> None:
    assert models(["export", "shared_voc0712", "--format", "safetensors"]) == 0
    file = "shared_voc0712.safetensors"
    before, after = load_file(model_files.SHIPPED / file), load_file(file)
    assert all(torch.equal(before[name], after[name]) for name in before.keys() | after.keys())
