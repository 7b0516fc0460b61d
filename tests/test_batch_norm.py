"""Batch normalisation: gradients, test-time statistics, invariance, folding (Ioffe and Szegedy, 2015)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from detector.network.folding import fold_batch_norm
from detector.network.googlenet import Convolution, GoogLeNet, GoogLeNetConfig


def layer(channels: int = 3, filters: int = 4) -> Convolution:
    torch.manual_seed(0)
    made = Convolution(channels, filters, 3, batch_norm=True).double()
    with torch.no_grad():
        made.norm.weight.uniform_(0.5, 2)
        made.norm.bias.uniform_(-1, 1)
    return made


def normalised(x: Tensor, norm: nn.BatchNorm2d, *, detach: bool = False) -> Tensor:
    """The formula; with detach the statistics count as constants, which they are not."""
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    if detach:
        mean, variance = mean.detach(), variance.detach()
    scale, shift = norm.weight[:, None, None], norm.bias[:, None, None]
    return (x - mean) / (variance + norm.eps).sqrt() * scale + shift


def test_gradients_flow_through_mean_and_variance() -> None:
    made = layer()
    x = torch.randn(5, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 4, 6, 6, dtype=torch.float64)  # a loss that is not blind to the statistics

    def gradient(output: Tensor) -> Tensor:
        (found,) = torch.autograd.grad((F.relu(output) * weights).sum(), x)
        return found

    (found,) = torch.autograd.grad((made.train()(x) * weights).sum(), x)
    convolved = made.conv(x)
    torch.testing.assert_close(found, gradient(normalised(convolved, made.norm)))
    assert not torch.allclose(found, gradient(normalised(made.conv(x), made.norm, detach=True)), rtol=1e-2)


def test_the_output_does_not_feel_the_scale_of_the_weights() -> None:
    """And the gradient of weights a times as large is a times smaller: BN(aWx) = BN(Wx), §3.3 of its paper."""
    made = layer().train()
    made.norm.eps = 1e-12
    x = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    loss_weights = torch.randn(5, 4, 6, 6, dtype=torch.float64)
    outputs, gradients = [], []
    for factor in (1.0, 8.0):
        with torch.no_grad():
            made.conv.weight.mul_(factor)
        output = made(x)
        (gradient,) = torch.autograd.grad((output * loss_weights).sum(), made.conv.weight)
        outputs.append(output.detach())
        gradients.append(gradient)
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(gradients[1] * 8, gradients[0])


def test_running_averages_follow_the_batches_slowly() -> None:
    """Momentum 3e-4 is TF-slim's decay of 0.9997; the variance is the unbiased one."""
    made = layer().train()
    batches = [torch.randn(4, 3, 6, 6, dtype=torch.float64) for _ in range(3)]
    mean, variance = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for x in batches:
        made(x)
        convolved = made.conv(x)
        mean = 0.9997 * mean + 0.0003 * convolved.mean(dim=(0, 2, 3))
        variance = 0.9997 * variance + 0.0003 * convolved.var(dim=(0, 2, 3), unbiased=True)
    torch.testing.assert_close(made.norm.running_mean, mean)
    torch.testing.assert_close(made.norm.running_var, variance)


def test_statistics_of_the_whole_set_replace_them() -> None:
    made = layer()
    batches = [torch.randn(4, 3, 6, 6, dtype=torch.float64) for _ in range(5)]
    for x in batches:
        made.train()(x)
    update_bn(batches, made)
    convolved = made.conv(torch.cat(batches))
    torch.testing.assert_close(made.norm.running_mean, convolved.mean(dim=(0, 2, 3)))
    expected = torch.stack([made.conv(x).var(dim=(0, 2, 3), unbiased=True) for x in batches]).mean(dim=0)
    torch.testing.assert_close(made.norm.running_var, expected)
    # Then test output on the whole set is nearly what training would make of it as one batch.
    with torch.no_grad():
        together = made.eval()(torch.cat(batches))
        torch.testing.assert_close(together, F.relu(normalised(convolved, made.norm)), rtol=0.05, atol=0.05)


def test_at_test_an_image_does_not_feel_its_batch() -> None:
    network = trained(GoogLeNetConfig(classes=5, width=0.25, norm="batch"))
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(network.train()(x)[:1], network(torch.cat([x[:1], 3 * x[1:]]))[:1], rtol=1e-2)


def trained(config: GoogLeNetConfig) -> GoogLeNet:
    """With statistics, scales and shifts that are not those of the beginning."""
    torch.manual_seed(0)
    network = GoogLeNet(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-1, 1)
    update_bn([torch.randn(8, 3, 64, 64) for _ in range(2)], network)
    return network.eval()


@pytest.mark.parametrize("stem", ["dense", "separable"])
@pytest.mark.parametrize("inception", ["reduced", "naive"])
def test_folding_changes_no_logit(stem: str, inception: str) -> None:
    config = GoogLeNetConfig(
        classes=5, width=0.25, norm="batch", stem=stem, inception=inception, auxiliary_heads=2, dropout=0.2
    )
    network = trained(config)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any("auxiliary" in name for name in folded.state_dict())
    assert not folded.training
    assert folded.config.norm == "none"
    assert folded.config.dropout == 0.2
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        before, after = network(x), folded(x)
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
        assert before.std(dim=0).max() > 0.01 * before.abs().max()  # the images are told apart, so this says something
    assert network.config.norm == "batch"


def test_a_network_without_batch_normalisation_stays_itself() -> None:
    network = GoogLeNet(GoogLeNetConfig(classes=5, width=0.25))
    assert fold_batch_norm(network) is network
