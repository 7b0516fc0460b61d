"""The command new_config, as a user runs it: a config and two commands, a report, and one line for what cannot be."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detector.config import load_config
from detector.data.dataset import DataConfig, open_dataset
from detector.data.labelled_images import open_images
from detector.doctor import checkup
from detector.drafts import draft
from detector.drafts.budget import Costs
from detector.training.images import ImageTrainingConfig
from detector.training.regions import FineTuneConfig
from proposals.settings import ProposalConfig

Main = Callable[[list[str]], int]
SIZE = (96, 80)


def picture(seed: int) -> PIL.Image.Image:
    blobs = np.random.default_rng(seed).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    return PIL.Image.fromarray(blobs).resize(SIZE, PIL.Image.Resampling.BICUBIC)


@pytest.fixture
def main(tool: Callable[[str], Main], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """The command in an empty working directory, with selective search alone and given costs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    search = ProposalConfig(max_boxes=30)
    monkeypatch.setattr(checkup.examine, "__kwdefaults__", checkup.examine.__kwdefaults__ | {"proposals": search})
    monkeypatch.setattr(draft, "measure_regions", lambda *_: Costs(0.3, 1.0, 0.5, 0.6))
    monkeypatch.setattr(draft, "measure_images", lambda *_: (1.0, 5.0))
    return tool("new_config")


@pytest.fixture
def boats(tmp_path: Path) -> Path:
    """A YOLO folder without parts: 20 images, ferries in all and tugs in three; the last two are the same."""
    root = tmp_path / "Boote & Schiffe ä"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(20):
        picture(min(number, 18)).save(root / f"images/{number}.png")
        rows = ["0 0.4 0.4 0.5 0.5", *["1 0.6 0.6 0.4 0.4"] * (number < 3)]
        (root / f"labels/{number}.txt").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("ferry\ntug\n")
    return root


def state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_becomes_a_config_and_two_commands(
    main: Main, boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(boats)
    assert main([str(boats)]) == 1  # three tugs are too few
    out = capsys.readouterr().out
    assert state(boats) == before
    assert out.startswith(f"{boats}: YOLO: 20 label files for 20 images, no splits\n")
    assert "split by image: 16 for train, 4 for val (seed 0), near-copies together" in out
    assert "error    classes.scarce: " in out
    assert "note     " not in out

    config = load_config(FineTuneConfig, "Boote_Schiffe_ä.yaml")
    assert isinstance(config.train, DataConfig)
    assert config.train.classes == ["ferry", "tug"]
    train, val = open_dataset(config.train), open_dataset(config.val)
    ids = [{record.image_id for record in part.records} for part in (train, val)]
    assert ids[0].isdisjoint(ids[1])
    assert len(ids[0] | ids[1]) == 20
    assert len({"18", "19"} & ids[0]) != 1  # the copies
    for part in (train, val):
        assert set(np.concatenate([record.labels for record in part.records]).tolist()) == {0, 1}

    lines = out.splitlines()
    commands = [shlex.split(line) for line in lines[lines.index("next:") + 1 :]]
    assert [Path(words[1]).name for words in commands] == ["train_classifier.py", "detect.py"]
    assert commands[0][2:] == ["--config", "Boote_Schiffe_ä.yaml"]
    assert Path(commands[1][2]).stem in ids[1]
    assert commands[1][3:] == ["--config", f"runs/{config.name}/detector.yaml"]


def test_again_and_after_an_edit(main: Main, boats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(boats), "--output", "boats.yaml"]) == 1
    first = state(Path())
    assert main([str(boats), "--output", "boats.yaml"]) == 1
    assert state(Path()) == first
    assert main([str(boats), "--output", "boats.yaml", "--seed", "1"]) == 1
    assert state(Path()) != first
    path = Path("boats.yaml")
    path.write_text(path.read_text().replace("patience: ", "patience: 1"))
    edited = state(Path())
    assert main([str(boats), "--output", "boats.yaml"]) == 1
    assert state(Path()) == edited
    assert "boats.yaml: exists, and was not written by new-config or was edited since" in capsys.readouterr().err


def test_a_run_of_that_name_is_left_alone(main: Main, boats: Path) -> None:
    Path("runs/boats").mkdir(parents=True)
    main([str(boats), "--output", "boats.yaml"])
    assert load_config(FineTuneConfig, "boats.yaml").name == "boats-2"


def test_check_writes_nothing(main: Main, boats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(boats), "--check", "--json", "-"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert (content["layout"], content["parts"]["all"]["objects"]) == ("yolo", {"ferry": 20, "tug": 3})
    assert {"classes.scarce", "images.double"} <= {one["id"] for one in content["findings"]}
    assert state(Path()) == {}
    assert main([str(boats), "--check", "--json", "report.json"]) == 1
    assert json.loads(Path("report.json").read_text())["doctor"] == 1
    assert main([str(boats), "--check", "--json", "report.json"]) == 1  # its own file
    Path("report.json").write_text("mine")
    assert main([str(boats), "--check", "--json", "report.json"]) == 1
    assert Path("report.json").read_text() == "mine"


def test_warnings_fail_where_they_are_asked_to(
    main: Main, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "good"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(20):
        picture(number).save(root / f"images/{number}.png")
        (root / f"labels/{number}.txt").write_text("0 0.4 0.4 0.5 0.5\n")
    (root / "classes.txt").write_text("ferry\n")
    assert main([str(root), "--check"]) == 0
    assert "warning  classes.few: " in capsys.readouterr().out
    assert main([str(root), "--check", "--strict"]) == 1


def test_a_config_is_checked(main: Main, boats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(boats), "--output", "boats.yaml"])
    text = Path("boats.yaml").read_text().replace("{multibox: {weights: multibox_voc, crops: 1}}", "{max_boxes: 30}")
    Path("mine.yaml").write_text(text)
    capsys.readouterr()
    assert main(["--check", "--config", "mine.yaml"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("train and val of mine.yaml\n")
    assert "images     16    4" in out
    broken = text.replace("image_list: boats_val.txt", "image_list: gone.txt")
    Path("mine.yaml").write_text(broken)
    assert main(["--check", "--config", "mine.yaml"]) == 1
    assert "error    data.unreadable: gone.txt: " in capsys.readouterr().out


@pytest.mark.parametrize("parts", [("",), ("train/", "val/")])
def test_folders_of_classes_become_a_classifier(
    main: Main, tmp_path: Path, parts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    for place, part in enumerate(parts):
        for number in range(40):
            folder = root / f"{part}{('cat', 'dog')[number % 2]}"
            folder.mkdir(parents=True, exist_ok=True)
            picture(100 * place + number).save(folder / f"{number // 2}.png")
    assert main([str(root)]) == 0
    config = load_config(ImageTrainingConfig, "photos.yaml")
    train, val = open_images(config.train), open_images(config.val)
    assert (len(train), len(val)) == ((32, 8) if parts == ("",) else (40, 40))
    assert not {*train.paths} & {*val.paths}
    assert np.bincount(val.labels).tolist() == ([4, 4] if parts == ("",) else [20, 20])
    assert "classify.py " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no data set folder 'nowhere'"),
        (["empty"], "empty: no data set is recognised; it holds no files"),
        (["plain"], "these are images without labels"),
        (["@boats", "--output", "gone/x.yaml"], "gone/x.yaml: there is no folder gone; make it first"),
        (["@boats", "--output", "mine.yaml"], "mine.yaml: exists, and was not written by new-config"),
        (["--check", "--config", "none.yaml"], "none.yaml: no such config"),
    ],
)
def test_one_line_for_what_cannot_be(
    main: Main, boats: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("empty", "plain"):
        Path(folder).mkdir()
    picture(0).save("plain/a.png")
    Path("mine.yaml").write_text("epochs: 3\n")
    before = state(Path())
    assert main([str(boats) if word == "@boats" else word for word in words]) == 1
    assert message in capsys.readouterr().err
    assert state(Path()) == before


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["x", "--config", "y.yaml", "--check"],
        ["--config", "y.yaml"],
        ["x", "--check", "--output", "y.yaml"],
        ["x", "--output", "y"],
        ["x", "--minutes", "soon"],
        ["x", "--minutes", "0"],
        ["x", "--val-share", "1"],
    ],
)
def test_wrong_usage(main: Main, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "usage:" in capsys.readouterr().err


def test_images_that_exif_turns_against_their_labels_are_turned(main: Main, tmp_path: Path) -> None:
    root = tmp_path / "phone"
    root.mkdir()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for number in range(6):
        picture(number).save(root / f"{number}.jpg", exif=exif)
        (root / f"{number}.xml").write_text(
            f"<annotation><filename>{number}.jpg</filename><size><width>96</width><height>80</height></size><object>"
            "<name>cup</name><bndbox><xmin>50</xmin><ymin>10</ymin><xmax>90</xmax><ymax>40</ymax></bndbox></object>"
            "</annotation>"
        )
    main([str(root)])
    config = load_config(FineTuneConfig, "phone.yaml")
    assert isinstance(config.train, DataConfig)
    assert config.train.size_mismatch.name == "turn"
    record = open_dataset(config.train).records[0]
    assert (record.width, record.height) == (80, 96)
    assert record.read().shape == (96, 80, 3)
