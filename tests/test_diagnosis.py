"""Errors by kind on cases worked out by hand; intervals and comparisons against plain resampling; fates of objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable, Dataset, Record
from detector.detections import Detections
from detector.evaluation import DetectionTable, Truth, evaluate_voc
from detector.evaluation.average import (
    AREA,
    COCO_POINTS,
    ELEVEN_POINTS,
    average_precisions,
)
from detector.evaluation.bootstrap import bootstrap, compare, image_weights
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.matching import match
from detector.experiments.oracles import perfect_classifier, perfect_proposals, perfect_suppression
from detector.experiments.stages import FOUND, SHARED, Trace, append_fates, count_fates, fates, read_fates
from detector.settings import SuppressionConfig

BOX = (0.0, 0.0, 100.0, 100.0)
FAR = (300.0, 300.0, 400.0, 400.0)


def shifted(by: float) -> tuple[float, ...]:
    """BOX moved to the right; its IoU with BOX is (100 - by) / (100 + by)."""
    return (by, 0.0, 100.0 + by, 100.0)


def make_truth(images: list[list[tuple[tuple[float, ...], int]]], classes: int = 3) -> Truth:
    records = []
    for index, objects in enumerate(images):
        boxes = np.array([box for box, _ in objects]).reshape(-1, 4)
        labels = np.array([label for _, label in objects], np.int64)
        flags = np.zeros(len(labels), np.bool_)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        records.append(Record(str(index), Path(f"{index}.jpg"), 500, 500, boxes, labels, flags, flags, areas))
    names = tuple("abcdefgh"[:classes])
    return Truth.of(Dataset("toy", ClassTable(names, (None,) * classes, tuple(range(classes))), tuple(records)))


def make_table(rows: list[tuple[int, int, float, tuple[float, ...]]]) -> DetectionTable:
    return DetectionTable(
        np.array([image for image, _, _, _ in rows], np.int64),
        np.array([label for _, label, _, _ in rows], np.int64),
        np.array([score for _, _, score, _ in rows], np.float64),
        np.array([box for _, _, _, box in rows], np.float64).reshape(-1, 4),
    )


def errors(truth: Truth, table: DetectionTable, **settings: float) -> tuple[dict[str, int], dict[str, float]]:
    result = diagnose(truth, table, match(truth, table, "voc"), **settings)  # type: ignore[arg-type]
    return {kind: count for kind, count in result.counts.items() if count}, result.gains


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([(0, 0, 0.9, BOX)], {}),
        ([(0, 0, 0.9, BOX), (0, 0, 0.8, shifted(5))], {"duplicate": 1}),
        ([(0, 0, 0.9, shifted(50))], {"localisation": 1}),  # IoU 1/3
        ([(0, 1, 0.9, shifted(10))], {"classification": 1}),
        ([(0, 1, 0.9, shifted(50))], {"both": 1, "missed": 1}),
        ([(0, 0, 0.9, FAR)], {"background": 1, "missed": 1}),
        ([(0, 0, 0.9, shifted(85))], {"background": 1, "missed": 1}),  # IoU 0.08
        ([], {"missed": 1}),
        ([(0, 0, 0.9, shifted(50)), (0, 0, 0.8, BOX)], {"localisation": 1}),
    ],
)
def test_kinds_of_errors(rows: list[tuple[int, int, float, tuple[float, ...]]], counts: dict[str, int]) -> None:
    truth = make_truth([[(BOX, 0)]])
    assert errors(truth, make_table(rows))[0] == counts


def test_what_mending_gains() -> None:
    """One class, two objects: each gain is the AP of the mended list, computed by hand, minus the AP as it is."""
    truth = make_truth([[(BOX, 0)], [(BOX, 0)]], classes=2)
    # A background box first, then a hit, then a badly placed box on the other object: AP 1/2 * 1/2.
    counts, gains = errors(truth, make_table([(0, 0, 0.9, FAR), (0, 0, 0.8, BOX), (1, 0, 0.7, shifted(50))]))
    assert counts == {"background": 1, "localisation": 1}
    assert gains["background"] == pytest.approx(1 / 2 * 1 - 1 / 4)
    assert gains["localisation"] == pytest.approx((1 / 2 + 1 / 2) * (2 / 3) - 1 / 4)  # hits at ranks 2 and 3
    assert gains["classification"] == gains["duplicate"] == gains["both"] == gains["missed"] == 0
    # A wrong class on the second object: its hit joins class 0, and nothing is missed.
    counts, gains = errors(truth, make_table([(0, 0, 0.9, BOX), (1, 1, 0.8, BOX)]))
    assert counts == {"classification": 1}
    assert gains["classification"] == pytest.approx(1 - 1 / 2)
    # A missed object that no error lies on.
    counts, gains = errors(truth, make_table([(0, 0, 0.9, BOX)]))
    assert counts == {"missed": 1}
    assert gains["missed"] == pytest.approx(1 - 1 / 2)
    # Two duplicates before the second hit.
    rows = [(0, 0, 0.9, BOX), (0, 0, 0.8, shifted(1)), (0, 0, 0.7, shifted(2)), (1, 0, 0.6, BOX)]
    counts, gains = errors(truth, make_table(rows))
    assert counts == {"duplicate": 2}
    assert gains["duplicate"] == pytest.approx(1 - (1 / 2 + 1 / 2 * 2 / 4))


def test_of_two_errors_on_an_object_one_is_mended() -> None:
    truth = make_truth([[(BOX, 0)]], classes=2)
    _, gains = errors(truth, make_table([(0, 0, 0.9, shifted(50)), (0, 0, 0.8, shifted(45))]))
    assert gains["localisation"] == pytest.approx(1)  # the second one is removed, not a false positive


def test_confusion_counts_shown_detections() -> None:
    truth = make_truth([[(BOX, 0)], [(BOX, 0)], [(BOX, 1)]])
    rows = [(0, 1, 0.9, BOX), (1, 1, 0.6, BOX), (2, 0, 0.7, BOX), (2, 0, 0.3, BOX), (0, 0, 0.8, BOX)]
    table = make_table(rows)
    result = diagnose(truth, table, match(truth, table, "voc"), score=0.5)
    assert result.confused == [("a", "b", 2), ("b", "a", 1)]


# ---- intervals


def random_case(seed: int, quality: float = 8.0) -> tuple[Truth, DetectionTable]:
    generator = np.random.default_rng(seed)
    images, rows = [], []
    for image in range(30):
        objects = []
        for _ in range(int(generator.integers(0, 4))):
            corner = generator.uniform(0, 300, 2)
            box = tuple(np.concatenate([corner, corner + generator.uniform(20, 100, 2)]).tolist())
            label = int(generator.integers(3))
            objects.append((box, label))
            for _ in range(2):
                near = tuple((np.array(box) + generator.normal(0, quality, 4)).tolist())
                score = float(generator.random())
                if near[2] > near[0] and near[3] > near[1]:
                    rows.append((image, label, score, near))
        images.append(objects)
    return make_truth(images, 4), make_table(rows)


POINTS = {"area": AREA, "11 points": ELEVEN_POINTS, "101 points": COCO_POINTS}


@pytest.mark.parametrize("measure", POINTS)
def test_the_interval_is_that_of_plain_resampling(measure: str) -> None:
    """Each resample built as a data set of its own, with copies of images, and evaluated as any other."""
    truth, table = random_case(0)
    interval = bootstrap(truth, match(truth, table, "voc"), table, points=POINTS[measure], resamples=40, seed=3)
    means = []
    for weights in image_weights(len(truth), 40, 3)[1:]:
        drawn = np.repeat(np.arange(len(truth)), weights)
        images, rows = [], []
        for place, image in enumerate(drawn.tolist()):
            mine = truth.image_index == image
            images.append(list(zip(map(tuple, truth.boxes[mine].tolist()), truth.labels[mine].tolist(), strict=True)))
            for row in np.flatnonzero(table.image_index == image).tolist():
                rows.append((place, int(table.labels[row]), float(table.scores[row]), tuple(table.boxes[row].tolist())))
        sample, found = make_truth(images, 4), make_table(rows)
        ap = average_precisions(match(sample, found, "voc"), found, POINTS[measure])
        means.append(np.mean([value for value in ap if value is not None]))
    # Copies of an image have equal scores, which a data set of copies takes one after the other: a little other curves.
    value = interval.value
    reach = 1.96 * np.std(means) / (value * (1 - value))  # on the scale of log(v / (1 - v)), by the delta method
    low, high = (1 / (1 + (1 - value) / value * np.exp(turn)) for turn in (reach, -reach))
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)
    whole = average_precisions(match(truth, table, "voc"), table, POINTS[measure])
    assert interval.value == pytest.approx(np.mean([value for value in whole if value is not None]), abs=1e-12)
    assert interval.low < interval.value < interval.high


def test_a_comparison_sees_a_better_table_and_no_difference_from_itself() -> None:
    truth, worse = random_case(0, quality=14.0)
    _, better = random_case(0, quality=2.0)
    first, second = ((match(truth, table, "voc"), table) for table in (worse, better))
    result = compare(truth, [first, second], resamples=300)
    assert result.difference.value == pytest.approx(
        evaluate_voc(truth, better).mean_ap - evaluate_voc(truth, worse).mean_ap
    )
    assert result.difference.low > 0
    assert result.p_value <= 2 / 300
    assert result.by_class[3] is None
    same = compare(truth, [first, first], resamples=300)
    assert (same.difference.low, same.difference.value, same.difference.high, same.p_value) == (0, 0, 0, 1)


def test_the_interval_lies_around_the_value_however_many_images() -> None:
    """Resampling raises AP; of many images the raw resamples would all be above the value."""
    generator = np.random.default_rng(0)
    images = [[(BOX, int(generator.integers(3)))] for _ in range(600)]
    rows = [(n, objects[0][1], float(generator.random()), BOX) for n, objects in enumerate(images) if n % 3]
    rows += [(n, int(generator.integers(3)), float(generator.random()), FAR) for n in range(600)]
    truth, table = make_truth(images), make_table(rows)
    interval = bootstrap(truth, match(truth, table, "voc"), table, resamples=200)
    assert interval.low < interval.value < interval.high
    assert interval.high - interval.low < 0.15


def test_the_interval_of_a_few_images_stays_on_its_scale() -> None:
    """Four images, of which one has no hit: laid around the value by percentiles it would end at 1.1."""
    truth = make_truth([[(BOX, 0)] for _ in range(4)], 1)
    for count in (0, 1, 3, 4):
        table = make_table([(image, 0, 0.9 - image / 10, BOX) for image in range(count)])
        interval = bootstrap(truth, match(truth, table, "voc"), table, resamples=200)
        assert interval.value == count / 4
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert (interval.low < interval.high) == (count in (1, 3))
    nothing, everything = make_table([]), make_table([(image, 0, 0.5, BOX) for image in range(4)])
    most = make_table([(image, 0, 0.5, BOX) for image in range(3)])
    for first, second in [(nothing, everything), (nothing, most), (most, nothing), (everything, most)]:
        pair = [(match(truth, table, "voc"), table) for table in (first, second)]
        change = compare(truth, pair, resamples=200).difference
        assert -1 <= change.low <= change.value <= change.high <= 1


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Mean AP of 40 images drawn from 4,000, again and again: the interval holds that of all in about 95 % of turns."""
    generator = np.random.default_rng(11)

    def draw(count: int) -> tuple[Truth, DetectionTable]:
        images, rows = [], []
        for image in range(count):
            hard = generator.random()  # photographs differ, so that what is found in one hangs together
            objects = [((150.0 * place, 0.0, 150.0 * place + 100, 100.0), 0) for place in range(3)]
            images.append(objects)
            for box, label in objects:
                if generator.random() > 0.8 * hard:
                    rows.append((image, label, float(generator.normal(1, 1)), box))
            rows += [(image, 0, float(generator.normal(hard, 1)), FAR) for _ in range(int(generator.integers(4)))]
        return make_truth(images, 1), make_table(rows)

    population, all_rows = draw(4000)
    expected = evaluate_voc(population, all_rows).mean_ap
    held = 0
    for _ in range(200):
        truth, table = draw(40)
        interval = bootstrap(truth, match(truth, table, "voc"), table, resamples=100)
        held += interval.low <= expected <= interval.high
    assert 0.3 < expected < 0.9
    assert 0.9 * 200 <= held <= 0.99 * 200


def test_resamples_are_counted_and_seeded() -> None:
    truth, table = random_case(1)
    matches = match(truth, table, "voc")
    first, again, other = (bootstrap(truth, matches, table, resamples=50, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    with pytest.raises(ValueError, match=r"resamples .*0"):
        bootstrap(truth, matches, table, resamples=0)


@pytest.mark.parametrize("measure", POINTS)
@pytest.mark.parametrize("classes", [[0], [2, 1], [0, 1, 2], [3, 0]])
def test_of_some_classes_the_value_is_their_mean(measure: str, classes: list[int]) -> None:
    """Nothing is known of class 3, and the others do not enter, neither the value nor any resample."""
    truth, table = random_case(0)
    matches = match(truth, table, "voc")
    ap = average_precisions(matches, table, POINTS[measure])
    assert ap[3] is None
    interval = bootstrap(truth, matches, table, points=POINTS[measure], resamples=60, classes=classes)
    assert interval.value == pytest.approx(np.mean([ap[label] for label in classes if label != 3]), abs=1e-12)
    assert interval.low < interval.value < interval.high
    kept = np.isin(truth.labels, classes)
    shown = np.isin(table.labels, classes)
    images = [
        [
            (tuple(box), label)
            for box, label in zip(truth.boxes[mine].tolist(), truth.labels[mine].tolist(), strict=True)
        ]
        for mine in ((truth.image_index == image) & kept for image in range(len(truth)))
    ]
    alone, found = make_truth(images, 4), table[shown]
    assert bootstrap(alone, match(alone, found, "voc"), found, points=POINTS[measure], resamples=60) == interval


def test_all_classes_are_the_default() -> None:
    truth, table = random_case(0)
    _, other = random_case(0, quality=14.0)
    first, second = ((match(truth, some, "voc"), some) for some in (table, other))
    everything = bootstrap(truth, *first, resamples=60)
    for classes in (None, range(4), [3, 2, 1, 0]):
        found = bootstrap(truth, *first, resamples=60, classes=classes)
        assert found.value == pytest.approx(everything.value, abs=1e-12)
        assert (found.low, found.high) == pytest.approx((everything.low, everything.high), abs=1e-12)
    assert bootstrap(truth, *first, resamples=60, classes=[0, 1]) != everything
    default, named = (compare(truth, [first, second], resamples=60, classes=classes) for classes in (None, range(4)))
    assert named.difference.value == pytest.approx(default.difference.value, abs=1e-12)
    assert named.p_value == default.p_value


def test_a_comparison_of_some_classes() -> None:
    """The two tables differ in class 1 alone."""
    truth, worse = random_case(0, quality=14.0)
    _, better = random_case(0, quality=2.0)
    parts = (worse[worse.labels != 1], better[better.labels == 1])
    mixed = DetectionTable(
        np.concatenate([part.image_index for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.boxes for part in parts]),
    )
    tables = [(match(truth, table, "voc"), table) for table in (worse, mixed)]
    same = compare(truth, tables, resamples=100, classes=[0, 2])
    assert (same.difference.low, same.difference.value, same.difference.high, same.p_value) == (0, 0, 0, 1)
    changed = compare(truth, tables, resamples=100, classes=[1])
    for interval, table in zip((changed.first, changed.second), (worse, mixed), strict=True):
        assert interval.value == pytest.approx(evaluate_voc(truth, table).ap["b"])
    assert changed.difference.value == pytest.approx(changed.second.value - changed.first.value)
    assert changed.difference.low > 0
    assert changed.by_class == same.by_class == compare(truth, tables, resamples=100).by_class  # of all, always
    both = compare(truth, tables, resamples=100, classes=[0, 1])
    assert both.difference.value == pytest.approx(changed.difference.value / 2)


# ---- stages


def make_trace(
    scores: list[list[float]], boxes: list[tuple[float, ...]], kept: int | None = None, limit: int = 200
) -> Trace:
    """Scores of two classes behind the background's."""
    kept = len(boxes) if kept is None else kept
    rows = np.array([[1 - sum(row), *row] for row in scores[:kept]], np.float32).reshape(-1, 3)
    all_boxes = np.array(boxes, np.float64).reshape(-1, 4)
    return Trace(all_boxes, rows, each(all_boxes[:kept]), SuppressionConfig(limit=limit), 0.5)


def each(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, 4] -> [N, 2, 4], the same box for both classes."""
    return np.stack([boxes, boxes], axis=1)


ONE = np.array([BOX])


@pytest.mark.parametrize(
    ("scores", "boxes", "options", "stage"),
    [
        ([[0.9, 0]], [BOX], {}, FOUND),
        ([[0.9, 0]], [shifted(50)], {}, "never proposed"),
        ([], [], {}, "never proposed"),
        ([[0.9, 0], [0.9, 0]], [FAR, BOX], {"kept": 1}, "proposed but cut"),
        ([[0.1, 0.8]], [BOX], {}, "misclassified"),
        ([[0.1, 0.1]], [BOX], {}, "misclassified"),
        ([[0.45, 0.2]], [BOX], {}, "below the score"),
        ([[0.9, 0], [0.8, 0]], [shifted(45), shifted(20)], {}, "suppressed by NMS"),
        ([[0.9, 0], [0.8, 0]], [FAR, BOX], {"limit": 1}, "beyond the limit per image"),
    ],
)
def test_the_stage_that_loses_an_object(
    scores: list[list[float]], boxes: list[tuple[float, ...]], options: dict[str, int], stage: str
) -> None:
    (fate,) = fates(make_trace(scores, boxes, **options), ONE, np.zeros(1, np.int64), 0.5)
    assert fate.stage == stage
    assert (fate.label, fate.box) == (0, list(BOX))


def test_one_box_for_two_objects() -> None:
    objects = np.array([BOX, shifted(10)])
    result = fates(make_trace([[0.9, 0]], [shifted(2)]), objects, np.zeros(2, np.int64), 0.5)
    assert [fate.stage for fate in result] == [FOUND, SHARED]
    assert result[1].best_iou == pytest.approx(92 / 108)


def test_fates_are_kept(tmp_path: Path) -> None:
    record = Record("7", Path("7.jpg"), 9, 9, ONE, np.zeros(1, np.int64), *[np.zeros(1, np.bool_)] * 2, np.ones(1))
    lost = fates(make_trace([[0.1, 0.1]], [BOX]), ONE, np.zeros(1, np.int64), 0.5)
    found = fates(make_trace([[0.9, 0]], [BOX]), ONE, np.zeros(1, np.int64), 0.5)
    path = tmp_path / "fates.jsonl"
    assert read_fates(path, 0.5, 0.5) == {}
    append_fates(path, record, lost, 0.5, 0.5)
    with path.open("a") as file:
        file.write('{"image_id": "7", "obj')  # killed here; the resumed run writes the image again
    append_fates(path, record, found, 0.5, 0.5)
    with path.open("a") as file:
        file.write('{"image_id": "8", "obj')
    assert read_fates(path, 0.5, 0.5) == {"7": found}
    assert read_fates(path, 0.7, 0.5) == read_fates(path, 0.5, 0.6) == {}  # nothing is known at those
    assert count_fates(read_fates(path, 0.5, 0.5)["7"])[FOUND] == 1
    assert sum(count_fates(read_fates(path, 0.5, 0.5)["7"]).values()) == 1


def test_perfect_stages() -> None:
    """An object that was never proposed, one that was taken for the other class, one that NMS threw out."""
    objects = np.array([FAR, BOX])
    labels = np.array([0, 0])
    trace = make_trace([[0.9, 0], [0.1, 0.8]], [shifted(45), shifted(20)])
    scores = np.array([[0.1, 0.9, 0], [0.2, 0.8, 0]], np.float32)
    with_proposals = perfect_proposals(trace, each(objects), scores)
    assert {tuple(box) for box in with_proposals.boxes.tolist()} >= {FAR}
    classified = perfect_classifier(trace, objects, labels, 0.5)
    assert classified.boxes.tolist() == [list(shifted(20))]  # the other box covers no object
    assert classified.scores[0] == pytest.approx(80 / 120)
    trace = make_trace([[0.9, 0], [0.8, 0], [0.7, 0], [0.6, 0]], [shifted(45), shifted(20), shifted(10), FAR])
    suppressed = perfect_suppression(trace, objects, labels, 0.5)
    assert [tuple(box) for box in suppressed.boxes.tolist()] == [shifted(20), FAR]  # the first is a near-copy of it
    assert suppressed.scores.tolist() == pytest.approx([0.8, 0.6])


def test_perfect_stages_without_objects_or_boxes() -> None:
    nothing, none = np.zeros((0, 4)), np.zeros(0, np.int64)
    empty = make_trace([], [])
    for trace in (empty, make_trace([[0.9, 0]], [BOX])):
        assert isinstance(perfect_proposals(trace, each(nothing), np.zeros((0, 3), np.float32)), Detections)
        assert len(perfect_classifier(trace, nothing, none, 0.5)) == 0
        assert len(perfect_suppression(trace, nothing, none, 0.5)) == trace.scored
    assert len(perfect_classifier(empty, ONE, np.zeros(1, np.int64), 0.5)) == 0
    assert len(perfect_suppression(empty, ONE, np.zeros(1, np.int64), 0.5)) == 0
