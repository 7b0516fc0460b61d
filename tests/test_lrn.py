"""The compiled kernels and the torch formula against F.local_response_norm and a sum by hand."""

import multiprocessing

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detector.network import lrn
from detector.network.lrn import LocalResponseNorm, local_response_norm

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


# ---- bfloat16


def bits(x: Tensor) -> Tensor:
    """Of the values as they are, with one NaN for all."""
    x = x.contiguous()
    return torch.where(x.isnan(), torch.full_like(x, torch.nan), x).view(torch.int16)


@pytest.mark.parametrize("spread", [1.0, 200.0, 1e5])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 1, 3, 5), (1, 2, 9, 2), (1, 4, 2, 2), (1, 17, 5, 3)])
def test_bfloat16_is_the_float32_kernels_result_rounded(shape: tuple[int, ...], spread: float) -> None:
    """Bit for bit, ties to even, at any number of threads; the sum is over float32 squares."""
    x = activations(shape, torch.channels_last, spread).bfloat16()
    expected = local_response_norm(x.float()).bfloat16()
    y = local_response_norm(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(bits(y), bits(expected))
    assert y.stride() == x.stride()
    with torch.no_grad():
        assert torch.equal(bits(local_response_norm(x.clone().requires_grad_())), bits(expected))


def test_bfloat16_without_gradient_never_becomes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    x = activations((2, 16, 6, 5), torch.channels_last).bfloat16()
    weights = x.clone().requires_grad_()
    expected = local_response_norm(x.float()).bfloat16()

    def fail(_: Tensor) -> Tensor:
        raise AssertionError("took the float32 kernel")

    monkeypatch.setattr(lrn._CompiledNorm, "apply", fail)
    assert torch.equal(local_response_norm(x), expected)
    with torch.no_grad():
        assert torch.equal(local_response_norm(weights), expected)
    with torch.inference_mode():
        assert torch.equal(local_response_norm(x), expected)
    with pytest.raises(AssertionError):
        local_response_norm(weights)


def test_bfloat16_rounds_every_number_as_torch_does() -> None:
    """All 65,536 of them by themselves: subnormal, infinite and NaN too, each becomes what torch would round it to."""
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16).reshape(4, 1, 128, 128)
    x = x.contiguous(memory_format=torch.channels_last)
    expected = local_response_norm(x.float())
    assert expected.isnan().sum() > x.isnan().sum() > 0  # of infinity it is NaN
    y = local_response_norm(x)
    assert torch.equal(bits(y), bits(expected.bfloat16()))
    finite = y.isfinite() & (x != 0) & (x.abs() < 1e18)
    assert torch.equal(y[finite].sign(), x[finite].sign())


@pytest.mark.parametrize("odd", [torch.inf, -torch.inf, torch.nan, 3e38])
def test_bfloat16_spreads_what_is_not_finite_as_far_as_float32(odd: float) -> None:
    """Two channels on each side of it, and no other pixel."""
    x = activations((1, 16, 3, 3), torch.channels_last).bfloat16()
    x[0, 7, 1, 1] = odd
    y, expected = local_response_norm(x), local_response_norm(x.float()).bfloat16()
    assert torch.equal(bits(y), bits(expected))
    clean = local_response_norm(activations((1, 16, 3, 3), torch.channels_last).bfloat16())
    changed = (bits(y) != bits(clean)).nonzero()
    assert changed[:, 1].tolist() == [5, 6, 7, 8, 9]
    assert (changed[:, 2:] == 1).all()


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", [(2, 64, 9, 7), (1, 3, 4, 4)])
def test_bfloat16_learns(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    """Its gradient is float32's, rounded."""
    x = activations(shape, memory_format).bfloat16()
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    half, full = x.clone().requires_grad_(), x.float().requires_grad_()
    y, expected = local_response_norm(half), local_response_norm(full)
    assert y.dtype == torch.bfloat16
    assert y.stride() == x.stride()
    assert torch.equal(y, expected.bfloat16())
    (half_grad,) = torch.autograd.grad(y, half, grad)
    (full_grad,) = torch.autograd.grad(expected, full, grad.float())
    assert half_grad.dtype == torch.bfloat16
    torch.testing.assert_close(half_grad.float(), full_grad, rtol=2**-8, atol=1e-30)
    assert half_grad.abs().sum() > 0


# ---- others


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
