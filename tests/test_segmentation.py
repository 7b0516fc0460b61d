"""Superpixels against scikit-image's felzenszwalb, a slow plain version, and what every segmentation must satisfy.

scikit-image takes values in 0-1 and divides its scale by 255, so its scale is our k for values in 0-255. Its blur
differs at the border (it mirrors, the authors repeat), and it takes edges of equal weight in another order. So the two
agree label for label where there is no blur and no tie, that is on random floats; where there are ties the plain
version takes over.
"""

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import skimage.graph
import skimage.measure
import skimage.segmentation

from proposals.selective.colour import to_hsv, to_lab
from proposals.selective.segmentation import STRIP, build_graph, merge_nodes, smooth, sorted_edges, touching

TO = ((0, 1), (1, 0), (1, 1), (-1, 1))  # right, down, down right, up right


def noise(height, width, seed=0, levels=256):
    values = np.random.default_rng(seed).integers(0, levels, (height, width, 3)) * (255 // (levels - 1))
    return values.astype(np.uint8)


def checkerboard(height, width):
    return np.repeat((np.indices((height, width)).sum(axis=0) % 2 * 255)[:, :, None], 3, axis=2).astype(np.uint8)


def halves(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 200
    return image


def segment(image, k, min_size, sigma=0.8, neighbours=8):
    graph = build_graph(smooth(image, sigma), k, neighbours)
    return merge_nodes(graph, k, min_size)[graph.nodes]


def segment_floats(image, k, min_size):
    """Without the blur."""
    graph = build_graph(image, k)
    return merge_nodes(graph, k, min_size)[graph.nodes]


def naive_edges(image, neighbours=8):
    """All edges in raster order, as (weight, pixel, pixel)."""
    height, width, _ = image.shape
    edges = []
    for y in range(height):
        for x in range(width):
            for down, right in TO[: neighbours // 2]:
                if 0 <= y + down < height and x + right < width:
                    difference = image[y, x] - image[y + down, x + right]
                    square = np.float32(0)
                    for value in difference:
                        square += value * value
                    edges.append((np.sqrt(square), y * width + x, (y + down) * width + x + right))
    return edges


def naive_labels(image, k, min_size, neighbours=8):
    """Felzenszwalb and Huttenlocher's rule with components kept as sets of pixels."""
    height, width, _ = image.shape
    component = {pixel: frozenset([pixel]) for pixel in range(height * width)}
    internal = dict.fromkeys(component.values(), np.float32(0))
    edges = sorted(naive_edges(image, neighbours), key=lambda edge: edge[0])  # stable

    def join(a, b, weight):
        union = a | b
        internal[union] = weight
        component.update(dict.fromkeys(union, union))

    for weight, first, second in edges:
        a, b = component[first], component[second]
        if a is not b and weight <= min(internal[a] + k / len(a), internal[b] + k / len(b)):
            join(a, b, weight)
    for weight, first, second in edges:
        a, b = component[first], component[second]
        if a is not b and (len(a) < min_size or len(b) < min_size):
            join(a, b, weight)
    order = {}
    return np.array([order.setdefault(component[pixel], len(order)) for pixel in range(height * width)]).reshape(
        height, width
    )


# ---- stages


@pytest.mark.parametrize("shape", [(24, 31), (1, 9), (9, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("sigma", [0.8, 1.3])
def test_blur_is_a_gaussian_cut_at_4_sigma(shape, sigma):
    image = noise(*shape)
    radius = int(np.ceil(4 * sigma))
    expected = scipy.ndimage.gaussian_filter(
        image.astype(np.float64), (sigma, sigma, 0), mode="nearest", radius=(radius, radius, 0)
    )
    result = smooth(image, sigma)
    assert result.shape == image.shape
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() < 1e-3


def test_no_blur():
    image = noise(5, 6)
    assert np.array_equal(smooth(image, 0.0), image)


@pytest.mark.parametrize("shape", [(7, 9), (1, 6), (6, 1), (2, 2), (1, 1), (5, 4), (8, 3)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("neighbours", [4, 8])
def test_edges_are_all_pairs_of_neighbours_lightest_first(shape, channels, levels, neighbours):
    image = noise(*shape, levels=levels)[:, :, :channels].astype(np.float32)
    expected = sorted(naive_edges(image, neighbours), key=lambda edge: edge[0])  # stable: equal ones in raster order
    edges = sorted_edges(image, neighbours == 8)
    assert edges.dtype == np.uint64
    weights = (edges >> np.uint64(32)).astype(np.uint32).view(np.float32)
    width = shape[1]
    result = []
    for weight, code in zip(weights, edges.astype(np.uint32).tolist(), strict=True):
        strip, place = divmod(code // 4, STRIP * width)
        y, x = STRIP * strip + place % STRIP, place // STRIP
        down, right = TO[code % 4]
        result.append((weight, y * width + x, (y + down) * width + x + right))
    assert result == expected


# ---- the whole


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("k", "min_size"), [(50, 1), (300, 5), (1000, 20), (5000, 1)])
def test_equals_scikit_image_on_floats(seed, k, min_size):
    random = np.random.default_rng(seed)
    height, width = random.integers(2, 50, 2)
    image = (random.random((height, width, 3)) * 255).astype(np.float32)
    expected = skimage.segmentation.felzenszwalb(image.astype(float) / 255, scale=k, sigma=0, min_size=min_size)
    assert np.array_equal(segment_floats(image, k, min_size), expected)


@pytest.mark.parametrize("sigma", [0.0, 0.8])
@pytest.mark.parametrize("levels", [2, 4, 256])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_plain_version_where_edges_tie(seed, levels, sigma):
    image = noise(14, 19, seed, levels)
    for k, min_size in ((20, 1), (100, 4), (500, 12)):
        expected = naive_labels(smooth(image, sigma), k, min_size)
        assert np.array_equal(segment(image, k, min_size, sigma), expected)


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_one_graph_serves_every_larger_k(seed, channels, neighbours):
    image = smooth(noise(21, 17, seed, 16)[:, :, :channels], 0.8)
    graph = build_graph(image, 8, neighbours)
    for k, min_size in ((8, 1), (8, 5), (30, 1), (90, 3), (400, 20)):
        labels = merge_nodes(graph, k, min_size)[graph.nodes]
        assert np.array_equal(labels, naive_labels(image, k, min_size, neighbours))


@pytest.mark.parametrize("k", [20, 60])
def test_a_graph_is_the_photograph_with_fewer_nodes(k):
    """Every node is one piece of the segmentation of each k, and edges lead from node to node, once."""
    image = smooth(skimage.data.astronaut()[100:220, 180:330].copy(), 0.8)
    graph = build_graph(image, k)
    count = len(graph.sizes)
    assert count < graph.nodes.size / 4
    assert np.array_equal(np.bincount(graph.nodes.ravel()), graph.sizes)
    assert skimage.measure.label(graph.nodes + 1, connectivity=2).max() == count
    pairs = {tuple(sorted(pair)) for pair in zip(graph.first.tolist(), graph.second.tolist(), strict=True)}
    assert len(pairs) == len(graph.first)
    assert pairs == {tuple(sorted(edge)) for edge in skimage.graph.RAG(graph.nodes, connectivity=2).edges}
    assert (np.diff(graph.weights) >= 0).all()


def test_a_graph_refuses_a_smaller_k():
    graph = build_graph(noise(9, 9).astype(np.float32), 50)
    with pytest.raises(ValueError, match=r"50 .*49"):
        merge_nodes(graph, 49, 1)


def test_a_pixel_has_4_or_8_neighbours():
    with pytest.raises(ValueError, match=r"4 or 8 .*6"):
        segment(noise(9, 9), 50, 1, neighbours=6)


@pytest.mark.parametrize("k", [5, 30, 200])
def test_pairs_are_scikit_images_region_graph(k):
    image = smooth(skimage.data.astronaut()[100:220, 180:330].copy(), 0.8)
    graph = build_graph(image, 5)
    superpixels = merge_nodes(graph, k, 10)
    pairs = touching(graph, superpixels)
    expected = sorted(sorted(edge) for edge in skimage.graph.RAG(superpixels[graph.nodes], connectivity=2).edges)
    assert pairs.dtype == np.int32
    assert pairs.tolist() == expected


@pytest.mark.parametrize(("neighbours", "pairs"), [(4, [(0, 1), (0, 2), (1, 3), (2, 3)]), (8, None)])
def test_corners_touch_where_a_pixel_has_8_neighbours(neighbours, pairs):
    graph = build_graph(noise(2, 2).astype(np.float32), 1, neighbours)
    expected = pairs or [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert touching(graph, merge_nodes(graph, 1, 1)).tolist() == [list(pair) for pair in expected]


@pytest.mark.parametrize("k", [50, 100, 200])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
def test_as_many_superpixels_as_scikit_images_on_photographs(name, k):
    """Not label for label: bytes tie, and the border is blurred differently."""
    image = getattr(skimage.data, name)()
    theirs = skimage.segmentation.felzenszwalb(image, scale=k, sigma=0.8, min_size=k)
    assert segment(image, k, k).max() + 1 == pytest.approx(theirs.max() + 1, rel=0.05)


@pytest.mark.parametrize(("name", "hsv", "lab"), [("astronaut", 379, 262), ("coffee", 201, 145), ("chelsea", 122, 91)])
def test_about_as_many_superpixels_as_opencvs(name, hsv, lab):
    """Its graph has 4 neighbours, the authors' 8.

    Recorded with opencv-contrib-python-headless 5.0.0, which is no dependency of ours, on the converted photograph:
    cv2.ximgproc.segmentation.createGraphSegmentation(0.8, 100, 100).processImage(converted).max() + 1
    """
    image = getattr(skimage.data, name)()
    for neighbours in (4, 8):
        ours = sum(int(segment(convert(image), 100, 100, 0.8, neighbours).max()) + 1 for convert in (to_hsv, to_lab))
        assert ours == pytest.approx(hsv + lab, rel=0.15)


@pytest.mark.parametrize(
    ("height", "width", "k", "count"),
    [
        (40, 80, 100, 2),
        (100, 200, 50, 8),  # columns that the blur made and that are no smaller than 50 px survive
    ],
)
def test_two_flat_halves(height, width, k, count):
    image = halves(height, width)
    labels = segment(image, k, k)
    assert labels.max() + 1 == count
    assert skimage.segmentation.felzenszwalb(image, scale=k, sigma=0.8, min_size=k).max() + 1 == count
    assert (labels == labels[:1]).all()  # columns
    if count == 2:
        assert np.array_equal(labels, np.repeat((np.arange(width) >= width // 2)[None], height, axis=0))


IMAGES = {
    "one pixel": np.full((1, 1, 3), 7, np.uint8),
    "a row": noise(1, 60),
    "a column": noise(60, 1),
    "constant": np.full((30, 40, 3), 200, np.uint8),
    "noise": noise(40, 50),
    "checkerboard": checkerboard(30, 30),
    "halves": halves(40, 80),
    "photograph": skimage.data.astronaut()[100:220, 180:330].copy(),
}


@pytest.mark.parametrize("k", [1, 40, 200])
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_every_segmentation(image, k):
    labels = segment(image, k, k)
    sizes = np.bincount(labels.ravel())
    assert labels.shape == image.shape[:2]
    assert labels.dtype == np.int32
    assert labels.min() == 0
    assert (sizes > 0).all()
    assert sizes.min() >= min(k, labels.size)  # an image smaller than that is one piece
    seen = list(dict.fromkeys(labels.ravel().tolist()))
    assert seen == list(range(len(sizes)))  # numbered in raster order
    pieces = skimage.measure.label(labels + 1, connectivity=2)
    assert pieces.max() == len(sizes)  # each superpixel is one piece
    assert np.array_equal(labels, segment(image, k, k))


def test_a_constant_image_is_one_superpixel():
    assert segment(IMAGES["constant"], 1, 1).max() == 0


@pytest.mark.parametrize(("k", "count"), [(20, 1), (19.9, 2)])
def test_an_edge_as_heavy_as_the_threshold_merges(k, count):
    """The authors' rule is w <= Int + k / size; scikit-image's is w < ..."""
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1, 2] = 20
    assert segment(image, k, 1, sigma=0.0).max() + 1 == count
