"""What all commands share: the console command, the form of suggestions, printed settings, what ILSVRC needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from pathlib import Path

import pytest

from detector.commands import COMMANDS, main
from detector.commands.settings import attributes, format_settings, settings_of
from detector.config import load_config
from detector.data.labelled_images import ImagesConfig
from detector.experiments.ablation import AblationConfig
from detector.experiments.coverage import CoverageConfig
from detector.experiments.evaluation_run import EvaluationConfig
from detector.extraction import ExtractionConfig
from detector.importing.into_store import ImportConfig
from detector.invocation import command, distributed
from detector.network.googlenet import GoogLeNetConfig
from detector.settings import DetectorConfig
from detector.training.cascade import CascadeFitConfig
from detector.training.images import ImageTrainingConfig
from detector.training.multibox import MultiBoxTrainingConfig
from detector.training.regions import FineTuneConfig

ROOT = Path(__file__).parent.parent
Main = Callable[[list[str]], int]
SCHEMAS: dict[str, tuple[type, list[str]]] = {
    "detect": (DetectorConfig, ["--config", "fast", "suppression.limit=7"]),
    "eval_map": (EvaluationConfig, ["--config", "ilsvrc_val2", "name=x"]),
    "train_classifier": (FineTuneConfig, ["--config", "regions_paper"]),
    "train_multibox": (MultiBoxTrainingConfig, []),
    "eval_proposals": (CoverageConfig, ["workers=3"]),
    "extract_proposals": (ExtractionConfig, ["workers=3"]),
    "import_proposals": (ImportConfig, ["data.kind=voc", "data.root=x"]),
    "ablate": (AblationConfig, ["data.split=val100"]),
    "fit_cascade": (CascadeFitConfig, ["images=9"]),
}

DEFAULTS = {
    "train_multibox": "ilsvrc_multibox",
    "eval_proposals": "proposals_voc",
    "extract_proposals": None,
    "import_proposals": None,
    "ablate": "ablation_voc",
    "fit_cascade": "cascade_voc0712",
}


# ---- the form that the user used


def started_as(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setattr(sys, "argv", [word])


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("tools/detect.py", "python tools/eval_map.py"),
        (f"{ROOT}/tools/detect.py", f"python {ROOT}/tools/eval_map.py"),
        ("/usr/local/bin/googlenet-rcnn", "googlenet-rcnn eval-map"),
        ("C:/env/Scripts/googlenet-rcnn.exe", "googlenet-rcnn eval-map"),
        ("/usr/bin/pytest", "python tools/eval_map.py"),
        ("", "python tools/eval_map.py"),
    ],
)
def test_suggestions_have_the_form_that_the_user_used(monkeypatch: pytest.MonkeyPatch, word: str, wanted: str) -> None:
    monkeypatch.chdir(ROOT)
    started_as(monkeypatch, word)
    assert command("eval_map") == wanted


def test_without_the_repository_the_console_command_is_suggested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("detector.invocation.TOOLS", tmp_path / "tools")
    assert command("train_classifier") == "googlenet-rcnn train-classifier"
    assert distributed("train_classifier") == (
        "torchrun --nproc-per-node 2 --no-python googlenet-rcnn train-classifier"
    )


def test_the_console_command_suggests_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started_as(monkeypatch, "/bin/googlenet-rcnn")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_text("no image")
    assert main(["train-classifier"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("train-classifier: ") for line in lines)
    assert any("googlenet-rcnn train-multibox" in line for line in lines)
    assert not any("python tools" in line for line in lines)
    with pytest.raises(SystemExit, match="0"):
        main(["eval-map", "--help"])
    assert "\n  googlenet-rcnn eval-map data.root=DIR\n" in capsys.readouterr().out


def test_the_console_command_lists_the_commands_at_once() -> None:
    code = (
        "import sys; from detector.commands import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: print(end.code, {'torch', 'cv2', 'numpy', 'yaml'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    lines = done.stdout.splitlines()
    assert lines[-1] == "0 set()"
    listed = lines[lines.index("commands:") + 1 :][: len(COMMANDS)]
    assert [line.split()[0] for line in listed] == [name.replace("_", "-") for name in COMMANDS]
    assert all(len(line) <= 120 for line in listed)


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["detects"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "usage: googlenet-rcnn" in capsys.readouterr().err


def test_every_tool_is_its_command() -> None:
    assert sorted(path.stem for path in (ROOT / "tools").glob("*.py")) == sorted(COMMANDS)
    for name in COMMANDS:
        summary = (import_module(f"detector.commands.{name}").__doc__ or "").splitlines()[0]
        assert f'"""{summary}"""' in (ROOT / f"tools/{name}.py").read_text()


# ---- settings


@pytest.mark.parametrize(
    "schema",
    [*(schema for schema, _ in SCHEMAS.values()), ImageTrainingConfig, ImagesConfig, GoogLeNetConfig],
    ids=lambda schema: schema.__name__,
)
def test_every_setting_is_documented(schema: type) -> None:
    undocumented = [setting.key for setting in settings_of(schema) if not setting.text]
    assert not undocumented


class Colour(Enum):
    red = 1
    blue = 2


@dataclass(frozen=True)
class Inner:
    """A section.

    Attributes:
        depth: How deep, px;
            over two lines: and a colon.
        colour: Which.
    """

    depth: int = 3
    colour: Colour = Colour.red


@dataclass(frozen=True)
class Base:
    """What several share.

    Attributes:
        root: Folder.
        rate: Replaced below.

    Something else: not a setting.
    """

    root: str = "???"
    rate: float = 0.5


@dataclass(frozen=True)
class Outer(Base):
    """A schema.

    Attributes:
        inner: One.
        named: Several by name.
        perhaps: None leaves it out.
        rate: New.
    """

    inner: Inner = field(default_factory=lambda: Inner(depth=9))
    named: dict[str, Inner] = field(default_factory=dict)
    perhaps: list[str] | None = None
    undocumented: bool = False


def test_the_keys_of_a_schema() -> None:
    keys = [(one.key, one.kind, one.default) for one in settings_of(Outer)]
    assert keys == [
        ("root", "str", ""),
        ("rate", "float", "0.5"),
        ("inner", "", ""),
        ("inner.depth", "int", "9"),
        ("inner.colour", "red|blue", '"red"'),
        ("named", "", ""),
        ("named.NAME.depth", "int", "3"),
        ("named.NAME.colour", "red|blue", '"red"'),
        ("perhaps", "list[str] or null", "null"),
        ("undocumented", "bool", "false"),
    ]
    assert attributes(Outer) == {
        "root": "Folder.",
        "rate": "New.",
        "inner": "One.",
        "named": "Several by name.",
        "perhaps": "None leaves it out.",
    }
    assert attributes(Inner)["depth"] == "How deep, px; over two lines: and a colon."
    assert format_settings(Inner).splitlines()[:2] == [
        "depth  int = 3",
        "    How deep, px; over two lines: and a colon.",
    ]


@pytest.mark.parametrize("name", SCHEMAS)
def test_settings_and_the_resolved_config(
    name: str,
    tool: Callable[[str], Main],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    schema, arguments = SCHEMAS[name]
    assert tool(name)(["--settings"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert {line.split()[0] for line in lines if line and line[0] != " "} == {one.key for one in settings_of(schema)}
    assert tool(name)([*arguments, "--print-config"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    words = [word for word in arguments if "=" in word]
    config = arguments[1] if "--config" in arguments else DEFAULTS[name]
    assert load_config(schema, "printed.yaml") == load_config(schema, config, words)
    assert os.listdir(tmp_path) == ["printed.yaml"]


def test_a_wrong_setting_is_a_line(tool: Callable[[str], Main], capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("detect")(["--print-config", "batc=3"]) == 1
    assert capsys.readouterr().err.startswith("detect: overrides: no key 'batc'")
    assert tool("train_classifier")(["--settings", "task=images"]) == 0
    assert "\ninit_from  str" in capsys.readouterr().out


# ---- ILSVRC


@pytest.mark.parametrize(
    ("name", "roots"),
    [("train_classifier", "train.root=DIR val.root=DIR"), ("eval_map", "data.root=DIR"), ("train_multibox", "train.")],
)
def test_bare_without_the_data_says_what_to_get(
    name: str,
    roots: str,
    tool: Callable[[str], Main],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tool(name)([]) == 1
    captured = capsys.readouterr()
    lines = [line.removeprefix(f"{name}: ") for line in captured.err.splitlines()]
    assert captured.out == ""
    assert lines[0] == "no ILSVRC detection data in data/ILSVRC"
    for folder in ("Data/DET/", "Annotations/DET/", "ImageSets/DET"):
        assert any(f"data/ILSVRC/{folder}" in line for line in lines)
    assert any(f"python tools/{name}.py {roots}" in line for line in lines)
    assert any(f"python tools/{name}.py --config " in line for line in lines)
    weights = name != "eval_map"
    assert any("googlenet-9.onnx" in line for line in lines) == weights
    assert any("init=torchvision" in line for line in lines) == weights
    assert any("proposals.multibox.weights=multibox_voc" in line for line in lines) == (name == "train_classifier")
    assert os.listdir(tmp_path) == []


def test_bare_evaluation_takes_the_model_that_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from detector.commands.eval_map import BARE, _trained
    from detector.config import save_config

    monkeypatch.chdir(tmp_path)
    assert _trained() == []
    proposals = ["proposals.width=0", "proposals.multibox.weights=mine.safetensors"]
    training = load_config(FineTuneConfig, "ilsvrc_regions", [*proposals, "regression_windows=5"])
    for run in ("ilsvrc_regions-1", "ilsvrc_regions-2"):
        save_config(training, tmp_path / "runs" / run / "config.yaml")
        (tmp_path / "runs" / run / "best.safetensors").touch()
    config = load_config(EvaluationConfig, BARE, _trained())
    assert config.detector.models == [f"runs/ilsvrc_regions-{number}/best.safetensors" for number in (1, 2)]
    assert config.detector.proposals == training.proposals
    assert (config.detector.regression, config.detector.cascade.applies, config.name) == (
        True,
        False,
        f"{BARE}_trained",
    )
    save_config(training, tmp_path / "runs/ilsvrc_regions/config.yaml")
    (tmp_path / "runs/ilsvrc_regions/best.safetensors").touch()
    config = load_config(EvaluationConfig, BARE, _trained())
    assert config.detector.models == ["runs/ilsvrc_regions/best.safetensors"]
