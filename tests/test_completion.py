"""Completion of command lines, asked as the shell asks it; keys of settings against those that the commands print."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from detector.commands import COMMANDS
from detector.commands.completion import keys_of
from detector.commands.settings import settings_of

ROOT = Path(__file__).parent.parent
SCHEMAS = [
    "detector.settings:DetectorConfig",
    "detector.experiments.evaluation_run:EvaluationConfig",
    "detector.experiments.coverage:CoverageConfig",
    "detector.experiments.ablation:AblationConfig",
    "detector.extraction:ExtractionConfig",
    "detector.importing.into_store:ImportConfig",
    "detector.training.regions:FineTuneConfig",
    "detector.training.images:ImageTrainingConfig",
    "detector.training.multibox:MultiBoxTrainingConfig",
    "detector.training.cascade:CascadeFitConfig",
    "detector.data.labelled_images:ImagesConfig",
    "detector.network.googlenet:GoogLeNetConfig",
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_keys_read_from_source_are_those_of_the_classes(schema: str) -> None:
    module, _, name = schema.partition(":")
    wanted = {one.key: one.kind for one in settings_of(getattr(import_module(module), name)) if one.kind}
    found = keys_of(schema)
    assert found.keys() == wanted.keys()
    for key, values in found.items():
        kind = wanted[key].removesuffix(" or null")
        is_choice = kind == "bool" or "|" in kind
        assert "|".join(values) == ("true|false" if kind == "bool" else kind if is_choice else ""), key


def test_every_schema_of_a_command_is_tested() -> None:
    schemas = {import_module(f"detector.commands.{name}").parser().get_default("schema") for name in COMMANDS}
    assert {one for one in schemas if isinstance(one, str) and one} <= set(SCHEMAS)


def completions(line: str, folder: Path | None = None) -> set[str]:
    """Ask as argcomplete's shell function does: the line in the environment, the answer on descriptor 8."""
    pytest.importorskip("argcomplete")
    code = (
        "import os, sys\n"
        "sys.argv[0] = 'googlenet-rcnn'\n"
        "os.dup2(int(os.environ['ANSWER']), 8); os.dup2(int(os.environ['ANSWER']), 9)\n"
        "leave = os._exit\n"
        "os._exit = lambda code: leave(50 if {'torch', 'cv2'} & set(sys.modules) else code)\n"
        "from detector.commands import main\n"
        "main()\n"
    )
    read, write = os.pipe()
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line.encode())), "_ARGCOMPLETE_IFS": "\n"}
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, **asked, "COMP_TYPE": "9", "ANSWER": str(write), "PYTHONPATH": path}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, pass_fds=[write], capture_output=True, text=True, cwd=folder or ROOT)
    os.close(write)
    with os.fdopen(read) as answer:
        found = answer.read()
    assert done.returncode == 0, (done.returncode, done.stderr)
    return {word.strip() for word in found.split("\n") if word}


def test_commands() -> None:
    assert completions("googlenet-rcnn ") >= {name.replace("_", "-") for name in COMMANDS}
    assert completions("googlenet-rcnn eval-m") == {"eval-map"}


def test_options_presets_and_settings() -> None:
    assert {"--config", "--output", "--recursive"} <= completions("googlenet-rcnn detect --")
    assert {"fast", "default"} <= completions("googlenet-rcnn detect --config ")
    assert completions("googlenet-rcnn train-classifier learning_r") == {"learning_rate="}
    assert completions("googlenet-rcnn train-classifier --config objects_voc sampl") == {
        f"sampling.{key.partition('.')[2]}={value}"
        for key, values in keys_of("detector.training.images:ImageTrainingConfig").items()
        if key.startswith("sampling.")
        for value in values or ("",)
    }
    assert completions("googlenet-rcnn detect suppression.soft") == {"suppression.soft_sigma="}
    assert completions("googlenet-rcnn detect regres") == {"regression=true", "regression=false"}


def test_files_and_models(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    assert completions("googlenet-rcnn detect pho", tmp_path) == {"photo.jpg"}
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/best.safetensors").touch()
    assert completions("googlenet-rcnn models info shared_voc0712.", tmp_path) == {"shared_voc0712.rejection"}
    assert "runs/mine" in completions("googlenet-rcnn models info runs/m", tmp_path)
    assert completions("googlenet-rcnn models in") == {"info"}
