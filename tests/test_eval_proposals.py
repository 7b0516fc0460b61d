"""tools/eval_proposals.py on a small VOC tree: its numbers against counting by hand, its messages and exit codes."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
from pages import read, words

from detector.config import ConfigError, load_config
from detector.data import open_dataset
from detector.experiments.coverage import CoverageConfig, measure_coverage
from detector.extraction import extract
from detector.report.coverage_text import format_coverage
from proposals.merging import propose
from proposals.result import Proposals
from proposals.settings import ProposalConfig
from proposals.store import digest
from proposals.store_writer import StoreWriter

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "eval_proposals.py"

# Name -> (crop of a photograph, objects as VOC corners with "difficult").
PHOTOS = {
    "a": ((0, 120, 100, 250), [(11, 6, 140, 110, 0), (40, 30, 60, 45, 1)]),
    "b": ((100, 250, 150, 300), [(1, 1, 150, 150, 0), (3, 100, 9, 140, 0), (50, 20, 120, 130, 0)]),
    "c": ((300, 400, 300, 400), []),
}


@pytest.fixture
def tree(tmp_path):
    """A VOC tree of three photographs and a config that names it."""
    root = tmp_path / "small"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Main/val.txt").write_text("".join(f"{name}\n" for name in PHOTOS))
    for name, ((top, low, left, right), objects) in PHOTOS.items():
        PIL.Image.fromarray(skimage.data.astronaut()[top:low, left:right]).save(root / f"JPEGImages/{name}.jpg")
        items = "".join(
            f"<object><name>dog</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for x1, y1, x2, y2, difficult in objects
        )
        size = f"<size><width>{right - left}</width><height>{low - top}</height><depth>3</depth></size>"
        (root / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{items}</annotation>")
    (tmp_path / "compare.yaml").write_text(
        f"data: {{kind: voc, root: {root}, split: val}}\n"
        f"cache: {tmp_path / 'cache'}\n"
        "settings:\n"
        '  "superpixels x1": {superpixel_scale: 1.0, width: 200}\n'
        '  "superpixels x2": {superpixel_scale: 2.0, width: 200}\n'
    )
    return tmp_path


def run(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


def best_by_hand(dataset, setting):
    """Numbers of boxes, and (class, best IoU of the first 1, 2, ... boxes) of the objects that are not difficult."""
    boxes, best = [], []
    for record in dataset.records:
        found = propose(record.read(), setting).boxes.tolist()
        boxes.append(len(found))
        for (x1, y1, x2, y2), label, difficult in zip(
            record.boxes.tolist(), record.labels.tolist(), record.difficult, strict=True
        ):
            overlaps = [0.0]
            for u1, v1, u2, v2 in found:
                shared = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
                overlaps.append(max(overlaps[-1], shared / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared)))
            best += [] if difficult else [(dataset.classes.names[label], overlaps)]
    return boxes, best


def test_numbers_table_json_and_plot(tree):
    out = tree / "out"
    files = ["--json", out / "n.json", "--plot", out / "n.png", "--report", out / "n.html"]
    result = run("--config", tree / "compare.yaml", *files, "workers=2")
    assert result.returncode == 0, result.stderr
    content = json.loads((out / "n.json").read_text())
    assert (content["data"], content["images"], content["objects"]) == ("small val", 3, 4)
    assert content["config"]["workers"] == 2
    dataset = open_dataset(load_config(CoverageConfig, tree / "compare.yaml").data)
    counts, covered = [], []
    for name, superpixel_scale in (("superpixels x1", 1.0), ("superpixels x2", 2.0)):
        row = content["settings"][name]
        boxes, best = best_by_hand(dataset, ProposalConfig(superpixel_scale=superpixel_scale, width=200))
        final = np.array([overlaps[-1] for _, overlaps in best])
        counts.append(np.mean(boxes))
        covered.append(final >= 0.5)
        assert row["boxes"] == pytest.approx(np.mean(boxes))
        assert row["coverage"] == pytest.approx(np.mean(final >= 0.5))
        assert row["ratio"] == pytest.approx(counts[-1] / counts[0])
        assert row["average_recall"] == pytest.approx(np.mean(2 * np.clip(final - 0.5, 0, None)))
        for threshold, value in row["recall_by_iou"].items():
            assert value == pytest.approx(np.mean(final >= float(threshold)))
        assert list(row["recall_by_iou"]) == [str(round(0.5 + step / 20, 2)) for step in range(11)]
        for number, value in row["recall_by_boxes"].items():
            first = [overlaps[min(int(number), len(overlaps) - 1)] for _, overlaps in best]
            assert value == pytest.approx(np.mean(np.array(first) >= 0.5))
            area = np.mean(2 * np.clip(np.array(first) - 0.5, 0, None))
            assert row["average_recall_by_boxes"][number] == pytest.approx(area)
        assert max(map(int, row["recall_by_boxes"])) >= max(boxes)
        for label in dataset.classes.names:
            own = [overlaps[-1] for name_of, overlaps in best if name_of == label]
            assert row["abo"][label] == (pytest.approx(np.mean(own)) if own else None)
        assert row["mabo"] == pytest.approx(np.mean([value for value in row["abo"].values() if value is not None]))
        low, middle, high = row["seconds"]
        assert 0 < low <= middle <= high
        assert "3/3" in result.stderr  # the bar
    for name, mine, other in (("superpixels x1", *covered), ("superpixels x2", *covered[::-1])):
        assert content["settings"][name]["unique"] == pytest.approx(np.mean(mine & ~other))
    assert 0 < covered[0].mean() < 1  # the narrow object is beyond any box of 20 px
    title, heading, *rows = result.stdout.splitlines()
    assert title == "small val: 3 images, 4 objects"
    assert heading.split()[:4] == ["proposals", "boxes", "ratio", "coverage"]
    assert [line[:14] for line in rows[:2]] == list(content["settings"])
    assert rows[1].split()[2:5] == [f"{counts[1]:.0f}", f"{counts[1] / counts[0]:.3f}", f"{covered[1].mean():.3f}"]
    assert (
        rows[2] == f"{(~covered[0] & ~covered[1]).sum()} of 4 objects are covered by none of these methods at IoU 0.5"
    )
    names = len(dataset.classes.names)
    assert [line.split()[0] for line in rows[-names:]] == list(dataset.classes.names)
    assert rows[-names + dataset.classes.names.index("cat")].split() == ["cat", "-", "-"]
    assert f"{covered[1].mean():.3f}" in words(read(out / "n.html"))
    assert str(tree) not in (out / "n.html").read_text()
    with PIL.Image.open(out / "n.png") as plot:
        assert plot.size[0] > 1000


def test_cached_proposals_give_the_same_numbers(tree, capfd):
    config = load_config(CoverageConfig, tree / "compare.yaml")
    dataset = open_dataset(config.data)
    fresh, cached = measure_coverage(dataset, config), measure_coverage(dataset, config)
    assert fresh == cached  # the seconds are those of the extraction
    assert capfd.readouterr().out == ""


def test_stores_side_by_side(tree):
    """Ours, and boxes of somebody else's: the objects themselves."""
    config = load_config(CoverageConfig, tree / "compare.yaml")
    dataset = open_dataset(config.data)
    images = {record.image_id: record.path for record in dataset.records}
    extract(images, ProposalConfig(width=200), tree / "ours", workers=1)
    with StoreWriter(tree / "perfect", {"method": "by hand"}, list(images), sources=("hand",)) as writer:
        for record in dataset.records:
            boxes = record.boxes.astype(np.float32)
            found = Proposals(boxes, np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.uint8))
            writer.append(record.image_id, digest(record.path.read_bytes()), (record.width, record.height), found)
        writer.finish()
    stores = [f"stores.perfect={tree / 'perfect'}", f"stores.ours={tree / 'ours'}"]
    data = ["data.kind=voc", f"data.root={tree / 'small'}", "data.split=val"]
    config = load_config(CoverageConfig, None, [*data, *stores])
    bench = measure_coverage(dataset, config)
    rows = bench.rows
    assert list(rows) == ["perfect", "ours"]
    assert (rows["perfect"].coverage, rows["perfect"].mabo, rows["perfect"].average_recall) == (1, 1, 1)
    assert rows["perfect"].unique == pytest.approx(1 - rows["ours"].coverage)
    assert rows["perfect"].seconds is None  # nobody said
    line = format_coverage(bench).splitlines()[2].split()
    everything = ["1.000", "-"]
    unique = f"{rows['perfect'].unique:.3f}"
    assert line == ["perfect", "2", "1.000", *everything, "1.000", *everything, "1.000", unique, "-", "-"]


def test_no_boxes_at_all(tree):
    overrides = ["settings.superpixels x1.min_width=900", "settings.superpixels x2.min_width=900"]
    config = load_config(CoverageConfig, tree / "compare.yaml", overrides)
    rows = measure_coverage(open_dataset(config.data), config).rows
    assert [(row.boxes, row.coverage, row.ratio) for row in rows.values()] == [(0, 0, None), (0, 0, None)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.root=nowhere"],
            "no data set folder 'nowhere'; set data.root=DIR, in a training train.root and val.root",
        ),
        (["workers=-1"], "workers must not be negative, but is -1"),
        (["stores.superpixels x1=x"], "settings and stores share the name 'superpixels x1'"),
        (["stores.mine=nowhere"], "nowhere: no finished proposals here (no such folder)"),
        (["worker=2"], "overrides: no key 'worker'. Did you mean 'workers'?"),
        (["settings.x3.superpixel_scale=-3"], "proposals.superpixel_scale must be above 0 and finite, not -3.0"),
    ],
)
def test_errors_are_one_line_and_exit_1(tree, overrides, message):
    result = run("--config", tree / "compare.yaml", *overrides)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("eval_proposals: ")
    assert result.stderr.endswith(f"{message}\n")
    assert result.stderr.count("\n") == 1  # refused before the first bar


def test_files_that_are_not_the_commands_own_stay(tree):
    """Refused before anything is computed; its own are replaced."""
    (tree / "mine.html").write_text("<!DOCTYPE html><title>my page</title>")
    result = run("--config", tree / "compare.yaml", "--report", tree / "mine.html")
    assert (result.returncode, result.stdout) == (1, "")
    assert "mine.html: exists and is not a page of proposals that this command wrote" in result.stderr
    content = {"data": "x", "images": 3, "objects": 4, "settings": {}}
    (tree / "earlier.json").write_text(json.dumps(content, indent=2))
    reference = f"references=[{tree / 'earlier.json'}]"
    result = run("--config", tree / "compare.yaml", "--json", tree / "earlier.json", reference)
    assert "earlier.json: would replace what this command reads" in result.stderr


def test_damaged_photographs_and_files_in_the_way_are_errors_too(tree):
    (tree / "taken").write_text("a file")
    result = run("--config", tree / "compare.yaml", f"cache={tree / 'taken'}")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("eval_proposals: ")
    assert "Traceback" not in result.stderr


def test_a_damaged_photograph_costs_its_objects(tree):
    """Two of the three images' objects are covered as before, nothing covers those of the third."""
    before = run("--config", tree / "compare.yaml", "--json", tree / "before.json")
    assert before.returncode == 0, before.stderr
    photo = tree / "small/JPEGImages/b.jpg"
    photo.write_bytes(photo.read_bytes()[:900])
    result = run("--config", tree / "compare.yaml", "--json", tree / "after.json", f"cache={tree / 'other'}")
    assert result.returncode == 1
    assert f"eval_proposals: {photo}: damaged or cut short" in result.stderr
    assert "Traceback" not in result.stderr
    first, second = (json.loads((tree / name).read_text()) for name in ("before.json", "after.json"))
    assert second["images"] == first["images"]
    assert second["objects"] == first["objects"]
    for name, row in second["settings"].items():
        assert 0 < row["coverage"] < first["settings"][name]["coverage"]


def test_a_split_without_objects_is_refused(tree):
    (tree / "small/ImageSets/Main/empty.txt").write_text("c\n")
    result = run("--config", tree / "compare.yaml", "data.split=empty")
    assert result.returncode == 1
    message = "eval_proposals: small empty: no objects to cover (those marked difficult or crowd do not count)\n"
    assert result.stderr == message


def test_settings_are_needed():
    with pytest.raises(ConfigError, match=r"settings .*stores"):
        load_config(CoverageConfig, None, ["data.kind=voc", "data.root=x", "settings={}"])


@pytest.mark.parametrize("arguments", [["--plot", "curves.doc"], ["--config"], ["--config", "x", "--depth", "3"]])
def test_bad_usage_exits_2(arguments):
    result = run(*arguments)
    assert result.returncode == 2
    assert "eval_proposals.py" in result.stderr.splitlines()[0]


def test_shipped_config():
    config = load_config(CoverageConfig, ROOT / "configs" / "proposals_voc.yaml")
    first, second, *_ = config.settings.values()
    assert (first.superpixel_scale, second.superpixel_scale) == (1, 2)
    assert replace(first, superpixel_scale=2.0) == second  # apart from the superpixels they are the same
    for name, setting in list(config.settings.items())[2:]:
        assert setting.multibox.weights == "multibox_voc"
        assert setting.selective_search == name.startswith("x2 + ")
        assert replace(setting, multibox=second.multibox, selective_search=True) == second


def test_examples_of_the_help_name_settings_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    examples = [line.strip() for line in run("--help").stdout.splitlines() if line.startswith("  python ")]
    assert examples
    for example in examples:
        words = shlex.split(example)[2:]
        config = words[words.index("--config") + 1] if "--config" in words else "proposals_voc"
        load_config(CoverageConfig, config, [w for w in words if "=" in w])
