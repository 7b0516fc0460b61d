"""Images and the objects marked in them: the image loader, and readers that bring every data set to one form.

Start at dataset.py (what a config names), ground_truth.py (the form) and image.py (the loader). None of them needs
torch.
"""

from detector.data.dataset import DataConfig, DatasetKind, Sources, open_dataset
from detector.data.ground_truth import ClassTable, DataError, Dataset, Record
from detector.data.image import Image, ImageError, read_image
from detector.data.listing import IMAGE_SUFFIXES, list_images

__all__ = [
    "IMAGE_SUFFIXES",
    "ClassTable",
    "DataConfig",
    "DataError",
    "Dataset",
    "DatasetKind",
    "Image",
    "ImageError",
    "Record",
    "Sources",
    "list_images",
    "open_dataset",
    "read_image",
]
