"""Selective search: image -> superpixels -> merged regions -> boxes (NumPy, numba and OpenCV only)."""
