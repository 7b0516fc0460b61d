"""Whole images: augmentation, crops and ensembles (paper §6 and §7)."""
