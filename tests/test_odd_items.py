"""One odd file among good ones, in every command: it is named, the rest is done, the exit code is 1."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from detector.checkpoint import RegionClassifier, load_checkpoint, save_checkpoint
from detector.data.ground_truth import ClassTable
from detector.data.image import ImageError
from detector.data.readable import Reader
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.regions.warp import RegionConfig
from proposals.store import ProposalStore

Main = Callable[[list[str]], int]
ROOT = Path(__file__).parent.parent
PROPOSALS = ["width=0", "min_width=8", "max_boxes=6"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow region classifier of the two shapes."""
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25)).eval()
    convention = InputConvention(mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0))
    classes = ClassTable(("square", "disc"), (None, None), (1, 2))
    path = tmp_path_factory.mktemp("weights") / "narrow.safetensors"
    save_checkpoint(path, RegionClassifier(network, convention, RegionConfig(size=64, context=4), classes))
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(path: Path, seed: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


RAW = os.fsdecode(b"caf\xe9.png")  # a name that is not UTF-8


def text(path: Path) -> None:
    path.write_text("no image")


def cut(path: Path) -> None:
    """Its header is whole, and states the size of the image that was there."""
    size = (64, 48)
    if path.exists():
        with PIL.Image.open(path) as image:
            size = image.size
    noise(path, size=size)
    path.write_bytes(path.read_bytes()[:500])


def vanish(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.parent / "gone")


def empty(path: Path) -> None:
    path.write_bytes(b"")


ODD = [text, cut, vanish, empty]


@pytest.fixture
def photos(workplace: Path) -> Path:
    """Two good photographs, one of a name that is not UTF-8, to the sides of an odd one in the middle."""
    for number, name in enumerate(("a.png", "z.png", RAW)):
        noise(workplace / "photos" / name, number)
    return workplace / "photos"


def detect_arguments(weights: Path) -> list[str]:
    settings = [f"models=[{weights}]", "regression=false", *(f"proposals.{setting}" for setting in PROPOSALS)]
    return [*settings, "--device", "cpu"]


@pytest.mark.parametrize("odd", ODD)
def test_detect(
    tool: Callable[[str], Main],
    photos: Path,
    weights: Path,
    odd: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd(photos / "m.png")
    assert tool("detect")(["photos", *detect_arguments(weights)]) == 1
    captured = capsys.readouterr()
    assert "detect: photos/m.png: " in captured.err
    assert sorted(path.name for path in Path("detections").glob("*.json")) == ["a.json", f"{RAW[:-4]}.json", "z.json"]
    assert captured.out.count("photos/") == 3


@pytest.mark.parametrize("arguments", [["--", "-a.png"], ["a=b.png"], ["./a=b.png"], ["-a=b.png"]])
def test_detect_takes_awkward_names(
    tool: Callable[[str], Main], workplace: Path, weights: Path, arguments: list[str]
) -> None:
    name = arguments[-1].removeprefix("./")
    noise(workplace / name)
    words = arguments if "--" in arguments or not name.startswith("-") else ["--", *arguments]
    assert tool("detect")([*detect_arguments(weights), *words]) == 0
    assert [path.name for path in Path("detections").glob("*.json")] == [f"{name[:-4]}.json"]


def test_detect_on_its_own_results(
    tool: Callable[[str], Main], photos: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the photographs results are no photographs, and a second run replaces the first one's."""
    for _ in range(2):
        assert tool("detect")(["photos", "--output", "photos", *detect_arguments(weights)]) == 0
    assert len(list(photos.iterdir())) == 3 * 3
    assert "detect: 3 results of an earlier detect are left out" in capsys.readouterr().err
    assert tool("detect")(["photos/a_detections.jpg", "--output", "new", *detect_arguments(weights)]) == 0


def test_detect_where_one_source_is_missing(
    tool: Callable[[str], Main], photos: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos.parent / "bare").mkdir()
    words = ["bare", "photos/a.png", "gone.png", "photos/../photos/a.png", "x" * 300]
    assert tool("detect")([*words, *detect_arguments(weights)]) == 1
    captured = capsys.readouterr()
    assert [path.name for path in Path("detections").glob("*.json")] == ["a.json"]
    for word in ("bare", "gone.png", "xxxx"):
        assert any(line.startswith("detect: ") and word in line for line in captured.err.splitlines())


@pytest.mark.parametrize("odd", ODD)
def test_classify(
    tool: Callable[[str], Main],
    photos: Path,
    weights: Path,
    odd: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd(photos / "m.png")
    assert tool("classify")(["photos", "gone.png", "--models", str(weights), "--crops", "1", "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "classify: photos/m.png: " in captured.err
    assert "gone.png" in captured.err
    titles = [line for line in captured.out.splitlines() if not line.startswith(" ")]
    assert len(titles) == 3
    assert len(captured.out.splitlines()) == 3 * 4  # three classes, background among them


@pytest.mark.parametrize("odd", ODD)
def test_extract_proposals(
    tool: Callable[[str], Main], photos: Path, odd: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    odd(photos / "m.png")
    settings = ["--output", "store", "workers=1", *(f"proposals.{setting}" for setting in PROPOSALS)]
    assert tool("extract_proposals")(["photos", *settings]) == 1
    captured = capsys.readouterr()
    assert "extract_proposals: photos/m.png: " in captured.err
    store = ProposalStore(Path("store"))
    assert len(store) == 3
    assert all(len(store.get(path.name, path.read_bytes()).boxes) for path in photos.glob("[!m]*.png"))
    (photos / "m.png").unlink()
    noise(photos / "m.png", 9)
    assert tool("extract_proposals")(["photos", *settings]) == 0  # mended
    assert len(ProposalStore(Path("store"))) == 4


@pytest.mark.parametrize("content", [b"", b"mine", np.lib.format.MAGIC_PREFIX])
@pytest.mark.parametrize("name", ["boxes.npy", "scores.npy", "manifest.json", "journal.jsonl"])
def test_extract_proposals_replaces_no_file_of_others(
    tool: Callable[[str], Main], photos: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    if not content and name == "journal.jsonl":
        pytest.skip("a journal that a kill left empty looks the same")
    (photos / name).write_bytes(content)
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert tool("extract_proposals")(["photos", "--output", "photos", "workers=1"]) == 1
    assert {path: path.read_bytes() for path in photos.iterdir()} == before
    assert capsys.readouterr().err.splitlines()[-1].startswith("extract_proposals: photos")


# ---- data sets


@pytest.fixture
def tree(workplace: Path, shapes: Path) -> Path:
    """The toy data set in a folder of the test's own; val1 is the image that goes wrong."""
    shutil.copytree(shapes, workplace / "tree")
    return workplace / "tree"


def split(name: str) -> list[str]:
    return ["data.kind=voc", "data.root=tree", f"data.split={name}", "data.classes=[square,disc]"]


@pytest.mark.parametrize("odd", ODD)
def test_eval_map(
    tool: Callable[[str], Main],
    tree: Path,
    weights: Path,
    odd: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("toy.yaml").write_text(
        f"name: toy\ndetector:\n  models: [{weights}]\n  proposals: {{width: 0, min_width: 8, max_boxes: 8}}\n"
    )
    arguments = ["--config", "toy.yaml", "--device", "cpu", *split("val"), "resamples=0"]
    photograph = tree / "JPEGImages/val1.png"
    content = photograph.read_bytes()
    odd(photograph)
    assert tool("eval_map")(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("PASCAL VOC")
    assert any(line.startswith("eval_map: ") and "val1.png: " in line for line in captured.err.splitlines())
    assert "1 images could not be read" in captured.err
    report = json.loads(Path("runs/toy/report.json").read_text())
    assert report["counts"]["images"] == 3
    assert any("val1.png" in line for line in report["warnings"])
    done = [json.loads(line)["image_id"] for line in Path("runs/toy/detections.jsonl").read_text().splitlines()[1:]]
    assert sorted(done) == ["val0", "val2"]

    photograph.unlink()
    photograph.write_bytes(content)
    assert tool("eval_map")(arguments) == 0  # mended: the same command fills the gap
    assert "could not be read" not in capsys.readouterr().err
    done = [json.loads(line)["image_id"] for line in Path("runs/toy/detections.jsonl").read_text().splitlines()[1:]]
    assert sorted(done) == ["val0", "val1", "val2"]


def test_eval_map_without_any_image(
    tool: Callable[[str], Main], tree: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tree / "JPEGImages").iterdir():
        path.write_text("no image")
    Path("toy.yaml").write_text(f"name: toy\ndetector: {{models: [{weights}]}}\n")
    assert tool("eval_map")(["--config", "toy.yaml", "--device", "cpu", *split("val")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_ablate(tool: Callable[[str], Main], tree: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.yaml").write_text(
        f"name: table\nproposals: {{few: {{width: 0, min_width: 8, max_boxes: 6}}}}\nresamples: 10\n"
        f"rows: {{one: {{proposals: few, models: [{weights}]}}}}\n"
    )
    text(tree / "JPEGImages/val1.png")
    arguments = ["--config", "table.yaml", "--device", "cpu", *split("val")]
    for _ in range(2):  # the second takes all from the caches, and writes the table again
        assert tool("ablate")(arguments) == 1
        captured = capsys.readouterr()
        assert "3 images, voc" in captured.out
        assert any(line.startswith("ablate: ") and "val1.png: " in line for line in captured.err.splitlines())
    Path("runs/table/table.md").write_text("my own notes\n")
    assert tool("ablate")(arguments) == 1
    assert Path("runs/table/table.md").read_text() == "my own notes\n"


@pytest.mark.parametrize("odd", ODD)
def test_eval_classifier(
    tool: Callable[[str], Main],
    workplace: Path,
    weights: Path,
    odd: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for label in ("square", "disc"):
        for number in range(3):
            noise(workplace / "data" / label / f"{number}.png", number)
    odd(workplace / "data/square/1.png")
    arguments = ["data", "--models", str(weights), "--crops", "1", "10", "--save", "kept", "--device", "cpu"]
    for _ in range(2):  # the second run replaces the first one's predictions
        assert tool("eval_classifier")(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.count("eval_classifier: data/square/1.png: ") == 2  # once a run
    rows = [line.split() for line in captured.out.splitlines()]
    assert [row[-1] for row in rows[1:3]] == ["5", "5"]
    Path("kept/narrow_1.npz").write_bytes(b"PK\x03\x04 my archive")
    assert tool("eval_classifier")(arguments) == 1
    assert Path("kept/narrow_1.npz").read_bytes() == b"PK\x03\x04 my archive"


@pytest.mark.parametrize("odd", ODD)
def test_region_training(
    tool: Callable[[str], Main],
    tree: Path,
    weights: Path,
    odd: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = "kind: voc, root: tree, classes: [square, disc]"
    Path("toy.yaml").write_text(
        f"name: toy\ninit: {weights}\ntrain: {{{data}, split: train}}\nval: {{{data}, split: val}}\n"
        "proposals: {width: 0, min_width: 8}\nregions: {size: 64, context: 4}\ntrain_from: none\n"
        "linear_batches: 1\nval_batches: 1\nbatch: 4\nforeground: 2\nworkers: 0\nregression_windows: 0\n"
    )
    odd(tree / "JPEGImages/train1.png")
    assert tool("train_classifier")(["--config", "toy.yaml", "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "train1.png: " in captured.err
    assert "shapes" not in captured.err
    assert "3 images" in captured.err
    assert load_checkpoint(Path("runs/toy/best.safetensors")).classes.names == ("square", "disc")
    assert captured.err.splitlines()[-1].startswith("train_classifier: ")


@pytest.mark.parametrize("name", ["config.yaml", "best.safetensors", "metrics.jsonl"])
def test_training_and_evaluation_leave_folders_of_others_alone(
    tool: Callable[[str], Main], tree: Path, weights: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "kind: voc, root: tree, classes: [square, disc]"
    Path("toy.yaml").write_text(
        f"name: toy\ninit: {weights}\ntrain: {{{data}, split: train}}\nval: {{{data}, split: val}}\n"
        "regions: {size: 64, context: 4}\n"
    )
    Path("runs/toy").mkdir(parents=True)
    Path("runs/toy", name).write_text("mine\n")
    commands = [("train_classifier", ["--config", "toy.yaml"])]
    if name == "config.yaml":
        Path("evaluation.yaml").write_text(f"name: toy\ndetector: {{models: [{weights}]}}\n")
        commands.append(("eval_map", ["--config", "evaluation.yaml", *split("val")]))
    for command, arguments in commands:
        assert tool(command)([*arguments, "--device", "cpu"]) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"{command}: runs/toy")
        assert [path.name for path in Path("runs/toy").iterdir()] == [name]
        assert Path("runs/toy", name).read_text() == "mine\n"


def test_image_training(tool: Callable[[str], Main], workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "val"):
        for label in ("square", "disc"):
            for number in range(3):
                noise(workplace / "data" / part / label / f"{number}.png", number)
    cut(workplace / "data/train/disc/2.png")
    text(workplace / "data/val/square/0.png")
    Path("toy.yaml").write_text(
        "task: images\nname: toy\ntrain: {root: data, split: train}\nval: {root: data, split: val}\n"
        "network: {width: 0.25, auxiliary_heads: 0}\nsize: 64\nepochs: 2\nbatch: 3\nworkers: 1\n"
    )
    assert tool("train_classifier")(["--config", "toy.yaml", "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "2 images that cannot be read" in captured.err.splitlines()[-1]
    assert Path("runs/toy/last.safetensors").exists()
    assert len(Path("runs/toy/metrics.jsonl").read_text().splitlines()) == 2


def test_multibox_training(
    tool: Callable[[str], Main], tree: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "kind: voc, root: tree, classes: [square, disc]"
    Path("toy.yaml").write_text(
        f"name: toy\ninit: {weights}\ntrain: {{{data}, split: train}}\nval: {{{data}, split: val}}\n"
        "head: {priors: 3, hidden: 8}\nheads: {epochs: 1, batch: 2}\nepochs: 1\nbatch: 2\npasses: 1\nsize: 64\n"
        "train_from: none\nworkers: 0\n"
    )
    cut(tree / "JPEGImages/train1.png")
    vanish(tree / "JPEGImages/val2.png")
    assert tool("train_multibox")(["--config", "toy.yaml", "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "train1.png: " in captured.err
    assert "val2.png: " in captured.err
    assert "2 images that cannot be read" in captured.err.splitlines()[-1]
    assert Path("runs/toy/best.safetensors").exists()


def test_a_reader_takes_the_next_image_and_names_a_fault_once(caplog: pytest.LogCaptureFixture) -> None:
    def read(index: int) -> np.ndarray:
        if index in (1, 2, 4):
            raise ImageError(f"{index}.png: damaged")
        return np.full((1, 1, 3), index, np.uint8)

    reader = Reader(read, 5)
    for _ in range(2):
        assert [reader(index)[0] for index in range(5)] == [0, 3, 3, 3, 0]
    assert reader(4)[1][0, 0, 0] == 0
    assert list(reader.failed) == [0, 1, 1, 0, 1]
    assert [line.split(":")[0] for line in caplog.messages] == ["1.png", "2.png", "4.png"]
    with pytest.raises(ImageError, match="none of 1 "):
        Reader(lambda _: read(1), 1)(0)
