"""Training on ILSVRC DET as R-CNN did: joined splits, so many boxes a class, background where all objects are boxed."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detector.checkpoint import load_checkpoint
from detector.config import ConfigError, load_config
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import DataError, Dataset, exhaustive_part
from detector.data.ilsvrc import det_classes, read_ilsvrc_det, split_entries
from detector.evaluation.truth_files import read_truth
from detector.extraction import ExtractionConfig
from detector.training.multibox import MultiBoxTrainingConfig
from detector.training.regions import FineTuneConfig
from detector.training.run import train_multibox
from detector.training.windows import ImageSampler, collect_windows

Main = Callable[[list[str]], int]
ACCORDION, AIRPLANE = "n02672831", "n02691156"  # the first two classes
NEW, OLD, EXTRA = "ILSVRC2014_train_0000", f"ILSVRC2013_train/{ACCORDION}", "ILSVRC2013_train_extra0"
SIZE = (100, 80)


def box(index: int) -> tuple[int, int, int, int]:
    """Boxes 16 px wide and 20 high that do not touch, as the XML counts: both corners inside."""
    left, top = 20 * (index % 5), 25 * (index // 5)
    return left, top, left + 15, top + 19


def annotate(root: Path, folder: str, name: str, wnids: Sequence[str]) -> None:
    """An XML file with those objects, in a row."""
    path = root / f"Annotations/DET/{folder}/{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    items = "".join(
        f"<object><name>{wnid}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax><ymin>{y1}</ymin><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for wnid, (x1, y1, x2, y2) in zip(wnids, map(box, range(len(wnids))), strict=True)
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    path.write_text(f"<annotation>{size}{items}</annotation>")


def write_list(root: Path, name: str, lines: Sequence[str]) -> None:
    path = root / f"ImageSets/DET/{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


TRAIN = {
    f"{NEW}/new_1": [ACCORDION, AIRPLANE],
    f"{NEW}/new_2": [AIRPLANE, AIRPLANE, AIRPLANE],
    f"{NEW}/partly": [ACCORDION],
    f"{NEW}/empty": [],
    f"{OLD}/old_1": [ACCORDION, ACCORDION],
    f"{OLD}/old_2": [ACCORDION],
    f"{EXTRA}/extra_1": None,
    f"{EXTRA}/extra_2": None,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five accordions and four airplanes in train; the second class is labelled 0 in `partly`."""
    root = tmp_path / "ILSVRC"
    for name, wnids in TRAIN.items():
        if wnids is not None:
            annotate(root, "train", name, wnids)
        photo(root / f"Data/DET/train/{name}.JPEG")
    for name, wnids in {"v_1": [AIRPLANE] * 6, "v_2": [ACCORDION]}.items():
        annotate(root, "val", name, wnids)
        photo(root / f"Data/DET/val/{name}.JPEG")
    write_list(root, "train", [f"{name} {number}" for number, name in enumerate(TRAIN, 1)])
    write_list(root, "val1", ["v_1 1"])
    write_list(root, "val2", ["v_2 1"])
    write_class_lists(root)
    return root


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", SIZE, (90, 120, 30)).save(path)


def write_class_lists(root: Path) -> None:
    """The lists of all 200 classes; an image that a list does not name was not looked at for that class."""
    for number, wnid in enumerate(det_classes().wnids, 1):
        labels = {name: 1 if wnid in (wnids or []) else -1 for name, wnids in TRAIN.items() if name != f"{OLD}/old_2"}
        labels |= {f"{NEW}/partly": 0} if wnid == AIRPLANE else {}
        labels |= {f"{OLD}/old_2": 0} if wnid == ACCORDION else {}
        write_list(root, f"train_{number}", [f"{name} {label}" for name, label in labels.items()])


def ids(dataset: Dataset) -> list[str]:
    return [record.image_id for record in dataset.records]


def learned(dataset: Dataset) -> Counter[int]:
    """Objects by label, those that are examples of nothing left out."""
    return Counter(label for record in dataset.records for label in record.labels[~record.difficult].tolist())


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# ---- what is boxed throughout


def test_exhaustive_images_of_train(tree: Path) -> None:
    dataset = read_ilsvrc_det(tree, "train")
    assert ids(dataset) == list(TRAIN)  # the list's order
    exhaustive = {record.image_id.rpartition("/")[2]: record.exhaustive for record in dataset.records}
    assert exhaustive == {
        "new_1": True,
        "new_2": True,
        "partly": False,  # one background for all classes: a class that may lack a box takes it from all
        "empty": True,
        "old_1": False,
        "old_2": False,
        "extra_1": False,
        "extra_2": False,
    }
    assert [len(record.boxes) for record in dataset.records] == [2, 3, 1, 0, 2, 1, 0, 0]
    assert not any(record.difficult.any() for record in dataset.records)
    assert dataset.warnings == (
        f"images have no annotation file and count as without objects: 2 (first: {EXTRA}/extra_1)",
    )
    assert all(record.exhaustive for record in read_ilsvrc_det(tree, "val2").records)
    assert ids(exhaustive_part(dataset)) == [f"{NEW}/new_1", f"{NEW}/new_2", f"{NEW}/empty"]
    only_val = read_ilsvrc_det(tree, "val2")
    assert exhaustive_part(only_val) is only_val


def test_lists_that_leave_out_the_folder(tree: Path) -> None:
    write_list(tree, "train_2", ["new_1 1", "partly 0", "new_2 1"])
    by_name = {record.image_id: record.exhaustive for record in read_ilsvrc_det(tree, "train").records}
    assert (by_name[f"{NEW}/partly"], by_name[f"{NEW}/new_1"]) == (False, True)


def test_the_devkits_name_of_the_folders(tree: Path) -> None:
    for kind in ("Annotations", "Data"):
        (tree / kind / "DET/train" / NEW).rename(tree / kind / "DET/train/ILSVRC2014_DET_train_0000")
    write_list(tree, "train", ["ILSVRC2014_DET_train_0000/new_1 1", "ILSVRC2014_DET_train_0000/partly 2"])
    assert [record.exhaustive for record in read_ilsvrc_det(tree, "train").records] == [True, False]


def test_absent_lists_of_classes_are_counted(tree: Path) -> None:
    for number in range(2, 201):
        (tree / f"ImageSets/DET/train_{number}.txt").unlink()
    dataset = read_ilsvrc_det(tree, "train")
    assert {record.image_id: record.exhaustive for record in dataset.records}[f"{NEW}/partly"]
    assert dataset.warnings[0] == (
        "lists of a class are absent; it counts as boxed throughout in ILSVRC2014_* folders: 199 (first: train_2.txt)"
    )
    write_list(tree, "train", [f"{OLD}/old_1 1"])
    assert read_ilsvrc_det(tree, "train").warnings == ()  # of no consequence there, and not read


def test_lists_are_read_for_train_alone(tree: Path) -> None:
    write_list(tree, "train_7", ["anything"])
    read_ilsvrc_det(tree, "val1+val2")
    for line, number in (("anything", 1), ("new_1 2", 2), ("new_1 1 1", 3)):
        write_list(tree, "train_7", [*["new_1 1"] * (number - 1), line])
        message = refusal(read_ilsvrc_det, tree, "val1+train").removeprefix(f"{tree}/ImageSets/DET/")
        assert message == f'train_7.txt, line {number}: {line!r} is no line of "name label" with label 1, 0 or -1'


# ---- joined splits


def test_splits_are_joined(tree: Path) -> None:
    dataset = read_ilsvrc_det(tree, "val1+train")
    assert dataset.name == "ILSVRC val1+train"
    assert ids(dataset) == ["v_1", *TRAIN]
    assert dataset.records[0].path == tree / "Data/DET/val/v_1.JPEG"
    assert dataset.records[1].path == tree / f"Data/DET/train/{NEW}/new_1.JPEG"
    assert ids(read_ilsvrc_det(tree, "train+val1")) == ids(dataset)
    assert open_dataset(DataConfig(DatasetKind.ilsvrc, str(tree), "val1+val2")).index_of == {"v_1": 0, "v_2": 1}


def test_an_image_of_two_splits_is_read_once(tree: Path) -> None:
    write_list(tree, "val", ["v_1 1", "v_2 2"])
    dataset = read_ilsvrc_det(tree, "val+val2")
    assert ids(dataset) == ["v_1", "v_2"]
    assert dataset.warnings == ("images were listed again in the split and read once: 1 (first: val2.txt)",)


@pytest.mark.parametrize("split", ["val1+nothing", "nothing+train", "val1+"])
def test_a_part_that_does_not_exist(tree: Path, split: str) -> None:
    part = "" if split.endswith("+") else "nothing"
    message = refusal(read_ilsvrc_det, tree, split)
    assert all(word in message for word in (repr(part), f"{tree}/ImageSets/DET;", " train, val1, val2;", "data.split"))


def test_train_without_a_list_is_what_the_classes_list(tree: Path) -> None:
    (tree / "ImageSets/DET/train.txt").unlink()
    dataset = read_ilsvrc_det(tree, "val1+train")
    # In the order of the lists of the classes; what has no object of any class is not there.
    assert ids(dataset) == ["v_1", *(f"{NEW}/new_1", f"{NEW}/partly", f"{OLD}/old_1", f"{OLD}/old_2", f"{NEW}/new_2")]
    assert [record.exhaustive for record in dataset.records] == [True, True, False, False, False, True]
    for number in range(1, 201):
        (tree / f"ImageSets/DET/train_{number}.txt").unlink()
    assert "no split 'train' in" in refusal(read_ilsvrc_det, tree, "val1+train")
    write_list(tree, "train_9", [f"{NEW}/new_1 -1"])
    assert "no split 'train' in" in refusal(read_ilsvrc_det, tree, "train")


def test_nothing_is_scored_on_a_training_set(tree: Path) -> None:
    assert "val1+val2" in refusal(split_entries, tree, "val1+val2")
    assert "val1+val2" in refusal(read_truth, DataConfig(DatasetKind.ilsvrc, str(tree), "val1+val2"))
    message = refusal(read_truth, DataConfig(DatasetKind.ilsvrc, str(tree), "train", boxes_per_class=3))
    assert "data.boxes_per_class" in message


# ---- so many boxes of a class


@pytest.mark.parametrize("count", [1, 2, 3, 4, 1000])
def test_the_limit_is_strict(tree: Path, count: int) -> None:
    dataset = read_ilsvrc_det(tree, "train", boxes_per_class=count)
    assert learned(dataset) == {0: min(count, 5), 1: min(count, 4)}
    assert all((~record.difficult).any() for record in dataset.records)  # images without a chosen box are left out
    left_out = len(TRAIN) - len(dataset)
    lines = {line.partition(":")[0]: line.partition(": ")[2] for line in dataset.warnings}
    assert lines.pop("images of train without a box that boxes_per_class takes were left out").startswith(
        f"{left_out} "
    )
    beyond = sum(int(record.difficult.sum()) for record in dataset.records)
    for line in lines.values():
        assert line.startswith(f"{beyond} (first: ")
    assert bool(lines) == bool(beyond)


def test_val_is_not_limited(tree: Path) -> None:
    config = DataConfig(DatasetKind.ilsvrc, str(tree), "val1+train", boxes_per_class=1)
    dataset = open_dataset(config)
    (val,) = (record for record in dataset.records if record.image_id == "v_1")
    assert len(val.labels) == 6
    assert not val.difficult.any()
    assert learned(dataset) == {0: 1, 1: 1 + 6}
    assert (
        len(open_dataset(DataConfig(DatasetKind.ilsvrc, str(tree), "val1", boxes_per_class=1)).records[0].labels) == 6
    )


def chosen(dataset: Dataset) -> set[tuple[str, int]]:
    return {
        (record.image_id, place) for record in dataset.records for place in np.flatnonzero(~record.difficult).tolist()
    }


def test_the_choice_is_the_same_whatever_the_order_of_the_list(tree: Path, tmp_path: Path) -> None:
    first = [chosen(read_ilsvrc_det(tree, "train", boxes_per_class=count)) for count in (1, 2, 3)]
    assert first[0] < first[1] < first[2]  # a larger number adds to the choice
    write_list(tree, "train", [f"{name} {number}" for number, name in enumerate(reversed(TRAIN), 1)])
    shutil.move(tree, tmp_path / "elsewhere")
    again = [chosen(read_ilsvrc_det(tmp_path / "elsewhere", "train", boxes_per_class=count)) for count in (1, 2, 3)]
    assert again == first
    (tmp_path / "elsewhere/ImageSets/DET/train.txt").unlink()
    assert [chosen(read_ilsvrc_det(tmp_path / "elsewhere", "train", boxes_per_class=n)) for n in (1, 2, 3)] == first


def test_a_choice_by_chance(tmp_path: Path) -> None:
    """Not the first ones of the list: of 60 images with a box each, 20 are spread over all of them."""
    names = [f"{OLD}/x_{number:02}" for number in range(60)]
    for name in names:
        annotate(tmp_path, "train", name, [ACCORDION])
    write_list(tmp_path, "train", [f"{name} {number}" for number, name in enumerate(names)])
    taken = [int(name[-2:]) for name in ids(read_ilsvrc_det(tmp_path, "train", boxes_per_class=20))]
    assert len(taken) == 20
    assert 20 < np.mean(taken) < 40  # 29.5, standard deviation 3
    assert taken == sorted(taken)


def test_objects_beyond_the_limit_are_examples_of_nothing(tree: Path) -> None:
    write_list(tree, "train", [f"{NEW}/new_2 1"])  # three airplanes, of which one is taken
    dataset = read_ilsvrc_det(tree, "train", boxes_per_class=1)
    (record,) = dataset.records
    assert record.exhaustive
    assert (len(record.boxes), int(record.difficult.sum())) == (3, 2)
    free = np.array([[60, 50, 80, 75]], np.float32)
    windows = collect_windows(dataset, [np.concatenate([record.boxes, free]).astype(np.float32)])
    own = record.boxes[~record.difficult].astype(np.float32)
    assert windows.labels.tolist() == [2, 2, 0]  # the object, a proposal on it, and what no box covers
    assert np.array_equal(windows.boxes, np.concatenate([own, own, free]))


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_boxes_per_class_is_ilsvrcs(tree: Path, kind: str) -> None:
    message = refusal(open_dataset, DataConfig(DatasetKind[kind], str(tree), "train", boxes_per_class=5))
    assert all(word in message for word in ("data.boxes_per_class", "data.kind=ilsvrc", f"data.kind={kind}"))


def test_boxes_per_class_is_not_negative() -> None:
    with pytest.raises(ConfigError, match=r"boxes_per_class .*-1"):
        load_config(ExtractionConfig, None, ["data.kind=ilsvrc", "data.root=x", "data.boxes_per_class=-1"])


# ---- windows


def test_an_image_not_boxed_throughout_gives_its_boxes_alone(tree: Path) -> None:
    dataset = read_ilsvrc_det(tree, "val1+train")
    everywhere = np.array([[0, 0, 16, 20], [60, 55, 90, 80]], np.float32)  # on the first object, and on none
    windows = collect_windows(dataset, [everywhere] * len(dataset))
    for index, record in enumerate(dataset.records):
        mine = windows[np.flatnonzero(windows.image == index)]
        if record.exhaustive:
            on_object = [int(record.labels[0]) + 1] if len(record.labels) else [0]
            assert mine.labels.tolist() == [*(record.labels + 1), *on_object, 0]
        else:
            assert np.array_equal(mine.boxes, record.boxes.astype(np.float32))
            assert mine.labels.tolist() == (record.labels + 1).tolist()


def test_a_training_set_without_background_is_refused(tree: Path) -> None:
    write_list(tree, "train", [f"{OLD}/old_1 1", f"{NEW}/partly 2"])
    message = refusal(exhaustive_part, read_ilsvrc_det(tree, "train"))
    assert message.startswith("ILSVRC train: ")
    assert "split=val1+train" in message


def test_batches_of_few_images_keep_their_share_of_background(tree: Path) -> None:
    """An image without background gives its share of objects, no object twice, and nothing else."""
    dataset = read_ilsvrc_det(tree, "val1+train")
    free = np.array([[60, 55, 90, 80], [70, 55, 99, 80]], np.float32)
    windows = collect_windows(dataset, [free] * len(dataset))
    sampler = ImageSampler(windows, batch=16, images=2, foreground=4, seed=0)
    drawn = [part for number in range(9) for part in (sampler.draw(number)[0][:8], sampler.draw(number)[0][8:])]
    assert {int(some.image[0]) for some in drawn} == {
        index for index, record in enumerate(dataset.records) if len(record.boxes)
    }
    for some in drawn:
        (index,) = set(some.image.tolist())
        record = dataset.records[index]
        counts = Counter(np.sign(some.labels).tolist())
        assert counts[1] == min(len(record.boxes), 2)
        assert counts[0 if record.exhaustive else -1] == 8 - counts[1]
        objects = some.boxes[some.labels > 0]
        assert len(np.unique(objects, axis=0)) == len(objects)


# ---- MultiBox


def test_multibox_learns_where_every_object_is_boxed(
    tree: Path, toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = f"kind: ilsvrc, root: {tree}"
    (tmp_path / "toy.yaml").write_text(f"train: {{{data}, split: val1+train}}\nval: {{{data}, split: val2}}\n")
    monkeypatch.chdir(tmp_path)
    seen: list[list[str]] = []

    class StopHere(Exception):
        pass

    def start(*arguments: object) -> None:
        seen.extend(ids(argument) for argument in arguments if isinstance(argument, Dataset))
        raise StopHere

    monkeypatch.setattr("detector.training.run.start_multibox", start)
    with pytest.raises(StopHere):
        train_multibox("toy.yaml", [f"init={toy_checkpoint}"], device="cpu")
    assert seen == [["v_1", f"{NEW}/new_1", f"{NEW}/new_2", f"{NEW}/empty"]]
    with pytest.raises(ConfigError, match=r"train\.boxes_per_class .*0"):
        load_config(MultiBoxTrainingConfig, "ilsvrc_multibox", ["train.boxes_per_class=10"])


# ---- from the tree to the submission


@pytest.fixture
def official(tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The shapes' photographs laid out as the contest's: a square is an accordion, a disc an airplane."""
    root = tmp_path / "ILSVRC"
    places = {
        "train0": f"train/{NEW}/ILSVRC2014_train_00000001",
        "train1": f"train/{OLD}/{ACCORDION}_1",
        "train2": f"train/{EXTRA}/ILSVRC2013_train_00000001",
        "train3": f"train/{NEW}/ILSVRC2014_train_00000002",
        "val0": "val/ILSVRC2012_val_00000001",
        "val1": "val/ILSVRC2012_val_00000002",
        "val2": "val/ILSVRC2012_val_00000003",
    }
    for name, place in places.items():
        image = root / f"Data/DET/{place}.JPEG"
        image.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.open(shapes / f"JPEGImages/{name}.png").save(image, quality=95)
        text = (shapes / f"Annotations/{name}.xml").read_text()
        text = text.replace("square", ACCORDION).replace("disc", AIRPLANE)
        annotation = root / f"Annotations/DET/{place}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        if name != "train2":  # the images of extra folders have none
            annotation.write_text(text)
    train = [place.removeprefix("train/") for place in places.values() if place.startswith("train/")]
    write_list(root, "train", [f"{name} {number}" for number, name in enumerate(train, 1)])
    for number in range(1, 201):
        partly = [f"{train[3]} 0"] if number == 1 else []
        write_list(root, f"train_{number}", [f"{train[0]} {1 if number < 3 else -1}", f"{train[2]} -1", *partly])
    write_list(root, "val1", ["ILSVRC2012_val_00000001 1"])
    write_list(root, "val2", ["ILSVRC2012_val_00000003 41", "ILSVRC2012_val_00000002 7"])
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield root
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    "mode", [["mode=warp"], ["mode=shared", "images=2", "shared.pyramid=[96,192]", "shared.region=64"]]
)
def test_training_to_submission_on_a_small_tree(
    official: Path,
    toy_checkpoint: Path,
    tool: Callable[[str], Main],
    capsys: pytest.CaptureFixture[str],
    mode: list[str],
) -> None:
    """The shipped presets train, and test on val2, with small settings."""
    small = {"multibox.weights": '""', "width": 0, "min_width": 8}
    proposals = [f"proposals.{key}={value}" for key, value in small.items()]
    train = ["--config", "ilsvrc_regions", "--device", "cpu", "train.root=ILSVRC", "val.root=ILSVRC", *proposals, *mode]
    train += [f"init={toy_checkpoint}", "regions.size=64", "regions.context=4", "linear_batches=2", "epochs=1"]
    train += ["batches_per_epoch=2", "batch=8", "foreground=4", "val_batches=1", "workers=0", "precision=float32"]
    assert tool("train_classifier")(train) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == (
        "detect: python tools/detect.py image.jpg --config runs/ilsvrc_regions/detector.yaml"
    )
    # val1's, and of train the one that is boxed throughout; the extra one has no box and is left out.
    assert "ILSVRC val1+train: 4 images, 2 of them fully annotated; " in captured.err
    classes = load_checkpoint(Path("runs/ilsvrc_regions/best.safetensors")).classes
    assert classes == det_classes()

    extract = ["data.kind=ilsvrc", "data.root=ILSVRC", "data.split=val1+train", "data.boxes_per_class=1000"]
    assert tool("extract_proposals")([*extract, *proposals, "exhaustive=true"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    names = json.loads((folder / "manifest.json").read_text())["images"]["name"]
    assert sorted(names) == ["ILSVRC2012_val_00000001", f"{NEW}/ILSVRC2014_train_00000001"]
    assert len(list(folder.parent.iterdir())) == 2  # what training had put there: this store and val2's

    # Without --config: the model that was trained, with the proposals of its training.
    assert tool("eval_map")(["--device", "cpu", "data.root=ILSVRC", "detector.precision=float32"]) == 0
    assert "runs/ilsvrc_regions/best.safetensors" in capsys.readouterr().err
    assert len(list(folder.parent.iterdir())) == 2  # val2's proposals are those of training
    lines = [line.split() for line in Path("runs/ilsvrc_val2_trained/detections.txt").read_text().splitlines()]
    assert lines
    assert {line[0] for line in lines} == {"41", "7"}
    assert {int(line[1]) for line in lines} <= set(range(1, 201))
    report = json.loads(Path("runs/ilsvrc_val2_trained/report.json").read_text())
    assert report["counts"]["classes_without_ground_truth"] == 198
    assert report["ap"][ACCORDION] is not None


def test_training_on_boxes_alone_is_refused_at_once(
    official: Path, toy_checkpoint: Path, tool: Callable[[str], Main], capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(official, "train", [f"{OLD}/{ACCORDION}_1 1"])
    arguments = ["--config", "ilsvrc_regions", "train.root=ILSVRC", "val.root=ILSVRC", "train.split=train"]
    assert tool("train_classifier")([*arguments, f"init={toy_checkpoint}", 'proposals.multibox.weights=""']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train_classifier: ILSVRC train: in none of these images is every object boxed, so")


def test_the_presets_take_the_sets_of_r_cnn() -> None:
    config = load_config(FineTuneConfig, "ilsvrc_regions")
    assert (config.train.split, config.train.boxes_per_class, config.val.split) == ("val1+train", 1000, "val2")
    assert (config.epochs * config.batches_per_epoch, config.batch, config.foreground) == (50_000, 128, 32)
    assert load_config(MultiBoxTrainingConfig, "ilsvrc_multibox").train.split == "val1+train"
