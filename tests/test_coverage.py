"""Measures of a comparison of proposals: parts, intervals, references, evaluations and objects to look at.

Oracles are loops over objects and resamples, and pycocotools.
"""

import json
import math
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pages import read, words
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.config import ConfigError, load_config
from detector.data.dataset import DataConfig, DatasetKind
from detector.data.ground_truth import ClassTable, DataError, Dataset, Record
from detector.experiments.coverage import COUNTS, IOUS, CoverageConfig, measure_coverage
from detector.report.coverage import fastest
from detector.report.coverage_files import REFERENCES, CoverageFileError, read_references, shipped
from detector.report.coverage_page import write_coverage_page
from detector.report.coverage_plots import looks, plot_coverage
from detector.report.coverage_text import format_coverage, write_coverage
from proposals.result import Proposals
from proposals.store import digest
from proposals.store_writer import StoreWriter

HOSTILE = r'<b>Käse</b> "x" & $\frac$'
DATA = DataConfig(DatasetKind.voc, "nowhere", "val")


def make_dataset(folder, boxes, labels=None, names=("cat", "dog", "cup"), areas=None):
    """Grey images with the given boxes, some beyond the border, [images][objects][4] px, and labels alike."""
    folder.mkdir(exist_ok=True)
    records = []
    for index, objects in enumerate(boxes):
        path = folder / f"image {index} ä.png"
        PIL.Image.new("RGB", (240, 200 + index), (index, 99, 99)).save(path)
        objects = np.array(objects, np.float64).reshape(-1, 4)
        count = len(objects)
        own = np.prod(objects[:, 2:] - objects[:, :2], axis=1) if areas is None else np.array(areas[index], np.float64)
        label = np.array(labels[index] if labels else [0] * count, np.int64)
        nothing = np.zeros(count, np.bool_)
        records.append(Record(f"image {index}", path, 0, 0, objects, label, nothing, nothing, own))
    table = ClassTable(tuple(names), (None,) * len(names), tuple(range(1, len(names) + 1)))
    return Dataset("toy val", table, tuple(records))


def make_store(folder, dataset, boxes, seconds=0.0):
    """A store with the given boxes, [images][boxes][4] px, best first."""
    names = [record.image_id for record in dataset.records]
    with StoreWriter(folder, {"by": "hand"}, names, sources=("hand",)) as writer:
        for record, found in zip(dataset.records, boxes, strict=True):
            found = np.array(found, np.float32).reshape(-1, 4)
            proposals = Proposals(found, np.ones(len(found), np.float32), np.zeros(len(found), np.uint8))
            writer.append(record.image_id, digest(record.path.read_bytes()), (240, 200), proposals, seconds)
        writer.finish()
    return str(folder)


def overlap(first, second):
    shared = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    shared *= max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def random_boxes(generator, images, most, largest=200.0):
    result = []
    for _ in range(images):
        corners = generator.uniform(0, 200, (generator.integers(0, most + 1), 2))
        sizes = np.exp(generator.uniform(np.log(8), np.log(largest), corners.shape))
        result.append(np.concatenate([corners, corners + sizes], axis=1).round(1).tolist())
    return result


def jitter(generator, boxes, share):
    """Boxes moved by up to a share of their sides."""
    return [
        [(np.array(box) + generator.uniform(-share, share, 4) * (max(box[2:]) - min(box[:2]))).tolist() for box in some]
        for some in boxes
    ]


def interval_by_hand(values, resamples):
    """The interval of the mean over objects, [images][objects] values in [0, 1]: resampled image by image."""
    generator = np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        drawn = [value for index in generator.integers(0, len(values), len(values)) for value in values[index]]
        if drawn:
            means.append(sum(drawn) / len(drawn))
    value = np.mean([value for some in values for value in some])
    spread = np.std(means)
    if sum(map(bool, values)) < 2 or value in (0, 1):
        return None
    middle, reach = math.log(value / (1 - value)), 1.959964 * spread / (value * (1 - value))
    return tuple(1 / (1 + math.exp(-(middle + sign * reach))) for sign in (-1, 1))


@pytest.fixture
def measured(tmp_path):
    generator = np.random.default_rng(3)
    objects = random_boxes(generator, 12, 6)
    labels = [generator.integers(0, 2, len(some)).tolist() for some in objects]
    dataset = make_dataset(tmp_path / "images", objects, labels)
    boxes = jitter(generator, objects, 0.12)
    first = make_store(tmp_path / "first", dataset, boxes, 0.5)
    second = make_store(tmp_path / "second", dataset, jitter(generator, objects, 0.25), 0.25)
    config = CoverageConfig(
        DATA, stores={"first": first, "second": second}, unseen=["dog"], sizes=[16, 50, 120], resamples=60
    )
    return dataset, config, [np.array(some, np.float32).tolist() for some in boxes], measure_coverage(dataset, config)


def test_parts_and_intervals_by_loops(measured):
    dataset, _, boxes, bench = measured
    best = [
        [max([0.0, *(overlap(box, own) for own in found)]) for box in record.boxes.tolist()]
        for record, found in zip(dataset.records, boxes, strict=True)
    ]
    row = bench.rows["first"]
    where = {
        "by_size": {
            "below 16 px": lambda box, label: math.sqrt((box[2] - box[0]) * (box[3] - box[1])) < 16,
            "16 to 50 px": lambda box, label: 16 <= math.sqrt((box[2] - box[0]) * (box[3] - box[1])) < 50,
            "50 to 120 px": lambda box, label: 50 <= math.sqrt((box[2] - box[0]) * (box[3] - box[1])) < 120,
            "from 120 px": lambda box, label: math.sqrt((box[2] - box[0]) * (box[3] - box[1])) >= 120,
        },
        "by_aspect": {
            "below 0.5": lambda box, label: (box[2] - box[0]) / (box[3] - box[1]) < 0.5,
            "0.5 to 0.8": lambda box, label: 0.5 <= (box[2] - box[0]) / (box[3] - box[1]) < 0.8,
            "0.8 to 1.25": lambda box, label: 0.8 <= (box[2] - box[0]) / (box[3] - box[1]) < 1.25,
            "1.25 to 2": lambda box, label: 1.25 <= (box[2] - box[0]) / (box[3] - box[1]) < 2,
            "from 2": lambda box, label: (box[2] - box[0]) / (box[3] - box[1]) >= 2,
        },
        "by_class": {
            "cat": lambda box, label: label == 0,
            "dog": lambda box, label: label == 1,
            "cup": lambda box, label: False,
        },
        "by_seen": {"seen": lambda box, label: label == 0, "unseen": lambda box, label: label == 1},
    }
    for attribute, tests in where.items():
        parts = getattr(row, attribute)
        assert list(parts) == list(tests)
        assert sum(part.objects for part in parts.values()) == bench.objects
        for name, test in tests.items():
            chosen = [
                [
                    value
                    for value, *one in zip(values, record.boxes.tolist(), record.labels.tolist(), strict=True)
                    if test(*one)
                ]
                for values, record in zip(best, dataset.records, strict=True)
            ]
            part = parts[name]
            assert part.objects == sum(map(len, chosen))
            if not part.objects:
                assert (part.recall, part.recall_interval, part.average_recall) == (None, None, None)
                continue
            hits = [[float(value >= 0.5) for value in some] for some in chosen]
            shares = [[2 * max(value - 0.5, 0) for value in some] for some in chosen]
            assert part.recall == pytest.approx(np.mean(list(chain(*hits))))
            assert part.average_recall == pytest.approx(np.mean(list(chain(*shares))))
            assert part.recall_interval == pytest.approx(interval_by_hand(hits, 60))
            assert part.average_recall_interval == pytest.approx(interval_by_hand(shares, 60), abs=1e-6)
    assert row.by_class["cup"].objects == 0
    whole = [[float(value >= 0.5) for value in some] for some in best]
    assert row.coverage_interval == pytest.approx(interval_by_hand(whole, 60))
    for threshold in IOUS:
        values = [[float(value >= threshold) for value in some] for some in best]
        assert row.recall_by_iou_interval[threshold] == pytest.approx(interval_by_hand(values, 60))
    limited = [
        [max([0.0, *(overlap(box, own) for own in found[:2])]) for box in record.boxes.tolist()]
        for record, found in zip(dataset.records, boxes, strict=True)
    ]
    values = [[float(value >= 0.5) for value in some] for some in limited]
    assert row.recall_by_boxes_interval[2] == pytest.approx(interval_by_hand(values, 60))
    shares = [[2 * max(value - 0.5, 0) for value in some] for some in limited]
    assert row.average_recall_by_boxes_interval[2] == pytest.approx(interval_by_hand(shares, 60), abs=1e-6)
    assert list(row.recall_by_boxes) == list(row.recall_by_boxes_interval) == [n for n in COUNTS if n <= 10]


def test_recall_by_size_equals_pycocotools(tmp_path, capsys):
    """With one object an image its matching, which gives each box to one object, changes nothing."""
    generator = np.random.default_rng(5)
    objects = [some[:1] for some in random_boxes(generator, 40, 3) if some]
    areas = [[float(np.exp(generator.uniform(np.log(200), np.log(40_000))))] for _ in objects]  # of masks
    dataset = make_dataset(tmp_path / "images", objects, areas=areas)
    boxes = [a + b for a, b in zip(jitter(generator, objects, 0.15), jitter(generator, objects, 0.3), strict=True)]
    config = CoverageConfig(DATA, stores={"mine": make_store(tmp_path / "mine", dataset, boxes)}, resamples=2)
    row = measure_coverage(dataset, config).rows["mine"]
    truth, results = COCO(), []
    truth.dataset = {
        "images": [{"id": index} for index in range(len(objects))],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {
                "id": index + 1,
                "image_id": index,
                "category_id": 1,
                "bbox": [some[0][0], some[0][1], some[0][2] - some[0][0], some[0][3] - some[0][1]],
                "area": areas[index][0],
                "iscrowd": 0,
            }
            for index, some in enumerate(objects)
        ],
    }
    truth.createIndex()
    for index, some in enumerate(boxes):
        for rank, (x1, y1, x2, y2) in enumerate(np.array(some, np.float32).tolist()):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": index, "category_id": 1, "bbox": box, "score": 1 / (1 + rank)})
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.params.maxDets = [1, 10, 100]
    evaluation.evaluate()
    evaluation.accumulate()
    recall = evaluation.eval["recall"][0, 0, :, 2]  # IoU 0.5, the class, all areas and three sizes, 100 boxes
    assert [part.recall for part in row.by_size.values()] == pytest.approx(recall[1:].tolist())
    assert list(row.by_size) == ["small, below 32 px", "medium, 32 to 96 px", "large, from 96 px"]
    assert row.coverage == pytest.approx(recall[0])
    for place, threshold in enumerate(IOUS[:10]):
        assert row.recall_by_iou[threshold] == pytest.approx(evaluation.eval["recall"][place, 0, 0, 2])
    capsys.readouterr()


def test_objects_of_one_image_have_no_interval(tmp_path):
    dataset = make_dataset(tmp_path / "images", [[[1, 1, 9, 9], [2, 2, 19, 9]], []])
    config = CoverageConfig(DATA, stores={"none": make_store(tmp_path / "none", dataset, [[], []])}, resamples=5)
    bench = measure_coverage(dataset, config)
    row = bench.rows["none"]
    assert (row.boxes, row.coverage, row.coverage_interval, row.average_recall) == (0, 0, None, 0)
    assert (bench.missed, bench.alone_cases) == (2, {})
    assert [case.boxes for case in bench.missed_cases] == [{}]  # one of an image
    text = format_coverage(bench, 80)
    assert "2 of 2 objects are not covered at IoU 0.5" in text
    assert max(map(len, text.splitlines())) <= 80


def test_objects_to_look_at(tmp_path):
    """Of image 0 both find one object, of 1 nobody a large one, of 2 only the second finds something."""
    objects = [[[0, 0, 10, 10]], [[0, 0, 8, 8], [5, 5, 20, 20]], [[2, 2, 12, 9]]]
    dataset = make_dataset(tmp_path / "images", objects, [[0], [1, 2], [1]])
    first = [[[0, 0, 10, 10]], [[0, 0, 8, 5]], [[20, 10, 30, 20]]]
    second = [[[0, 0, 10, 9]], [[0, 0, 8, 5], [5, 5, 20, 10]], [[20, 10, 30, 20], [2, 2, 12, 8]]]
    stores = {
        "first": make_store(tmp_path / "first", dataset, first),
        "second": make_store(tmp_path / "second", dataset, second),
    }
    bench = measure_coverage(dataset, CoverageConfig(DATA, stores=stores, resamples=5))
    assert bench.missed == 1
    (case,) = bench.missed_cases
    assert (case.image_id, case.name, case.box) == ("image 1", "cup", (5, 5, 20, 20))
    assert case.overlaps == pytest.approx({"first": overlap((0, 0, 8, 5), (5, 5, 20, 20)), "second": 1 / 3})
    assert case.boxes == {"first": (0, 0, 8, 5), "second": (5, 5, 20, 10)}
    assert bench.alone_cases["first"] == ()
    (case,) = bench.alone_cases["second"]
    assert (case.image_id, case.boxes["second"], case.overlaps["first"]) == ("image 2", (2, 2, 12, 8), 0)
    assert bench.rows["second"].unique == pytest.approx(1 / 4)


def test_fastest_is_of_those_that_cover_enough(measured):
    rows = measured[3].rows
    low, high = sorted(row.coverage for row in rows.values())
    assert fastest(rows, low) == ("second", 0.25)
    assert fastest(rows, 1.01) is None
    assert rows["first"].coverage == high > low
    assert fastest(rows, high) == ("first", 0.5)


def test_references_are_files_of_the_command(measured, tmp_path):
    dataset, config, _, bench = measured
    write_coverage(tmp_path / "earlier.json", bench, config)
    references = read_references([str(tmp_path / "earlier.json")], bench.images, bench.objects)
    expected = {f"{name} (reference)": replace(row, ratio=None, unique=None) for name, row in bench.rows.items()}
    assert references == expected
    with_them = replace(config, references=[str(tmp_path / "earlier.json")], unseen=[], sizes=[16.0, 64.0])
    again = measure_coverage(dataset, with_them)
    assert again.references == expected
    assert list(again.all_rows) == ["first", "second", "first (reference)", "second (reference)"]
    lines = format_coverage(again).splitlines()
    assert next(line for line in lines if line.startswith("16 to 50 px")).split()[4:6] == ["-", "-"]
    write_coverage_page(tmp_path / "page.html", again, with_them)
    assert "References have dashed lines and no bands" in words(read(tmp_path / "page.html"))
    assert looks(again)["first"].dash == (1, 0) != looks(again)["first (reference)"].dash


def test_references_of_other_images_are_refused(measured, tmp_path):
    _, config, _, bench = measured
    path = tmp_path / "earlier.json"
    write_coverage(path, bench, config)
    for numbers in ((bench.images + 1, bench.objects), (bench.images, bench.objects + 1)):
        with pytest.raises(CoverageFileError, match="recall is comparable on the same images only"):
            read_references([str(path)], *numbers)
    with pytest.raises(CoverageFileError, match="an earlier reference has the method 'first' too"):
        read_references([str(path), str(path)], bench.images, bench.objects)
    with pytest.raises(CoverageFileError, match="no file nowhere; shipped are voc07_test500, others are files of"):
        read_references(["nowhere"], 1, 1)
    for content in ("[]", "{", '{"data": "x", "images": 1, "objects": 1, "settings": {"a": {"boxes": "many"}}}'):
        path.write_text(content)
        with pytest.raises(CoverageFileError, match=r"not the JSON of eval_proposals --json .*; run it again"):
            read_references([str(path)], 1, 1)


def test_shipped_references():
    """Five methods on 500 images, whose names are beside the numbers."""
    assert shipped() == ["voc07_test500"]
    content = json.loads((REFERENCES / "voc07_test500.json").read_text())
    assert (content["images"], content["objects"]) == (500, 1263)
    names = (REFERENCES / "voc07_test500.txt").read_text().split()
    assert len(names) == len(set(names)) == 500
    rows = read_references(["voc07_test500"], content["images"], content["objects"])
    config = load_config(CoverageConfig, "proposals_voc", ["data.root=x"])
    assert {name.removesuffix(" (reference)") for name in rows} <= config.settings.keys()
    for row in rows.values():
        assert row.seconds is None  # of another machine
        assert sum(part.objects for part in row.by_class.values()) == content["objects"]
        covered = sum(part.recall * part.objects for part in row.by_class.values())
        assert covered / content["objects"] == pytest.approx(row.coverage, abs=1e-4)
        for curve in (row.recall_by_boxes, row.average_recall_by_boxes):
            assert list(curve.values()) == sorted(curve.values())
        assert row.coverage_interval[0] < row.coverage < row.coverage_interval[1]


def report(path, images, **changes):
    content = {"protocol": "voc", "min_iou": 0.5, "mean_ap": 0.6, "counts": {"images": images, "objects": 3}}
    path.write_text(
        json.dumps(content | {"interval": {"low": 0.5, "high": 0.7, "value": 0.6, "resamples": 9}} | changes)
    )
    return str(path)


def test_mean_ap_stands_beside_average_recall(measured, tmp_path):
    dataset, config, _, bench = measured
    reports = {"second": report(tmp_path / "second.json", bench.images)}
    scored = measure_coverage(dataset, replace(config, reports=reports))
    assert asdict(scored.rows["second"].ap) == {"value": 0.6, "interval": (0.5, 0.7), "protocol": "voc", "min_iou": 0.5}
    assert scored.rows["first"].ap is None
    text = format_coverage(scored)
    assert "unique     AP  AP interval" in text.splitlines()[1]
    assert "AP: mean AP of a detector on these boxes, voc, IoU 0.5" in text
    write_coverage_page(tmp_path / "page.html", scored, config)
    reader = read(tmp_path / "page.html")
    assert "Mean AP over average recall" not in words(reader)  # one point is no curve
    assert "0.600 0.500-0.700" in words(reader)
    assert " AP " not in format_coverage(bench)
    reports["first"] = report(tmp_path / "first.json", bench.images, mean_ap=0.7, interval=None)
    write_coverage_page(tmp_path / "page.html", measure_coverage(dataset, replace(config, reports=reports)), config)
    assert "Mean AP over average recall" in words(read(tmp_path / "page.html"))


def test_mean_ap_of_other_images_or_rules_is_refused(measured, tmp_path):
    dataset, config, _, bench = measured
    other = report(tmp_path / "other.json", bench.images + 1)
    with pytest.raises(CoverageFileError, match=rf"made on {bench.images + 1} images, here are {bench.images}"):
        measure_coverage(dataset, replace(config, reports={"first": other}))
    reports = {
        "first": report(tmp_path / "first.json", bench.images),
        "second": report(tmp_path / "second.json", bench.images, protocol="coco", interval=None),
    }
    with pytest.raises(CoverageFileError, match=r"'first' was scored by voc at IoU 0\.5, 'second' by coco at IoU 0\.5"):
        measure_coverage(dataset, replace(config, reports=reports))
    with pytest.raises(CoverageFileError, match=r"no file nowhere\.json; eval_map writes"):
        measure_coverage(dataset, replace(config, reports={"first": "nowhere.json"}))
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(CoverageFileError, match=r"odd\.json: not the JSON of eval_map"):
        measure_coverage(dataset, replace(config, reports={"first": str(tmp_path / "odd.json")}))


def test_unseen_classes_must_exist(measured):
    dataset, config, *_ = measured
    with pytest.raises(DataError, match=r"unseen: no class 'cow'; the data set has cat, dog, cup"):
        measure_coverage(dataset, replace(config, unseen=["cow"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sizes=[]"], "sizes must be one or more rising numbers above 0, not []"),
        (["sizes=[96,32]"], "sizes must be one or more rising numbers above 0, not [96.0, 32.0]"),
        (["aspects=[0,1]"], "aspects must be one or more rising numbers above 0, not [0.0, 1.0]"),
        (["aspects=[.inf]"], "aspects must be one or more rising numbers above 0, not [inf]"),
        (["resamples=0"], "resamples must be at least 1, but is 0"),
        (["reports.yours=r.json"], "reports names 'yours', which is no method here; they are mine"),
    ],
)
def test_settings_that_are_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        load_config(CoverageConfig, None, ["data.kind=voc", "data.root=x", "stores.mine=y", *overrides])
    assert message in str(error.value)


def test_page(measured, tmp_path):
    _, config, _, bench = measured
    rows = {HOSTILE: bench.rows["first"], "second": replace(bench.rows["second"], seconds=None)}
    missed = tuple(
        replace(
            case,
            name=HOSTILE,
            overlaps=dict(zip(rows, case.overlaps.values(), strict=True)),
            boxes={name: box for name, box in zip(rows, case.boxes.values(), strict=True)},
        )
        for case in bench.missed_cases
    )
    assert missed
    absent = replace(missed[0], path=Path("/home/me/absent.png"))
    alone = {HOSTILE: (), "second": (absent,)}
    hostile = replace(bench, rows=rows, missed_cases=missed, alone_cases=alone)
    write_coverage_page(tmp_path / "new" / "page.html", hostile, replace(config, stores={"first": "/home/me/store"}))
    reader = read(tmp_path / "new" / "page.html")
    text = words(reader)
    assert "<b>Käse</b>" in text
    assert "/home/me" not in (tmp_path / "new" / "page.html").read_text()
    assert "Not shown: absent.png" in text
    first = rows[HOSTILE]
    low, high = first.coverage_interval
    assert f"{first.coverage:.3f} {low:.3f}-{high:.3f}" in text
    assert f"{bench.missed} of {bench.objects} objects" in text
    assert f"{1 - bench.missed / bench.objects:.3f} {bench.missed} of {bench.objects} objects" in text
    assert "below 16 px" in text
    assert "Fastest with coverage 0.8 or more: <b>Käse</b>" in text or "No method with known seconds" in text
    tags = [tag for tag, _ in reader.elements]
    pictures = sum(bool(case.path.exists()) for case in (*missed, absent))
    assert tags.count("img") == pictures
    drawn = [attributes["aria-label"] for tag, attributes in reader.elements if tag == "svg" and "role" in attributes]
    assert len(drawn) == 4  # three curves and the seconds of the first
    for tag, attributes in reader.elements:
        if tag == "div" and {"wide", "long"} & set(attributes.get("class", "").split()):
            assert attributes["tabindex"] == "0"  # tables that are wider than a phone scroll by keyboard
            assert attributes["aria-label"]
    plot_coverage(tmp_path / "plot.svg", hostile)
    assert r"$\frac$ (" in (tmp_path / "plot.svg").read_text()
    write_coverage_page(tmp_path / "again.html", hostile, replace(config, stores={"first": "/home/me/store"}))
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "new" / "page.html").read_bytes()
