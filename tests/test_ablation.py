"""The table of an ablation against the experiment of each row, what it scores again, and its command."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import nn

from detector.checkpoint import RegionClassifier, load_checkpoint, save_checkpoint
from detector.config import ConfigError, config_to_dict, load_config
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable
from detector.data.ilsvrc import det_classes
from detector.evaluation import DetectionTable, Evaluation, ResultsError
from detector.evaluation.bootstrap import Interval
from detector.evaluation.protocols import Protocol, ScoringConfig, evaluate_table
from detector.evaluation.reading import read_results
from detector.evaluation.truth_files import read_truth
from detector.experiments.ablation import (
    ALL,
    AblationConfig,
    Row,
    RowConfig,
    Table,
    ablate,
    format_markdown,
    write_table,
)
from detector.experiments.detection_run import run_detector
from detector.experiments.evaluation_run import EvaluationConfig
from detector.experiments.score_store import ScoreStore
from detector.experiments.stored_models import StoredModel
from detector.extraction import dataset_proposals
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, regression_features
from detector.network.input import InputConvention
from detector.pipeline import Detector
from detector.regions.warp import RegionConfig
from detector.scores import RegionScores
from detector.scoring import RegionScorer
from detector.settings import CascadeConfig, DetectorConfig, SuppressionConfig
from detector.suppression import suppress
from detector.views import View
from proposals.settings import ProposalConfig
from proposals.store import ProposalStore

Main = Callable[[list[str]], int]
SHAPES = ["square", "disc"]
FEW = ProposalConfig(width=0, min_width=8, max_boxes=6)
MANY = ProposalConfig(width=0, min_width=8, superpixel_scale=1.0, max_boxes=14)
STRICT = SuppressionConfig(min_score=0.2, max_iou=0.1, limit=3)


def save_network(path: Path, seed: int, classes: tuple[str, ...] = ("square", "disc")) -> str:
    """A narrow network with random weights, of which two seeds disagree: logits around 0 on squares of one colour."""
    torch.manual_seed(seed)
    network = GoogLeNet(GoogLeNetConfig(classes=len(classes) + 1, width=0.25, initialisation="xavier")).eval()
    with torch.no_grad():
        features = network.trunk(60 * torch.randn(32, 3, 1, 1).expand(-1, -1, 64, 64)).mean(dim=(2, 3))
        weight = torch.randn(len(classes) + 1, features.shape[1]) / features.std(dim=0).norm()
        network.fc.weight.copy_(weight)
        network.fc.bias.copy_(-weight @ features.mean(dim=0))
        network.set_regression(
            nn.Linear(regression_features(network.trunk(torch.zeros(1, 3, 64, 64))).shape[1], 4 * len(classes))
        )
    convention = InputConvention(mean=(120.0, 120.0, 120.0), std=(1.0, 1.0, 1.0))
    table = ClassTable(classes, (None,) * len(classes), tuple(range(1, len(classes) + 1)))
    save_checkpoint(path, RegionClassifier(network, convention, RegionConfig(size=64, context=4), table))
    return str(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    return save_network(folder / "a.safetensors", 3), save_network(folder / "b.safetensors", 1)


@pytest.fixture(scope="module")
def config(shapes: Path, models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> AblationConfig:
    """Each thing a row can differ in, and a row like the first."""
    first, second = models
    return AblationConfig(
        data=DataConfig(DatasetKind.voc, str(shapes), "val", SHAPES),
        proposals={"few": FEW, "many": MANY},
        rows={
            "first": RowConfig("few", [first]),
            "the same": RowConfig("few", [first]),
            "more boxes": RowConfig("many", [first]),
            "another": RowConfig("few", [second]),
            "both": RowConfig("few", [first, second]),
            "strict": RowConfig("many", [first], STRICT),
            "regression": RowConfig("few", [first, second], regression=True, against="both"),
            "cascade": RowConfig("many", [first, second], regression=True, cascade=CascadeConfig(0.6, 4)),
            "voting": RowConfig("many", [first], SuppressionConfig(soft_sigma=0.3, vote=0.4), regression=True),
            "some mirrored": RowConfig("many", [first, second], cascade=CascadeConfig(0.6, 4, mirror=True)),
            "second pass": RowConfig(
                "many", [first, second], regression=True, cascade=CascadeConfig(0.6, 4, second_pass=True)
            ),
            "all of it": RowConfig(
                "many",
                [first],
                SuppressionConfig(vote=0.4),
                regression=True,
                cascade=CascadeConfig(0.6, 4, 0.9, mirror=True, second_pass=True),
            ),
        },
        name="toy",
        groups={"round": ["disc"], "whole": ["square", "disc"]},
        resamples=50,
        precision="float32",
        cache=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="module")
def table(config: AblationConfig) -> Table:
    return ablate(config, "cpu")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of boxes that classifiers were asked to score, image by image."""
    score, counts = RegionScorer.__call__, list[int]()

    def counted(self: RegionScorer, views: Sequence[View]) -> list[RegionScores]:
        counts.extend(map(len, views))
        return score(self, views)

    monkeypatch.setattr(RegionScorer, "__call__", counted)
    return counts


def stored(config: AblationConfig, name: str) -> list[NDArray[np.float32]]:
    """The boxes of each image."""
    dataset = open_dataset(config.data)
    store = dataset_proposals(dataset, config.proposals[name], Path(config.cache) / "proposals", 1)
    return [store.get(record.image_id, record.path.read_bytes()).boxes for record in dataset.records]


def experiment(config: AblationConfig, name: str) -> Evaluation:
    """The row as eval_map runs it."""
    row = config.rows[name]
    detector = DetectorConfig(
        row.models,
        config.proposals[row.proposals],
        row.suppression,
        regression=row.regression,
        cascade=row.cascade,
        precision="float32",
    )
    evaluation = EvaluationConfig(
        config.protocol, config.min_iou, data=config.data, name=name, detector=detector, cache="boxes"
    )
    truth = read_truth(config.data)
    return evaluate_table(truth, read_results(run_detector(evaluation, "cpu").journal, truth).table, evaluation)


# ---- the numbers


@pytest.mark.parametrize(
    "name",
    [
        *("first", "more boxes", "both", "strict", "regression", "cascade"),
        *("voting", "some mirrored", "second pass", "all of it"),
    ],
)
def test_a_row_is_what_its_experiment_gives(config: AblationConfig, table: Table, name: str, workplace: Path) -> None:
    evaluation = experiment(config, name)
    row = table.rows[name]
    assert row.mean_ap[ALL].value == pytest.approx(evaluation.mean_ap, abs=1e-9)
    assert row.mean_ap["whole"] == row.mean_ap[ALL]
    assert row.mean_ap["round"].value == pytest.approx(evaluation.ap["disc"], abs=1e-9)
    assert 0 < evaluation.mean_ap < 1
    assert row.mean_ap[ALL].low < evaluation.mean_ap < row.mean_ap[ALL].high
    assert list(row.mean_ap) == [ALL, "round", "whole"]


def test_other_protocols(config: AblationConfig, table: Table, workplace: Path) -> None:
    """At an overlap that tells the three apart: ILSVRC's is less for small objects."""
    values = set()
    for protocol in (Protocol.voc, Protocol.voc07, Protocol.ilsvrc):
        other = replace(config, rows={"both": config.rows["both"]}, protocol=protocol, min_iou=0.8)
        value = ablate(other, "cpu").rows["both"].mean_ap[ALL].value
        assert value == pytest.approx(experiment(other, "both").mean_ap, abs=1e-9)
        values.add(value)
    assert len(values) == 3


@pytest.fixture(scope="module")
def ilsvrc_config(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> AblationConfig:
    """A tree of ILSVRC with two of its 200 classes in it, and a network of the 200."""
    root = tmp_path_factory.mktemp("ilsvrc")
    names = {"square": "n02672831", "disc": "n02691156"}  # accordion, airplane
    for folder in ("ImageSets/DET", "Annotations/DET/val", "Data/DET/val"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/DET/val.txt").write_text("val0 31\nval1 7\n")
    for image in ("val0", "val1"):
        text = (shapes / f"Annotations/{image}.xml").read_text()
        for shape, wnid in names.items():
            text = text.replace(f"<name>{shape}</name>", f"<name>{wnid}</name>")
        (root / f"Annotations/DET/val/{image}.xml").write_text(text)
        PIL.Image.open(shapes / f"JPEGImages/{image}.png").save(root / f"Data/DET/val/{image}.JPEG")
    weights = save_network(root / "det.safetensors", 5, det_classes().names)
    return AblationConfig(
        data=DataConfig(DatasetKind.ilsvrc, str(root), "val"),
        proposals={"few": FEW},
        rows={"first": RowConfig("few", [weights])},
        name="toy",
        protocol=Protocol.ilsvrc,
        groups={"by name": ["accordion"], "by wnid": ["n02691156"], "both": ["n02672831", "airplane"]},
        resamples=10,
        precision="float32",
        cache=str(root / "cache"),
    )


def test_groups_of_ilsvrc_by_name_or_wnid(ilsvrc_config: AblationConfig, workplace: Path) -> None:
    evaluation = experiment(ilsvrc_config, "first")
    means = ablate(ilsvrc_config, "cpu").rows["first"].mean_ap
    square, disc = evaluation.ap["n02672831"], evaluation.ap["n02691156"]
    assert means["by name"].value == pytest.approx(square, abs=1e-9)
    assert means["by wnid"].value == pytest.approx(disc, abs=1e-9)
    assert means["both"].value == means[ALL].value == pytest.approx((square + disc) / 2, abs=1e-9)


def test_a_group_of_unknown_classes_is_refused_before_anything_is_scored(
    ilsvrc_config: AblationConfig, config: AblationConfig, tmp_path: Path, scored: list[int]
) -> None:
    for some, name in ((ilsvrc_config, "cone"), (config, "n02691156")):
        odd = replace(some, groups={"odd": [name]}, cache=str(tmp_path / "cache"))
        with pytest.raises(ResultsError, match=rf"groups.odd.*{name}"):
            ablate(odd, "cpu")
    assert scored == []
    assert not (tmp_path / "cache").exists()


def test_an_ensemble_is_the_mean_of_the_softmax(config: AblationConfig, table: Table, models: tuple[str, str]) -> None:
    dataset = open_dataset(config.data)
    detectors = [Detector([load_checkpoint(Path(model))], DetectorConfig(precision="float32")) for model in models]
    found = {}
    for record, boxes in zip(dataset.records, stored(config, "few"), strict=True):
        scores = [detector.score(record.read(), boxes).scores.probabilities for detector in detectors]
        assert np.abs(scores[0] - scores[1]).max() > 0.1
        class_boxes = np.stack([boxes, boxes], axis=1)
        found[record.image_id] = suppress(class_boxes, (scores[0] + scores[1]) / 2, SuppressionConfig())
    truth = read_truth(config.data)
    expected = evaluate_table(truth, DetectionTable.from_images(truth, found), ScoringConfig()).mean_ap
    values = {name: row.mean_ap[ALL].value for name, row in table.rows.items()}
    assert values["both"] == pytest.approx(expected, abs=1e-9)
    assert len({values["both"], values["first"], values["another"]}) == 3


def test_differences_are_from_the_first_row(table: Table) -> None:
    rows = table.rows
    assert rows["first"].differences == {}
    for group in (ALL, "round", "whole"):
        assert rows["the same"].differences[group] == Interval(0.0, 0.0, 0.0, 50)
        change = rows["more boxes"].differences[group]
        expected = rows["more boxes"].mean_ap[group].value - rows["first"].mean_ap[group].value
        assert change.value == pytest.approx(expected, abs=1e-12)
        assert change.low < change.high
    assert rows["more boxes"].differences[ALL].value != 0
    change = rows["regression"].mean_ap[ALL].value - rows["both"].mean_ap[ALL].value  # or the row that is named
    assert rows["regression"].differences[ALL].value == pytest.approx(change, abs=1e-12) != 0


def test_mirror_images_are_averaged_in(config: AblationConfig, tmp_path: Path, scored: list[int]) -> None:
    """Those of regions, with what regression says of left and right, as the detector itself has it."""
    row = replace(config.rows["regression"], mirror=True, against="")
    config = replace(config, cache=str(tmp_path), rows={"plain": replace(row, mirror=False), "mirrored": row})
    found = ablate(config, "cpu").rows
    assert found["mirrored"].mean_ap != found["plain"].mean_ap
    assert found["mirrored"].seconds > found["plain"].seconds
    assert sorted(scored) == sorted([len(boxes) for boxes in stored(config, "few")] * 4)
    settings = DetectorConfig(row.models, mirror=True, regression=True, precision="float32")
    detector = Detector.load(settings, device="cpu")
    dataset = open_dataset(config.data)
    models = [
        StoredModel(model, dataset, "cpu", precision="float32", batch=None, folder=tmp_path) for model in row.models
    ]
    for record, boxes in zip(dataset.records, stored(config, "few"), strict=True):
        content = record.path.read_bytes()
        members = [model.on(record, content, Counter(), regression=True, moved=False) for model in models]
        (scores,) = row.ensemble(members, 2)([View(record.read(), boxes)])
        expected = detector.score(record.read(), boxes)
        class_boxes = scores.boxes(boxes, record.width, record.height)
        np.testing.assert_allclose(scores.probabilities, expected.scores.probabilities, atol=1e-5)
        np.testing.assert_allclose(class_boxes, expected.class_boxes, atol=1e-2)
        assert np.abs(class_boxes - boxes[:, None]).max() > 2


def test_the_others_look_at_what_passes(config: AblationConfig, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cascade's seconds are the first member's for all boxes, the second's for those it lets pass."""
    monkeypatch.setattr(ScoreStore, "seconds_per_box", lambda *_: 0.5)
    monkeypatch.setattr(ProposalStore, "seconds", lambda *_: 2.0)
    row = config.rows["cascade"]
    rows = {"all": replace(row, cascade=CascadeConfig()), "few": replace(row, cascade=CascadeConfig(0.999, 4))}
    found = ablate(replace(config, rows=rows), "cpu").rows
    counts = [len(boxes) for boxes in stored(config, "many")]
    assert found["all"].seconds == pytest.approx(2 + 0.5 * 2 * sorted(counts)[1])
    assert found["few"].seconds == pytest.approx(2 + 0.5 * (sorted(counts)[1] + 4))


def test_boxes_and_seconds(config: AblationConfig, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds to propose, half a one a box and classifier: of the image in the middle."""
    counts = {name: [len(boxes) for boxes in stored(config, name)] for name in ("few", "many")}
    assert table.rows["first"].boxes == np.mean(counts["few"])
    assert table.rows["more boxes"].boxes == np.mean(counts["many"])
    assert all(row.seconds > 0 for row in table.rows.values())
    monkeypatch.setattr(ScoreStore, "seconds_per_box", lambda *_: 0.5)
    monkeypatch.setattr(ProposalStore, "seconds", lambda *_: 2.0)
    rows = ablate(config, "cpu").rows
    for name, of_a_box in (("first", 0.5), ("both", 1.0)):
        assert rows[name].seconds == pytest.approx(2 + of_a_box * sorted(counts["few"])[1])
    assert rows["more boxes"].seconds == pytest.approx(2 + 0.5 * sorted(counts["many"])[1])


def test_images_without_boxes(config: AblationConfig, tmp_path: Path) -> None:
    """By themselves, and where another row has boxes of the same images."""
    settings = {"none": replace(FEW, min_width=900), "few": FEW}
    alone = {"none": RowConfig("none", config.rows["first"].models)}
    for rows in (alone, {**alone, "few": config.rows["first"]}):
        found = ablate(replace(config, rows=rows, proposals=settings, cache=str(tmp_path)), "cpu").rows
        assert (found["none"].boxes, found["none"].mean_ap[ALL].value) == (0, 0)
    assert found["few"].differences[ALL].value == found["few"].mean_ap[ALL].value > 0


# ---- what is scored again


def test_a_second_run_scores_nothing(config: AblationConfig, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NDArray[np.float32]:
        raise AssertionError("scored again")

    before = ablate(config, "cpu")  # other tests have scored more boxes, which tells more of the seconds
    assert [row.mean_ap for row in before.rows.values()] == [row.mean_ap for row in table.rows.values()]
    monkeypatch.setattr(RegionScorer, "__call__", fail)
    assert ablate(config, "cpu") == before


def test_only_new_boxes_are_scored(config: AblationConfig, tmp_path: Path, scored: list[int]) -> None:
    """Those that no earlier row had: of its proposals, by its classifier."""
    config = replace(config, cache=str(tmp_path), rows={"few": config.rows["first"]})
    ablate(config, "cpu")
    few, many = ([{tuple(box) for box in boxes.tolist()} for boxes in stored(config, name)] for name in ("few", "many"))
    assert scored == [len(boxes) for boxes in few]
    assert any(have & want for have, want in zip(few, many, strict=True))
    scored.clear()
    config = replace(config, rows={**config.rows, "many": RowConfig("many", config.rows["few"].models)})
    ablate(config, "cpu")
    assert scored == [len(want - have) for have, want in zip(few, many, strict=True)]
    scored.clear()
    strict = replace(config, rows={"s": replace(config.rows["many"], suppression=STRICT)}, min_iou=0.3, batch=3)
    ablate(strict, "cpu")
    assert scored == []


def test_rows_of_one_run_share_boxes(config: AblationConfig, tmp_path: Path, scored: list[int]) -> None:
    rows = {name: config.rows[name] for name in ("first", "the same", "more boxes")}
    ablate(replace(config, cache=str(tmp_path), rows=rows), "cpu")
    together = [
        len({tuple(box) for boxes in both for box in boxes.tolist()})
        for both in zip(stored(config, "few"), stored(config, "many"), strict=True)
    ]
    assert scored == together


def test_weights_are_known_by_their_content(
    config: AblationConfig, table: Table, tmp_path: Path, scored: list[int], models: tuple[str, str]
) -> None:
    path = tmp_path / "renamed.safetensors"
    shutil.copy(models[0], path)
    config = replace(config, rows={"renamed": RowConfig("few", [str(path)])})
    found = ablate(config, "cpu").rows["renamed"]
    assert scored == []
    assert found.mean_ap == table.rows["first"].mean_ap
    shutil.copy(models[1], path)
    assert ablate(config, "cpu").rows["renamed"].mean_ap == table.rows["another"].mean_ap


def test_each_precision_has_its_scores(config: AblationConfig, table: Table, tmp_path: Path, scored: list[int]) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(config.cache, cache)
    config = replace(config, cache=str(cache), rows={"first": config.rows["first"]}, precision="bfloat16")
    found = ablate(config, "cpu")
    assert scored == [len(boxes) for boxes in stored(config, "few")]
    scored.clear()
    assert ablate(config, "cpu") == found
    assert ablate(replace(config, precision="float32"), "cpu").rows["first"].mean_ap == table.rows["first"].mean_ap
    assert scored == []


# ---- what is written


def test_table_and_json_are_written(config: AblationConfig, table: Table, workplace: Path) -> None:
    assert write_table(config, table) == [Path("runs/toy/table.md"), Path("runs/toy/table.json")]
    assert Path("runs/toy/table.md").read_text() == format_markdown(config, table)
    content = json.loads(Path("runs/toy/table.json").read_text())
    assert list(content) == ["config", "rows", "images"]
    assert content["images"] == 3
    assert list(content["rows"]) == list(config.rows)
    row, expected = content["rows"]["more boxes"], table.rows["more boxes"]
    assert (row["boxes"], row["seconds"]) == (expected.boxes, expected.seconds)
    assert Interval(**row["mean_ap"]["round"]) == expected.mean_ap["round"]
    assert Interval(**row["differences"][ALL]) == expected.differences[ALL]
    assert content["rows"]["first"]["differences"] == {}
    (workplace / "again.yaml").write_text(yaml.safe_dump(content["config"]))
    assert load_config(AblationConfig, "again.yaml") == config


def test_markdown(config: AblationConfig) -> None:
    def interval(value: float) -> Interval:
        return Interval(value, value - 0.1, value + 0.25, 1000)

    rows = {
        "plain": Row(1234.4, 1.234, {ALL: interval(0.5), "round": interval(0.25)}),
        "better": Row(
            7.0, 0.5, {ALL: interval(0.6), "round": interval(0.2)}, {ALL: interval(0.1), "round": interval(-0.05)}
        ),
        "odd": Row(7.0, 0.5, {ALL: interval(0.6), "round": None}, {ALL: interval(0.0), "round": None}, "better"),
    }
    config = replace(config, groups={"round": ["disc"]}, resamples=1000, protocol=Protocol.voc07, min_iou=0.6)
    first, _, *lines = format_markdown(config, Table(rows, 3)).splitlines()
    assert first.startswith("3 images, voc07, IoU 0.6; in brackets the 95 % confidence interval from 1000 resamples")
    assert "difference from 'plain'" in first
    assert lines == [
        "| detector | boxes / image | s / image | mean AP, round | mean AP, all classes |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| plain | 1,234 | 1.23 | 0.250 (0.150-0.500) | 0.500 (0.400-0.750) |",
        "| better | 7 | 0.50 | 0.200 (0.100-0.450), -0.050 (-0.150 to +0.200) "
        "| 0.600 (0.500-0.850), +0.100 (+0.000 to +0.350) |",
        "| odd (against better) | 7 | 0.50 | - | 0.600 (0.500-0.850), +0.000 (-0.100 to +0.250) |",
    ]


# ---- the command


@pytest.fixture
def command(tool: Callable[[str], Main], workplace: Path, config: AblationConfig) -> Main:
    """tools/ablate.py with three of the rows and a cache of its own; overrides follow."""
    rows = {name: config.rows[name] for name in ("first", "more boxes", "both")}
    write_config(workplace / "toy.yaml", config_to_dict(replace(config, rows=rows, cache="cache")))
    main = tool("ablate")
    return lambda arguments: main(["--config", "toy.yaml", "--device", "cpu", *arguments])


def write_config(path: Path, settings: Mapping[str, object]) -> None:
    path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))


def test_the_command_prints_and_writes_the_table(
    command: Main, table: Table, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["name=other"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (workplace / "runs/other/table.md").read_text() + "\n"
    assert captured.err.splitlines()[-1] == "ablate: wrote runs/other/table.md, runs/other/table.json"
    content = json.loads((workplace / "runs/other/table.json").read_text())
    assert content["config"]["name"] == "other"
    for name, row in content["rows"].items():
        assert row["mean_ap"][ALL]["value"] == pytest.approx(table.rows[name].mean_ap[ALL].value, abs=1e-9)


def test_a_stopped_run_goes_on(
    command: Main, config: AblationConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score, counts = RegionScorer.__call__, list[int]()

    def stop_at_the_second(self: RegionScorer, views: Sequence[View]) -> list[RegionScores]:
        counts.extend(map(len, views))
        if len(counts) == 2:
            raise KeyboardInterrupt
        return score(self, views)

    one = ["rows.both.models=" + json.dumps(config.rows["first"].models)]
    monkeypatch.setattr(RegionScorer, "__call__", stop_at_the_second)
    assert command(one) == 130
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("ablate: stopped; the same command ")
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not Path("runs").exists()
    before = counts.copy()
    assert command(one) == 0
    assert counts[2] == before[1]  # the image that it was stopped on
    assert len(counts) == 4  # and the third
    assert "| more boxes | " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rows.both.proposals=x3"], "overrides: rows.both.proposals is 'x3'; there is few, many"),
        (["protocol=coco"], "overrides: protocol must be voc, voc07 or ilsvrc here"),
        (
            ["rows.both.against=neither"],
            "overrides: rows.both.against must be a row above (first, more boxes), not 'neither'",
        ),
        (["resamples=0"], "overrides: resamples must be at least 1, not 0"),
        (["rows.both.models=[]"], "overrides: models must name at least one region classifier"),
        (["row.both=1"], "overrides: no key 'row.both'. Did you mean 'rows'?"),
        (["rows.both.suppression.limit=0"], "overrides: suppression.limit must be at least 1, not 0"),
        (
            ["data.root=nowhere"],
            "no data set folder 'nowhere'; set data.root=DIR, in a training train.root and val.root",
        ),
        (["min_iou=0"], "min_iou must be in (0, 1], not 0.0"),
    ],
)
def test_wrong_settings_are_one_line(
    command: Main, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(overrides) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(f"{message}\n")
    assert captured.err.count("\n") == 1  # refused before the first bar
    assert captured.err.startswith("ablate: ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rows.both.models=[nowhere]"], "ablate: no checkpoint nowhere (shipped: "),
        (["groups.beasts=[disc,cat]"], "ablate: groups.beasts: shapes val has no class cat"),
        (
            ["precision=half"],
            "ablate: toy.yaml + overrides: precision must be one of auto, float32, ",
        ),
        (["batch=0"], "ablate: toy.yaml + overrides: batch must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_made_is_one_line_behind_the_bars(
    command: Main, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(overrides) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith(message)
    assert captured.err.count("ablate: ") == 1
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not Path("runs").exists()


def test_a_model_of_other_classes(command: Main, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_network(workplace / "beasts.safetensors", 0, ("cat", "dog", "cow"))
    assert command([f"rows.first.models=[{model}]"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"ablate: {model} and shapes val have different classes: ")
    assert all(name in message for name in ("square", "disc", "cat", "dog", "cow"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [({"rows": {}}, "rows must name at least one detector"), ({}, "no value for 'rows'")],
)
def test_a_table_needs_rows(workplace: Path, rows: dict[str, object], message: str) -> None:
    write_config(workplace / "bare.yaml", {"data": {"kind": "voc", "root": "x"}, "proposals": {"few": {}}, **rows})
    with pytest.raises(ConfigError, match=message):
        load_config(AblationConfig, "bare.yaml")
