"""Classification of whole images: augmentation, crops and ensembles (paper §6 and §7)."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing albumentations asks a server for its version
