"""The page of a training: the numbers of its rows, names as text, and each state of a run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Reader, read, words
from test_page import make_table, make_truth

from detector.evaluation.matching import match
from detector.evaluation.operating_points import OperatingPoint
from detector.evaluation.protocols import ScoringConfig, evaluate_table
from detector.report.pictures import missed_and_false
from detector.report.training_page import Outcome, Progress, Training, write_training_page
from detector.training.best_epoch import BestEpoch
from detector.training.record import Reports

ODD = ("<b>fett</b>", 'zwei "Wörter"', "Größe & Maß", "it's", "</style><script>alert(1)</script>")


def training(names: tuple[str, ...] = ("cat", "cup", "dog"), **changes: Any) -> Training:
    count = len(names)
    settings = {"epochs": ("4", "10"), "val.classes": ("['<i>x</i>', ä]", "[]")}
    plain = Training(
        name="cells",
        what="Classifier of regions, warped one by one",
        unit="objects",
        keys=names,
        names=names,
        train=tuple(range(100, 100 + count)),
        val=tuple(range(1, 1 + count)),
        init="googlenet_voc0712",
        facts={"val": "cells val: 6 images"},
        settings=settings,
        epochs=4,
    )
    return replace(plain, **changes)


def rows_of(count: int, names: tuple[str, ...] = ("cat", "cup", "dog"), seed: int = 0) -> list[dict[str, float]]:
    """Rows as of a training on regions that measures AP every second epoch; no class "dog" on val."""
    draw = np.random.default_rng(seed).random
    rows = []
    for epoch in range(count):
        row = {"epoch": float(epoch)}
        if epoch:
            row |= {"train_loss": float(draw()), "learning_rate": 0.003 * float(draw())}
        row |= {"val_loss": float(draw()), "val_foreground_accuracy": float(draw())}
        if epoch % 2 == 0:
            row |= {"val_ap": float(draw())} | {f"val_ap/{name}": float(draw()) for name in names if name != "dog"}
        row |= {"data_seconds": 0.5, "compute_seconds": 60 * float(draw()), "measure_seconds": 2.0, "seconds": 63.0}
        rows.append(row | {"eta_seconds": 100.0 * (count - epoch)})
    return rows


def page(path: Path, training: Training, rows: list[dict[str, float]], best: int | None = 0, **changes: Any) -> Reader:
    outcome = changes.pop("outcome", None)
    progress = Progress(rows=rows, criterion="val_loss", best=best, **{"state": "running"} | changes)
    write_training_page(path, training, progress, outcome)
    return read(path)


def table_of(reader: Reader, path: Path, label: str) -> list[list[str]]:
    """The cells of the table in the region of that label, tags taken out."""
    content = path.read_text()
    part = content[content.index(f'aria-label="{label}"><table>') :]
    part = part[: part.index("</table>")]
    lines = re.findall(r"<tr.*?</tr>", part, re.S)
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in re.split(r"</t[hd]>", line)[:-1]] for line in lines]


def test_it_has_the_numbers_of_the_rows_exactly(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    rows = rows_of(4)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reader = page(path, training(), rows, best=2)
    assert sum(tag == "h1" for tag, _ in reader.elements) == 1
    table = path.read_text()
    table = table[table.index('aria-label="Epochs"') :]
    lines = re.findall(r"<tr.*?</tr>", table[: table.index("</table>")], re.S)[1:]
    for line, text in zip(lines, (tmp_path / "metrics.jsonl").read_text().splitlines(), strict=True):
        numbers = [float(value) for value in re.findall(r'<data value="([^"]*)">', line)]
        row = {key: value for key, value in json.loads(text).items() if "/" not in key}
        assert sorted(numbers) == sorted(row.values())
        assert numbers[0] == row["epoch"]
        assert ("best" in line) == (row["epoch"] == 2)
    text = words(reader)
    assert "Running after epoch 3 of 4." in text
    assert f"val_loss of the best epoch {rows[2]['val_loss']:.4g} epoch 2 of 4" in text
    assert f"AP on val, epoch 2 {rows[2]['val_ap']:.4f}" in text
    assert "time so far 4m12s" in text  # 4 x 63 s
    assert "time left 1m40s" in text
    assert "it starts from googlenet_voc0712." in text
    assert "val cells val: 6 images" in text
    assert "val.classes ['<i>x</i>', ä] []" in text


def test_ap_of_classes_is_that_of_the_last_and_of_the_best_epoch(tmp_path: Path) -> None:
    rows = rows_of(4)
    path = tmp_path / "report.html"
    reader = page(path, training(), rows, best=0)
    found = table_of(reader, path, "Classes")
    by_name = {name: cells for name, *cells in found}
    for name, counts in (("cat", ["100", "1"]), ("cup", ["101", "2"])):
        ap = [f"{rows[epoch][f'val_ap/{name}']:.4f}" for epoch in (0, 2)]
        assert by_name[name] == [*ap, *counts]
    assert by_name["dog"] == ["–", "–", "102", "3"]
    assert by_name["all"] == [f"{rows[0]['val_ap']:.4f}", f"{rows[2]['val_ap']:.4f}", "303", "6"]
    worst = min(("cat", "cup"), key=lambda name: rows[0][f"val_ap/{name}"])
    assert [found[1][0], found[3][0]] == [worst, "dog"]  # AP of the best epoch ranks, what has none comes last
    page(path, training(), rows, best=1)  # an epoch in which AP was not measured
    assert {name: cells for name, *cells in table_of(reader, path, "Classes")}["cat"][0] == "–"


def test_curves_have_the_columns_and_their_ends(tmp_path: Path) -> None:
    rows = rows_of(4)
    reader = page(tmp_path / "report.html", training(), rows)
    plots = [attributes["aria-label"] for tag, attributes in reader.elements if tag == "svg" and "role" in attributes]
    assert [label.partition(" over")[0] for label in plots] == [
        "Loss", "AP on val", "Accuracy on windows of val", "Learning rate", "Seconds per epoch",
    ]  # fmt: skip
    assert f"train from {rows[1]['train_loss']:.4g} to {rows[3]['train_loss']:.4g}" in plots[0]
    assert f"ap from {rows[0]['val_ap']:.4g} to {rows[2]['val_ap']:.4g}" in plots[1]
    assert all("Zelle" not in label and "/" not in label for label in plots)


@pytest.mark.parametrize("count", [0, 1, 2, 150])
def test_any_number_of_epochs(tmp_path: Path, count: int) -> None:
    reader = page(tmp_path / "report.html", training(epochs=200), rows_of(count), best=None if count == 0 else 0)
    assert ("No epoch is finished yet." in words(reader)) == (count == 0)
    assert (tmp_path / "report.html").stat().st_size < 600_000


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    odd = training(ODD, name=ODD[0], init=ODD[3], facts={ODD[1]: ODD[4]}, settings={ODD[0]: (ODD[1], ODD[4])})
    rows = rows_of(3, ODD)
    reader = page(tmp_path / "report.html", odd, rows, note=ODD[4], run={"command": ODD[4]}, commands={"x": ODD[0]})
    assert not any(tag in ("b", "i") for tag, _ in reader.elements)
    for name in ODD:
        assert name in words(reader)


def test_two_hundred_classes(tmp_path: Path) -> None:
    names = tuple(f"class {label}" for label in range(200))
    reader = page(tmp_path / "report.html", training(names), rows_of(40, names))
    assert len(table_of(reader, tmp_path / "report.html", "Classes")) == 202
    assert (tmp_path / "report.html").stat().st_size < 500_000
    assert any(tag == "details" for tag, _ in reader.elements)


def outcome_of(folder: Path) -> Outcome:
    truth = make_truth(folder)
    table = make_table(truth)
    evaluation = evaluate_table(truth, table, ScoringConfig())
    shown = table[table.scores >= 0.5]
    pictures = missed_and_false(truth, shown, match(truth, shown, "voc"))
    point = OperatingPoint(0.2, 0.75, 0.5, 0.6)
    return Outcome(evaluation, (0.2, 0.31, 0.5), (point, None, None), *pictures)


def test_a_finished_run_shows_its_mistakes_and_what_to_do_next(tmp_path: Path) -> None:
    """photo_2 has both of its objects missed and a false positive; photo_1 one missed (test_page)."""
    path = tmp_path / "report.html"
    outcome = outcome_of(tmp_path)
    reader = page(
        path, training(), rows_of(4), outcome=outcome, state="finished", commands={"done": "detect.py image.jpg"}
    )
    text = words(reader)
    assert "Finished after epoch 3 of 4." in text
    assert f"mean AP on val {outcome.evaluation.mean_ap:.4f}" in text
    assert "detect.py image.jpg" in text
    alts = [attributes["alt"] for tag, attributes in reader.elements if tag == "img"]
    assert [alt.split(":")[0] for alt in alts] == ["Image photo_2", "Image photo_1"]
    assert "Most objects missed" in text
    by_name = {name: cells for name, *cells in table_of(reader, path, "Classes")}
    assert by_name["cat"][:4] == [f"{outcome.evaluation.ap['cat']:.4f}", "0.200", "0.750", "0.500"]
    assert by_name["cup"][1:4] == ["0.310", "–", "–"]
    assert by_name["dog"][0] == "–"
    assert path.stat().st_size < 400_000


def test_missed_objects_and_confident_mistakes(tmp_path: Path) -> None:
    """Each list is ranked by its own rule, counted by hand; no image is in both."""
    truth = make_truth(tmp_path, images=5)
    boxes = np.array([[0.0, 0, 9, 9]] * 4)
    table = make_table(truth)[:0]
    table = replace(
        table,
        image_index=np.array([3, 4, 4, 1]),
        labels=np.zeros(4, np.int64),
        scores=np.array([0.4, 0.9, 0.3, 0.5]),
        boxes=boxes,
    )
    missed, false = missed_and_false(truth, table, match(truth, table, "voc"), count=2)
    assert [one.image_id for one in missed] == ["photo_0", "photo_1"]  # all miss two; the first ones
    assert [one.image_id for one in false] == ["photo_4", "photo_3"]  # by 0.9 and 0.4; photo_1 is shown already
    assert [one.false for one in false] == [2, 1]


def test_an_interrupted_run_keeps_its_rows_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"command": "python train.py a=/home/me/x", "device": "cpu"}))
    rows = rows_of(4)
    best = BestEpoch("val_loss")
    reports = Reports(tmp_path, training=training())
    for row in rows[:3]:
        best.offer(int(row["epoch"]), row)
        reports.add(row, best)
    reports.write_page("stopped", "The same command with --resume auto goes on.", best=best)
    text = words(read(tmp_path / "report.html"))
    assert "Stopped after epoch 2 of 4. The same command with --resume auto goes on." in text
    assert "/home/me" not in text
    resumed = Reports(tmp_path, 1, training=training())  # the state has two epochs
    resumed.add(rows[3] | {"epoch": 2.0}, best)
    lines = table_of(read(tmp_path / "report.html"), tmp_path / "report.html", "Epochs")
    assert [cells[0].split()[0] for cells in lines[1:]] == ["0", "1", "2"]
    assert not resumed.finished
    resumed.finish(best)
    assert resumed.finished
    assert "Finished after epoch 2 of 4." in words(read(tmp_path / "report.html"))
    resumed.finish(replace(best, patience=1, worse=1))
    assert "Finished after epoch 2 of 4. It ended early: val_loss was no better" in words(
        read(tmp_path / "report.html")
    )


def test_a_page_that_cannot_be_drawn_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr("detector.training.record.write_training_page", broken)
    reports = Reports(tmp_path, training=training())
    reports.add({"epoch": 1.0, "val_loss": 0.5})
    assert "report.html (ValueError: no font)" in caplog.text
