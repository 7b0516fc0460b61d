"""Weights of Caffe and torchvision: the same logits as their own networks, names both ways, refusals."""

import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from foreign_weights import to_caffe, to_torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detector.checkpoint import find_checkpoint, find_pretrained, load_any_classifier
from detector.data.image import Image, read_image
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.pretrained import CAFFE_INPUT, TORCHVISION_INPUT, load_caffe, load_torchvision


@pytest.fixture(scope="module")
def torchvisions() -> nn.Module:
    """torchvision's network with statistics far from those of a fresh one."""
    torch.manual_seed(0)
    network = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False, num_classes=17)
    nn.init.normal_(network.fc.weight, 0, 0.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    result: nn.Module = network.eval()
    return result


@pytest.fixture(scope="module")
def caffes() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return to_caffe(GoogLeNet(GoogLeNetConfig(classes=11)))


def test_same_logits_as_torchvision(torchvisions: nn.Module) -> None:
    network, convention = load_torchvision(torchvisions.state_dict())
    x = torch.randn(3, 3, 224, 224)
    with torch.no_grad():
        theirs, ours = torchvisions(x), network(x)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert convention == TORCHVISION_INPUT


def test_torchvisions_names_there_and_back(torchvisions: nn.Module) -> None:
    state = {name: tensor for name, tensor in torchvisions.state_dict().items() if not name.startswith("aux")}
    back = to_torchvision(load_torchvision(state)[0])
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_transform_input_is_our_convention() -> None:
    """torchvision's users normalise by ImageNet's mean and std; its transform_input turns that into 2x - 1."""
    rgb = torch.randint(0, 256, (2, 3, 8, 8)).float()
    normalised = torchvision.transforms.functional.normalize(rgb / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    network = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=True)
    ours = torchvision.transforms.functional.normalize(rgb, TORCHVISION_INPUT.mean, TORCHVISION_INPUT.std)
    torch.testing.assert_close(ours, network._transform_input(normalised), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours, 2 * rgb / 255 - 1, rtol=0, atol=1e-6)


def test_caffes_names_there_and_back(caffes: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(caffes, tmp_path / "caffe.safetensors")
    network, convention = load_caffe(tmp_path / "caffe.safetensors")
    back = to_caffe(network)
    assert len(back) == 2 * 58
    assert back.keys() == caffes.keys()
    assert all(torch.equal(back[name], caffes[name]) for name in caffes)
    assert convention == CAFFE_INPUT
    assert not network.training


def test_blue_first_becomes_red_first(caffes: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in caffes.items()}, tmp_path / "caffe.safetensors")
    network, _ = load_caffe(tmp_path / "caffe.safetensors")
    rgb = torch.rand(1, 3, 40, 40) * 255
    theirs = nn.functional.conv2d(
        rgb[:, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0])[:, None, None],
        caffes["conv1/7x7_s2.weight"].half().float(),
        caffes["conv1/7x7_s2.bias"].half().float(),
        stride=2,
        padding=3,
    ).relu()
    ours = network.trunk_slice(None, "pool1")(rgb - torch.tensor(CAFFE_INPUT.mean)[:, None, None])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_refuses_files_by_name(caffes: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_caffe(path)
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(ValueError, match=f"{path} .*safetensors"):
        load_caffe(path)
    layer = "inception_4c/5x5_reduce.weight"
    for change, message in (
        ({layer: None}, layer),
        ({"inception_9z/1x1.bias": torch.zeros(3)}, "inception_9z/1x1.bias"),
        ({layer: torch.zeros(24, 512, 3, 3)}, rf"{layer} .*\[24, 512, 3, 3\].*\[24, 512, 1, 1\]"),
        ({layer: None, "more": torch.zeros(1)}, rf"{layer} .*1 more"),
        ({"loss3/classifier.weight": None}, "loss3/classifier.weight"),
    ):
        changed: dict[str, Tensor | None] = {**caffes, **change}
        save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, path)
        with pytest.raises(ValueError, match=f"{path} .*{message}"):
            load_caffe(path)


def test_caffes_weights_are_not_torchvisions(caffes: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"photo\.pth .*fc\.weight"):
        load_torchvision(caffes, source="photo.pth")


def write_onnx(path: Path, state: dict[str, Tensor]) -> None:
    """Caffe's tensors as the model zoo's file has them: Caffe2's names, and shapes of reshapes among them."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    names = {name: name.replace(".weight", "_w_0").replace(".bias", "_b_0") for name in state}
    tensors = [numpy_helper.from_array(state[name].numpy(), names[name]) for name in state]
    shape = numpy_helper.from_array(np.array([1, 1024]), "OC2_DUMMY_1")
    node = helper.make_node("Conv", ["data_0", "conv1/7x7_s2_w_0", "conv1/7x7_s2_b_0"], ["conv1/7x7_s2_1"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "bvlc_googlenet",
        [value("data_0", onnx.TensorProto.FLOAT, [1, 3, 224, 224])],
        [value("conv1/7x7_s2_1", onnx.TensorProto.FLOAT, None)],
        [*tensors, shape],
    )
    onnx.save(helper.make_model(graph), str(path))


def same_parameters(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def test_the_onnx_file_is_caffes_network(caffes: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(caffes, tmp_path / "caffe.safetensors")
    write_onnx(tmp_path / "googlenet-9.onnx", caffes)
    network, _ = load_caffe(tmp_path / "caffe.safetensors")
    found = load_any_classifier(find_pretrained(str(tmp_path / "googlenet-9.onnx")))
    assert same_parameters(found.network, network)
    assert found.convention == CAFFE_INPUT


@pytest.mark.data
def test_bvlcs_weights_as_an_onnx_file(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "weights" / "bvlc_googlenet.safetensors"
    write_onnx(tmp_path / "googlenet-9.onnx", {name: tensor.float() for name, tensor in load_file(path).items()})
    assert same_parameters(load_caffe(tmp_path / "googlenet-9.onnx")[0], load_caffe(path)[0])


def test_refuses_other_onnx_files(caffes: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    write_onnx(path, {name: tensor for name, tensor in caffes.items() if "4c/5x5" not in name})
    with pytest.raises(ValueError, match=r"net\.onnx has no tensor inception_4c/5x5"):
        load_any_classifier(path)
    for content in (b"", b"words", path.read_bytes()[:1000]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.onnx"):
            load_any_classifier(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"net\.onnx: .*pip install onnx") as caught:
        load_any_classifier(path)
    assert "\n" not in str(caught.value)


def test_torchvisions_weights_are_fetched_once(
    torchvisions: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(url: str, **options: Any) -> None:
        assert options["check_hash"]
        assert options["weights_only"]
        fetched.append(url)
        path = tmp_path / "checkpoints" / url.rpartition("/")[2]
        path.parent.mkdir()
        torch.save(torchvisions.state_dict(), path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    paths = {find_checkpoint("torchvision"), find_pretrained("torchvision")}
    assert fetched == [torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.url]
    classifier = load_any_classifier(paths.pop())
    assert not paths
    assert same_parameters(classifier.network, load_torchvision(torchvisions.state_dict())[0])
    assert classifier.convention == TORCHVISION_INPUT


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, **_: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match="Name or service not known") as caught:
        find_checkpoint("torchvision")
    url = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.url
    assert url in str(caught.value)
    assert str(tmp_path / "checkpoints" / url.rpartition("/")[2]) in str(caught.value)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was_run"),)


def test_no_code_of_a_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Code()}, tmp_path / "evil.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "evil.pth").read_bytes()[:300])
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name in ("evil", "cut", "list"):
        with pytest.raises(ValueError, match=rf"{name}\.pth"):
            load_any_classifier(tmp_path / f"{name}.pth")
    assert not (tmp_path / "was_run").exists()


def test_missing_weights_say_where_some_are() -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.onnx.*https://.*googlenet-9\.onnx.*init=torchvision"):
        find_pretrained("nowhere.onnx")


def test_files_without_counters_of_batches(torchvisions: nn.Module) -> None:
    state = {name: tensor for name, tensor in torchvisions.state_dict().items() if "num_batches" not in name}
    assert same_parameters(load_torchvision(state)[0], load_torchvision(torchvisions.state_dict())[0])


def centre_crop(image: Image) -> Image:
    factor = 256 / min(image.shape[:2])
    if factor != 1:  # a tenth of the files is smaller
        image = cv2.resize(image, None, fx=factor, fy=factor).astype(np.uint8)
    top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
    return image[top : top + 224, left : left + 224]


@pytest.mark.data
def test_bvlcs_weights_know_imagenets_classes(data_dir: Path) -> None:
    """743 and 924 of 1,000 by an independent forward pass of Caffe's layers on shorter side 256, centre crop 224."""
    network, convention = load_caffe(data_dir / "weights" / "bvlc_googlenet.safetensors")
    files = sorted((data_dir / "imagenet-samples").glob("n*.*"))  # one a class, in the order of their WordNet ids
    assert len(files) == 1000
    mean = torch.tensor(convention.mean)[:, None, None]
    start = time.perf_counter()
    best = []
    with torch.inference_mode():
        for first in range(0, len(files), 8):
            crops = [centre_crop(read_image(file)) for file in files[first : first + 8]]  # [224, 224, 3]
            x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() - mean  # [N, 3, 224, 224]
            best.append(network(x).topk(5).indices)
    hits = torch.cat(best) == torch.arange(1000)[:, None]  # [1000, 5]
    top1, top5 = int(hits[:, 0].sum()), int(hits.any(dim=1).sum())
    print(f"top-1 {top1}, top-5 {top5} of 1,000 in {time.perf_counter() - start:.1f} s")
    assert abs(top1 - 743) <= 3
    assert abs(top5 - 924) <= 3
