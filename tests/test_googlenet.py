"""GoogLeNet against Table 1 of the paper, hand-made references and PyTorch's own layers."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, Inception, training_loss
from detector.network.input import InputConvention
from detector.network.pretrained import TORCHVISION_VARIANT
from detector.network.table1 import Row, add_up, count, format_table

# Filter counts of Table 1 multiplied out: (weights, biases, multiply-adds in millions at 224 × 224).
TABLE_1 = {
    "conv1": (9_408, 64, 118.01),
    "conv2": (114_688, 256, 359.66),
    "inception_3a": (163_328, 368, 128.05),
    "inception_3b": (388_096, 640, 304.27),
    "inception_4a": (375_552, 624, 73.61),
    "inception_4b": (448_512, 648, 87.91),
    "inception_4c": (509_440, 664, 99.85),
    "inception_4d": (604_672, 704, 118.52),
    "inception_4e": (867_328, 1_024, 170.00),
    "inception_5a": (1_042_432, 1_024, 51.08),
    "inception_5b": (1_442_816, 1_264, 70.70),
    "fc": (1_024_000, 1_000, 1.02),
}
# Standard deviations in BVLC caffe's train_val.prototxt of 2014-12 by its layer names, ours beside them.
SPREADS = {
    "conv1": 0.1,  # conv1/7x7_s2
    "conv2_reduce": 0.1,  # conv2/3x3_reduce
    "conv2": 0.03,  # conv2/3x3
    "branch1": 0.03,  # 1x1
    "branch2_reduce": 0.09,  # 3x3_reduce
    "branch2": 0.03,  # 3x3
    "branch3_reduce": 0.2,  # 5x5_reduce
    "branch3": 0.03,  # 5x5
    "branch4": 0.1,  # pool_proj
    "reduce": 0.08,  # loss1/conv
    "fc1": 0.02,  # loss1/fc
    "fc2": 0.0009765625,  # loss1/classifier
    "fc": 0.0009765625,  # not in the file: the auxiliary classifiers'
}
# Channels of Table 1's "output size" column, and the factor by which the layer's side is smaller than the image's.
OUTPUTS = {
    "conv1": (64, 2),
    "pool1": (64, 4),
    "norm1": (64, 4),
    "conv2_reduce": (64, 4),
    "conv2": (192, 4),
    "norm2": (192, 4),
    "pool2": (192, 8),
    "inception_3a": (256, 8),
    "inception_3b": (480, 8),
    "pool3": (480, 16),
    "inception_4a": (512, 16),
    "inception_4b": (512, 16),
    "inception_4c": (512, 16),
    "inception_4d": (528, 16),
    "inception_4e": (832, 16),
    "pool4": (832, 32),
    "inception_5a": (832, 32),
    "inception_5b": (1024, 32),
}


@pytest.fixture(scope="module")
def network() -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet().eval()


@pytest.fixture(scope="module")
def with_heads() -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet(GoogLeNetConfig(classes=7, auxiliary_heads=2))


def images(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 50


def test_every_row_of_table_1(network: GoogLeNet) -> None:
    rows = {row.name: row for row in count(network)}
    rows["conv2"] = add_up("conv2", [rows.pop("conv2_reduce"), rows["conv2"]])
    for name, (weights, biases, millions) in TABLE_1.items():
        row = rows[name]
        assert (row.weights, row.biases, round(row.multiply_adds / 1e6, 2)) == (weights, biases, millions), name
    everything = add_up("total", list(rows.values()))
    assert (everything.weights, everything.biases) == (6_990_272, 8_280)
    assert round(everything.multiply_adds / 1e6, 2) == 1582.67
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_998_552


@pytest.mark.parametrize("size", [224, 256])
def test_output_size_of_every_layer(network: GoogLeNet, size: int) -> None:
    outputs = {row.name: row.output for row in count(network, size)}
    expected: dict[str, tuple[int, ...]] = {
        name: (channels, size // factor, size // factor) for name, (channels, factor) in OUTPUTS.items()
    }
    assert outputs == expected | {"fc": (1000,)}


def test_torchvisions_variant_is_as_large_as_torchvisions() -> None:
    everything = add_up("total", count(GoogLeNet(TORCHVISION_VARIANT)))
    assert everything.weights + everything.biases == 6_624_904  # num_params in torchvision's GoogLeNet_Weights
    assert everything.multiply_adds / 1e9 == pytest.approx(1.498, abs=5e-4)  # its _ops, in GFLOPS


def test_table_prints_and_names_the_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    describe_model = runpy.run_path(str(Path(__file__).parent.parent / "tools" / "describe_model.py"))["main"]
    assert describe_model([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].split() == ["conv2", "56×56×192", "2", "114,688", "256", "359.66", "112K", "360M"]
    assert lines[-1].split() == ["total", "1000", "22", "6,990,272", "8,280", "1582.67"]
    with pytest.raises(SystemExit, match="2"):
        describe_model(["--size", "16"])
    assert "from 32" in capsys.readouterr().err
    assert "pool4         8×8×832" in format_table(count(GoogLeNet(), 256))


def test_pools_round_up_as_if_the_right_and_bottom_were_padded(network: GoogLeNet) -> None:
    x = torch.randn(1, 2, 112, 112)
    for name, side in (("pool1", 56), ("pool2", 28), ("pool3", 14), ("pool4", 7)):
        y = network.trunk.get_submodule(name)(x)
        assert y.shape == (1, 2, side, side)
        assert torch.equal(y, F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, stride=2))
        x = y


def test_inception_concatenates_in_the_papers_order() -> None:
    module = Inception(8, 1, 4, 2, 5, 3, 6)
    x = torch.randn(2, 8, 9, 9)
    pooled = F.max_pool2d(x, 3, stride=1, padding=1)
    expected = [
        module.branch1(x),
        module.branch2(module.branch2_reduce(x)),
        module.branch3(module.branch3_reduce(x)),
        module.branch4(pooled),
    ]
    y = module(x)
    assert y.shape == (2, 1 + 2 + 3 + 6, 9, 9)
    for part, branch in zip(y.split([1, 2, 3, 6], dim=1), expected, strict=True):
        assert torch.equal(part, branch)
    assert y.min() >= 0
    assert module.branch3.conv.kernel_size == (5, 5)  # type: ignore[union-attr]


def test_fresh_weights_have_the_spread_of_2014(with_heads: GoogLeNet) -> None:
    for name, module in with_heads.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            row = name.removesuffix(".conv").rpartition(".")[2]
            weights = module.weight.detach()
            allowed = 5 / (2 * weights.numel()) ** 0.5  # five standard errors of a sample's standard deviation
            assert weights.std().item() == pytest.approx(SPREADS[row], rel=allowed), name
            assert abs(weights.mean().item()) < 5 * SPREADS[row] / weights.numel() ** 0.5, name
            bias = torch.full((len(weights),), 0.0 if row in ("fc", "fc2") else 0.2)
            assert module.bias is not None
            assert torch.equal(module.bias, bias), name


def test_fresh_weights_of_a_network_with_batch_normalisation() -> None:
    network = GoogLeNet(GoogLeNetConfig(norm="batch"))
    conv2 = network.trunk.get_submodule("conv2")
    assert conv2.conv.bias is None  # type: ignore[union-attr]
    assert conv2.conv.weight.std().item() == pytest.approx(0.01, rel=0.02)  # type: ignore[union-attr, operator]
    assert conv2.norm.eps == 1e-3  # type: ignore[union-attr]
    assert isinstance(network.trunk.get_submodule("norm1"), nn.Identity)


@pytest.mark.parametrize("norm", ["lrn", "batch", "none"])
def test_slices_of_the_trunk_make_the_whole(norm: str) -> None:
    network = GoogLeNet(GoogLeNetConfig(classes=5, norm=norm)).eval()
    x = images(2, 64)
    with torch.no_grad():
        expected = network(x)
        for name in ("pool1", "norm1", "norm2", "pool2", "inception_4b", "inception_5b"):
            cached = network.trunk_slice(None, name)(x)
            kept = cached.clone()
            logits = network.classify(network.trunk_slice(name, None)(cached))
            torch.testing.assert_close(logits, expected)
            assert torch.equal(cached, kept), f"{name} changes the features it is given"


def test_a_slice_shares_weights_and_modes(network: GoogLeNet) -> None:
    part = network.trunk_slice("inception_4a", "inception_4c")
    assert [name for name, _ in part.named_children()] == ["inception_4a", "inception_4b"]
    assert part.get_submodule("inception_4b") is network.trunk.get_submodule("inception_4b")
    assert not any(module.training for module in part.modules())
    assert len(network.trunk_slice("pool3", "pool3")) == 0
    with pytest.raises(ValueError, match=r"'inception_4f'.* conv1, .*, inception_5b"):
        network.trunk_slice("inception_4f", None)
    with pytest.raises(ValueError, match=r"'pool3'.*'pool2'"):
        network.trunk_slice("pool3", "pool2")


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 3, 33, 70), (2, 3, 100, 47), (0, 3, 64, 64)])
def test_any_input_size_gives_logits(network: GoogLeNet, shape: tuple[int, ...]) -> None:
    with torch.inference_mode():
        logits = network(torch.randn(shape))
    assert logits.shape == (shape[0], 1000)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_refuses_other_input(network: GoogLeNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\] .*32 × 32.*\["):
        network(torch.randn(shape))


def test_memory_format_of_the_input_does_not_matter(network: GoogLeNet) -> None:
    x = images(2, 64)
    with torch.inference_mode():
        features = network.trunk(x)
        torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last)), network(x))
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_auxiliary_heads_are_for_training_only(network: GoogLeNet, with_heads: GoogLeNet) -> None:
    x = images(2, 64)
    outputs = with_heads.train().forward_with_auxiliary(x)
    assert [output.shape for output in outputs] == [(2, 7)] * 3
    assert isinstance(with_heads(x), torch.Tensor)
    with pytest.raises(RuntimeError, match="train"):
        with_heads.eval().forward_with_auxiliary(x)
    with pytest.raises(RuntimeError, match="auxiliary_heads=2"):
        network.forward_with_auxiliary(x)


def test_loss_weighs_the_heads_and_teaches_every_layer(with_heads: GoogLeNet) -> None:
    labels = torch.tensor([3, 0])
    outputs = with_heads.train().forward_with_auxiliary(images(2, 64))
    main, first, second = (F.cross_entropy(output, labels) for output in outputs)
    loss = training_loss(outputs, labels)
    torch.testing.assert_close(loss, main + 0.3 * first + 0.3 * second)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in with_heads.parameters())
    with_heads.zero_grad()


def test_auxiliary_head_pools_five_by_five(with_heads: GoogLeNet) -> None:
    heads = GoogLeNet(GoogLeNetConfig(auxiliary_heads=2)).eval()
    assert heads.auxiliary1 is not None
    assert heads.auxiliary2 is not None
    sizes = [sum(p.numel() for p in head.parameters()) for head in (heads.auxiliary1, heads.auxiliary2)]
    assert sizes == [3_188_840, 3_190_888]
    x = torch.randn(2, 512, 14, 14)
    pooled = F.avg_pool2d(x, 5, stride=3)  # 4 × 4: windows at 0, 3, 6, 9
    hidden = F.relu(heads.auxiliary1.fc1(heads.auxiliary1.reduce(pooled).flatten(1)))
    torch.testing.assert_close(heads.auxiliary1(x), heads.auxiliary1.fc2(hidden))
    assert heads.auxiliary1(torch.randn(1, 512, 7, 9)).shape == (1, 1000)


def test_replacing_the_classifier() -> None:
    network = GoogLeNet(GoogLeNetConfig(classes=9, auxiliary_heads=2))
    trunk = [parameter.clone() for parameter in network.trunk.parameters()]
    network.replace_classifier(201)
    assert network.config.classes == 201
    assert all(torch.equal(old, new) for old, new in zip(trunk, network.trunk.parameters(), strict=True))
    assert [output.shape for output in network.forward_with_auxiliary(images(2, 64))] == [(2, 201)] * 3
    assert network.fc.weight.std().item() == pytest.approx(1 / 1024, rel=0.02)
    assert (network.fc.bias == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"branch3_kernel": 7}, r"branch3_kernel must be one of \(5, 3\), got 7"),
        ({"pool4_kernel": 4}, r"pool4_kernel must be one of \(3, 2\), got 4"),
        ({"norm": "group"}, "norm must be one of .*'lrn'.*, got 'group'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"auxiliary_dropout": -0.1}, r"auxiliary_dropout must be in \[0, 1\), got -0.1"),
    ],
)
def test_refuses_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GoogLeNetConfig(**settings)


def test_settings_survive_json() -> None:
    for config in (GoogLeNetConfig(), TORCHVISION_VARIANT):
        assert GoogLeNetConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_refuses_an_input_convention() -> None:
    with pytest.raises(ValueError, match=r"mean.* std"):
        InputConvention(std=(1.0, 0.0, 1.0))


def test_importing_the_network_compiles_nothing() -> None:
    code = "import detector.network.googlenet, detector.network.lrn as lrn; print(len(lrn._forward_rows.signatures))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "0"


# ---- variants


def table_of(**settings: Any) -> dict[str, Row]:
    return {row.name: row for row in count(GoogLeNet(GoogLeNetConfig(**settings)))}


def test_the_separable_stem_has_table_1s_figures() -> None:
    rows = table_of(stem="separable")
    assert rows["conv1"].weights == 2712  # "2.7K"
    assert round(rows["conv1"].multiply_adds / 1e6, 2) == 34.02  # "34M"
    assert rows["conv1"].output == (64, 112, 112)
    assert round(sum(row.multiply_adds for row in rows.values()) / 1e6, 1) == 1498.7


def test_the_naive_module_shows_what_reductions_are_for() -> None:
    """5×5 without reduction in 4a costs 112.9 M multiply-adds, with it 5.3 M; and the channels grow at every stage."""
    network = GoogLeNet(GoogLeNetConfig(inception="naive", classes=10))
    rows = {row.name: row for row in count(network)}
    reduced = table_of()
    assert reduced["inception_4a"].branches["5×5"] == 14 * 14 * (480 * 16 + 25 * 16 * 48)
    channels = rows["pool3"].output[0]
    assert channels == 192 + (64 + 128 + 32) + (128 + 192 + 96)
    assert rows["inception_4a"].branches["5×5"] == 14 * 14 * 25 * channels * 48
    assert sum(row.multiply_adds for row in rows.values()) > 5 * sum(row.multiply_adds for row in reduced.values())
    with torch.no_grad():
        assert network.eval()(images(1, 64)).shape == (1, 10)


@pytest.mark.parametrize(("width", "filters"), [(0.5, (32, 96, 128, 512)), (1.25, (80, 240, 320, 1280))])
def test_width_multiplies_every_number_of_filters(width: float, filters: tuple[int, ...]) -> None:
    rows = table_of(width=width)
    outputs = [rows[name].output[0] for name in ("conv1", "conv2", "inception_3a", "inception_5b")]
    assert all(abs(found - wanted) <= 16 for found, wanted in zip(outputs, filters, strict=True))  # steps of 8
    assert all(row.output[0] % 8 == 0 for name, row in rows.items() if name != "fc")
    share = sum(row.multiply_adds for row in rows.values()) / sum(row.multiply_adds for row in table_of().values())
    assert share == pytest.approx(width**2, rel=0.2)


@pytest.mark.parametrize("heads", [0, 1, 2])
def test_none_one_or_both_heads(heads: int) -> None:
    network = GoogLeNet(GoogLeNetConfig(classes=5, auxiliary_heads=heads, norm="batch")).train()
    x, labels = images(2, 64), torch.tensor([1, 3])
    if heads == 0:
        with pytest.raises(RuntimeError, match="auxiliary_heads=2"):
            network.forward_with_auxiliary(x)
        return
    outputs = network.forward_with_auxiliary(x)
    assert [output.shape for output in outputs] == [(2, 5)] * (1 + heads)
    losses = [F.cross_entropy(output, labels) for output in outputs]
    expected = losses[0] + 0.3 * sum(losses[1:])
    torch.testing.assert_close(training_loss(outputs, labels), expected)
    with torch.no_grad():
        assert network.eval()(x).shape == (2, 5)  # they vanish at inference


@pytest.mark.parametrize(
    ("settings", "layer", "deviation", "bias"),
    [
        ({"initialisation": "xavier"}, "trunk.conv2.conv", (1 / (64 * 9)) ** 0.5, 0.2),
        ({"initialisation": "torchvision"}, "trunk.conv2.conv", 0.01, 0.0),
        ({"initialisation": "gaussian2014"}, "trunk.conv2.conv", 0.03, 0.2),
        ({"norm": "batch", "initialisation": "xavier"}, "trunk.conv2.conv", (1 / (64 * 9)) ** 0.5, None),
    ],
)
def test_initialisations(settings: dict[str, Any], layer: str, deviation: float, bias: float | None) -> None:
    torch.manual_seed(0)
    module = GoogLeNet(GoogLeNetConfig(**settings)).get_submodule(layer)
    assert isinstance(module, nn.Conv2d)
    assert module.weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert (module.bias is None) == (bias is None)
    if module.bias is not None:
        assert (module.bias == bias).all()
    if settings["initialisation"] == "xavier":
        assert module.weight.abs().max() <= (3 / (64 * 9)) ** 0.5


def test_branches_and_depth_are_printed(tool: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("describe_model")(["width=0.5", "norm=batch", "classes=10", "--branches"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("total")).split()[2] == "22"
    shares = next(line for line in lines if line.startswith("inception_4a") and "%" in line).split()[1:]
    assert sum(float(share.rstrip("%")) for share in shares) == pytest.approx(100, abs=0.2)
    assert tool("describe_model")(["depth=3"]) == 1
    assert "no key 'depth'" in capsys.readouterr().err
