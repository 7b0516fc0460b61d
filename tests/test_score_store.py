"""Scores of boxes on disk against a dictionary: each box once, in the order asked, whatever became of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.experiments.score_store import ScoreStore
from detector.scores import RegionScores
from proposals.boxes import Boxes

PHOTO, OTHER = b"one photograph", b"another"
A, B, C, D = ([0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 20.0, 30.0], [1.0, 2.0, 3.0, 4.0], [0.0, 7.0, 90.0, 60.0])


class Classifier:
    """Scores that tell boxes apart; it remembers what it was asked."""

    def __init__(self, sign: float = 1.0, *, moves: bool = False) -> None:
        self.asked: list[list[list[float]]] = []
        self.sign, self.moves = sign, moves

    def __call__(self, boxes: Boxes) -> RegionScores:
        self.asked.append(boxes.tolist())
        return self.by_hand(boxes)

    def by_hand(self, boxes: Boxes) -> RegionScores:
        x1, y1, x2, y2 = boxes.astype(np.float32).T
        rows = self.sign * np.stack([x1 + 100 * x2, y1 - y2, x2 * y2], axis=1)
        offsets = self.sign * np.stack([boxes, 2 * boxes], axis=1) if self.moves else None
        return RegionScores(rows.astype(np.float32), None if offsets is None else offsets.astype(np.float32))

    @property
    def boxes(self) -> list[list[float]]:
        """All that it scored, of all calls."""
        return [box for call in self.asked for box in call]


def same(first: RegionScores, second: RegionScores) -> bool:
    return np.array_equal(first.probabilities, second.probabilities) and (
        np.array_equal(first.offsets, second.offsets)
        if first.offsets is not None and second.offsets is not None
        else first.offsets is second.offsets
    )


def array(*boxes: list[float]) -> NDArray[np.float32]:
    return np.array(boxes, np.float32).reshape(-1, 4)


def the_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


# ---- each box once


def test_overlapping_sets_ask_for_the_new_boxes_only(tmp_path: Path) -> None:
    store, classifier = ScoreStore(tmp_path), Classifier()
    for boxes in ((A, B), (B, C, A), (C, B), (D, A, D, C)):
        assert same(store.scores(PHOTO, array(*boxes), classifier), classifier.by_hand(array(*boxes)))
    assert [sorted(call) for call in classifier.asked] == [sorted([A, B]), [C], [D]]


def test_a_box_twice_in_one_request_is_asked_once(tmp_path: Path) -> None:
    classifier = Classifier()
    rows = ScoreStore(tmp_path).scores(PHOTO, array(B, A, B, B), classifier)
    assert sorted(classifier.boxes) == sorted([A, B])
    assert same(rows, classifier.by_hand(array(B, A, B, B)))


def test_box_offsets_are_kept_too(tmp_path: Path) -> None:
    store, classifier = ScoreStore(tmp_path), Classifier(moves=True)
    for boxes in ((A, B), (C, A), (B, C)):
        assert same(store.scores(PHOTO, array(*boxes), classifier), classifier.by_hand(array(*boxes)))
    assert len(classifier.boxes) == 3


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_a_dictionary(tmp_path: Path, seed: int) -> None:
    """Random sets of whole and of broken numbers that overlap, on several images in turn."""
    generator = np.random.default_rng(seed)
    store, known = ScoreStore(tmp_path), {PHOTO: dict[tuple[float, ...], list[float]](), OTHER: {}}
    for _ in range(12):
        content = (PHOTO, OTHER)[int(generator.integers(2))]
        pool = np.random.default_rng(9).uniform(-5, 500, (40, 4)).astype(np.float32)
        pool[::2] = pool[::2].round()
        boxes = pool[generator.integers(0, 40, int(generator.integers(1, 25)))]
        new = {tuple(box) for box in boxes.tolist()} - known[content].keys()
        classifier = Classifier(1.0 if content is PHOTO else -1.0)
        rows = store.scores(content, boxes, classifier)
        assert len(classifier.boxes) == len(new)
        assert {tuple(box) for box in classifier.boxes} == new
        for box in new:
            known[content][box] = classifier.by_hand(array(list(box))).probabilities[0].tolist()
        assert rows.probabilities.dtype == np.float32
        assert rows.probabilities.tolist() == [known[content][tuple(box)] for box in boxes.tolist()]


def test_what_is_missing_can_be_scored_elsewhere(tmp_path: Path) -> None:
    """Each missing box once; what is known stays."""
    store, classifier, other = ScoreStore(tmp_path), Classifier(), Classifier(-1.0)
    store.scores(PHOTO, array(A, B), classifier)
    assert sorted(store.missing(PHOTO, array(C, A, D, C, B)).tolist()) == sorted([C, D])
    store.add(PHOTO, array(A, D, C), other.by_hand(array(A, D, C)))
    found = store.scores(PHOTO, array(A, B, C, D))
    assert same(found[:2], classifier.by_hand(array(A, B)))
    assert same(found[2:], other.by_hand(array(C, D)))
    assert store.missing(PHOTO, array(A, B, C, D)).shape == (0, 4)
    assert len(store.missing(OTHER, array(A, B))) == 2


def test_float16_is_read_as_it_was_returned(tmp_path: Path) -> None:
    chances = np.random.default_rng(0).random((1, 3)).astype(np.float32)
    first = ScoreStore(tmp_path, half=True).scores(PHOTO, array(A), lambda _: RegionScores(chances))
    assert first.probabilities.dtype == np.float32
    assert np.array_equal(first.probabilities, chances.astype(np.float16))
    assert not np.array_equal(first.probabilities, chances)
    assert same(ScoreStore(tmp_path, half=True).scores(PHOTO, array(A)), first)
    with np.load(the_file(tmp_path)) as file:
        assert file["probabilities"].dtype == np.float16


def test_minus_zero_is_zero(tmp_path: Path) -> None:
    store, classifier = ScoreStore(tmp_path), Classifier()
    store.scores(PHOTO, array([-0.0, 0.0, 4.0, 4.0], [0.0, -0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]), classifier)
    store.scores(PHOTO, array([-0.0, -0.0, 4.0, 4.0]), classifier)
    assert classifier.asked == [[[0.0, 0.0, 4.0, 4.0]]]


def test_boxes_may_be_float64_or_not_contiguous(tmp_path: Path) -> None:
    """One box is the same box in either precision."""
    store, classifier = ScoreStore(tmp_path), Classifier()
    exact = np.array([[0.1, 0.2, 33.3, 44.4], [1 / 3, 2 / 3, 7.7, 8.8]])
    expected = classifier.by_hand(exact.astype(np.float32))
    assert same(store.scores(PHOTO, exact, classifier), expected)
    assert same(store.scores(PHOTO, exact.astype(np.float32)), expected)
    assert same(store.scores(PHOTO, np.asfortranarray(exact[::-1])), expected[::-1])
    assert len(classifier.asked) == 1


def test_no_boxes_ask_for_nothing(tmp_path: Path) -> None:
    store, classifier = ScoreStore(tmp_path), Classifier()
    none = np.zeros((0, 4), np.float32)
    assert len(store.scores(PHOTO, none, classifier)) == 0
    assert len(store.scores(PHOTO, none)) == 0
    assert classifier.boxes == []
    store.scores(PHOTO, array(A), classifier)
    assert store.scores(PHOTO, none).probabilities.shape == (0, 3)


# ---- what is kept


def test_another_store_of_the_folder_knows_them(tmp_path: Path) -> None:
    classifier, other = Classifier(), Classifier()
    ScoreStore(tmp_path / "deep" / "scores").scores(PHOTO, array(A, B), classifier)
    again = ScoreStore(tmp_path / "deep" / "scores")
    assert same(again.scores(PHOTO, array(B, A)), classifier.by_hand(array(B, A)))
    again.scores(PHOTO, array(B, C, A), other)
    assert other.asked == [[C]]
    assert [path.suffix for path in (tmp_path / "deep" / "scores").iterdir()] == [".npz"]


def test_another_image_and_another_folder_are_separate(tmp_path: Path) -> None:
    store, first, second, third = ScoreStore(tmp_path / "x"), Classifier(), Classifier(-1.0), Classifier(2.0)
    for _ in range(2):
        assert same(store.scores(PHOTO, array(A), first), first.by_hand(array(A)))
        assert same(store.scores(OTHER, array(A), second), second.by_hand(array(A)))
        assert same(ScoreStore(tmp_path / "y").scores(PHOTO, array(A), third), third.by_hand(array(A)))
    assert first.asked == second.asked == third.asked == [[A]]


def test_what_is_missing_is_an_error_where_nothing_can_score(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    with pytest.raises(ValueError, match="2 of 2"):
        store.scores(PHOTO, array(A, B))
    store.scores(PHOTO, array(A, B), Classifier())
    with pytest.raises(ValueError, match="1 of 3"):
        store.scores(PHOTO, array(A, C, B))
    with pytest.raises(ValueError, match="1 of 1"):
        store.scores(OTHER, array(A))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("not what it was")


def one_number(path: Path) -> None:
    """A bit of the first box, whose checksum no longer fits."""
    content = bytearray(path.read_bytes())
    content[content.index(array(A).tobytes())] ^= 1
    path.write_bytes(content)


def without_probabilities(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, boxes=array(A, B))


@pytest.mark.parametrize("damage", [empty, half, text, one_number, without_probabilities])
def test_a_damaged_file_is_scored_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store, classifier = ScoreStore(tmp_path), Classifier()
    store.scores(PHOTO, array(A, B), Classifier())
    damage(the_file(tmp_path))
    assert store.seconds_per_box(PHOTO) == 0
    assert same(store.scores(PHOTO, array(B, A), classifier), classifier.by_hand(array(B, A)))
    assert sorted(classifier.boxes) == sorted([A, B])
    assert same(ScoreStore(tmp_path).scores(PHOTO, array(A, B)), classifier.by_hand(array(A, B)))


def test_no_byte_of_the_file_can_make_other_scores(tmp_path: Path) -> None:
    """Whichever is turned over: the scores are right, read or made anew."""
    store, classifier = ScoreStore(tmp_path), Classifier()
    expected = store.scores(PHOTO, array(A, B), classifier)
    path = the_file(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert same(store.scores(PHOTO, array(A, B), classifier), expected)
    assert len(classifier.asked) > 100


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_a_classifier_that_fails_loses_nothing(tmp_path: Path, problem: type[BaseException]) -> None:
    store, classifier = ScoreStore(tmp_path), Classifier()
    store.scores(PHOTO, array(A, B), classifier)
    before = the_file(tmp_path).read_bytes()

    def fail(_: Boxes) -> RegionScores:
        raise problem

    with pytest.raises(problem):
        store.scores(PHOTO, array(A, C), fail)
    assert the_file(tmp_path).read_bytes() == before
    assert same(store.scores(PHOTO, array(A, B)), classifier.by_hand(array(A, B)))


def test_a_disk_that_fills_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, classifier = ScoreStore(tmp_path), Classifier()
    store.scores(PHOTO, array(A, B), classifier)

    def fill_up(file: object, **_: object) -> None:
        file.write(b"PK")  # type: ignore[attr-defined]
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fill_up)
        with pytest.raises(OSError, match="no space left"):
            store.scores(PHOTO, array(C), classifier)
    assert same(store.scores(PHOTO, array(A, B)), classifier.by_hand(array(A, B)))


def test_seconds_per_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds for two boxes, then ten for three more; what is known costs nothing."""
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("detector.experiments.score_store.time.perf_counter", lambda: float(next(clock)))
    store = ScoreStore(tmp_path)
    assert store.seconds_per_box(PHOTO) == 0
    store.scores(PHOTO, array(A, B), Classifier())
    assert store.seconds_per_box(PHOTO) == pytest.approx(10 / 2)
    store.scores(PHOTO, array(B, A), Classifier())
    store.scores(PHOTO, array(A, C, D, [1.0, 1.0, 2.0, 2.0]), Classifier())
    assert ScoreStore(tmp_path).seconds_per_box(PHOTO) == pytest.approx(20 / 5)
    assert store.seconds_per_box(OTHER) == 0
