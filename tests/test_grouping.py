"""Hierarchical grouping against brute force, which compares all pairs at every step and recounts every union."""

import itertools

import numpy as np
import pytest
import skimage.data

from proposals.selective.features import Superpixels, describe, texture_bins
from proposals.selective.grouping import group, merge_tree, similarity
from proposals.selective.segmentation import build_graph, merge_nodes, smooth, touching

STRATEGIES = ["CTSF", "TSF", "C", "T", "S", "F", "SF"]


def naive_similarity(first, second, similarities, image_area):
    """Regions are (size, box, colour, texture); the mean of the similarities named."""
    (size_a, box_a, colour_a, texture_a), (size_b, box_b, colour_b, texture_b) = first, second
    x1, y1 = np.minimum(box_a[:2], box_b[:2])
    x2, y2 = np.maximum(box_a[2:], box_b[2:])
    values = {
        "C": np.minimum(colour_a, colour_b).sum(),
        "T": np.minimum(texture_a, texture_b).sum(),
        "S": 1 - (size_a + size_b) / image_area,
        "F": 1 - ((x2 - x1) * (y2 - y1) - size_a - size_b) / image_area,
    }
    return sum(values[letter] for letter in similarities) / len(similarities)


def region(superpixels, members):
    """Features of a union of superpixels, counted anew from the superpixels, in float64."""
    sizes = superpixels.sizes[members]
    boxes = superpixels.boxes[members].astype(int)
    colour, texture = (sizes @ histogram[members].astype(float) / sizes.sum() for histogram in superpixels[2:4])
    return sizes.sum(), np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)]), colour, texture


def naive_group(superpixels, similarities, image_area):
    """Boxes of the merged regions; a pair that was listed earlier wins a tie."""
    members = {number: [number] for number in range(len(superpixels.sizes))}
    regions = {number: region(superpixels, members[number]) for number in members}
    neighbours = {number: [] for number in members}
    for a, b in superpixels.pairs.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    pairs = {
        (a, b): naive_similarity(regions[a], regions[b], similarities, image_area)
        for a, b in superpixels.pairs.tolist()
    }
    boxes = []
    while pairs:
        a, b = max(pairs, key=pairs.__getitem__)  # the first of equals
        new = len(regions)
        members[new] = members[a] + members[b]
        regions[new] = region(superpixels, members[new])
        boxes.append(regions[new][1].tolist())
        pairs = {pair: value for pair, value in pairs.items() if not {a, b} & set(pair)}
        neighbours[new] = [other for other in dict.fromkeys(neighbours[a] + neighbours[b]) if other not in (a, b)]
        for other in neighbours[new]:
            pairs[other, new] = naive_similarity(regions[other], regions[new], similarities, image_area)
            renamed = [new if name in (a, b) else name for name in neighbours[other]]
            neighbours[other] = list(dict.fromkeys(renamed))
    return boxes


def random_graph(count, seed, *, density=0.2, largest=40):
    """Superpixels that no image needs to have: random sizes, boxes, histograms; connected by a random tree and more."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, largest, count)
    corners = random.integers(0, 56, (count, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 9, (count, 2))], axis=1).astype(np.int32)
    histograms = [
        (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
        for values in (random.random((count, 75)) ** 4, random.random((count, 240)) ** 4)
    ]
    pairs = {(int(random.integers(0, child)), child) for child in range(1, count)}
    pairs |= {pair for pair in itertools.combinations(range(count), 2) if random.random() < density}
    return Superpixels(sizes, boxes, *histograms, np.array(sorted(pairs), np.int32).reshape(-1, 2))


def divide(image, k):
    """(labels, superpixels)."""
    graph = build_graph(smooth(image, 0.8), k)
    nodes = merge_nodes(graph, k, k)
    labels = nodes[graph.nodes]
    return labels, describe(image, labels, texture_bins(image), touching(graph, nodes))


def photograph():
    return divide(skimage.data.astronaut()[100:220, 180:330].copy(), 50)


# ---- similarity


@pytest.mark.parametrize("similarities", STRATEGIES)
def test_similarity_is_the_plain_ones_symmetric_and_in_0_to_1(similarities):
    labels, superpixels = photograph()
    uses = np.array([letter in similarities for letter in "CTSF"])
    regions = [region(superpixels, [number]) for number in range(len(superpixels.sizes))]
    for a, b in superpixels.pairs[::5]:
        value = similarity(a, b, *superpixels[:4], uses, labels.size)
        expected = naive_similarity(regions[a], regions[b], similarities, labels.size)
        assert value == pytest.approx(expected, abs=1e-6)
        assert value == pytest.approx(similarity(b, a, *superpixels[:4], uses, labels.size), abs=1e-6)
        assert 0 <= value <= 1


def test_two_flat_halves():
    """They make up the whole image (size 0) and leave no gap in their box (fill 1)."""
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = 200
    _, superpixels = divide(image, 100)
    assert superpixels.boxes.tolist() == [[0, 0, 40, 40], [40, 0, 80, 40]]
    size, fill = (
        similarity(0, 1, *superpixels[:4], np.array([letter == named for letter in "CTSF"]), 3200) for named in "SF"
    )
    assert size == 0
    assert fill == 1
    assert group(superpixels, "CTSF", 3200).tolist() == [[0, 0, 80, 40]]


# ---- grouping


@pytest.mark.parametrize("similarities", STRATEGIES)
@pytest.mark.parametrize("count", [1, 2, 3, 12, 40])
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force_on_random_graphs(seed, count, similarities):
    superpixels = random_graph(count, seed)
    merged = group(superpixels, similarities, 4096)
    assert merged.dtype == np.int32
    assert merged.shape == (count - 1, 4)
    assert merged.tolist() == naive_group(superpixels, similarities, 4096)


@pytest.mark.parametrize("similarities", ["S", "F", "SF"])
@pytest.mark.parametrize("seed", range(5))
def test_the_first_of_equally_similar_pairs_merges(seed, similarities):
    """Sizes 1 and 2 tie often, and with an area that is a power of two the similarities are exact."""
    superpixels = random_graph(30, seed, largest=3)
    assert group(superpixels, similarities, 4096).tolist() == naive_group(superpixels, similarities, 4096)


def test_equals_brute_force_on_a_dense_graph():
    """Each region is next to each other one."""
    superpixels = random_graph(25, 0, density=1.1)
    assert len(superpixels.pairs) == 25 * 24 / 2
    assert group(superpixels, "CTSF", 4096).tolist() == naive_group(superpixels, "CTSF", 4096)


@pytest.mark.parametrize(("similarities", "largest"), [("CTSF", 40), ("S", 3)])
def test_equals_brute_force_on_a_star(similarities, largest):
    """The centre takes in one leaf after the other and lists the rest anew: the lists outgrow their first length."""
    star = random_graph(60, 1, density=0, largest=largest)
    star = star._replace(pairs=np.array([[0, leaf] for leaf in range(1, 60)], np.int32))
    assert group(star, similarities, 4096).tolist() == naive_group(star, similarities, 4096)


@pytest.mark.parametrize("similarities", ["CTSF", "TSF"])
def test_equals_brute_force_on_a_photograph(similarities):
    labels, superpixels = photograph()
    merged = group(superpixels, similarities, labels.size)
    assert merged.tolist() == naive_group(superpixels, similarities, labels.size)
    assert merged.shape == (labels.max(), 4)  # n regions, n - 1 merges
    assert merged[-1].tolist() == [0, 0, 150, 120]


def test_merges_are_a_tree():
    """A merged box is the smallest one around two earlier boxes, initial or merged."""
    superpixels = random_graph(30, 3)
    merged = group(superpixels, "CTSF", 4096)
    earlier = superpixels.boxes.tolist()
    for box in merged.tolist():
        unions = {
            (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
            for a, b in itertools.combinations(earlier, 2)
        }
        assert tuple(box) in unions
        earlier.append(box)


@pytest.mark.parametrize("letters", ["CTSF", "TSF", "F"])
def test_the_tree_says_what_merged_and_why(letters):
    """Each merge is of two regions that are still whole, as similar as when they are counted anew."""
    superpixels = random_graph(30, 3)
    tree = merge_tree(superpixels, letters, 4096)
    assert tree.boxes.tolist() == group(superpixels, letters, 4096).tolist()
    members = {number: [number] for number in range(30)}
    for step, ((a, b), box, found) in enumerate(zip(tree.parts.tolist(), tree.boxes, tree.similarities, strict=True)):
        first, second = (region(superpixels, members[part]) for part in (a, b))
        assert found == pytest.approx([naive_similarity(first, second, one, 4096) for one in "CTSF"], abs=1e-5)
        members[30 + step] = members.pop(a) + members.pop(b)
        assert region(superpixels, members[30 + step])[1].tolist() == box.tolist()
    assert sorted(members.popitem()[1]) == list(range(30))


def test_the_tree_of_one_region_is_empty():
    one = Superpixels(*(array[:1] for array in random_graph(3, 0)[:4]), np.zeros((0, 2), np.int32))
    assert [part.shape for part in merge_tree(one, "CTSF", 4096)] == [(0, 2), (0, 4), (0, 4)]


def test_regions_that_do_not_connect_stay_apart():
    graph = random_graph(20, 0)
    apart = graph._replace(pairs=graph.pairs[(graph.pairs < 8).all(axis=1) | (graph.pairs >= 8).all(axis=1)])
    merged = group(apart, "CTSF", 4096).tolist()
    assert merged == naive_group(apart, "CTSF", 4096)
    assert len(merged) < 19


@pytest.mark.parametrize("similarities", ["", "X", "CTSX", "ctsf"])
def test_refuses_unknown_similarities(similarities):
    with pytest.raises(ValueError, match=f"similarities .*CTSF.*'{similarities}'"):
        group(random_graph(3, 0), similarities, 4096)
