"""Work ahead of a loop: order, errors, how far ahead, what is left when the loop stops; images scored this way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector import Detector, DetectorConfig, pipeline
from detector.ahead import ahead, one_torch_thread
from detector.checkpoint import load_checkpoint
from detector.data.image import Image, read_image
from detector.pipeline import ScoredImage
from detector.views import View
from proposals.boxes import Boxes
from proposals.errors import UserError
from proposals.settings import ProposalConfig


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("depth", [0, 1, 5, 50])
def test_outcomes_come_in_order(workers: int, depth: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    found = [(item, future.result()) for item, future in ahead(range(12), work, workers=workers, depth=depth)]
    assert found == [(item, item * item) for item in range(12)]
    assert list(ahead([], work, workers=workers, depth=depth)) == []


def test_an_error_belongs_to_its_item() -> None:
    outcomes = [future.exception() for _, future in ahead([2, 0, 1], lambda item: 1 // item, workers=2, depth=1)]
    assert [type(error) for error in outcomes] == [type(None), ZeroDivisionError, type(None)]


def test_it_works_ahead_but_not_further_than_the_depth() -> None:
    """While the consumer holds item 0, items 1 to 3 are done and item 4 is not read."""
    read: list[int] = []
    done = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for item in range(9):
            read.append(item)
            yield item

    def work(item: int) -> int:
        done.release()
        return item

    generator = ahead(items(), work, workers=1, depth=3)
    next(generator)
    for _ in range(4):
        assert done.acquire(timeout=20)
    assert read == [0, 1, 2, 3]
    generator.close()


def test_a_loop_that_stops_waits_for_nobody() -> None:
    begun, release = threading.Event(), threading.Event()
    worked: list[int] = []

    def work(item: int) -> None:
        worked.append(item)
        if item == 1:
            begun.set()
            release.wait(20)

    generator = ahead(range(9), work, workers=1, depth=4)
    next(generator)
    assert begun.wait(20)
    generator.close()
    assert not release.is_set()  # item 1 is still at work
    release.set()
    time.sleep(0.05)
    assert worked == [0, 1]


def test_one_thread_is_the_calling_threads_own() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        seen: list[int] = []

        def inside() -> None:
            with one_torch_thread(3):
                seen.append(torch.get_num_threads())
            seen.append(torch.get_num_threads())

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [1, 3, 3]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# ---- images


@pytest.fixture(scope="module")
def model(toy_checkpoint: Path) -> Detector:
    proposals = ProposalConfig(width=0, min_width=8, max_boxes=20)
    config = DetectorConfig(proposals=proposals, precision="float32", batch=8)
    return Detector([load_checkpoint(toy_checkpoint)], config)


@pytest.fixture
def files(shapes: Path, tmp_path: Path) -> list[Path]:
    """Seven, of which the second and the last two cannot be read."""
    (tmp_path / "bad.jpg").write_text("no image")
    images = [shapes / "JPEGImages" / f"val{number}.png" for number in range(3)]
    bad = tmp_path / "bad.jpg"
    return [images[0], bad, images[1], images[2], images[0], bad, tmp_path / "none.jpg"]


def by_itself(model: Detector, path: Path) -> ScoredImage | Exception:
    try:
        return model.score(path)
    except (UserError, OSError) as error:
        return error


@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_images_ahead_as_each_by_itself(
    model: Detector, files: list[Path], group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image by itself, as on a CPU, or several together: the same to rounding."""
    monkeypatch.setattr(Detector, "_at_a_time", lambda _: (group, 2))
    found = list(model.score_many(files))
    assert [path for path, _ in found] == files
    for path, one in found:
        expected = by_itself(model, path)
        if isinstance(expected, Exception):
            assert repr(one) == repr(expected)
            continue
        assert isinstance(one, ScoredImage)
        assert np.array_equal(one.image, expected.image)
        assert np.array_equal(one.boxes, expected.boxes)
        np.testing.assert_allclose(one.scores.probabilities, expected.scores.probabilities, atol=1e-5)
        assert one.counts == expected.counts
        assert one.seconds.keys() - {"suppression"} == expected.seconds.keys() - {"suppression"}


def test_how_many_at_a_time(model: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = min(torch.get_num_threads(), pipeline.IMAGES_CPU)
    assert model._at_a_time() == (1, threads)
    monkeypatch.setattr(model, "device", torch.device("cuda"))
    assert model._at_a_time() == (pipeline.IMAGES_GPU, threads)
    own = replace(model.config, proposals=replace(model.config.proposals, own={"mine": "package.module:function"}))
    monkeypatch.setattr(model, "config", own)
    assert model._at_a_time() == (pipeline.IMAGES_GPU, 1)


def test_sources_may_be_anything(model: Detector, files: list[Path]) -> None:
    boxes = {name: np.array([[1, 2, 30 + name, 40]], np.float32) for name in (0, 2, 3)}

    def prepare(name: int) -> tuple[Image, Boxes]:
        return read_image(files[name]), boxes[name]

    for name, scored in model.score_many(iter(boxes), prepare):
        assert isinstance(scored, ScoredImage)
        assert np.array_equal(scored.boxes, boxes[name])
        expected = model.score(files[name], boxes[name]).scores.probabilities
        np.testing.assert_allclose(scored.scores.probabilities, expected, atol=1e-5)


def test_an_error_of_ours_ends_the_loop(model: Detector, files: list[Path]) -> None:
    def prepare(path: Path) -> tuple[Path, None]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(model.score_many(files, prepare))


def test_the_next_image_is_proposed_while_one_is_scored(
    model: Detector, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring the first image here waits until the second one is begun."""
    second = threading.Event()
    seen: list[Path] = []

    def prepare(path: Path) -> tuple[Path, None]:
        seen.append(path)
        if len(seen) == 2:
            second.set()
        return path, None

    score = Detector._score

    def waiting(self: Detector, views: list[View]) -> list[ScoredImage]:
        assert second.wait(30)
        return score(self, views)

    monkeypatch.setattr(Detector, "_at_a_time", lambda _: (1, 2))
    monkeypatch.setattr(Detector, "_score", waiting)
    assert sum(isinstance(scored, ScoredImage) for _, scored in model.score_many(files[2:5], prepare)) == 3
