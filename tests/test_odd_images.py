"""10,000 odd images: none may crash selective search, and every box must be valid."""

import numpy as np
import pytest

from proposals import selective_search

SHAPES = ((1, 1), (1, 2), (2, 1), (1, 60), (60, 1), (2, 33), (3, 3), (5, 4), (7, 21), (16, 16), (24, 31))


def contents(height, width, generator):
    """Kind -> [height, width, 3] uint8."""
    rows, columns = np.mgrid[:height, :width]
    colours = generator.integers(0, 256, (3, 3), dtype=np.uint8)
    return {
        "constant": np.broadcast_to(colours[0], (height, width, 3)),
        "black": np.zeros((height, width, 3), np.uint8),
        "white": np.full((height, width, 3), 255, np.uint8),
        "noise": generator.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "faint noise": generator.integers(127, 130, (height, width, 3), dtype=np.uint8),
        "checkerboard": colours[(rows + columns) % 2],
        "coarse checkerboard": colours[(rows // 4 + columns // 4) % 2],
        "stripes": colours[rows % 3],
        "ramp": np.repeat((rows * 5 + columns * 3).astype(np.uint8)[:, :, None], 3, axis=2),
        "one odd pixel": np.where(
            ((rows == height // 2) & (columns == width // 2))[:, :, None], colours[0], colours[1]
        ),
    }


def forms(image):
    """Kind -> the same picture as another array."""
    grey = image[:, :, 0]
    wide = np.zeros((image.shape[0] * 2, image.shape[1] * 2, 3), np.uint8)
    wide[::2, ::2] = image
    return {
        "as it is": image,
        "grey": grey,
        "grey with a channel": grey[:, :, None],
        "alpha": np.dstack([image, grey]),
        "float": image / np.float32(255),
        "double": grey / 255,
        "16 bit": image.astype(np.uint16) * 257,
        "bool": grey > 127,
        "a view with gaps": wide[::2, ::2],
        "mirrored view": image[:, ::-1],
        "Fortran order": np.asfortranarray(image),
    }


@pytest.mark.parametrize("mode", ["fast", "single", "quality"])
def test_odd_images(mode):
    generator = np.random.default_rng(0)
    tried = 0
    for turn in range(3):
        for height, width in SHAPES:
            for content, image in contents(height, width, generator).items():
                for form, array in forms(np.ascontiguousarray(image)).items():
                    before = array.copy()
                    boxes, scores = selective_search(array, mode=mode, min_width=turn, seed=turn)
                    where = f"{content}, {form}, {height} x {width}"
                    assert boxes.dtype == scores.dtype == np.float32, where
                    assert boxes.shape == (len(scores), 4), where
                    assert (boxes[:, :2] >= 0).all(), where
                    assert (boxes[:, 2:] <= [width, height]).all(), where
                    assert (boxes[:, 2:] - boxes[:, :2] >= max(turn, 1)).all(), where
                    assert len(np.unique(boxes, axis=0)) == len(boxes), where
                    whole = [0, 0, width, height] in boxes.tolist()
                    assert whole == (turn <= min(width, height)), where
                    assert np.array_equal(array, before), where
                    tried += 1
    assert tried * 3 > 10_000  # three modes
