"""Training: one loop; classifiers of regions and of whole images, and MultiBox (paper §6, §8; R-CNN §2.3)."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing albumentations asks a server for its version
