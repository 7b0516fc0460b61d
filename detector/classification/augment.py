"""Training patches of an image: a random crop, mirrored, distorted, relit (paper §6).

In: image [H, W, 3] uint8 RGB.  Out: [S, S, 3] uint8 RGB, the same for the same seed.
The paper: a patch of 8 % to 100 % of the area, aspect ratio 3/4 to 4/3, "photometric distortions by Andrew Howard".
arXiv v1 adds random interpolation, whose use is "not clear". Left open by the paper, and chosen here:

    ratio          log-uniform                        torchvision RandomResizedCrop
    distortions    brightness, contrast and colour by factors of 0.5-1.5, in random order  Howard 2013, as BVLC reads it
    lighting       Krizhevsky's noise along the colours' principal axes, with the constants of the Torch ResNet code

Cropping and mirroring are albumentations'. Its ColorJitter and FancyPCA differ (they round the mean differently, and
use each image's own axes), so distortion and lighting are transforms of ours, on Pillow's enhancers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2
import numpy as np
import PIL.Image
import PIL.ImageEnhance
from numpy.typing import NDArray

from detector.config import check_choice, check_range
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
    """How training patches are drawn from images. Members of an ensemble differ here (§7).

    Attributes:
        area: Smallest and largest area of a patch, as fractions of the image's area, in (0, 1].
        ratio: Smallest and largest width / height of a patch.
        interpolation: Resizing method: "bilinear", "area", "nearest" or "cubic"; "random" draws one for each patch.
        mirror: Mirror half of the patches.
        distortion: Brightness, contrast and colour change by factors of 1 ± this, in [0, 1).
        lighting: Standard deviation of the noise along each principal axis of colour, in units of its eigenvalue.
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
        check_choice(self, "sampling.interpolation", ["random", *INTERPOLATIONS])
        check_range(self, "[0, 1)", "sampling.distortion")
        check_range(self, "[0, inf)", "sampling.lighting")


class Distortion(A.ImageOnlyTransform):  # type: ignore[misc]
    """Changes brightness, contrast and colour, in random order, by factors uniform in 1 ± strength (Howard 2013)."""

    def __init__(self, strength: float) -> None:
        super().__init__(p=1.0)
        self.strength = strength

    def get_params(self) -> dict[str, Any]:
        """Draw the order and the factors."""
        order = self.random_generator.permutation(len(ENHANCERS))
        return {"order": order, "factors": self.random_generator.uniform(1 - self.strength, 1 + self.strength, 3)}

    def apply(self, img: Image, order: NDArray[np.int64], factors: NDArray[np.float64], **_: Any) -> Image:
        """Distort an image, [H, W, 3] uint8."""
        return distort(img, order.tolist(), factors.tolist())


class Lighting(A.ImageOnlyTransform):  # type: ignore[misc]
    """Shifts all pixels by a random amount along the principal axes of ImageNet's colours (Krizhevsky 2012)."""

    def __init__(self, deviation: float) -> None:
        super().__init__(p=1.0)
        self.deviation = deviation

    def get_params(self) -> dict[str, Any]:
        """Draw the amounts along the axes."""
        return {"amounts": self.random_generator.normal(0, self.deviation, 3)}

    def apply(self, img: Image, amounts: NDArray[np.float64], **_: Any) -> Image:
        """Relight an image, [H, W, 3] uint8."""
        return relight(img, amounts)


def distort(image: Image, order: list[int], factors: list[float]) -> Image:
    """Change brightness, contrast and colour by Pillow's enhancers; [H, W, 3] uint8 -> the same.

    Args:
        image: [H, W, 3] uint8 RGB.
        order: Positions in ENHANCERS, in the order in which they are applied.
        factors: Factors of brightness, contrast and colour; 1 changes nothing.
    """
    picture = PIL.Image.fromarray(image)
    for enhancer in order:
        picture = ENHANCERS[enhancer](picture).enhance(factors[enhancer])
    return np.array(picture)  # a copy: Pillow's buffer is read-only


def relight(image: Image, amounts: NDArray[np.float64]) -> Image:
    """Add amounts · eigenvalues along the axes to each pixel; [H, W, 3] uint8 -> the same, clipped to 0..255."""
    shift = 255 * EIGENVECTORS @ (amounts * EIGENVALUES)  # [3]
    table = np.arange(256)[:, None] + shift  # new value of each level of red, green, blue
    levels = np.clip(np.rint(table), 0, 255).astype(np.uint8)[None]  # [1, 256, 3]
    return np.asarray(cv2.LUT(image, levels), dtype=np.uint8)


def patch_transforms(config: SamplingConfig, size: int) -> A.Compose:
    """Make the transforms that draw patches of `size` px; `draw_patch` seeds them for every image."""
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


def draw_patch(image: Image, transforms: A.Compose, seed: tuple[int, ...]) -> Image:
    """Draw a training patch of an image; [H, W, 3] -> [S, S, 3] uint8 RGB.

    Args:
        image: [H, W, 3] uint8 RGB.
        transforms: Transforms made by `patch_transforms`.
        seed: Whole numbers from 0, which alone decide the patch.
    """
    # Compose.set_random_seed would give all transforms one seed, so that the crop's size would decide the mirror.
    seeds = np.random.SeedSequence(seed).generate_state(len(transforms.transforms)).tolist()
    for transform, own in zip(transforms.transforms, seeds, strict=True):
        transform.set_random_seed(own)
    result: Image = transforms(image=image)["image"]
    return result
