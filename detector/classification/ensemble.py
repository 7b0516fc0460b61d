"""Classify whole images: probabilities, averaged over crops and over models (paper §7).

In: weights, images.  Out: Predictions, which can be kept and combined later; a mean of means is the mean over all,
since every model sees as many crops. The paper tried the maximum over crops too: it is worse.

N images, K classes.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import ImageClassifier
from detector.classification.crops import cut, plan
from detector.data.image import Image
from detector.network.input import network_input
from proposals.errors import UserError
from proposals.files import write_whole
from proposals.selective.colour import to_rgb


def classify(
    classifier: ImageClassifier, image: Image, crops: int = 10, *, batch: int = 32, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Compute the mean softmax over an image's crops.

    Crops that occur more than once, as in square images, are computed once and counted as often as they occur.

    Args:
        classifier: The network, in evaluation mode.
        image: [H, W, 3] uint8 RGB; other arrays as proposals.selective.colour.to_rgb takes them.
        crops: Number of crops: 1, 10 or 144. Their geometry is proportional to the network's input.
        batch: Number of crops computed at a time.
        device: Device of the network.

    Returns:
        [K] probabilities.
    """
    image = to_rgb(image)
    occurrences = Counter(plan(crops, image.shape[1], image.shape[0], classifier.size))
    different, counts = list(occurrences), np.array(list(occurrences.values()))
    total = np.zeros(classifier.network.config.classes)
    for start in range(0, len(different), batch):
        squares = cut(image, different[start : start + batch], classifier.size)  # [B, 224, 224, 3]
        x = network_input(squares, classifier.convention, device)  # [B, 3, 224, 224]
        with torch.inference_mode():
            logits = classifier.network(x).cpu()  # [B, K]; Apple's GPUs have no float64
        probabilities = logits.double().softmax(dim=1).numpy()
        total += counts[start : start + batch] @ probabilities
    result: NDArray[np.float64] = total / counts.sum()
    return result


@dataclass(frozen=True, eq=False)
class Predictions:
    """Class probabilities of N images, from one model or averaged over several.

    Attributes:
        models: Number of models.
        crops: Number of crops per image and model.
        images: N names.
        labels: [N] int64, the true classes.
        probabilities: [N, K] float32.
        seconds: Seconds per image, all models together; 0 where unknown.
    """

    models: int
    crops: int
    images: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    seconds: float

    def hits(self, best: int) -> int:
        """Count the images whose class is among the `best` most probable ones; of equal ones the first ranks higher."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :best]
        return int((order == self.labels[:, None]).any(axis=1).sum())

    def save(self, path: Path) -> None:
        """Write the predictions as .npz, without pickle."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                models=self.models,
                crops=self.crops,
                images=np.array(self.images),
                labels=self.labels,
                probabilities=self.probabilities,
                seconds=self.seconds,
            )

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read predictions that `save` wrote.

        Raises:
            UserError: There is no such file, or it is of another kind.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                return cls(
                    int(content["models"]),
                    int(content["crops"]),
                    tuple(content["images"].tolist()),
                    content["labels"],
                    content["probabilities"],
                    float(content["seconds"]),
                )
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: no saved predictions ({error})") from error


def combine(parts: Sequence[Predictions]) -> Predictions:
    """Average the predictions of several models on the same images with the same crops.

    Raises:
        UserError: There are none, or they are of different images, classes or numbers of crops.
    """
    if not parts:
        raise UserError("no predictions to combine")
    first = parts[0]
    for part in parts[1:]:
        if part.images != first.images or part.probabilities.shape != first.probabilities.shape:
            raise UserError("predictions of different images or classes cannot be combined")
        if part.crops != first.crops:
            raise UserError(f"predictions from {first.crops} and from {part.crops} crops cannot be combined")
    models = sum(part.models for part in parts)
    total = sum((part.models * part.probabilities.astype(np.float64) for part in parts), np.zeros(()))
    known = all(part.seconds for part in parts)
    if not all(np.array_equal(part.labels, first.labels) for part in parts):  # nor do the probabilities' columns agree
        raise UserError("predictions of models that number the classes differently cannot be combined")
    return Predictions(
        models,
        first.crops,
        first.images,
        first.labels,
        (total / models).astype(np.float32),
        sum(part.seconds for part in parts) if known else 0.0,
    )


def format_predictions(rows: Iterable[Predictions]) -> str:
    """Format predictions as Table 3: cost, errors with their confidence intervals (Wilson's), seconds per image."""
    from scipy.stats import binomtest

    from detector.table import columns

    table: list[tuple[str, ...]] = [
        ("models", "crops", "cost", "top-1 error", "95 %", "top-5 error", "95 %", "s/image", "images")
    ]
    for row in rows:
        cells = []
        for best in (1, 5):
            errors = binomtest(len(row.images) - row.hits(best), len(row.images))
            low, high = errors.proportion_ci(method="wilson")
            cells += [f"{errors.statistic:.2%}", f"{low:.2%}-{high:.2%}"]
        seconds = f"{row.seconds:.3f}" if row.seconds else "-"
        table.append(
            (str(row.models), str(row.crops), str(row.models * row.crops), *cells, seconds, str(len(row.images)))
        )
    return "\n".join(columns(table))
