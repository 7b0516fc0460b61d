"""The --device option, with and without accelerators."""

from __future__ import annotations

import ctypes

import pytest
import torch

from detector.device import choose_device, keep_freed_memory


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without accelerators, to which a test adds some."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def test_a_machine_without_accelerators(machine: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"no device 'cuda' here; there is cpu$"):
        choose_device("cuda")


def test_cuda_comes_first(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"no device 'cuda:2' here; there is cpu, cuda:0, cuda:1$"):
        choose_device("cuda:2")


def test_apples_gpu(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    with pytest.raises(ValueError, match=r"no device 'gpu' here; there is cpu, mps$"):
        choose_device("gpu")


def test_a_system_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", absent)
    keep_freed_memory()
