"""Which pictures a report shows: few, the wanted ones first, and one behind every number where it can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_page import make_table, make_truth

from detector.evaluation.matching import match
from detector.evaluation.protocols import evaluate_voc
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.report.contents import Report
from detector.report.evidence import Evidence, collect
from detector.report.gallery import PICTURES, crop, make_gallery, with_pictures

EMPTY = DetectionTable(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Five hundred images, of which three exist."""
    return make_truth(tmp_path_factory.mktemp("many"), images=500)


@pytest.mark.parametrize("seed", range(3))
def test_every_number_has_a_picture_while_there_is_room(many: Truth, seed: int) -> None:
    generator = np.random.default_rng(seed)
    evidence = {
        f"tag-{number}": Evidence(images=generator.choice(500, generator.integers(1, 60), replace=False))
        for number in range(45)
    }
    wanted = generator.choice(500, 10, replace=False).tolist()
    gallery = make_gallery(many, EMPTY, match(many, EMPTY, "voc"), 0.5, evidence, wanted)
    assert len(gallery.pictures) == len(gallery.place) <= PICTURES
    assert set(wanted) <= gallery.place.keys()
    for tag, one in evidence.items():
        assert set(one.images.tolist()) & gallery.place.keys(), tag


def test_the_wanted_leave_room_for_others(many: Truth) -> None:
    evidence = {"far": Evidence(images=np.array([499]))}
    gallery = make_gallery(many, EMPTY, match(many, EMPTY, "voc"), 0.5, evidence, range(400))
    assert len(gallery.pictures) <= PICTURES
    assert 499 in gallery.place


def test_a_number_without_a_readable_picture_leads_nowhere(many: Truth) -> None:
    evidence = {"there": Evidence(images=np.array([1])), "lost": Evidence(images=np.array([7]))}
    gallery = make_gallery(many, EMPTY, match(many, EMPTY, "voc"), 0.5, evidence)
    assert gallery.pictures[gallery.behind["there"][0]].image_id == "photo_1"
    assert "lost" not in gallery.behind
    assert crop(gallery, 7, [("hit", "cat", np.array([1.0, 1, 9, 9]))]) is None
    assert crop(gallery, 499, [("hit", "cat", np.array([1.0, 1, 9, 9]))]) is None


def test_a_crop_contains_its_boxes_and_stays_in_the_picture(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    table = make_table(truth)
    gallery = make_gallery(truth, table, match(truth, table, "voc"), 0.5, {})
    generator = np.random.default_rng(0)
    for _ in range(200):
        index = int(generator.integers(3))
        corner = generator.uniform(0, 400, 2)
        box = np.concatenate([corner, corner + generator.uniform(1, 110, 2)])
        part = crop(gallery, index, [("false", "cat 0.50", box)])
        assert part is not None
        x, y, width, height = part.view
        picture = gallery.pictures[part.place]
        assert picture.index == index
        assert 0 <= x <= x + width <= picture.width + 0.11
        assert 0 <= y <= y + height <= picture.height + 0.11
        left, top, across, down = part.frames[0].box
        assert x - 0.11 <= left <= left + across <= x + width + 0.11
        assert y - 0.11 <= top <= top + down <= y + height + 0.11


def test_items_without_a_picture_are_left_out_unless_all_are() -> None:
    shown, lost = ("a", "1", object()), ("b", "2", None)
    assert with_pictures([shown, lost]) == [shown]  # type: ignore[list-item]
    assert with_pictures([lost, lost]) == [lost, lost]


def test_evidence_is_what_the_matches_say(tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    table = make_table(truth)
    matches = match(truth, table, "voc")
    for score in (0.0, 0.5, 0.75, 2.0):
        evidence = collect(truth, table, matches, Report(evaluate_voc(truth, table)), score)
        for label in range(3):
            shown = [row for row in range(5) if table.labels[row] == label and table.scores[row] >= score]
            found = {int(matches.objects[row]) for row in shown if matches.status[row] == 1}
            empty = Evidence()
            assert evidence.get(f"found-{label}", empty).detections.tolist() == [
                row for row in shown if matches.status[row] == 1
            ]
            assert evidence.get(f"false-{label}", empty).detections.tolist() == [
                row for row in shown if matches.status[row] == 0
            ]
            assert evidence.get(f"missed-{label}", empty).objects.tolist() == [
                position for position in range(6) if truth.labels[position] == label and position not in found
            ]
