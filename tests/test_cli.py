"""The commands as a user types them: what they print, where, and with which exit status."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from detector.checkpoint import load_checkpoint, save_checkpoint
from detector.commands import COMMANDS
from detector.config import load_config
from detector.data.ground_truth import ClassTable
from detector.evaluation import DetectionTable, read_voc_truth, write_coco
from detector.experiments import detection_run
from detector.experiments.ablation import AblationConfig
from detector.experiments.evaluation_run import EvaluationConfig
from detector.pipeline import Detector
from detector.regions.warp import RegionConfig
from detector.settings import DetectorConfig
from detector.training.cascade import CascadeFitConfig
from detector.training.images import ImageTrainingConfig
from detector.training.multibox import MultiBoxTrainingConfig
from detector.training.regions import FineTuneConfig

ROOT = Path(__file__).parent.parent
Main = Callable[[list[str]], int]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run commands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(path: Path, mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], len(PIL.Image.new(mode, (1, 1)).getbands()))
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    PIL.Image.fromarray(pixels.squeeze(), mode).save(path)
    return path


def in_a_fresh_interpreter(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)


# ---- all commands


@pytest.mark.parametrize("name", COMMANDS)
def test_help_comes_at_once_and_ends_with_commands_to_paste(name: str) -> None:
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "except SystemExit as end: status = end.code\n"
        "print('slow imports:', sorted({'torch', 'cv2', 'numpy'} & set(sys.modules)), 'exit', status)\n"
    )
    done = in_a_fresh_interpreter(code, f"tools/{name}.py", "--help")
    lines = done.stdout.rstrip().splitlines()
    assert lines[-1] == "slow imports: [] exit 0"
    examples = lines[lines.index("examples:") + 1 : -1]
    assert examples
    beginnings = (f"  python tools/{name}.py", "  torchrun --nproc-per-node 2 tools/", "      ")  # or continues
    assert all(line.startswith(beginnings) for line in examples)


@pytest.mark.parametrize(("columns", "widest"), [(60, 60), (80, 80), (200, 100)])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_the_terminal(name: str, columns: int, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = importlib.import_module(f"detector.commands.{name}").parser().format_help()
    prose = text.partition("\noptions:")[2].partition("\nexamples:")[0]  # usage cuts no option in two
    assert max(map(len, prose.splitlines())) <= widest
    if columns == 200:
        assert max(map(len, prose.splitlines())) > 80


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("detect", ["--wrong"]),
        ("detect", []),
        ("detect", ["suppression.min_score=0.5"]),
        ("models", []),
        ("models", ["list", "googlenet_voc"]),
        ("models", ["info"]),
        ("models", ["info", "googlenet_voc", "--format", "onnx"]),
        ("models", ["export", "googlenet_voc"]),
        ("models", ["export", "googlenet_voc", "--format", "safetensors", "no topic"]),
        ("models", ["export", "googlenet_voc", "--format", "onnx", "data=x"]),
        ("eval_map", ["--annotations", "x"]),
        ("eval_map", ["data.kind=voc"]),
        ("eval_map", ["--protocol", "coco"]),
        ("train_classifier", ["--config", "x", "--resume", "maybe"]),
    ],
)
def test_wrong_usage_exits_2(
    tool: Callable[[str], Main], name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tool(name)(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_packages_are_imported_without_torch() -> None:
    code = "import detector, detector.evaluation, detector.settings, sys; print('torch' in sys.modules)"
    assert in_a_fresh_interpreter(code).stdout == "False\n"


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("default", DetectorConfig),
        ("fast", DetectorConfig),
        ("paper", DetectorConfig),
        ("regions_voc", FineTuneConfig),
        ("regions_paper", FineTuneConfig),
        ("regression_voc", FineTuneConfig),
        ("ensemble_voc", FineTuneConfig),
        ("shared_voc", FineTuneConfig),
        ("regions_voc0712", FineTuneConfig),
        ("shared_voc0712", FineTuneConfig),
        ("ilsvrc_regions", FineTuneConfig),
        ("objects_voc", ImageTrainingConfig),
        ("googlenet_imagenet", ImageTrainingConfig),
        ("multibox_voc", MultiBoxTrainingConfig),
        ("multibox_voc0712", MultiBoxTrainingConfig),
        ("ilsvrc_multibox", MultiBoxTrainingConfig),
        ("voc_test", EvaluationConfig),
        ("voc07_test", EvaluationConfig),
        ("ilsvrc_val2", EvaluationConfig),
        ("ablation_voc", AblationConfig),
        ("cascade_voc0712", CascadeFitConfig),
    ],
)
def test_shipped_configs_load_and_name_their_command(name: str, schema: type[object]) -> None:
    assert load_config(schema, name) == load_config(schema, ROOT / "configs" / f"{name}.yaml")
    commands = {
        DetectorConfig: "detect",
        EvaluationConfig: "eval_map",
        MultiBoxTrainingConfig: "train_multibox",
        AblationConfig: "ablate",
        CascadeFitConfig: "fit_cascade",
    }
    assert (
        f"# python tools/{commands.get(schema, 'train_classifier')}.py"
        in (ROOT / "configs" / f"{name}.yaml").read_text()
    )


def test_the_papers_preset_has_nothing_beyond_the_paper() -> None:
    paper = load_config(DetectorConfig, "paper")
    assert len(paper.models) == 6
    assert not any((paper.mirror, paper.regression, paper.cascade.applies, paper.suppression.soft_sigma))
    assert (paper.proposals.superpixel_scale, paper.proposals.multibox.limit) == (2.0, 200)
    training = load_config(FineTuneConfig, "regions_paper")
    assert training.regression_windows == 0
    assert training.regions == RegionConfig()
    assert (training.foreground_iou, training.background_iou, training.train_from) == (0.5, 0.5, "conv1")
    assert training.epochs * training.batches_per_epoch == 50_000


# ---- detect


@pytest.fixture
def detect(tool: Callable[[str], Main], workplace: Path, toy_checkpoint: Path) -> Main:
    """tools/detect.py with the toy network and few proposals; further arguments follow."""
    main = tool("detect")
    settings = [
        f"models=[{toy_checkpoint}]",
        "regression=false",
        "proposals.width=0",
        "proposals.min_width=8",
        "proposals.max_boxes=6",
    ]
    return lambda arguments: main([*arguments, *settings, "--device", "cpu"])


def test_detect_writes_what_it_found(detect: Main, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = noise(workplace / "photos" / "a.jpg")
    assert detect(["--output", "found", str(photo), "suppression.min_score=0"]) == 0
    record = json.loads((workplace / "found" / "a.json").read_text())
    keys = ["image", "width", "height", "detections", "min_scores", "regions", "seconds", "model"]
    assert list(record) == [*keys, "image_sha256", "settings_sha256"]
    assert (record["image"], record["width"], record["height"]) == (str(photo), 64, 48)
    assert set(record["seconds"]) == {"proposals", "warp", "network", "suppression"}
    assert record["regions"] == 6
    assert record["detections"]
    for found in record["detections"]:
        assert set(found) == {"label", "wnid", "score", "box"}
        assert found["label"] in ("square", "disc")
        assert 0 < found["score"] <= 1
        x1, y1, x2, y2 = found["box"]
        assert 0 <= x1 < x2 <= 64
        assert 0 <= y1 < y2 <= 48
    scores = [found["score"] for found in record["detections"]]
    assert scores == sorted(scores, reverse=True)
    with PIL.Image.open(workplace / "found" / "a_detections.jpg") as drawn:
        assert drawn.size == (64, 48)
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{photo}  64×48, 6 regions, ")
    done, found = captured.err.splitlines()[-2:]
    assert re.fullmatch(r"detect: 1 of 1 images done in .* a minute\); results in found/", done)
    assert found.startswith("detect: found ")


def test_detect_takes_grey_transparent_and_namesake_images(detect: Main, workplace: Path) -> None:
    noise(workplace / "photos" / "grey.png", "L")
    noise(workplace / "photos" / "clear.png", "RGBA")
    noise(workplace / "photos" / "same.png")
    noise(workplace / "photos" / "same.jpg")
    noise(workplace / "photos" / "deep" / "same.png")
    assert detect(["photos", "--recursive"]) == 0
    records = list((workplace / "detections").rglob("*.json"))
    names = {path.relative_to(workplace / "detections").as_posix() for path in records}
    assert names == {"grey.json", "clear.json", "same.jpg.json", "same.png.json", "deep/same.json"}
    images = {json.loads(path.read_text())["image"] for path in records}
    assert len(images) == 5


def test_one_bad_file_in_a_folder(detect: Main, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "c"):
        noise(workplace / "photos" / f"{name}.png")
    (workplace / "photos" / "b.jpg").write_text("this is a text")
    assert detect(["photos"]) == 1
    assert {path.name for path in (workplace / "detections").glob("*.json")} == {"a.json", "c.json"}
    summary = capsys.readouterr().err.splitlines()
    assert any(line.startswith("detect: 2 of 3 images done in ") for line in summary)
    assert summary[-1].startswith("detect:   photos/b.jpg: not an image in a known format")


def test_half_a_jpeg(detect: Main, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = noise(workplace / "whole.jpg").read_bytes()
    (workplace / "half.jpg").write_bytes(whole[: len(whole) // 2])
    assert detect(["half.jpg"]) == 1
    assert "detect: half.jpg: damaged or cut short" in capsys.readouterr().err
    assert not (workplace / "detections").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg"], "no such file or folder: nowhere.jpg"),
        (["empty"], "empty: no images in this folder: it is empty"),
        (["text.jpg", "supression.limit=3"], "no key 'supression.limit'. Did you mean 'suppression'?"),
        (["text.jpg", "suppression.limits=3"], "no key 'suppression.limits'. Did you mean 'suppression.limit'?"),
        (["text.jpg", "suppression.limit=many"], "suppression.limit must be int, not 'many'"),
        (["text.jpg", "suppression.limit=0"], "suppression.limit must be at least 1, not 0"),
        (["text.jpg", "--config", "nothing.yaml"], "nothing.yaml: no such config"),
        (["text.jpg", "--device", "warp"], "no device 'warp' here; there is cpu"),
        (["text.jpg", "models=[missing.safetensors]"], "no checkpoint missing.safetensors (shipped: "),
        (["text.jpg", "models=[text.jpg]"], "text.jpg is no safetensors file"),
    ],
)
def test_detect_refuses_in_one_line(
    tool: Callable[[str], Main],
    workplace: Path,
    toy_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (workplace / "empty").mkdir()
    (workplace / "text.jpg").write_text("this is a text")
    assert tool("detect")([f"models=[{toy_checkpoint}]", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("detect: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (workplace / "detections").exists()


GARBAGE = {
    "empty": b"",
    "text": b"no such thing\n",
    "binary": bytes(range(256)),
    "list.json": b"[1, 2]",
    "number.json": b"3",
    "cut.json": b'{"images": [{"id": 1',
    "cut.npz": b"PK\x03\x04" + bytes(60),
    "latin.yaml": b"name: caf\xe9\n",
}
GARBAGE_NAMES = (*GARBAGE, "folder", "nowhere", "x" * 300, "two\nlines", os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("detect", "a.png models=[@]"),
        ("detect", "a.png proposals.multibox.weights=@"),
        ("detect", "a.png --config @ models=[]"),
        ("classify", "@"),
        ("classify", "a.png --models @"),
        ("classify", "a.png --device @"),
        ("eval_map", "--protocol voc --detections @ --annotations @ --image-list @"),
        ("eval_map", "--protocol ilsvrc --detections @ --annotations @ --image-list @ --blacklist @"),
        ("eval_map", "--protocol coco --detections @ --annotations @"),
        ("eval_map", "--config @"),
        ("eval_map", "--config voc_test data.root=@"),
        ("eval_classifier", "--combine @"),
        ("eval_classifier", "@ --models googlenet_voc"),
        ("eval_classifier", "classes --models @"),
        ("models", "info @"),
        ("models", "export @ --format safetensors"),
        ("models", "export @ --format onnx"),
        ("extract_proposals", "data.kind=coco data.root=. data.annotations=@ data.images=."),
        ("train_classifier", "--config @"),
        ("train_classifier", "--config regions_voc init=@"),
        ("train_classifier", "--config regions_voc train.root=@"),
        ("train_multibox", "--config @"),
        ("train_multibox", "--config multibox_voc train.root=@"),
        ("ablate", "--config @"),
        ("fit_cascade", "--config @"),
        ("fit_cascade", "train.root=@"),
        ("fit_cascade", "detector.models=[@]"),
        ("eval_proposals", "--config @"),
        ("eval_proposals", "--config proposals_voc data.root=@"),
        ("eval_proposals", "--config proposals_voc stores.mine=@"),
        ("budget", "@"),
        ("detector_speed", "@"),
        ("proposal_speed", "--config @"),
        ("describe_model", "@"),
        ("describe_model", "norm=@"),
        ("describe_model", "width=99"),
        ("describe_model", "classes=0"),
    ],
)
def test_garbage_is_told_in_lines(
    tool: Callable[[str], Main],
    workplace: Path,
    name: str,
    arguments: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    noise(workplace / "a.png")
    for label in "ab":
        noise(workplace / "classes" / label / "1.png")
    for file, content in GARBAGE.items():
        (workplace / file).write_bytes(content)
    (workplace / "folder").mkdir()
    main = tool(name)
    for word in GARBAGE_NAMES if "@" in arguments else ("",):
        try:
            code: object = main([text.replace("@", word) for text in arguments.split()])
        except SystemExit as stop:
            code = stop.code
        assert code == 1, word
        captured = capsys.readouterr()
        assert captured.out == "", word
        assert captured.err, word
        lines = [line for line in captured.err.splitlines() if "resuming" not in line]
        assert all(line.startswith(f"{name}: ") for line in lines), (word, lines)


@pytest.mark.parametrize("arguments", [["--size", "1"], ["--size", "-5"], ["--size", "x"]])
def test_describe_model_needs_an_input(tool: Callable[[str], Main], arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tool("describe_model")(arguments)


def test_members_of_other_classes(
    tool: Callable[[str], Main], workplace: Path, toy_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = load_checkpoint(toy_checkpoint)
    other.network.replace_classifier(4)
    classes = ClassTable(("square", "disc", "cone"), (None,) * 3, (1, 2, 3))
    save_checkpoint(workplace / "three.safetensors", replace(other, classes=classes))
    noise(workplace / "a.png")
    assert tool("detect")(["a.png", f"models=[{toy_checkpoint},three.safetensors]"]) == 1
    first = f"the first ({toy_checkpoint})"
    assert capsys.readouterr().err == (
        f"detect: model 2 of 2 (three.safetensors) and {first} have different classes: {first} lacks cone\n"
    )


def test_detect_interrupted(
    detect: Main, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Detector, "score_many", stop)
    noise(workplace / "a.png")
    assert detect(["a.png"]) == 130
    assert "detect: stopped; what was printed is done; --resume goes on" in capsys.readouterr().err


# ---- eval_map


@pytest.fixture
def data(shapes: Path) -> list[str]:
    return ["data.kind=voc", f"data.root={shapes}", "data.split=val", "data.classes=[square,disc]"]


def truth(shapes: Path, path: Path) -> Path:
    """The ground truth of the val split as detections."""
    real = read_voc_truth(shapes / "Annotations", shapes / "ImageSets/Main/val.txt", ("square", "disc"))
    scores = np.linspace(0.9, 0.5, len(real.labels))
    write_coco(path, real, DetectionTable(real.image_index, real.labels, scores, real.boxes, real.convention))
    return path


@pytest.mark.parametrize("protocol", ["voc", "coco"])
def test_perfect_and_no_detections(
    tool: Callable[[str], Main],
    workplace: Path,
    shapes: Path,
    data: list[str],
    protocol: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    perfect = truth(shapes, workplace / "perfect.json")
    (workplace / "none.json").write_text("[]")
    for path, value in ((perfect, 1.0), (workplace / "none.json", 0.0)):
        arguments = ["--detections", str(path), *data, f"protocol={protocol}", "--json", "report.json"]
        arguments += ["--save", f"saved_{path.name}"]
        assert tool("eval_map")(arguments) == 0
        capsys.readouterr()
        assert tool("eval_map")(arguments) == 0
        report = json.loads((workplace / "report.json").read_text())
        assert report["mean_ap"] == pytest.approx(value)
        assert report["ap"] == {"square": pytest.approx(value), "disc": pytest.approx(value)}
        captured = capsys.readouterr()
        assert f"{value:.4f}" in captured.out
        nothing = f"eval_map: warning: {path}: contains no detections; every AP is 0\n"
        assert captured.err == ("" if value else nothing)
    assert not (workplace / "runs").exists()


def test_scoring_needs_neither_torch_nor_photographs(workplace: Path, shapes: Path, data: list[str]) -> None:
    bare = workplace / "bare"
    shutil.copytree(shapes, bare, ignore=shutil.ignore_patterns("*.png"))
    code = (
        "import runpy, sys\n"
        "main = runpy.run_path('tools/eval_map.py')['main']\n"
        "print(main(sys.argv[1:]), 'torch' in sys.modules)\n"
    )
    arguments = [text.replace(str(shapes), str(bare)) for text in data]
    perfect = truth(shapes, workplace / "perfect.json")
    done = in_a_fresh_interpreter(code, "--detections", str(perfect), *arguments)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


@pytest.fixture
def evaluate(
    tool: Callable[[str], Main], workplace: Path, toy_checkpoint: Path, data: list[str], tmp_path_factory: Any
) -> Main:
    """tools/eval_map.py with the toy detector; further arguments follow."""
    (workplace / "toy.yaml").write_text(
        "name: toy\n"
        "detector:\n"
        f"  models: [{toy_checkpoint}]\n"
        "  proposals: {width: 0, min_width: 8, max_boxes: 8}\n"
        "groups: {round: [disc], all: [square, disc]}\n"
    )
    main = tool("eval_map")
    return lambda arguments: main(["--config", "toy.yaml", "--device", "cpu", *data, *arguments])


def test_an_interrupted_evaluation_goes_on_to_the_same_report(
    evaluate: Main, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, seen = detection_run._record_stages, []

    def stop_at_the_second(*arguments: Any) -> None:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        record(*arguments)

    assert evaluate(["name=whole"]) == 0
    table = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(detection_run, "_record_stages", stop_at_the_second)
        assert evaluate([]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("eval_map: stopped; the same command")
    assert not (workplace / "runs/toy/report.json").exists()

    journal = workplace / "runs/toy/detections.jsonl"
    assert evaluate(["--detections", str(journal)]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert f"{journal}: 2 of 3 images" in warning
    assert "val1" in warning

    assert evaluate([]) == 0
    captured = capsys.readouterr()
    assert captured.out == table
    assert "resuming runs/toy/detections.jsonl: 1 of 3 images are done" in captured.err
    whole, resumed = workplace / "runs/whole", workplace / "runs/toy"
    assert sorted(path.name for path in resumed.iterdir()) == [
        "config.yaml",
        "detections.json",
        "detections.jsonl",
        "fates.jsonl",
        "operating_points.json",
        "perfect_classifier.jsonl",
        "perfect_proposals.jsonl",
        "perfect_suppression.jsonl",
        "report.json",
    ]
    for name in ("report.json", "detections.json", "detections.jsonl"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    report = json.loads((resumed / "report.json").read_text())
    assert report["summary"] == {
        "mean of round": report["ap"]["disc"],
        "mean of all": pytest.approx(report["mean_ap"]),
    }
    assert load_config(EvaluationConfig, resumed / "config.yaml").detector.proposals.max_boxes == 8

    assert evaluate(["--detections", str(journal)]) == 0  # complete: no warning, the same numbers
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (table, "")


def test_a_data_set_meets_the_detector_by_the_names_of_its_classes(
    evaluate: Main, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In any order; and which of them the detector does not know is said."""
    scores = {}
    for name, classes in (("one", "square,disc"), ("other", "disc,square"), ("more", "cone,disc,square")):
        assert evaluate([f"name={name}", f"data.classes=[{classes}]"]) == 0
        scores[name] = json.loads((workplace / f"runs/{name}/report.json").read_text())["ap"]
        assert ("cone" in capsys.readouterr().err) == (name == "more")
    assert scores["one"] == scores["other"] == {key: scores["more"][key] for key in ("square", "disc")}


def test_a_resized_photograph_is_refused_or_left_out_of_the_whole_evaluation(
    evaluate: Main, workplace: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(shapes, workplace / "resized")
    photograph = workplace / "resized/JPEGImages/val1.png"
    PIL.Image.open(photograph).resize((48, 40)).save(photograph)
    assert evaluate(["data.root=resized"]) == 1
    assert re.search(r"1 of 3 (.|\n)*val1\.png(.|\n)*size_mismatch=skip", capsys.readouterr().err)
    assert evaluate(["data.root=resized", "data.size_mismatch=skip"]) == 0
    assert "1 (first: val1.png)" in capsys.readouterr().err
    counts = json.loads((workplace / "runs/toy/report.json").read_text())["counts"]
    assert (counts["images"], counts["objects"]) == (2, 4)
    journal = (workplace / "runs/toy/detections.jsonl").read_text()
    assert "val0" in journal
    assert "val1" not in journal


def test_a_journal_of_other_settings_is_refused_and_its_config_stays(
    evaluate: Main, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate([]) == 0
    before = (workplace / "runs/toy/config.yaml").read_text()
    capsys.readouterr()
    assert evaluate(["detector.suppression.max_iou=0.4"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(
        "eval_map: runs/toy/detections.jsonl: made with detector.suppression.max_iou = 0.3, now 0.4. "
    )
    assert (workplace / "runs/toy/config.yaml").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.root=nowhere"], "no data set folder 'nowhere'; set data.root=DIR"),
        (["data.split=test"], "no split 'test' in"),
        (["detectors.batch=3"], "no key 'detectors.batch'. Did you mean 'detector'?"),
        (["protocol=pascal"], "protocol must be one of ilsvrc, voc, voc07, coco, not 'pascal'"),
        (["min_iou=0"], "min_iou must be in (0, 1], not 0"),
        (["protocol=coco", "min_iou=0.7"], "0.50 to 0.95; leave min_iou out"),
        (["--detections", "none.json"], "none.json: cannot read: no such file or directory"),
        (["--detections", "toy.yaml"], "toy.yaml: line 1: expected 7 numbers, image number, class number, confidence"),
        (["groups.odd=[cone]"], "groups.odd: shapes val has no class cone"),
        (["--detections", "empty.json", "groups.odd=[cone]"], "groups.odd: shapes val has no class cone"),
    ],
)
def test_eval_map_refuses_in_one_line(
    evaluate: Main, workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (workplace / "empty.json").write_text("[]")
    assert evaluate(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("eval_map: ")
    assert message in captured.err
    assert len([line for line in captured.err.splitlines() if "warning: " not in line]) == 1
    assert not (workplace / "runs").exists()


def test_a_file_scored_explained_compared_and_converted(
    tool: Callable[[str], Main], workplace: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    perfect = truth(shapes, workplace / "perfect.json")
    entries = json.loads(perfect.read_text())
    (workplace / "half.json").write_text(json.dumps(entries[::2]))
    arguments = ["--protocol", "voc", "--annotations", str(shapes / "Annotations"), "--classes", "square,disc"]
    arguments += ["--image-list", str(shapes / "ImageSets/Main/val.txt"), "resamples=50"]
    more = ["--compare", "half.json", "--diagnose", "--report", "out/page.html", "--json", "out/scores.json"]
    assert tool("eval_map")([*arguments, "--detections", str(perfect), *more, "--save", "out/comp4"]) == 0
    out = capsys.readouterr().out
    assert tool("eval_map")([*arguments, "--detections", str(perfect), *more, "--save", "out/comp4"]) == 0
    assert capsys.readouterr().out == out  # and what the first one wrote is written again
    for text in ("perfect.json               1.0000", "half.json", "statistically significant: p = 0.", "missed"):
        assert text in out, out
    content = json.loads((workplace / "out/scores.json").read_text())
    assert content["comparison"]["pairs"][0]["difference"]["value"] < 0
    assert content["interval"] == {"value": 1.0, "low": 1.0, "high": 1.0, "resamples": 50}
    assert content["diagnosis"]["counts"]["missed"] == 0
    assert "1.0000" in (workplace / "out/page.html").read_text()
    assert tool("eval_map")([*arguments, "--detections", "out/comp4", "--json", "again.json"]) == 0
    assert json.loads((workplace / "again.json").read_text())["ap"] == content["ap"]
    assert tool("eval_map")([*arguments, "--detections", str(perfect), "--save", "out/submission.txt"]) == 1
    assert "out/submission.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--annotations", "x"], "--annotations are for scoring a file: give --detections too"),
        (["--config", "voc_test", "--annotations", "x"], "--annotations are for scoring a file: give --detections too"),
        (["--boxes", "xyxy", "data.root=x"], "--boxes is for the files of --detections"),
    ],
)
def test_eval_map_says_what_else_it_needs(
    tool: Callable[[str], Main], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tool("eval_map")(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_ilsvrc_from_the_tree_to_the_submission(
    tool: Callable[[str], Main],
    workplace: Path,
    shapes: Path,
    toy_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A detector of two of the 200 classes and one of none, known by their WordNet ids."""
    wnids = {"square": "n02672831", "disc": "n02691156"}
    tree = workplace / "ILSVRC"
    for folder in ("ImageSets/DET", "Annotations/DET/val", "Data/DET/val"):
        (tree / folder).mkdir(parents=True)
    (tree / "ImageSets/DET/val9.txt").write_text("val0 31\nval1 7\nval2 90\n")
    for name in ("val0", "val1", "val2"):
        text = (shapes / f"Annotations/{name}.xml").read_text()
        for shape, wnid in wnids.items():
            text = text.replace(f"<name>{shape}</name>", f"<name>{wnid}</name>")
        (tree / f"Annotations/DET/val/{name}.xml").write_text(text)
        PIL.Image.open(shapes / f"JPEGImages/{name}.png").save(tree / f"Data/DET/val/{name}.JPEG", quality=95)
    member = load_checkpoint(toy_checkpoint)
    known = replace(member, classes=ClassTable(("square", "disc"), (wnids["disc"], "n00000001"), (1, 2)))
    save_checkpoint(workplace / "two.safetensors", known)
    arguments = ["--config", "ilsvrc_val2", "--device", "cpu", "data.root=ILSVRC", "data.split=val9", "name=nine"]
    arguments += ["detector.models=[two.safetensors]", "detector.proposals.width=0", "detector.proposals.min_width=8"]
    arguments += ["detector.regression=false", "detector.proposals.multibox.weights="]
    assert tool("eval_map")([*arguments, "--diagnose"]) == 0
    captured = capsys.readouterr()
    assert "1 of the detector's 2 classes are among the 200 of ILSVRC val9" in captured.err
    assert "eval_map: wrote runs/nine/detections.txt" in captured.err
    assert captured.out.startswith("ILSVRC DET, ")
    assert "of a class that the detector does not know       3" in captured.out
    lines = (workplace / "runs/nine/detections.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines} <= {"31", "7", "90"}
    assert {line.split()[1] for line in lines} == {"2"}  # airplane's number
    report = json.loads((workplace / "runs/nine/report.json").read_text())
    assert report["counts"]["classes_without_ground_truth"] == 198
    assert report["ap"].keys() >= set(wnids.values())
    assert report["plain_ap"][wnids["square"]] == 0  # nobody looks for it
    assert sum(report["fates"].values()) == 6

    assert tool("eval_map")(arguments) == 0  # all images are done
    assert "resuming runs/nine/detections.jsonl: 3 of 3 images are done" in capsys.readouterr().err
    assert tool("eval_map")([*arguments, "score=0.7"]) == 0  # the stages were recorded at another score
    other = json.loads((workplace / "runs/nine/report.json").read_text())
    assert "fates" not in other
    assert any("stages are left out" in line and "at score 0.7" in line for line in other["warnings"])
    arguments = ["--protocol", "ilsvrc", "--detections", "runs/nine/detections.txt", "--json", "again.json"]
    arguments += ["--annotations", "ILSVRC/Annotations/DET/val", "--image-list", "ILSVRC/ImageSets/DET/val9.txt"]
    assert tool("eval_map")(arguments) == 0
    again = json.loads((workplace / "again.json").read_text())
    assert again["ap"] == report["ap"]
    assert again["mean_ap"] == report["mean_ap"]


def test_a_split_without_annotations_gets_its_submission(
    tool: Callable[[str], Main],
    workplace: Path,
    shapes: Path,
    toy_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = workplace / "ILSVRC"
    for folder in ("ImageSets/DET", "Data/DET/test"):
        (tree / folder).mkdir(parents=True)
    (tree / "ImageSets/DET/test.txt").write_text("val0 3\nval1 1\n")
    for name in ("val0", "val1"):
        PIL.Image.open(shapes / f"JPEGImages/{name}.png").save(tree / f"Data/DET/test/{name}.JPEG")
    member = load_checkpoint(toy_checkpoint)
    wnids = ("n02672831", "n02691156")
    save_checkpoint(workplace / "m.safetensors", replace(member, classes=replace(member.classes, wnids=wnids)))
    arguments = ["--config", "ilsvrc_val2", "data.root=ILSVRC", "data.split=test", "name=test", "--device", "cpu"]
    arguments += ["detector.models=[m.safetensors]", "detector.proposals.width=0", "detector.proposals.min_width=8"]
    arguments += ["detector.regression=false", "detector.proposals.multibox.weights="]
    assert tool("eval_map")([*arguments, "--save", "mine.txt", "--json", "scores.json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "eval_map: ILSVRC test has no annotated objects, so there is nothing to score" in captured.err
    submission = (workplace / "mine.txt").read_text()
    assert submission == (workplace / "runs/test/detections.txt").read_text()
    assert {line.split()[0] for line in submission.splitlines()} == {"1", "3"}
    assert not (workplace / "scores.json").exists()
    assert tool("eval_map")(["--detections", "mine.txt", "protocol=ilsvrc", *arguments[2:4], "data.kind=ilsvrc"]) == 1
    assert "no ground truth in 2 images" in capsys.readouterr().err


# ---- train_classifier


@pytest.fixture
def train(tool: Callable[[str], Main], workplace: Path, shapes: Path, toy_checkpoint: Path) -> Iterator[Main]:
    """tools/train_classifier.py with a linear fit to the shapes; further arguments follow."""
    split = f"kind: voc, root: {shapes}, classes: [square, disc]"
    (workplace / "toy.yaml").write_text(
        f"name: toy\ninit: {toy_checkpoint}\n"
        f"train: {{{split}, split: train}}\nval: {{{split}, split: val}}\n"
        "proposals: {width: 0, min_width: 8}\nregions: {size: 64, context: 4}\n"
        "train_from: none\nlinear_batches: 1\nval_batches: 1\nbatch: 4\nforeground: 2\nworkers: 0\n"
    )
    main = tool("train_classifier")
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda arguments: main(["--config", "toy.yaml", "--device", "cpu", *arguments])
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("windows", [0, 4])
def test_train_ends_with_the_next_command(
    train: Main,
    tool: Callable[[str], Main],
    workplace: Path,
    windows: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train([f"regression_windows={windows}"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    heading, row = (line.split() for line in captured.err.splitlines() if re.search(r": +(epoch|0/10) +", line))
    assert heading == ["train_classifier:", "epoch", "loss", "val", "loss", "data", "compute", "ETA"]
    assert row[1] == "0/10"
    assert all(len(line) <= 80 for line in captured.err.splitlines() if re.search(r": +(epoch|0/10) +", line))
    assert lines == [
        "done: runs/toy/report.html",
        "evaluate: python tools/eval_map.py --config runs/toy/evaluation.yaml",
        "detect: python tools/detect.py image.jpg --config runs/toy/detector.yaml",
    ]
    noise(workplace / "image.jpg")
    assert tool("detect")(lines[-1].split()[3:]) == 0
    assert train([]) == 1
    assert "train_classifier: runs/toy has a run already; --resume auto continues it" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["dataset_proposals", "FineTuning.fit_last_layer"])
def test_train_interrupted(
    train: Main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)  # how a scheduler stops a job

    monkeypatch.setattr(f"detector.training.run.{moment}", stop)
    assert train([]) == 130
    assert "--resume auto" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init=nowhere.safetensors"], "no pretrained weights nowhere.safetensors; set init=FILE"),
        (["init=toy.yaml"], "toy.yaml is no safetensors file"),
        (["train.root=nowhere"], "no data set folder 'nowhere'; set data.root=DIR"),
        (["train.root=empty"], "no XML files in empty, nor lists in empty/ImageSets/Main; check data.root"),
        (["train.root=bare"], "bare train: all 4 images are not there"),
        (["learning_rates=1"], "no key 'learning_rates'. Did you mean 'learning_rate'?"),
        (["batch=1.5"], "batch must be int, not 1.5"),
        (["--device", "warp"], "no device 'warp' here"),
    ],
)
def test_train_refuses_in_one_line(
    train: Main,
    workplace: Path,
    shapes: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (workplace / "empty").mkdir()
    shutil.copytree(shapes, workplace / "bare", ignore=shutil.ignore_patterns("*.png"))
    assert train(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("train_classifier: ")
    assert message in captured.err
    assert len([line for line in captured.err.splitlines() if "warning: " not in line]) == 1
    assert not (workplace / "runs").exists()
