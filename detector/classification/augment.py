"""Make training examples of an image: a random crop, mirrored, with other colours and light (paper §6).

In: image [H, W, 3] uint8 RGB.  Out: [S, S, 3] uint8 RGB, the same for the same seed, image number and pass.
The paper: a patch of 8 % to 100 % of the area, aspect ratio 3/4 to 4/3, "photometric distortions by Andrew Howard".
arXiv v1 adds random interpolation, whose use is "not clear". Choices that the paper leaves open, with their source:

    ratio          log-uniform                        torchvision RandomResizedCrop
    distortions    brightness, contrast and colour by factors of 0.5-1.5, in random order  Howard 2013, as BVLC reads it
    lighting       Krizhevsky's noise along the colours' principal axes, with the constants of the Torch ResNet code

Cropping and mirroring are albumentations'. Its colour jitter and FancyPCA are others than these (they round the mean
otherwise, and take each image's own axes), so distortion and lighting are transforms of ours, on Pillow's enhancers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks a server for its newest version

import albumentations as A
import cv2
import numpy as np
import PIL.Image
import PIL.ImageEnhance
from numpy.typing import NDArray

from detector.data.image import Image

EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
"""Principal axes of ImageNet's colours, RGB in 0..1: rows red, green, blue; a column is an axis."""

INTERPOLATIONS = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "cubic": cv2.INTER_CUBIC,
}

ENHANCERS: tuple[Callable[[PIL.Image.Image], Any], ...] = (
    PIL.ImageEnhance.Brightness,
    PIL.ImageEnhance.Contrast,
    PIL.ImageEnhance.Color,
)


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of the patches of the training images that a network sees; members of an ensemble differ here (§7).

    Attributes:
        area: Smallest and largest share of the image's area, in (0, 1].
        ratio: Smallest and largest width / height of the patch.
        interpolation: bilinear, area, nearest, cubic; "random" draws one of the four each time.
        mirror: Whether half of the patches are mirrored.
        distortion: Brightness, contrast and colour change by factors of 1 ± this, in [0, 1).
        lighting: Standard deviation of the noise along each principal axis, in units of its eigenvalue.
    """

    area: tuple[float, float] = (0.08, 1.0)  # §6
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # §6
    interpolation: str = "random"  # arXiv v1
    mirror: bool = True
    distortion: float = 0.5  # Howard 2013
    lighting: float = 0.1  # Krizhevsky 2012

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"sampling.area must be two shares, 0 < low <= high <= 1, not {list(self.area)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"sampling.ratio must be two numbers, 0 < low <= high, not {list(self.ratio)}")
        if self.interpolation not in (*INTERPOLATIONS, "random"):
            raise ValueError(
                f"sampling.interpolation must be random, {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}"
            )
        if not 0 <= self.distortion < 1:
            raise ValueError(f"sampling.distortion must be in [0, 1), not {self.distortion}")
        if self.lighting < 0:
            raise ValueError(f"sampling.lighting must be at least 0, not {self.lighting}")


class Distortion(A.ImageOnlyTransform):  # type: ignore[misc]
    """Change brightness, contrast and colour, in random order, by factors uniform in 1 ± strength (Howard 2013)."""

    def __init__(self, strength: float) -> None:
        super().__init__(p=1.0)
        self.strength = strength

    def get_params(self) -> dict[str, Any]:
        """Draw the order [3], positions in ENHANCERS, and the factors [3] in the order of ENHANCERS."""
        order = self.random_generator.permutation(len(ENHANCERS))
        return {"order": order, "factors": self.random_generator.uniform(1 - self.strength, 1 + self.strength, 3)}

    def apply(self, img: Image, order: NDArray[np.int64], factors: NDArray[np.float64], **_: Any) -> Image:
        """Distort an image; [H, W, 3] uint8 RGB -> the same."""
        return distort(img, order.tolist(), factors.tolist())


class Lighting(A.ImageOnlyTransform):  # type: ignore[misc]
    """Shift all pixels by one colour, drawn along the principal axes of ImageNet's colours (Krizhevsky 2012)."""

    def __init__(self, deviation: float) -> None:
        super().__init__(p=1.0)
        self.deviation = deviation

    def get_params(self) -> dict[str, Any]:
        """Draw the amounts [3] along the axes, in units of the eigenvalues."""
        return {"amounts": self.random_generator.normal(0, self.deviation, 3)}

    def apply(self, img: Image, amounts: NDArray[np.float64], **_: Any) -> Image:
        """Add amounts · eigenvalues along the axes to each pixel, clipped; [H, W, 3] uint8 RGB -> the same."""
        shift = 255 * EIGENVECTORS @ (amounts * EIGENVALUES)  # [3]
        table = np.arange(256)[:, None] + shift  # the new value of each level of red, green, blue
        levels = np.clip(np.rint(table), 0, 255).astype(np.uint8)[None]  # [1, 256, 3]
        return np.asarray(cv2.LUT(img, levels), dtype=np.uint8)


def distort(image: Image, order: Sequence[int], factors: Sequence[float]) -> Image:
    """Apply Pillow's enhancers; [H, W, 3] uint8 RGB -> the same.

    Args:
        image: [H, W, 3] uint8 RGB.
        order: Positions in ENHANCERS, first to last.
        factors: Factors of brightness, contrast and colour; 1 changes nothing.
    """
    picture = PIL.Image.fromarray(image)
    for enhancer in order:
        picture = ENHANCERS[enhancer](picture).enhance(factors[enhancer])
    return np.array(picture)  # a copy: what Pillow holds is read-only


def sampler(config: SamplingConfig, size: int) -> A.Compose:
    """Make the transforms of a config for squares of `size` px; `example` seeds them anew for every image."""
    names = list(INTERPOLATIONS) if config.interpolation == "random" else [config.interpolation]
    crops = [
        A.RandomResizedCrop(
            (size, size), scale=tuple(config.area), ratio=tuple(config.ratio), interpolation=INTERPOLATIONS[name]
        )
        for name in names
    ]
    transforms: list[A.BasicTransform] = [A.OneOf(crops, p=1.0)]
    if config.mirror:
        transforms.append(A.HorizontalFlip(p=0.5))
    if config.distortion:
        transforms.append(Distortion(config.distortion))
    if config.lighting:
        transforms.append(Lighting(config.lighting))
    return A.Compose(transforms)


def example(image: Image, transforms: A.Compose, seed: tuple[int, ...]) -> Image:
    """Make a training example of an image; [H, W, 3] -> [S, S, 3] uint8 RGB.

    Args:
        image: [H, W, 3] uint8 RGB.
        transforms: From `sampler`.
        seed: Whole numbers from 0; the same numbers give the same example in any process.
    """
    # Compose.set_random_seed would give all of them one seed, and the crop's size would decide on the mirror.
    seeds = np.random.SeedSequence(seed).generate_state(len(transforms.transforms)).tolist()
    for transform, own in zip(transforms.transforms, seeds, strict=True):
        transform.set_random_seed(own)
    result: Image = transforms(image=image)["image"]
    return result
