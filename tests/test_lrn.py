"""The compiled kernels and the torch formula against F.local_response_norm and a sum by hand."""

import multiprocessing

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detector.lrn import LocalResponseNorm, local_response_norm

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# Images, channels, height, width: both layers of the network, odd sizes, fewer channels than the window, no images.
SHAPES = [(2, 64, 56, 56), (3, 192, 14, 9), (1, 5, 7, 11), (2, 3, 4, 4), (1, 1, 1, 1), (5, 8, 1, 3), (0, 8, 4, 4)]


def reference(x: Tensor) -> Tensor:
    return F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)


def activations(shape: tuple[int, ...], memory_format: torch.memory_format, spread: float = 200.0) -> Tensor:
    """As large as those of BVLC's network, where the denominator is far from 1."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * spread
    return x.contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_equal_torchs(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    x = activations(shape, memory_format)
    grad = torch.randn(shape)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = local_response_norm(ours)
    expected = reference(theirs)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    (ours_grad,) = torch.autograd.grad(y, ours, grad)
    (theirs_grad,) = torch.autograd.grad(expected, theirs, grad)
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-5, atol=1e-6)
    assert y.stride() == x.stride()


def test_the_formula_by_hand() -> None:
    values = [3.0, -200.0, 50.0, 0.0, 120.0, 7.0, -90.0]
    expected = []
    for i, value in enumerate(values):
        mean = sum(v * v for v in values[max(0, i - 2) : i + 3]) * 1e-4 / 5
        expected.append(value / (1 + mean) ** 0.75)
    y = local_response_norm(torch.tensor(values).reshape(1, 7, 1, 1))
    assert y.flatten().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_other_types_take_the_torch_formula(memory_format: torch.memory_format) -> None:
    x = activations((2, 16, 6, 5), memory_format)
    half = local_response_norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.stride() == x.stride()
    torch.testing.assert_close(half.float(), reference(x), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(local_response_norm(x.double()), reference(x.double()), rtol=1e-12, atol=1e-12)


def test_gradient_of_the_torch_formula() -> None:
    x = activations((2, 7, 3, 2), torch.contiguous_format).double().requires_grad_()
    assert torch.autograd.gradcheck(local_response_norm, (x,))


def test_large_values_stay_finite_in_half_precision() -> None:
    x = torch.full((1, 8, 2, 2), 6e4, dtype=torch.float16)  # its square is beyond float16
    assert torch.isfinite(local_response_norm(x)).all()


def test_a_slice_of_channels_and_no_gradient() -> None:
    x = activations((2, 16, 6, 5), torch.channels_last)[:, 3:11]
    with torch.inference_mode():
        torch.testing.assert_close(LocalResponseNorm()(x), reference(x), rtol=1e-6, atol=1e-6)


def test_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"needs \[N, C, H, W\], got \[3, 4\]"):
        local_response_norm(torch.zeros(3, 4))


def test_a_compiler_sees_the_same_function() -> None:
    x = activations((2, 9, 6, 5), torch.contiguous_format)
    program = torch.export.export(LocalResponseNorm(), (x,))
    y = activations((2, 9, 6, 5), torch.contiguous_format, spread=50.0)
    torch.testing.assert_close(program.module()(y), reference(y), rtol=1e-6, atol=1e-6)


def write_norm(x: Tensor, result: Tensor) -> None:
    result.copy_(local_response_norm(x))


def test_works_after_a_fork() -> None:
    x = activations((4, 16, 8, 8), torch.channels_last)
    expected = local_response_norm(x)  # the parent's threads exist
    result = torch.zeros_like(x).share_memory_()  # type: ignore[no-untyped-call]
    child = multiprocessing.get_context("fork").Process(target=write_norm, args=(x, result))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert torch.equal(result, expected)
