"""The data doctor: every mistake of a broken data set is reported, a sound one has none, and copies are found.

The data set that has a mistake of each kind is made here, so that what must be reported is known by construction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from detector.data.dataset import DataConfig, DatasetKind
from detector.data.ground_truth import ClassTable, DataError, Repair
from detector.detections import Detections
from detector.doctor.checkup import Checkup, Part, examine, open_part
from detector.doctor.classes import alike
from detector.doctor.copies import RADIUS, check_copies, copy_groups, near_copies
from detector.doctor.coverage import Reach, check_reach, draw_records
from detector.doctor.findings import EXAMPLES, RULES, Finding, Level, finding, merged
from detector.doctor.images import ImageFacts, difference_hash, read_facts
from detector.doctor.page import as_json, format_findings
from detector.doctor.unlabelled import check_unlabelled, find_unlabelled
from detector.pipeline import Detector
from proposals.settings import ProposalConfig

SEARCH = ProposalConfig(max_boxes=50)
ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 96, 80


def picture(seed: int) -> PIL.Image.Image:
    """An image of smooth blobs, unlike that of any other seed."""
    blobs = np.random.default_rng(seed).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    return PIL.Image.fromarray(blobs).resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC)


class Export:
    """A COCO export that is filled by hand."""

    def __init__(self, root: Path, split: str, classes: list[str]) -> None:
        self.root, self.split = root, split
        self.content: dict[str, list[Any]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        }
        (root / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)

    def image(self, name: str, *boxes: tuple[int, list[float]], content: PIL.Image.Image | bytes | None = None) -> None:
        number = len(self.content["images"]) + 1
        self.content["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for label, box in boxes:
            self.annotate(number, label, box)
        if isinstance(content, bytes):
            (self.root / self.split / name).write_bytes(content)
        elif content is not None:
            content.save(self.root / self.split / name)

    def annotate(self, image: int, label: int, box: list[float]) -> None:
        rows = self.content["annotations"]
        row = {"id": len(rows) + 1, "image_id": image, "category_id": label, "bbox": box, "iscrowd": 0}
        rows.append(row | {"area": abs(box[2] * box[3])})

    def write(self) -> DataConfig:
        (self.root / f"annotations/instances_{self.split}.json").write_text(json.dumps(self.content))
        return DataConfig(DatasetKind.coco, str(self.root), split=self.split)


GOOD: list[float] = [10, 10, 50, 40]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO export with a mistake of each kind, one of each where that is possible."""
    root = tmp_path_factory.mktemp("broken") / "mistakes"
    names = ["many", "Many", "few", "narrow", "scarce", "nothing"]
    train, val = Export(root, "train", names), Export(root, "val", names)
    for seed in range(12):  # 60 of many, 12 of few
        boxes = [(1, [4.0 + 6 * place, 8, 30, 30]) for place in range(5)]
        train.image(f"{seed}.png", *boxes, (3, GOOD), content=picture(seed))
    train.image("narrow.png", *[(4, [2.0 + 4 * place, 20, 40, 30]) for place in range(10)], content=picture(20))
    train.image("scarce.png", (5, GOOD), (2, [*GOOD[:2], 30, 30]), content=picture(21))

    train.image("absent.png", (1, GOOD))
    half = root / "half.jpg"
    picture(22).save(half)
    train.image("half.jpg", (1, GOOD), content=half.read_bytes()[: half.stat().st_size // 2])
    half.unlink()
    train.image("resized.png", (1, GOOD), content=picture(23).resize((48, 40)))
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    picture(24).save(root / "train/turned.jpg", exif=exif)
    train.image("turned.jpg", (1, GOOD))
    train.image("empty.png", content=picture(25))
    train.image("double.png", (1, GOOD), content=picture(0))
    picture(1).save(root / "train/near.jpg", quality=60)
    train.image("near.jpg", (1, GOOD))
    train.image("inverted.png", (1, [50, 10, -20, 40]), content=picture(26))
    train.image("flat.png", (1, [50, 10, 0, 40]), content=picture(27))
    train.image("outside.png", (1, [60, 10, 90, 40]), content=picture(28))
    train.image("twice.png", (1, GOOD), (2, GOOD), content=picture(29))
    train.image("whole.png", (1, [0, 0, WIDTH, HEIGHT]), content=picture(30))
    train.image("small.png", (1, [40, 40, 3, 3]), content=picture(31))
    train.annotate(999, 1, GOOD)

    val.image("leak.png", (1, GOOD), content=picture(2))
    picture(3).save(root / "val/nearly.jpg", quality=60)
    val.image("nearly.jpg", (1, GOOD))
    for seed in range(40, 44):
        val.image(f"{seed}.png", (1, GOOD), (3, [*GOOD[:2], 30, 30]), content=picture(seed))
    train.write()
    val.write()
    return root


@pytest.fixture(scope="module")
def checkup(broken: Path) -> Checkup:
    """All checks of the broken export but those by a model."""
    parts, found = [], []
    for split in ("train", "val"):
        part, some = open_part(split, DataConfig(DatasetKind.coco, str(broken), split=split))
        assert part is not None
        parts.append(part)
        found += some
    return examine(parts, proposals=SEARCH, known=found)


def by_id(checkup: Checkup) -> dict[str, Finding]:
    return {one.id: one for one in checkup.findings}


MISTAKES = {
    "data.repaired": ("annotation ", 1),
    "images.absent": ("absent.png", 1),
    "images.unreadable": ("half.jpg: ", 1),
    "images.resized": ("resized.png is 48 x 40 and its annotation states 96 x 80", 1),
    "images.turned": ("turned.jpg (orientation 3)", 1),
    "images.empty": ("empty.png", 3),  # with those whose only box the reader leaves out
    "images.double": ("double.png = train: 0.png", 1),
    "images.near": ("near.jpg ~ train: 1.png", 1),
    "splits.leak": ("val: leak.png = train: 2.png", 1),
    "splits.near": ("val: nearly.jpg ~ train: 3.png", 1),
    "boxes.inverted": ("inverted.png", 1),
    "boxes.flat": ("flat.png", 1),
    "boxes.outside": ("outside.png", 1),
    "boxes.double": ("twice.png Many [10, 10, 60, 50]", 1),
    "boxes.whole": ("whole.png many [0, 0, 96, 80]", 1),
    "boxes.small": ("small.png many [40, 40, 43, 43]", 1),
    "classes.absent": ("nothing", 1),
    "classes.scarce": ("scarce (1)", 2),  # and Many
    "classes.few": ("few (12)", 2),  # and narrow
    "classes.few_images": ("narrow (10 objects, images: 1)", 1),
    "classes.one_part": ("narrow (not in val)", 3),
    "classes.alike": ("'many' and 'Many'", 1),
    "proposals.reach": ("many ", None),
}


@pytest.mark.parametrize(("rule", "example", "count"), [(rule, *case) for rule, case in MISTAKES.items()])
def test_every_mistake_is_reported(checkup: Checkup, rule: str, example: str, count: int | None) -> None:
    found = by_id(checkup)[rule]
    assert any(example in one for one in found.examples)
    assert count is None or found.count == count
    assert found.advice.endswith(".")


def test_every_id_is_tested() -> None:
    elsewhere = {"data.unreadable", "data.remark", "labels.missing"}
    assert {*MISTAKES, *elsewhere} == set(RULES)


def test_the_levels_of_the_broken_export(checkup: Checkup) -> None:
    levels = {one.id: one.level for one in checkup.findings}
    assert all(levels[rule] is RULES[rule].level for rule in levels if rule not in ("proposals.reach", "boxes.small"))
    order = [list(Level).index(one.level) for one in checkup.findings]
    assert order == sorted(order)


def test_a_sound_data_set_has_no_findings(tmp_path: Path) -> None:
    parts = []
    for split, seeds in (("train", range(60)), ("val", range(100, 108))):
        export = Export(tmp_path, split, ["one", "two"])
        for seed in seeds:
            export.image(f"{seed}.png", (1, GOOD), (2, [40, 30, 40, 40]), content=picture(seed))
        part, found = open_part(split, export.write())
        assert part is not None
        assert found == []
        parts.append(part)
    checkup = examine(parts, proposals=None)
    assert checkup.findings == []
    assert format_findings(checkup.findings) == ["doctor: nothing found"]


def test_labels_that_cannot_be_read_are_a_finding(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text("{")
    part, found = open_part("train", DataConfig(DatasetKind.coco, str(tmp_path), annotations="boxes.json"))
    assert part is None
    assert [(one.id, one.level) for one in found] == [("data.unreadable", Level.error)]
    assert "boxes.json, line 1, column 2: malformed JSON" in found[0].title


def test_remarks_of_a_reader_are_findings(tmp_path: Path) -> None:
    """A YOLO folder without names of its classes."""
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    _, found = open_part("", DataConfig(DatasetKind.yolo, str(tmp_path)))
    assert [one.id for one in found] == ["data.remark"]
    assert "no file names the classes" in found[0].title


def test_nothing_is_changed(broken: Path) -> None:
    before = {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
    part, _ = open_part("train", DataConfig(DatasetKind.coco, str(broken), split="train"))
    assert part is not None
    examine([part], proposals=None)
    assert {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()} == before


# ---- copies


def test_the_difference_hash_by_its_definition() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (8, 9)).astype(np.uint8)
    bits = "".join("1" if grey[y, x + 1] > grey[y, x] else "0" for y in range(8) for x in range(8))
    assert difference_hash(grey) == int(bits, 2)


def facts_of(hashes: list[int], thumbnails: list[NDArray[np.uint8]]) -> list[ImageFacts]:
    return [
        ImageFacts(Path(f"{place}.png"), sha256=str(place), hash=one, thumbnail=thumbnail)
        for place, (one, thumbnail) in enumerate(zip(hashes, thumbnails, strict=True))
    ]


def test_near_copies_are_those_of_all_pairs() -> None:
    generator = np.random.default_rng(1)
    thumbnails = list(generator.integers(0, 255, (3, 32, 32)).astype(np.uint8))
    seeds = [int(one) for one in generator.integers(0, 2**63, 3)]
    hashes, pictures = [], []
    for place in range(120):  # up to 16 bits away from one of three
        flipped = generator.choice(64, int(generator.integers(0, 17)), replace=False)
        hashes.append(seeds[place % 3] ^ sum(1 << int(bit) for bit in flipped))
        pictures.append(thumbnails[int(generator.integers(3))])
    facts = facts_of(hashes, pictures)
    found = {(one, other) for one, others in near_copies(facts) for other in others.tolist()}
    wanted = {
        (one, other)
        for one in range(120)
        for other in range(one + 1, 120)
        if (hashes[one] ^ hashes[other]).bit_count() <= RADIUS and pictures[one] is pictures[other]
    }
    assert {tuple(sorted(pair)) for pair in found} == wanted
    assert len(wanted) > 50


def test_groups_join_what_is_near_by_way_of_others() -> None:
    thumbnail = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    chain = [0, (1 << 8) - 1, (1 << 16) - 1, (1 << 40) - 1]  # 8, 8 and 24 bits apart
    groups = copy_groups(facts_of(chain, [thumbnail] * 4))
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_a_camera_that_stands_still_is_one_group_and_a_leak() -> None:
    """3,000 images whose hashes differ in few bits, so that nearly all pairs are near."""
    generator = np.random.default_rng(0)
    thumbnail = generator.integers(0, 255, (32, 32)).astype(np.uint8)
    hashes = [sum(1 << int(bit) for bit in generator.choice(24, 4, replace=False)) for _ in range(3000)]
    facts = facts_of(hashes, [thumbnail] * 3000)
    assert not copy_groups(facts).any()
    found = {one.id: one.count for one in check_copies([("train", facts[:2400]), ("val", facts[2400:])])}
    assert found["splits.near"] == 600
    assert sum(len(others) for _, others in near_copies(facts)) < 3000 * 9 * 64


def test_equal_files_are_one_group_even_where_they_are_flat() -> None:
    flat = np.zeros((32, 32), np.uint8)
    facts = facts_of([0, 0, 0], [flat] * 3)
    same = [ImageFacts(facts[0].path, sha256="0", thumbnail=flat), *facts[1:], facts[0]]
    groups = copy_groups(same)
    assert groups[0] == groups[3]
    assert len({*groups.tolist()}) == 3


def test_real_photographs(data_dir: Path) -> None:
    """The one pair of overlapping fields of view in BCCD, and none in as many photographs of VOC2012."""
    cells = sorted((data_dir / "bccd/JPEGImages").glob("*.jpg"))[:80]
    photographs = sorted((data_dir / "voc12/JPEGImages").glob("*.jpg"))[:80]
    facts = read_facts([*cells, *photographs], "images")
    pairs = {(facts[one].path.stem, facts[other].path.stem) for one, some in near_copies(facts) for other in some}
    assert pairs == {("BloodImage_00037", "BloodImage_00038")}


# ---- classes, proposals, a model


def test_names_that_are_alike() -> None:
    assert alike(["Straße", "STRASSE", "café", "cafe\u0301", "a", "b"]) == [
        "'Straße' and 'STRASSE'",
        "'café' and 'cafe\u0301'",
    ]


def reach_of(overlaps: list[float], labels: list[int]) -> Reach:
    return Reach(3, ("cat", "dog"), np.array(labels), np.array(overlaps), 10.0, 0.1)


def test_the_reach_of_proposals_is_a_warning_where_a_class_is_missed() -> None:
    (found,) = check_reach(reach_of([0.9, 0.9, 0.9, 0.9, 0.6, 0.4, 0.9, 0.8, 0.7, 0.9], [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]))
    assert (found.level, found.count, found.examples) == (Level.warning, 1, ("dog 50%",))
    assert "90.0% are reached at IoU 0.5, 80.0% at 0.7" in found.text
    assert check_reach(reach_of([0.9, 0.8], [0, 1])) == []
    (note,) = check_reach(reach_of([0.9] * 19 + [0.4], [0] * 20))
    assert note.level is Level.note


def test_samples_are_drawn_once_and_by_seed(broken: Path) -> None:
    """A model also looks at images without any label, where most may be forgotten."""
    part, _ = open_part("train", DataConfig(DatasetKind.coco, str(broken), split="train"))
    assert part is not None
    every = [record.path.name for record in draw_records(part.usable, 100, 0, with_objects=False)]
    assert every == [record.path.name for record in part.usable]
    objects = [record.path.name for record in draw_records(part.usable, 100, 0)]
    assert set(every) - set(objects) == {"empty.png", "inverted.png", "flat.png"}
    drawn = [[record.path.name for record in draw_records(part.usable, 5, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sorted(drawn[0], key=objects.index)
    assert len(drawn[0]) == 5


def test_what_a_model_sees_unlabelled(broken: Path) -> None:
    part, _ = open_part("train", DataConfig(DatasetKind.coco, str(broken), split="train"))
    assert part is not None
    record = part.dataset.records[13]  # scarce.png: [10, 10, 60, 50] and [10, 10, 40, 40]
    boxes = np.array([[11, 11, 60, 50], [20, 20, 30, 30], [70, 55, 95, 79], [70, 55, 95, 79.0]])
    seen = Detections(boxes, np.array([0.99, 0.95, 0.9, 0.85]), np.array([0, 0, 0, 1]), ("many", "zebra"))

    def score_many(records: Any, prepare: Any) -> Iterator[tuple[Any, Any]]:
        for one in records:
            yield one, SimpleNamespace(detections=lambda min_score: seen[seen.scores >= min_score])

    table = ClassTable(("many", "zebra"), (None, None), (1, 2))
    detector = cast(Detector, SimpleNamespace(classes=table, score_many=score_many))
    found = find_unlabelled("train", [record], part.dataset.classes, detector)
    assert found == [(0.9, "train: scarce.png many [70, 55, 95, 79], score 0.90")]
    (one,) = check_unlabelled(found, 1)
    assert (one.id, one.count) == ("labels.missing", 1)
    strange = cast(Detector, SimpleNamespace(classes=ClassTable(("zebra",), (None,), (1,))))
    with pytest.raises(DataError, match="the model knows none of the classes many, Many, few"):
        find_unlabelled("train", [record], part.dataset.classes, strange)


# ---- findings and the report


def test_parts_are_told_together() -> None:
    some = [f"train: {place}" for place in range(8)]
    found = merged(
        [*finding("boxes.flat", "boxes are flat", some), *finding("boxes.flat", "boxes are flat", ["val: 0"])]
    )
    assert [(one.count, len(one.examples)) for one in found] == [(9, EXAMPLES)]
    assert finding("boxes.flat", "boxes are flat", []) == []
    (changed,) = finding("boxes.small", "small", ["a"], level=Level.warning)
    assert changed.level is Level.warning


def test_a_repair_is_a_line_with_its_counts() -> None:
    import pickle

    line = Repair("boxes were cut", 1200, "a.xml")
    assert line == "boxes were cut: 1,200 (first: a.xml)"
    again = pickle.loads(pickle.dumps(line))  # data sets travel to other processes
    assert (again, again.kind, again.cases, again.first) == (line, "boxes were cut", 1200, "a.xml")


def test_the_report_fits_a_terminal(checkup: Checkup) -> None:
    lines = format_findings(checkup.findings)
    assert max(map(len, lines)) <= 80
    text = " ".join(line.strip() for line in lines)
    assert all(f"{one.id}: " in text and one.advice in text for one in checkup.findings)
    short = format_findings(checkup.findings, (Level.error,))
    assert not any(line.startswith(("warning", "note")) for line in short)
    assert short[-1] == lines[-1]


def test_the_report_as_json(checkup: Checkup) -> None:
    content = json.loads(as_json(checkup, {"data": "x"}))
    assert list(content)[:2] == ["doctor", "data"]
    assert content["parts"]["val"]["objects"]["few"] == 4
    assert {one["id"] for one in content["findings"]} == set(MISTAKES)


def test_the_page_lists_every_id_with_its_level() -> None:
    rows = [line.split("|") for line in (ROOT / "docs/own_data.md").read_text().splitlines() if line.startswith("| `")]
    table = {row[1].strip(" `"): row[2].strip() for row in rows if row[1].strip(" `") in RULES}
    assert table == {rule: one.level.value for rule, one in RULES.items()}


def test_usable_images_are_read_and_of_their_stated_size(broken: Path) -> None:
    part, _ = open_part("train", DataConfig(DatasetKind.coco, str(broken), split="train"))
    assert isinstance(part, Part)
    names = {record.path.name for record in part.usable}
    assert {record.path.name for record in part.dataset.records} - names == {"absent.png", "half.jpg", "resized.png"}
