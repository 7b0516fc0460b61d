"""Refit the last layer after training, on windows that are drawn with another balance of the classes.

In: the best classifier of a run.  Out: refit.safetensors beside it, the same but for the last layer.
Balanced batches may serve the features of rare classes and spoil the priors, or the other way round; then layers and
last layer want different batches (Kang et al., arXiv 1910.09217, learn features from natural batches and the last layer
from balanced ones). The fit is that of linear.py, which does not use a teacher.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from detector.checkpoint import load_checkpoint
from detector.training.regions import FineTuning
from detector.training.windows import BatchSampler, ImageSampler


def refit(task: FineTuning, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Fit the last layer of best.safetensors anew and write refit.safetensors; all processes must call this together.

    Args:
        task: The training: its images, windows and settings `refit_batches` and `refit_balance`.
        folder: Folder of the run.

    Returns:
        What `task.measure` finds before and after.
    """
    config, sampler = task.config, task.train.sampler
    assert isinstance(sampler, BatchSampler | ImageSampler)
    network = load_checkpoint(folder / "best.safetensors").network.to(task.ranks.device).eval()
    before = task.measure(network)
    if task.ranks.leads:
        train = replace(task.train, sampler=replace(sampler, balance=config.refit_balance))
        # Batches that neither SGD nor the first fit has drawn.
        first = config.epochs * config.batches_per_epoch + config.linear_batches
        task.fit_layer(network, train, range(first, first + config.refit_batches), "refit")
    task.ranks.copy_from_first(network)
    after = task.measure(network)
    if task.ranks.leads:
        task.save(network, folder / "refit.safetensors")
    return before, after
