"""Several data sets as one: classes by name, ids, stores, counts, and trainings and evaluations on a list."""

from __future__ import annotations

import hashlib
import json
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from safetensors.torch import load_file

from detector.checkpoint import load_checkpoint
from detector.commands.needs import check_needs
from detector.commands.settings import format_settings
from detector.config import load_config
from detector.data.content import boxes_digest, dataset_digest
from detector.data.counts import check_objects
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable, DataError, Dataset, with_classes
from detector.data.sources import OtherClasses, by_source
from detector.data.voc import read_voc
from detector.data.voc_classes import VOC_CLASSES, VOC_WNIDS
from detector.evaluation import evaluate_voc, read_results
from detector.evaluation.truth import Truth
from detector.evaluation.truth_files import read_truth
from detector.experiments.ablation import AblationConfig, RowConfig, ablate
from detector.experiments.coverage import CoverageConfig, measure_coverage
from detector.extraction import dataset_proposals, settings_of
from detector.training.loop import Loop
from detector.training.record import TrainingError
from detector.training.regions import FineTuneConfig
from detector.training.run import train, train_multibox
from detector.training.task import Batch
from detector.training.windows import BACKGROUND, IGNORED, collect_windows, label_windows
from proposals.errors import UserError
from proposals.joined import JoinedStore
from proposals.settings import ProposalConfig
from proposals.store import StoreError

SHAPES = ["square", "disc"]
SMALL = ProposalConfig(width=0, min_width=8)

COCO_NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat bird cat dog horse sheep cow elephant bottle chair "
    "couch potted+plant bed dining+table tv"
)
"""In COCO's order, three of them none of VOC's."""
MEETS = {"airplane": "aeroplane", "motorcycle": "motorbike", "tv": "tvmonitor", "couch": "sofa"}


@pytest.fixture(scope="module")
def voc(shapes: Path) -> DataConfig:
    """The toy data set: train0 ... train3, a square and a disc each."""
    return DataConfig(DatasetKind.voc, str(shapes), "train", SHAPES)


@pytest.fixture(scope="module")
def coco(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """COCO's form of images of their own, ids 1 to 3: discs, then squares, and a ring that VOC's do not have."""
    root = tmp_path_factory.mktemp("coco")
    generator = np.random.default_rng(5)
    images, objects = [], []
    for number in (1, 2, 3):
        name = f"train{number - 1}.png"  # as files of the VOC tree are named
        image = generator.integers(100, 140, (80, 96, 3)).astype(np.uint8)
        image[10:40, 5:35] = (210, 40, 30)
        image[20:60, 50:90] = (40, 200, 40)
        PIL.Image.fromarray(image).save(root / name)
        images.append({"id": number, "file_name": name, "width": 96, "height": 80})
        for category, box in ((7, [5, 10, 30, 30]), (9, [50, 20, 40, 40])):
            objects.append({"id": len(objects) + 1, "image_id": number, "category_id": category, "bbox": box})
    categories = [{"id": 3, "name": "disc"}, {"id": 7, "name": "square"}, {"id": 9, "name": "ring"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    (root / "boxes.json").write_text(json.dumps(content))
    return DataConfig(DatasetKind.coco, str(root), annotations="boxes.json", images=".")


def voc_objects(root: Path, split: str) -> Counter[str]:
    """Objects of each class, read from the XML by themselves."""
    names = (root / f"ImageSets/Main/{split}.txt").read_text().split()
    trees = [ET.parse(root / f"Annotations/{name}.xml") for name in names]
    return Counter(str(node.text) for tree in trees for node in tree.findall("object/name"))


# ---- classes meet by name


def test_cocos_names_meet_vocs() -> None:
    names = tuple(name.replace("+", " ") for name in COCO_NAMES.split())
    other = ClassTable(names, (None,) * len(names), tuple(range(len(names))))
    own = ClassTable(VOC_CLASSES, tuple(VOC_WNIDS.values()), tuple(range(1, 21)))
    found = {names[label]: VOC_CLASSES[row] for row, label in enumerate(own.labels_in(other).tolist())}
    assert found == {
        name: MEETS.get(name, name.replace(" ", "")) for name in names if name not in ("truck", "elephant", "bed")
    }
    back = other.labels_in(own).tolist()
    assert [VOC_CLASSES[label] if label >= 0 else None for label in back] == [found.get(name) for name in names]


def test_a_table_with_both_spellings_is_met_by_the_exact_one() -> None:
    both = ClassTable(("tv", "tvmonitor"), (None, None), (1, 2))
    for name, label in (("tv", 0), ("tvmonitor", 1)):
        assert ClassTable((name,), (None,), (1,)).labels_in(both).tolist() == [label]


def test_labels_of_a_list_are_those_of_the_names(voc: DataConfig, coco: DataConfig) -> None:
    alone = [open_dataset(one) for one in (voc, coco)]
    together = open_dataset((voc, coco))
    assert together.classes == alone[0].classes
    assert together.name == " + ".join(part.name for part in alone)
    named = []
    for part in alone:
        for record in part.records:
            named.append([part.classes.names[label] for label in record.labels.tolist()])
    for record, names in zip(together.records, named, strict=True):
        for label, name, difficult in zip(record.labels.tolist(), names, record.difficult.tolist(), strict=True):
            assert (label, difficult) == ((-1, True) if name == "ring" else (SHAPES.index(name), False))
    assert any("3 objects of other classes are ignored: ring 3" in line for line in together.warnings)


def test_classes_choose_and_order(voc: DataConfig, coco: DataConfig) -> None:
    chosen = open_dataset((coco, replace(voc, exhaustive=False)), classes=["ring", "square"])
    assert (chosen.classes.names, chosen.classes.ids) == (("ring", "square"), (9, 7))
    counts = Counter(label for record in chosen.records for label in record.labels[~record.difficult].tolist())
    assert counts == {0: 3, 1: 3 + 4}
    for record in open_dataset(voc, classes=["disc"], other_classes=OtherClasses.background).records:
        assert record.labels.tolist() == [0]
        assert len(record.boxes) == len(record.areas) == len(record.crowd) == 1
    mixed = open_dataset((replace(voc, exhaustive=False), coco), classes=["ring", "disc"])
    assert (mixed.classes.names, mixed.classes.ids) == (("ring", "disc"), (9, 2))


@pytest.mark.parametrize(("others", "expected"), [("ignore", IGNORED), ("background", BACKGROUND)])
def test_an_object_of_another_class_is_ignored_or_background(voc: DataConfig, others: str, expected: int) -> None:
    whole = open_dataset(voc)
    part = open_dataset(voc, classes=["disc"], other_classes=OtherClasses[others])
    for before, after in zip(whole.records, part.records, strict=True):
        labels, _ = label_windows(before.boxes.astype(np.float32), after)
        assert labels.tolist() == [expected if label == SHAPES.index("square") else 1 for label in before.labels]


def test_a_class_that_a_source_does_not_label(voc: DataConfig, coco: DataConfig) -> None:
    with pytest.raises(DataError, match=r"shapes train does not label ring: .*background") as caught:
        open_dataset((coco, voc))
    assert "classes=[...]" in str(caught.value)
    assert "exhaustive: false" in str(caught.value)
    taken = open_dataset((coco, replace(voc, exhaustive=False)))
    assert [record.exhaustive for record in taken.records] == [True] * 3 + [False] * 4
    boxes = [np.array([[0, 0, 20, 20], [40, 0, 90, 30]], np.float32)] * 7
    windows = collect_windows(taken, boxes)
    assert (windows.labels[windows.image < 3] == BACKGROUND).any()
    assert (windows.labels[windows.image >= 3] > BACKGROUND).all()  # objects, and no background


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cone"], "classes: no data set has 'cone'; there are square, disc, ring"),
        (["disc", "disc"], "classes: 'disc' is named twice"),
        (["square", "ring"], "does not label ring"),
    ],
)
def test_refused_classes(voc: DataConfig, coco: DataConfig, classes: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset((voc, coco), classes=classes)


def test_ignored_objects_stay_ignored_in_another_table(voc: DataConfig, coco: DataConfig) -> None:
    together = open_dataset((voc, coco))
    turned = with_classes(together, ClassTable(("disc", "square"), (None, None), (1, 2)), "other")
    for before, after in zip(together.records, turned.records, strict=True):
        assert after.labels.tolist() == [{0: 1, 1: 0, -1: -1}[label] for label in before.labels.tolist()]


# ---- ids, digests and stores


def test_ids_are_unique_and_lead_back(voc: DataConfig, coco: DataConfig, shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "again")  # the same names in another folder
    parts = (voc, coco, replace(voc, root=str(tmp_path / "again")))
    together = open_dataset(parts)
    assert len(together.index_of) == len(together) == 4 + 3 + 4
    assert [record.image_id for record in together.records[3:5]] == ["0/train3", "1/1"]
    for (prefix, part), config in zip(by_source(together).items(), parts, strict=True):
        alone = open_dataset(config)
        assert part.name == alone.name
        assert [record.image_id for record in part.records] == [record.image_id for record in alone.records]
        assert [record.path for record in part.records] == [record.path for record in alone.records]
        assert all(prefix + record.image_id in together.index_of for record in part.records)


def test_one_source_is_what_it_was(voc: DataConfig, shapes: Path, tmp_path: Path) -> None:
    before = read_voc(shapes, "train", class_names=SHAPES)  # as it was opened without lists
    for dataset in (open_dataset(voc), open_dataset((voc,)), open_dataset(voc, classes=SHAPES)):
        assert [record.image_id for record in dataset.records] == ["train0", "train1", "train2", "train3"]
        assert boxes_digest(dataset) == boxes_digest(before)
        assert dataset_digest(dataset) == dataset_digest(before)
        assert dataset.warnings == before.warnings
    files = sorted((record.image_id, hashlib.sha256(record.path.read_bytes()).hexdigest()) for record in before.records)
    key = hashlib.sha256(json.dumps([settings_of(SMALL), files], sort_keys=True).encode()).hexdigest()[:16]
    assert dataset_proposals(open_dataset(voc), SMALL, tmp_path, 1).folder == tmp_path / key


def test_digests_of_a_list_stay_when_its_folders_move(voc: DataConfig, coco: DataConfig, tmp_path: Path) -> None:
    shutil.copytree(voc.root, tmp_path / "other name")
    moved = (replace(voc, root=str(tmp_path / "other name")), coco)
    assert dataset_digest(open_dataset(moved)) == dataset_digest(open_dataset((voc, coco)))
    assert dataset_digest(open_dataset((coco, voc), classes=SHAPES)) != dataset_digest(open_dataset((voc, coco)))


@pytest.mark.parametrize("first", ["alone", "together"])
def test_a_sources_store_is_the_same_alone_and_in_a_list(
    voc: DataConfig, coco: DataConfig, tmp_path: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = [open_dataset(one) for one in (voc, coco)], open_dataset((voc, coco))

    def stores() -> list[Path]:
        return [dataset_proposals(one, SMALL, tmp_path, 1).folder for one in alone]

    def joint() -> JoinedStore:
        store = dataset_proposals(together, SMALL, tmp_path, 1)
        assert isinstance(store, JoinedStore)
        return store

    before = stores() if first == "alone" else list(joint().folders.values())
    with monkeypatch.context() as patch:
        patch.setattr("detector.extraction.extract", lambda *_, **__: pytest.fail("proposals were computed again"))
        store = joint()
        assert before == stores() == list(store.folders.values())
    assert {path for path in tmp_path.iterdir() if path.is_dir()} == set(before)
    assert set(store.names) == set(together.index_of)
    for record in together.records:
        content = record.path.read_bytes()
        own = dataset_proposals(alone[int(record.image_id[0])], SMALL, tmp_path, 1)
        expected = own.named(record.image_id[2:])
        for found in (store.get(record.image_id, content), store.named(record.image_id)):
            assert np.array_equal(found.boxes, expected.boxes)
        assert store.seconds(content) == own.seconds(content) > 0
    with pytest.raises(StoreError, match="has no proposals of train9"):
        store.get("0/train9", b"")
    with pytest.raises(StoreError, match=r"no store .* images like 7/train0"):
        store.named("7/train0")
    other = dataset_proposals(alone[0], replace(SMALL, min_width=9), tmp_path / "other", 1)
    with pytest.raises(StoreError, match="were made with different settings"):
        JoinedStore({"0/": store.stores["0/"], "1/": other})


def test_image_files_in_two_sources_are_told(voc: DataConfig) -> None:
    together = open_dataset((voc, voc))
    assert together.warnings == (
        f"image files are in two sources and count twice: 4 (first: {Path(voc.root) / 'JPEGImages/train0.png'})",
    )


# ---- counts


def test_counts_by_source_are_a_slow_count(voc: DataConfig, coco: DataConfig, shapes: Path) -> None:
    val = replace(voc, split="val")
    lines = check_objects(open_dataset((voc, coco)), open_dataset((val, coco)))
    names = ["shapes train", open_dataset(coco).name, "shapes val"]
    assert lines[0].split() == ["objects", "of", "class", "train", *names[0].split(), *names[1].split(), "val",
                                *names[2].split(), *names[1].split()]  # fmt: skip
    trained, tested = voc_objects(shapes, "train"), voc_objects(shapes, "val")
    in_coco = Counter(square=3)
    for line in lines[1:3]:
        name, *counts = line.split()
        own = in_coco[name]
        expected = [trained[name] + own, trained[name], own, tested[name] + own, tested[name], own]
        assert list(map(int, counts)) == expected
    assert lines[3].split() == ["all", "classes", "11", "8", "3", "9", "6", "3"]


# ---- trainings


@pytest.fixture(scope="module")
def settings(
    voc: DataConfig, coco: DataConfig, toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Two batches of a narrow network on both data sets."""
    of_voc = {"kind": "voc", "root": voc.root, "split": "train", "classes": SHAPES}
    of_coco = {"kind": "coco", "root": coco.root, "annotations": "boxes.json", "images": "."}
    return {
        "name": "toy",
        "precision": "float32",
        "init": str(toy_checkpoint),
        "train": [of_voc, of_coco],
        "val": of_voc | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8},
        "regions": {"size": 64, "context": 4},
        "linear_batches": 2,
        "epochs": 1,
        "batches_per_epoch": 2,
        "batch": 8,
        "foreground": 3,
        "warmup": 1,
        "val_batches": 1,
        "workers": 0,
        "cache": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture
def run(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains in an empty folder, with some settings changed."""
    monkeypatch.chdir(tmp_path)

    def work(*, resume: bool = False, **changes: Any) -> Path:
        Path("toy.yaml").write_text(yaml.safe_dump(settings | changes))
        (folder,) = train("toy.yaml", [], device="cpu", resume=resume)
        return folder

    return work


def test_a_mixed_training_runs_and_resumes_where_its_folders_moved(
    run: Callable[..., Path], settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    whole = run()
    assert any(line.split()[:7] == ["square", "7", "4", "3", "3"] for line in caplog.messages)
    assert load_checkpoint(whole / "best.safetensors").classes.names == ("square", "disc")
    kept = load_file(whole / "last.safetensors")
    whole.rename("runs/unbroken")
    learn, losses = Loop.learn, []

    def interrupted(self: Loop, batch: Batch) -> float:
        if losses:
            raise KeyboardInterrupt
        losses.append(learn(self, batch))
        return losses[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()
    moved = []
    for place, part in enumerate(settings["train"]):
        shutil.copytree(part["root"], tmp_path / f"moved{place}")
        moved.append(part | {"root": str(tmp_path / f"moved{place}")})
    with pytest.raises(TrainingError, match=r"trained with train\.1\.exhaustive = True, not False"):
        run(resume=True, train=[moved[0], moved[1] | {"exhaustive": False}])
    resumed = load_file(run(resume=True, train=moved) / "last.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in kept.items())


def test_a_training_of_some_classes(run: Callable[..., Path], settings: dict[str, Any]) -> None:
    folder = run(classes=["disc"], train=settings["train"][0], other_classes="background")
    assert load_checkpoint(folder / "best.safetensors").classes.names == ("disc",)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["classes"], config["other_classes"]) == (["disc"], "background")


def test_a_training_on_a_source_without_a_class_is_refused(
    run: Callable[..., Path], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.training.run.dataset_proposals", lambda *_: pytest.fail("proposals were computed"))
    with pytest.raises(DataError, match="does not label ring"):
        run(train=settings["train"][::-1])
    with pytest.raises(DataError, match="does not label ring"):
        run(classes=["ring"])


def test_multibox_learns_from_a_list(
    settings: dict[str, Any], toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("name", "precision", "train", "val", "workers")
    own = {
        "init": str(toy_checkpoint),
        "head": {"priors": 3, "hidden": 8},
        "heads": {"epochs": 1, "batch": 4},
        "passes": 1,
        "size": 64,
        "cache": str(tmp_path / "features"),
    }
    Path("toy.yaml").write_text(yaml.safe_dump({name: settings[name] for name in names} | own))
    val = f"val={json.dumps(settings['train'][::-1])}"  # COCO's first, and the classes are those of train
    assert (train_multibox("toy.yaml", [val], device="cpu") / "best.safetensors").is_file()


# ---- evaluation


@pytest.fixture
def merged(shapes: Path, tmp_path: Path) -> tuple[list[dict[str, Any]], Path]:
    """Two data sets whose images have the same names, and both of them in one folder, by hand."""
    other, whole = tmp_path / "other", tmp_path / "whole"
    shutil.copytree(shapes, other)
    for path in (other / "JPEGImages").iterdir():
        image = np.asarray(PIL.Image.open(path))[:, ::-1]
        PIL.Image.fromarray(image).save(path)  # other pixels: the boxes lie beside their objects
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (whole / folder).mkdir(parents=True)
    names = (shapes / "ImageSets/Main/val.txt").read_text().split()
    for prefix, root in (("a", shapes), ("b", other)):
        for name in names:
            shutil.copy(root / f"JPEGImages/{name}.png", whole / f"JPEGImages/{prefix}{name}.png")
            shutil.copy(root / f"Annotations/{name}.xml", whole / f"Annotations/{prefix}{name}.xml")
    lines = [f"{prefix}{name}\n" for prefix in "ab" for name in names]
    (whole / "ImageSets/Main/val.txt").write_text("".join(lines))
    parts = [{"kind": "voc", "root": str(root), "split": "val", "classes": SHAPES} for root in (shapes, other)]
    return parts, whole


def test_an_evaluation_of_a_list_is_that_of_the_images_in_one_folder(
    merged: tuple[list[dict[str, Any]], Path],
    preset: str,
    tool: Callable[[str], Callable[[list[str]], int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts, whole = merged
    monkeypatch.chdir(tmp_path)
    reports = []
    for name, data in (("list", parts), ("folder", parts[0] | {"root": str(whole)})):
        config = {"name": name, "data": data, "resamples": 20, "cache": "cache", "score": 0.3}
        config["detector"] = {"extends": preset, "suppression": {"min_score": 0.001}}
        Path(f"{name}.yaml").write_text(yaml.safe_dump(config))
        assert tool("eval_map")(["--config", f"{name}.yaml", "--device", "cpu"]) == 0
        reports.append(json.loads(Path(f"runs/{name}/report.json").read_text()))
    capsys.readouterr()
    assert reports[0]["ap"] == reports[1]["ap"]
    assert reports[0]["counts"] == reports[1]["counts"]
    assert reports[0]["counts"]["images"] == 6
    assert reports[0]["fates"] == reports[1]["fates"]
    results = json.loads(Path("runs/list/detections.json").read_text())
    assert {row["image_id"] for row in results} == {f"{place}/val{number}" for place in (0, 1) for number in range(3)}
    assert tool("eval_map")(["--config", "list.yaml", "--device", "cpu", "--save", "comp4"]) == 0  # resumes: all done
    data = tuple(DataConfig(DatasetKind.voc, part["root"], "val", SHAPES) for part in parts)
    truth = read_truth(data)
    for file in (Path("runs/list/detections.json"), Path("comp4")):
        table, _ = read_results(file, truth)
        assert evaluate_voc(truth, table).ap == pytest.approx(reports[0]["ap"])


def test_tables_of_a_list_are_those_of_the_images_in_one_folder(
    merged: tuple[list[dict[str, Any]], Path], toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, whole = merged
    monkeypatch.chdir(tmp_path)
    of_list = tuple(DataConfig(DatasetKind.voc, part["root"], "val", SHAPES) for part in parts)
    of_folder = DataConfig(DatasetKind.voc, str(whole), "val", SHAPES)
    rows = {"one": RowConfig("few", [str(toy_checkpoint)])}
    proposals = {"few": ProposalConfig(width=0, min_width=8, max_boxes=10)}
    tables, coverages = [], []
    for data in (of_list, of_folder):
        row = ablate(AblationConfig(data, rows, proposals, resamples=10, precision="float32"), "cpu").rows["one"]
        tables.append(replace(row, seconds=0.0))
        covered = measure_coverage(open_dataset(data), CoverageConfig(data, proposals, cache=".cache/proposals"))
        coverages.append(replace(covered.rows["few"], seconds=None))
    assert tables[0] == tables[1]
    assert coverages[0] == coverages[1]


def test_truth_and_images_of_a_list_are_named_alike(voc: DataConfig, coco: DataConfig) -> None:
    truth, dataset = read_truth((voc, coco)), open_dataset((voc, coco))
    assert truth.image_ids == tuple(record.image_id for record in dataset.records)
    assert [str(path) for path in truth.paths] == [str(record.path) for record in dataset.records]
    from_records = Truth.of(dataset)  # in one pixel convention, without rings
    assert np.array_equal(truth.boxes, from_records.boxes)
    assert np.array_equal(truth.labels, from_records.labels)
    assert np.array_equal(truth.image_index, from_records.image_index)
    assert len(truth.boxes) == 8 + 3
    alone = read_truth((voc, voc))
    assert alone.convention == read_truth(voc).convention  # nothing is converted where they agree
    assert alone.with_objects(alone.image_index < 4).boxes.tolist() == read_truth(voc).boxes.tolist()


def test_refused_evaluations(voc: DataConfig, coco: DataConfig) -> None:
    with pytest.raises(DataError, match="does not label ring"):
        read_truth((coco, voc))
    with pytest.raises(DataError, match=r"data\.exhaustive is a setting of training"):
        read_truth((coco, replace(voc, exhaustive=False)))
    with pytest.raises(DataError, match="blacklist is for one data set"):
        read_truth((voc, coco), "ilsvrc2014")


def test_extraction_of_a_list(
    voc: DataConfig,
    coco: DataConfig,
    tool: Callable[[str], Callable[[list[str]], int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = [
        {"kind": "voc", "root": voc.root, "split": "train", "classes": SHAPES},
        {"kind": "coco", "root": coco.root, "annotations": "boxes.json", "images": "."},
    ]
    words = [f"data={json.dumps(parts)}", "cache=cache", "workers=1", "proposals.width=0", "proposals.min_width=8"]
    assert tool("extract_proposals")(words) == 0
    folders = capsys.readouterr().out.split()
    assert [Path(one) for one in folders] == [
        dataset_proposals(open_dataset(one), SMALL, Path("cache"), 1).folder for one in (voc, coco)
    ]
    parts[1]["exhaustive"] = False
    assert tool("extract_proposals")([f"data={json.dumps(parts)}", *words[1:], "exhaustive=true"]) == 0
    assert capsys.readouterr().out.split() == folders[:1]  # training needs no proposals of the other
    assert tool("extract_proposals")([*words, "--output", "store"]) == 1
    assert "each data set of a list has its own" in capsys.readouterr().err


def test_a_missing_ilsvrc_source_is_named_by_its_key(tmp_path: Path) -> None:
    parts = (DataConfig(DatasetKind.voc, "x", "y"), DataConfig(DatasetKind.ilsvrc, str(tmp_path / "none"), "val2"))
    with pytest.raises(UserError, match=r"eval_map\.py data\.1\.root=DIR"):
        check_needs("eval_map", {"data": parts})


def test_settings_are_those_of_one_data_set() -> None:
    lines = format_settings(FineTuneConfig).splitlines()
    assert "train  (section)" in lines
    assert "train.root  str (required)" in lines
    assert "val.exhaustive  bool = true" in lines
    assert 'other_classes  ignore|background = "ignore"' in lines


# ---- real data


@pytest.mark.data
def test_coco_beside_voc(data_dir: Path) -> None:
    voc = DataConfig(DatasetKind.voc, str(data_dir / "voc07"), "val")
    coco = DataConfig(DatasetKind.coco, str(data_dir / "coco-sample"), annotations="instances.json", images="images")
    together = open_dataset((voc, coco))
    content = json.loads((data_dir / "coco-sample/instances.json").read_text())
    name_of = {row["id"]: row["name"] for row in content["categories"]}
    counts = Counter(name_of[row["category_id"]] for row in content["annotations"] if not row["iscrowd"])
    part = Dataset("coco", together.classes, tuple(one for one in together.records if one.image_id[0] == "1"))
    for label, name in enumerate(VOC_CLASSES):
        spelled = {"diningtable": "dining table", "pottedplant": "potted plant"} | {v: k for k, v in MEETS.items()}
        found = sum(int(((one.labels == label) & ~one.difficult & ~one.crowd).sum()) for one in part.records)
        assert found == counts[spelled.get(name, name)], name
    assert len(read_truth((voc, coco)).image_ids) == 184 + 85


# Normal objects in voc12's train2 and val2, and in voc07's train and val: the table that came with the data.
OBJECTS = """
aeroplane 145 13 59 9
bottle 135 20 61 13
cat 605 147 73 11
chair 362 95 125 43
person 1348 282 615 169
tvmonitor 82 32 50 10
"""


@pytest.mark.data
@pytest.mark.parametrize(("key", "count"), [("train", 3448), ("val", 792)])
def test_the_shipped_lists(data_dir: Path, key: str, count: int) -> None:
    """voc12 before voc07, 3,448 and 792 images: those that the shipped weights were trained on."""
    columns = {line.split()[0]: list(map(int, line.split()[1:])) for line in OBJECTS.strip().splitlines()}
    for name in ("regions_voc0712", "shared_voc0712"):
        data = getattr(load_config(FineTuneConfig, name), key)
        dataset = open_dataset([replace(one, root=str(data_dir / Path(one.root).name)) for one in data])
        assert len(dataset) == count
        assert dataset.sources == (f"voc12 {key}2", f"voc07 {key}")
        assert not dataset.warnings
        lines = {line.split()[0]: line.split()[1:4] for line in check_objects(dataset, dataset)}
        for class_name, numbers in columns.items():
            own = numbers[key == "val" :: 2]
            assert [int(text.replace(",", "")) for text in lines[class_name]] == [sum(own), *own]
