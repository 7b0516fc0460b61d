"""tools/benchmarks/proposal_speed.py: contestants take turns, the numbers fit together, what is odd is refused."""

import json
from pathlib import Path

import numpy as np
import proposal_speed as benchmark
import pytest
from proposal_speed import BenchmarkConfig, run_benchmark

from detector.config import ConfigError, load_config
from detector.data import open_dataset
from detector.measuring import quartiles
from proposals.merging import propose
from proposals.recall import best_overlaps, recall

ROOT = Path(__file__).parent.parent


def config(shapes, *overrides):
    data = ["data.kind=voc", f"data.root={shapes}", "data.split=train", "data.classes=[square,disc]"]
    contestants = [
        "contestants.one.proposals.width=0",
        "contestants.two.proposals.width=0",
        "contestants.two.proposals.superpixel_scale=1",
        "contestants.two.threads=2",
        "contestants.two.growth=0.02",
    ]
    return load_config(BenchmarkConfig, None, [*data, *contestants, "megapixels=[0.01,0.02,5]", *overrides])


def test_contestants_take_turns(shapes, monkeypatch):
    """With a clock that says how long each takes: the medians and the ratios are known."""
    settings = config(shapes, "memory_images=0")
    runs = []

    def run(image, contestant):
        runs.append(contestant.threads)
        spent = {1: 0.5, 2: 0.1}[contestant.threads] * (1 + (len(runs) - 1) // 2)
        return propose(image, contestant.proposals).boxes, spent

    monkeypatch.setattr(benchmark, "_run", run)
    dataset = open_dataset(settings.data)
    rows = run_benchmark(dataset, settings)
    assert runs[:10] == [1, 2, 1, 2, 2, 1, 1, 2, 2, 1]  # after the warm-up the order alternates
    assert runs[10:] == [2, 2]  # the two sizes of the growth table
    assert rows["one"].speed == pytest.approx((1, 1, 1))
    assert rows["two"].speed == pytest.approx((5, 5, 5))
    assert rows["one"].seconds == pytest.approx(quartiles([1, 1.5, 2, 2.5]))
    assert rows["one"].memory is None
    assert list(rows["two"].growth) == [0.01, 0.02]
    assert rows["one"].growth == {}
    for name, row in rows.items():
        found = [propose(record.read(), settings.contestants[name].proposals).boxes for record in dataset.records]
        assert row.boxes == np.mean([len(boxes) for boxes in found])
        best = [best_overlaps(record.boxes, boxes) for record, boxes in zip(dataset.records, found, strict=True)]
        assert row.recall == recall(np.concatenate(best))
        # Every image has one object of each of the two classes.
        assert row.mabo == pytest.approx(np.concatenate(best).mean())


def test_the_command(shapes, tool, tmp_path, capsys):
    settings = config(shapes)
    path = tmp_path / "bench.yaml"
    from detector.config import save_config

    save_config(settings, path)
    assert tool("proposal_speed")(["--config", str(path), "--json", str(tmp_path / "b.json"), "images=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("shapes train: 2 images, OpenCV ")
    assert [line.split()[0] for line in lines[1:4]] == ["contestant", "one", "two"]
    assert lines[-2].split() == ["seconds", "at", "megapixels", "0.01", "0.02", "5"]
    assert lines[-1].split()[0] == "two"
    assert lines[-1].split()[-1] == "-"  # beyond its largest size
    content = json.loads((tmp_path / "b.json").read_text())
    peak, idle = content["contestants"]["one"]["memory"]
    assert 20 < idle <= peak < 2000
    assert content["config"]["images"] == 2


@pytest.mark.parametrize("name", ["opencv", "opencv_quality", "package"])
def test_shipped_benchmarks_compare_like_with_like(name):
    settings = load_config(BenchmarkConfig, ROOT / "tools/benchmarks" / f"{name}.yaml")
    assert len({(c.proposals.superpixel_scale, c.proposals.width) for c in settings.contestants.values()}) == 1
    assert len({c.proposals.min_width for c in settings.contestants.values()}) == 1
    assert [contestant.threads for contestant in settings.contestants.values()] == [1, 1, 2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("contestants.two.threads=0", "contestants.two.threads must be at least 1, not 0"),
        ("contestants.two.thread=1", "no key 'contestants.two.thread'. Did you mean 'contestants.two.threads'?"),
        ("contestants.two.search=opencv", "contestants.two.search must be one of opencv fast"),
        ("contestants.two.proposals.mode=x", "proposals.mode must be one of fast"),
    ],
)
def test_wrong_settings(shapes, override, message):
    with pytest.raises(ConfigError, match=message):
        config(shapes, override)


def test_a_missing_baseline_is_one_line(shapes, tool, tmp_path, capsys):
    import cv2

    if hasattr(cv2, "ximgproc"):
        pytest.skip("this OpenCV has ximgproc")
    from detector.config import save_config

    path = tmp_path / "bench.yaml"
    save_config(config(shapes), path)
    assert tool("proposal_speed")(["--config", str(path), "contestants.one.search=opencv fast"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("proposal_speed: opencv needs cv2.ximgproc")
    assert error.count("\n") == 1
