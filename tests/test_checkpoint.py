"""Region classifiers on disk: what comes back, what is refused, and with which words."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from detector import model_files
from detector.checkpoint import RegionClassifier, find_checkpoint, load_checkpoint, save_checkpoint
from detector.data.ground_truth import ClassTable
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.network.pretrained import TORCHVISION_INPUT, TORCHVISION_VARIANT
from detector.regions.warp import RegionConfig

CLASSES = ClassTable(("cat", "crane", "crane"), ("n02121808", None, "n03126707"), (3, 5, 90))


def make(config: GoogLeNetConfig) -> RegionClassifier:
    torch.manual_seed(0)
    return RegionClassifier(
        GoogLeNet(config),
        InputConvention((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
        RegionConfig(96, 7),
        CLASSES,
        {"data": "toy – 3 Klassen", "mAP": "0.5"},
    )


@pytest.fixture(scope="module")
def classifier() -> RegionClassifier:
    return make(GoogLeNetConfig(classes=4, auxiliary_heads=2, dropout=0.25))


@pytest.fixture
def saved(classifier: RegionClassifier, tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "toy.safetensors"
    save_checkpoint(path, classifier)
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a checkpoint and leave its tensors."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    header = json.loads(metadata["header"])
    change(header)
    save_file(load_file(path), path, metadata={**metadata, "header": json.dumps(header)})


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_round_trip_to_the_bit(classifier: RegionClassifier, saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert loaded.network.config == replace(classifier.network.config, auxiliary_heads=0)
    assert (loaded.convention, loaded.regions, loaded.classes) == (
        classifier.convention,
        classifier.regions,
        classifier.classes,
    )
    assert loaded.provenance == classifier.provenance
    assert not loaded.network.training
    state = loaded.network.state_dict()
    assert state.keys() == {name for name in classifier.network.state_dict() if not name.startswith("auxiliary")}
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, classifier.network.state_dict()[name])
    assert not list(saved.parent.glob(".*"))  # no temporary file stays


def test_others_may_read_the_file(saved: Path, tmp_path: Path) -> None:
    """As any file written here, which is what the umask allows; safetensors' own writer leaves 0600."""
    (tmp_path / "plain").write_bytes(b"")
    assert saved.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_half_precision_is_half_the_size(classifier: RegionClassifier, saved: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, classifier, half=True)
    assert half.stat().st_size < 0.52 * saved.stat().st_size
    for name, tensor in load_checkpoint(half).network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, classifier.network.state_dict()[name].half().float())


def test_batch_normalisation_keeps_its_statistics(tmp_path: Path) -> None:
    network = make(replace(TORCHVISION_VARIANT, classes=4)).network
    for name, buffer in network.named_buffers():
        buffer.fill_(7 if name.endswith("num_batches_tracked") else 0.5)
    before = RegionClassifier(network, TORCHVISION_INPUT, RegionConfig(), CLASSES)
    save_checkpoint(tmp_path / "batch.safetensors", before, half=True)
    after = load_checkpoint(tmp_path / "batch.safetensors").network
    for name, buffer in network.named_buffers():
        assert torch.equal(after.get_buffer(name), buffer), name
        assert after.get_buffer(name).dtype == buffer.dtype


def test_the_header_is_readable_without_the_tensors(saved: Path) -> None:
    with safe_open(saved, framework="np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "googlenet-rcnn region classifier 1"
    header = json.loads(metadata["header"])
    assert header["classes"]["names"] == ["cat", "crane", "crane"]
    assert header["regions"] == {"size": 96, "context": 7}
    assert header["network"]["classes"] == 4
    assert header["provenance"]["data"] == "toy – 3 Klassen"


def test_a_failed_write_leaves_the_old_file(
    classifier: RegionClassifier, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def fail(path: Path, content: bytes) -> None:
        path.write_text("half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(saved, classifier)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.safetensors") == f"no checkpoint {tmp_path}/none.safetensors"


def test_a_text(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("these are no weights\n" * 100)
    assert "is no safetensors file" in refusal(path)
    path.write_bytes(b"")
    assert "is no safetensors file" in refusal(path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    assert "is no safetensors file" in refusal(path)
    torch.save({"weight": torch.zeros(2), "trap": Trap()}, path)
    assert "is no safetensors file" in refusal(path)
    assert not (tmp_path / "sprung").exists()


def test_a_truncated_file(saved: Path) -> None:
    content = saved.read_bytes()
    for length in (4, 2000, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        assert "is no safetensors file" in refusal(saved)


def test_safetensors_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"fc.weight": torch.zeros(4, 1024)}, path, metadata=metadata)
        message = refusal(path)
        assert "is no region classifier of this project" in message
        assert "as init" in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda header: header["classes"].update(names=["a", "b"], wnids=[None] * 2, ids=[1, 2]),
            "a network of 4 outputs does not fit 2 classes and background",
        ),
        (lambda header: header["network"].update(classes=3), "size mismatch for fc.weight"),
        (lambda header: header["network"].update(norm="magic"), "norm must be one of"),
        (lambda header: header["network"].update(depth=22), "depth"),
        (lambda header: header["regions"].update(size=5), "regions.size must be at least 32 px, not 5"),
        (lambda header: header.pop("convention"), "convention"),
        (lambda header: header["classes"].update(ids=[1, 1, 2]), "an id occurs twice"),
    ],
)
def test_a_header_that_does_not_fit(saved: Path, change: Callable[[dict[str, Any]], object], reason: str) -> None:
    rewrite(saved, change)
    message = refusal(saved)
    assert "its tensors and its header do not fit" in message
    assert reason in message


@pytest.mark.parametrize("header", [None, "{not json", "[]"])
def test_a_damaged_header(tmp_path: Path, header: str | None) -> None:
    path = tmp_path / "damaged.safetensors"
    metadata = {"format": model_files.REGION_FORMAT} | ({} if header is None else {"header": header})
    save_file({"x": torch.zeros(1)}, path, metadata=metadata)
    assert "header" in refusal(path)


def test_a_missing_tensor(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(saved)
    del state["trunk.conv1.conv.bias"]
    save_file(state, saved, metadata=metadata)
    assert "trunk.conv1.conv.bias" in refusal(saved)


def test_find_by_path_or_by_shipped_name(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(str(saved)) == saved
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("toy")
    assert str(caught.value) == (
        "no checkpoint toy (shipped: none); train one: python tools/train_classifier.py --config regions_voc"
    )
    (tmp_path / "shipped").mkdir()
    for name in ("toy", "another"):
        (tmp_path / "shipped" / f"{name}.safetensors").write_bytes(saved.read_bytes())
    save_file({"x": torch.zeros(1)}, tmp_path / "shipped/boxes.safetensors", metadata={"format": "of another kind"})
    assert find_checkpoint("toy") == tmp_path / "shipped" / "toy.safetensors"
    with pytest.raises(CheckpointError, match=r"no checkpoint toys\. Did you mean 'toy'\? \(shipped: another, toy\)"):
        find_checkpoint("toys")
    with pytest.raises(CheckpointError, match="--config regions_voc"):
        find_checkpoint("fast")  # a preset, but not of a training


def test_network_and_classes_must_match(classifier: RegionClassifier) -> None:
    with pytest.raises(ValueError, match=r"4 outputs .*2 classes"):
        replace(classifier, classes=ClassTable(("a", "b"), (None, None), (1, 2)))
