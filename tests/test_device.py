"""The --device option, with and without accelerators."""

from __future__ import annotations

import ctypes

import pytest
import torch

from detector.device import (
    DeviceError,
    autocast,
    choose_device,
    choose_precision,
    keep_freed_memory,
    training_precision,
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without accelerators, to which a test adds some."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def test_a_machine_without_accelerators(machine: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"'cuda'.* cpu$"):
        choose_device("cuda")


def test_cuda_comes_first(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"'cuda:2'.* cpu, cuda:0, cuda:1$"):
        choose_device("cuda:2")


def test_apples_gpu(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    with pytest.raises(ValueError, match=r"'gpu'.* cpu, mps$"):
        choose_device("gpu")


# ---- precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, torch.float32),
        ({"avx2": True, "avx512_f": True, "avx512_vnni": True, "amx_tile": True, "amx_int8": True}, torch.float32),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"architecture": "aarch64", "num_logical_cores": 4}, torch.float32),
    ],
)
def test_a_processor_that_multiplies_bfloat16(
    machine: pytest.MonkeyPatch, capabilities: dict[str, object], expected: torch.dtype
) -> None:
    machine.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == expected
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((7, 0), torch.float32),
        ((7, 5), torch.float32),
        ((8, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16),
        ((9, 0), torch.bfloat16),
        ((12, 0), torch.bfloat16),
    ],
)
def test_a_gpu_that_multiplies_bfloat16(
    machine: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    """The one that is asked for, whatever the processor can."""
    other = (7, 0) if capability >= (8, 0) else (9, 0)
    machine.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": expected == torch.float32})
    machine.setattr(
        torch.cuda, "get_device_capability", lambda device: capability if device == torch.device("cuda:1") else other
    )
    assert choose_precision("auto", torch.device("cuda:1")) == expected
    assert choose_precision("auto", torch.device("cuda:0")) != expected
    assert choose_precision("float32", torch.device("cuda:1")) == torch.float32
    assert choose_precision("bfloat16", torch.device("cuda:1")) == torch.bfloat16


def test_apples_gpu_computes_in_float32_unless_told(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": True})
    assert choose_precision("auto", torch.device("mps")) == torch.float32
    assert choose_precision("bfloat16", torch.device("mps")) == torch.bfloat16


@pytest.mark.parametrize("name", ["half", "float16", "", "BFLOAT16", "torch.bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_an_unknown_precision(name: str, device: str) -> None:
    with pytest.raises(ValueError, match=f"^precision .*auto, float32, bfloat16.*'{name}'$"):
        choose_precision(name, torch.device(device))


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), torch.float32),  # no tensor cores
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
    ],
)
def test_a_gpu_trains_in_what_its_tensor_cores_multiply(
    machine: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    machine.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    device = torch.device("cuda:0")
    assert training_precision("auto", device) == expected
    for name in ("float32", "bfloat16", "float16"):
        assert training_precision(name, device) == getattr(torch, name)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_float16_trains_on_cuda_alone(machine: pytest.MonkeyPatch, device: str) -> None:
    with pytest.raises(
        DeviceError, match=rf"^precision=float16 trains on CUDA devices, not on {device}; set precision"
    ):
        training_precision("float16", torch.device(device))
    for capabilities, expected in (({}, torch.float32), ({"amx_bf16": True}, torch.bfloat16)):
        machine.setattr(torch.cpu, "get_capabilities", lambda capabilities=capabilities: capabilities)
        assert training_precision("auto", torch.device("cpu")) == expected
    with pytest.raises(ValueError, match=r"^precision .*bfloat16, float16, not 'half'$"):
        training_precision("half", torch.device(device))


def test_autocast_computes_in_that_precision() -> None:
    layer, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    for precision in (torch.float32, torch.bfloat16, torch.float16):
        with autocast(torch.device("cpu"), precision):
            assert layer(x).dtype == precision
        assert layer(x).dtype == layer.weight.dtype == torch.float32


# ---- memory


def test_a_system_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", absent)
    keep_freed_memory()
