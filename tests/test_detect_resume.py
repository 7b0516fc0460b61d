"""A run of detect that goes on, prints JSON, stops at a failure, or is stopped; and what it says at the end."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detect_runs import CLASSES, IMAGE, StubDetector, contents, make_run, photo

from detector.checkpoint import load_checkpoint
from detector.commands.detecting import Manner
from detector.commands.results import UnknownClass, detections_of, only_classes, settings_digest
from detector.commands.run import run
from detector.data.ground_truth import ClassTable
from detector.data.video import Every
from detector.pipeline import Detector, ScoredImage
from detector.settings import DetectorConfig

RESUME = Manner(resume=True)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate("abc"):
        photo(tmp_path / f"photos/{name}.png", IMAGE + np.uint8(number))
    return tmp_path / "photos"


def seen(photos: Path, out: Path, *formats: str, **options: Any) -> list[str]:
    """The images that a resumed run works on."""
    detector = StubDetector()
    run = make_run([photos], out, *formats, detector=detector, manner=RESUME, **options)
    assert run.failures == []
    return detector.seen


def test_what_is_done_is_skipped(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    make_run([photos / "a.png"], out)
    assert seen(photos, out) == ["b", "c"]
    assert "detect: skipped, for they were done before: 1\n" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert seen(photos, out) == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert "detect: found naïve dog 3, cat 3\n" in capsys.readouterr().err  # of all, not of none
    assert [*StubDetector().seen] == []
    everything = StubDetector()
    make_run([photos], out, detector=everything)  # without --resume all is done again
    assert everything.seen == ["a", "b", "c"]


def test_what_would_come_out_otherwise_is_done_again(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    make_run([photos], out)
    photo(photos / "b.png", IMAGE + np.uint8(99))
    os.utime(photos / "a.png", ns=(1, 1))  # touched, not changed
    record = json.loads((out / "c.json").read_text())
    (out / "c.json").write_text(json.dumps(record | {"detections": [{"label": "cow"}]}))
    assert seen(photos, out) == ["b", "c"]
    err = capsys.readouterr().err
    assert "detect: done again: 1 changed since they were done\n" in err
    assert "detect: done again: 1 of which the record is damaged\n" in err
    assert seen(photos, out, settings="other") == ["a", "b", "c"]
    assert "detect: done again: 3 done with another model or settings\n" in capsys.readouterr().err


def test_other_formats_come_from_the_records(photos: Path, tmp_path: Path) -> None:
    """As if they had been asked for at once, but without detecting."""
    formats = ("json", "coco", "voc", "yolo", "labelme", "csv", "ilsvrc")
    make_run([photos], tmp_path / "at once", *formats, crops=True)
    make_run([photos], tmp_path / "later", pictures=False)
    assert seen(photos, tmp_path / "later", *formats, crops=True) == []
    later, at_once = contents(tmp_path / "later"), contents(tmp_path / "at once")
    for name in "abc":  # which say how long it took
        records = [json.loads(files.pop(f"{name}.json")) | {"seconds": {}} for files in (later, at_once)]
        assert records[0] == records[1]
    assert later == at_once


def test_a_killed_run_leaves_no_label_that_nobody_wrote(photos: Path, tmp_path: Path) -> None:
    """Between the line in the journal and the file, or behind both."""
    out = tmp_path / "out"
    make_run([photos], out, "json", "yolo")
    (out / "b.json").unlink()
    (out / "labels/b.txt").unlink()
    (out / "c.json").unlink()
    journal = out / ".detect.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"file": "labels/c.t')
    assert seen(photos, out, "json", "yolo") == ["b", "c"]


def test_frames_are_resumed(tmp_path: Path) -> None:
    from test_detect_sources import make_video

    clip, out = make_video(tmp_path / "clip.mp4"), tmp_path / "out"
    make_run([clip], out, manner=Manner(every=Every(seconds=2)))
    detector = StubDetector()
    make_run([clip], out, detector=detector, manner=Manner(every=Every(seconds=1), resume=True))
    assert detector.seen == ["clip_000001.000"]
    make_video(clip, frames=25)
    make_run([clip], out, detector=detector, manner=Manner(every=Every(seconds=2), resume=True))
    assert detector.seen[1:] == ["clip_000000.000", "clip_000002.000"]


def test_the_digest_changes_with_what_changes_results(toy_checkpoint: Path) -> None:
    base = DetectorConfig(models=[str(toy_checkpoint)], precision="float32")
    member = load_checkpoint(toy_checkpoint)

    def digest(config: DetectorConfig, classes: tuple[str, ...] = ()) -> str:
        detector = Detector([member] * len(config.models), config)
        if classes:
            only_classes(detector, classes)
        return settings_digest(detector)

    same = [base, replace(base, batch=3)]
    others = [
        replace(base, suppression=replace(base.suppression, min_score=0.3)),
        replace(base, suppression=replace(base.suppression, min_score=None)),
        replace(base, suppression=replace(base.suppression, limit=7)),
        replace(base, proposals=replace(base.proposals, max_boxes=9)),
        replace(base, models=[str(toy_checkpoint)] * 2),
        replace(base, precision="bfloat16"),
    ]
    digests = [digest(config) for config in (*same, *others)]
    assert digests[0] == digests[1]
    assert len({*digests, digest(base, ("disc",))}) == len(others) + 2


# ---- JSON on standard output


def test_a_line_of_json_for_each_image(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    (photos / "b.png").write_text("no image")
    out = tmp_path / "out"
    make_run([photos], out, manner=Manner(lines=True))
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.png", "b.png", "c.png"]
    assert lines[0] == json.loads((out / "a.json").read_text())
    assert lines[1] == {"image": str(photos / "b.png"), "error": lines[1]["error"]}
    assert "not an image" in lines[1]["error"]
    assert f"{photos}/a.png  80×60" in captured.err
    make_run([photos / "a.png"], out, manner=Manner(lines=True, resume=True))
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines[:1]  # also of what is skipped


def test_a_name_that_is_no_utf8_in_a_line(tmp_path: Path, capsys: Capture) -> None:
    path = photo(tmp_path / os.fsdecode(b"caf\xe9.png"))
    manner = Manner(lines=True)
    assert run("detect", lambda: len(make_run([path], tmp_path / "out", manner=manner).failures), stopped="") == 0
    out = capsys.readouterr().out
    assert json.loads(out)["image"] == str(path)
    out.encode()


# ---- ends


def test_the_first_failure_may_stop_the_run(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    (photos / "b.png").write_text("no image")
    out = tmp_path / "out"
    run = make_run([photos], out, "json", "csv", manner=Manner(stop=True))
    assert len(run.failures) == 1
    assert sorted(contents(out)) == ["a.json", "a_detections.jpg", "detections.csv"]
    assert capsys.readouterr().err.endswith("detect: stopped at the first failure; --on-error skip goes on\n")


def test_an_interrupted_run_keeps_what_it_has(photos: Path, tmp_path: Path) -> None:
    class Interrupted(StubDetector):
        def score(self, source: Any) -> ScoredImage:
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().score(source)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        make_run([photos], out, "json", "coco", "csv", detector=Interrupted())
    assert len((out / "detections.csv").read_text().splitlines()) == 1 + 4
    assert len(json.loads((out / "detections.coco.json").read_text())) == 4
    assert seen(photos, out, "json", "coco", "csv") == ["c"]
    assert len(json.loads((out / "detections.coco.json").read_text())) == 6


def test_a_full_disk_ends_the_run_in_one_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        make_run([photos], tmp_path / "out", "json", "csv")
    assert capsys.readouterr().err == ""


def test_a_failure_of_the_last_file_is_a_failure(photos: Path, tmp_path: Path) -> None:
    class Careless(StubDetector):
        def score(self, source: Any) -> ScoredImage:
            (tmp_path / "out/detections.csv").mkdir(parents=True, exist_ok=True)
            return super().score(source)

    run = make_run([photos / "a.png"], tmp_path / "out", "csv", detector=Careless())
    assert len(run.failures) == 1
    assert "detections.csv" in run.failures[0]


# ---- classes


def test_classes_are_chosen_before_the_limit_counts(photos: Path, tmp_path: Path) -> None:
    detector: Any = StubDetector(1)  # of two detections the better one, a dog
    only_classes(detector, ["cat"])
    make_run([photos / "a.png"], tmp_path / "out", detector=detector)
    record = json.loads((tmp_path / "out/a.json").read_text())
    assert [one["label"] for one in record["detections"]] == ["cat"]
    assert list(record["min_scores"]) == ["cat"]


@pytest.mark.parametrize("names", [["naïve dog", "cat"], ["naïve dog,cat"], ["n02121808", " naïve dog "]])
def test_classes_by_name_or_wordnet_id(names: list[str]) -> None:
    detector: Any = StubDetector()
    only_classes(detector, names)
    assert np.isfinite(detector.min_scores).all()


def test_an_unknown_class_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector: Any = StubDetector()
    with pytest.raises(UnknownClass, match=r"no class 'naive dog'\. Did you mean 'naïve dog'\?\nthere are cat, naïve"):
        only_classes(detector, ["cat", "naive dog"])
    monkeypatch.chdir(tmp_path)
    photo(Path("a.png"))
    with pytest.raises(UnknownClass, match=r"It is a file: files stand before --classes"):
        only_classes(detector, ["cat", "a.png"])
    assert detector.min_scores is None


def test_records_give_their_detections_back() -> None:
    record = {"detections": [{"label": "crane", "wnid": "n2", "score": 0.5, "box": [1, 2, 3, 4]}]}
    cranes = ClassTable(("crane", "crane"), ("n1", "n2"), (1, 2))
    assert detections_of(record, cranes).labels.tolist() == [1]
    assert len(detections_of({"detections": []}, CLASSES)) == 0
    with pytest.raises(LookupError):
        detections_of(record, CLASSES)
