"""Labels of windows against a table worked out by hand, and the shares of a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable, Dataset, Record
from detector.extraction import dataset_proposals
from detector.training.windows import BatchSampler, Windows, collect_windows, label_windows
from proposals.boxes import iou
from proposals.settings import ProposalConfig

TOY_PROPOSALS = ProposalConfig(width=0, min_width=8)


def make_record(
    boxes: list[tuple[float, ...]], labels: list[int], difficult: tuple[int, ...] = (), crowd: tuple[int, ...] = ()
) -> Record:
    count = len(boxes)
    array = np.array(boxes, np.float64).reshape(-1, 4)
    return Record(
        image_id="toy",
        path=Path("toy.jpg"),
        width=300,
        height=300,
        boxes=array,
        labels=np.array(labels, np.int64),
        difficult=np.isin(np.arange(count), difficult),
        crowd=np.isin(np.arange(count), crowd),
        areas=np.prod(array[:, 2:] - array[:, :2], axis=1),
    )


def dataset_of(record: Record) -> Dataset:
    names = tuple("abcdef")
    return Dataset("toy", ClassTable(names, (None,) * 6, tuple(range(1, 7))), (record,))


def part_of(share: float) -> tuple[float, ...]:
    """A box whose IoU with (0, 0, 100, 100) is the share."""
    return (0, 0, 100, 100 * share)


def make_windows(foreground: int, background: int) -> Windows:
    labels = np.array([1 + index % 4 for index in range(foreground)] + [0] * background, np.int16)
    count = len(labels)
    boxes = np.arange(count * 4, dtype=np.float32).reshape(-1, 4)
    overlaps = np.where(labels > 0, 1, np.arange(count) % 4 * 0.1).astype(np.float32)
    return Windows(np.arange(count, dtype=np.int32) % 7, boxes, labels, overlaps)


@pytest.mark.parametrize(
    ("overlap", "label"), [(0.0, 0), (0.29, 0), (0.3, 0), (0.49, 0), (0.5, 8), (0.51, 8), (1.0, 8)]
)
def test_label_by_overlap(overlap: float, label: int) -> None:
    record = make_record([(0, 0, 100, 100)], [7])
    box = np.array([part_of(overlap)]) if overlap else np.array([[200, 200, 220, 220]])
    assert iou(box.astype(np.float64), record.boxes)[0, 0] == pytest.approx(overlap)
    assert label_windows(box, record)[0].tolist() == [label]


@pytest.mark.parametrize(("overlap", "label"), [(0.0, 0), (0.29, 0), (0.3, -1), (0.49, -1), (0.5, -1), (1.0, 8)])
def test_label_at_the_thresholds_of_r_cnns_svms(overlap: float, label: int) -> None:
    record = make_record([(0, 0, 100, 100)], [7])
    labels, overlaps = label_windows(np.array([part_of(overlap)]), record, foreground_iou=1.0, background_iou=0.3)
    assert labels.tolist() == [label]
    assert overlaps.tolist() == pytest.approx([overlap])


def test_the_object_of_most_overlap_gives_the_label() -> None:
    record = make_record([(0, 0, 100, 100), (0, 0, 100, 60)], [0, 1])
    assert label_windows(np.array([part_of(0.9), part_of(0.55)]), record)[0].tolist() == [1, 2]
    assert label_windows(np.zeros((0, 4)), record)[0].tolist() == []
    assert label_windows(np.array([part_of(1)]), make_record([], []))[0].tolist() == [0]


@pytest.mark.parametrize("kind", ["difficult", "crowd"])
def test_a_window_on_a_difficult_or_crowd_object_is_an_example_of_nothing(kind: str) -> None:
    record = make_record([(0, 0, 100, 100), (200, 200, 300, 300)], [3, 5], **{kind: (0,)})  # type: ignore[arg-type]
    boxes = np.array([part_of(0.8), part_of(0.5), part_of(0.4), (200, 200, 300, 290)])
    assert label_windows(boxes, record)[0].tolist() == [-1, -1, 0, 6]
    windows = collect_windows(dataset_of(record), [boxes])
    assert windows.labels.tolist() == [6, 0, 6]  # the usual object itself, then two of its proposals
    assert windows.boxes[0].tolist() == [200, 200, 300, 300]


def test_a_batch_is_32_of_128() -> None:
    sampler = BatchSampler(make_windows(50, 400), batch=128, foreground=32, seed=0)
    for number in range(5):
        windows, mirrored = sampler.draw(number)
        assert len(windows) == len(mirrored) == 128
        assert (windows.labels[:32] > 0).all()
        assert (windows.labels[32:] == 0).all()
        assert windows.boxes.shape == (128, 4)


def test_a_draw_depends_on_the_seed_and_the_number_alone() -> None:
    windows = make_windows(50, 400)
    first, second = (BatchSampler(windows, batch=128, foreground=32, seed=3) for _ in range(2))
    first.draw(0)
    ahead = first.draw(9)
    again = second.draw(9)
    assert np.array_equal(ahead[0].boxes, again[0].boxes)
    assert np.array_equal(ahead[1], again[1])
    for other in (first.draw(8), BatchSampler(windows, batch=128, foreground=32, seed=4).draw(9)):
        assert not np.array_equal(other[0].boxes, ahead[0].boxes)


def test_draws_are_uniform_and_half_are_mirrored() -> None:
    sampler = BatchSampler(make_windows(10, 30), batch=128, foreground=32, seed=0)
    drawn = [sampler.draw(number) for number in range(200)]
    counts = np.unique(np.concatenate([windows.boxes[:, 0] for windows, _ in drawn]), return_counts=True)[1]
    np.testing.assert_allclose(counts[:10], 640, rtol=0.15)  # 200 * 32 / 10, standard deviation 24
    np.testing.assert_allclose(counts[10:], 640, rtol=0.15)  # 200 * 96 / 30
    assert np.mean([mirrored.mean() for _, mirrored in drawn]) == pytest.approx(0.5, abs=0.02)


def test_some_of_the_background_overlaps_an_object() -> None:
    sampler = BatchSampler(make_windows(10, 40), batch=16, foreground=4, seed=0, hard=8)
    for number in range(20):
        windows, _ = sampler.draw(number)
        assert windows.labels[:4].all()
        assert not windows.labels[4:].any()
        assert (windows.overlaps[8:] >= 0.1).all()
    assert any((sampler.draw(number)[0].overlaps[4:8] == 0).any() for number in range(20))
    easy = make_windows(10, 1)
    easy.overlaps[10] = 0
    with pytest.raises(ValueError, match="hard background"):
        BatchSampler(easy, batch=16, foreground=4, seed=0, hard=8)


def test_some_of_the_background_is_mined() -> None:
    windows = make_windows(10, 40)
    wrong = np.zeros(50, np.bool_)
    wrong[[15, 22, 40]] = True

    def sampler(wrong: NDArray[np.bool_]) -> BatchSampler:
        return BatchSampler(windows, batch=16, foreground=4, seed=0, hard=3, mined=5, wrong=wrong)

    drawn: set[float] = set()
    for number in range(20):
        some, _ = sampler(wrong).draw(number)
        assert len(some) == 16
        assert some.labels[:4].all()
        assert not some.labels[4:].any()
        assert (some.overlaps[8:11] >= 0.1).all()
        drawn |= set(some.boxes[11:, 0].tolist())
        assert np.array_equal(sampler(wrong).draw(number)[0].boxes, some.boxes)
    assert drawn == {60.0, 88.0, 160.0}
    with pytest.raises(ValueError, match="mined background"):
        sampler(np.zeros(50, np.bool_))


def test_few_windows_are_drawn_again() -> None:
    windows, _ = BatchSampler(make_windows(1, 1), batch=8, foreground=2, seed=0).draw(0)
    assert windows.labels.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("counts", "kind"), [((0, 5), "foreground"), ((5, 0), "background")])
def test_nothing_to_draw_from(counts: tuple[int, int], kind: str) -> None:
    with pytest.raises(ValueError, match=f" {kind} window"):
        BatchSampler(make_windows(*counts), batch=8, foreground=2, seed=0)


def test_windows_of_a_data_set(shapes: Path, tmp_path: Path) -> None:
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", ["square", "disc"]))
    store = dataset_proposals(dataset, TOY_PROPOSALS, tmp_path / "cache", 1)
    proposals = [store.get(record.image_id, record.path.read_bytes()).boxes for record in dataset.records]
    assert len(proposals) == len(dataset) == 4

    windows = collect_windows(dataset, proposals)
    assert len(windows) == sum(len(boxes) for boxes in proposals) + 8  # no object here is difficult
    for index, record in enumerate(dataset.records):
        own = windows[np.flatnonzero(windows.image == index)]
        assert np.array_equal(own.boxes[:2], record.boxes)
        assert own.labels[:2].tolist() == [1, 2]
        assert np.array_equal(own.boxes[2:], proposals[index])
        overlaps = iou(own.boxes.astype(np.float64), record.boxes)
        expected = np.where(overlaps.max(axis=1) >= 0.5, overlaps.argmax(axis=1) + 1, 0)
        assert np.array_equal(own.labels, expected)
    assert (windows.labels[8:] > 0).any()  # a red square on grey noise is easily proposed


def test_balanced_foreground_shows_rare_classes_more_often() -> None:
    """90 windows of one class and 10 of another: 1 to 1 at balance 1, 3 to 1 at balance 0.5."""
    labels = np.repeat(np.array([1, 2, 0], np.int16), [90, 10, 50])
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (150, 1))
    windows = Windows(np.zeros(150, np.int32), boxes, labels, np.zeros(150, np.float32))
    for balance, share in ((1.0, 0.5), (0.5, 0.25), (0.0, 0.1)):
        sampler = BatchSampler(windows, batch=40, foreground=20, seed=1, balance=balance)
        drawn = np.concatenate([sampler.draw(number)[0].labels[:20] for number in range(200)])
        assert set(drawn.tolist()) == {1, 2}
        assert abs((drawn == 2).mean() - share) < 0.03
