"""Over-segmentation into superpixels (Felzenszwalb and Huttenlocher, IJCV 2004), compiled.

In: image [H, W, C] uint8 in any colour space, C = 1 or 3.  Out: a Graph, and the superpixel of each of its nodes,
0..n-1 in raster order of first appearance: `merge_nodes(graph, k, min_size)[graph.nodes]` are labels [H, W].
Selective search starts from these; the paper's "superpixel size" (§8) is the threshold k and the minimum size together.

Several k of one image share most of the work. As long as every edge at a component has been accepted, a larger k would
have accepted them too. One pass over the sorted edges therefore makes the early merges for all k (`build_graph`); each
k then works on the graph of these components, which has a tenth of the nodes and edges (`merge_nodes`). The labels
equal the plain algorithm's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.compiling import compiled

Labels = NDArray[np.int32]

# Pixels are numbered four rows at a time, column by column: 0 4 8 ...  so that a component of a dozen pixels lies in
# two or three cache lines where raster order needs one a row.   1 5 9 ...
#                                                               2 6 10 ...
#                                                               3 7 11 ...
STRIP = 4


class Graph(NamedTuple):
    """Components of pixels that are the same for all thresholds from `k` up, and the lightest edges between them.

    Attributes:
        nodes: [H, W] int32, the component of each pixel, 0..n-1 in raster order of first appearance.
        sizes: [n] int32, px².
        internal: [n] float32, weight of the edge that joined a component last, its heaviest.
        first: [m] int32, node at one end of an edge.
        second: [m] int32, node at the other end.
        weights: [m] float32, ascending.
        k: Smallest threshold for which the graph is valid.
    """

    nodes: Labels
    sizes: NDArray[np.int32]
    internal: NDArray[np.float32]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    weights: NDArray[np.float32]
    k: float


def smooth(image: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    """Blur with the kernel of the authors' code: cut at ceil(4 sigma), border pixels repeated; -> [H, W, C] float32."""
    size = 2 * int(np.ceil(4 * sigma)) + 1
    blurred = cv2.GaussianBlur(image.astype(np.float32), (size, size), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, dtype=np.float32).reshape(image.shape)


def build_graph(image: NDArray[np.float32], k: float, neighbours: int = 8) -> Graph:
    """Build the graph for all thresholds from k up.

    Args:
        image: [H, W, C] float32, blurred. The weight of an edge is the Euclidean distance of its two colours.
        k: The smallest threshold to be used.
        neighbours: Neighbours of a pixel, 8 or 4.

    Raises:
        ValueError: another number of neighbours.
    """
    if neighbours not in (4, 8):
        raise ValueError(f"a pixel has 4 or 8 neighbours, not {neighbours}")
    height, width, _ = image.shape
    edges = sorted_edges(image, neighbours == 8)
    nodes, sizes, internal, first, second, weights = _contract(edges, height, width, np.float32(k))
    return Graph(nodes, sizes, internal, first, second, weights, k)


def merge_nodes(graph: Graph, k: float, min_size: int) -> NDArray[np.int32]:
    """Return the superpixel of each node, [n] int32, 0..m-1 in raster order; graph.nodes maps it to the pixels.

    Two components join where the lightest edge between them weighs at most min(Int(a) + k/|a|, Int(b) + k/|b|); then,
    in the same order, any component below min_size joins its neighbour.

    Args:
        graph: The image's graph.
        k: Threshold, at least graph.k.
        min_size: Area of the smallest superpixel, px².

    Raises:
        ValueError: k is smaller than graph.k.
    """
    if k < graph.k:
        raise ValueError(f"the graph serves k from {graph.k} up, not {k}")
    count, threshold = len(graph.sizes), np.float32(k)
    sizes = graph.sizes.copy()
    limit = (graph.internal + threshold / sizes).astype(np.float32)
    parent, number = np.arange(count, dtype=np.int32), np.full(count, -1, np.int32)
    superpixels, rejected = np.empty(count, np.int32), np.empty(len(graph.weights), np.int32)
    edges = graph.first, graph.second, graph.weights
    _merge(sizes, limit, *edges, threshold, min_size, parent, rejected, number, superpixels)
    return superpixels


def touching(graph: Graph, superpixels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the pairs of superpixels with neighbouring pixels, smaller number first, sorted; [p, 2] int32."""
    first, second = superpixels[graph.first], superpixels[graph.second]
    border = np.flatnonzero(first != second)
    first, second = first[border].astype(np.int64), second[border]
    count = len(superpixels)
    keys = np.unique(np.minimum(first, second) * count + np.maximum(first, second))  # a number a pair sorts fast
    return np.stack(np.divmod(keys, count), axis=1).astype(np.int32)


def sorted_edges(image: NDArray[np.float32], diagonals: bool) -> NDArray[np.uint64]:
    """Sort the edges between neighbouring pixels by weight, equal ones in raster order; [H, W, C] -> [E] uint64.

    The upper half of an edge is its weight, the bits of a float32; the lower half is 4 * pixel + direction, where
    pixels are numbered by strips and directions are right, down, down right, up right.
    """
    height, width, _ = image.shape
    count = 2 * height * width - height - width
    if diagonals:
        count += 2 * (height - 1) * (width - 1)
    edges = np.empty(count, np.uint64)
    _measure(image, diagonals, *_halves(edges))
    _sort(edges, np.empty_like(edges), np.zeros((4, 256), np.int64))
    return edges


def _halves(edges: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Show edges [E] as codes [2 E], of which the even ones count, and weights [2 E], of which the odd ones do."""
    return edges.view(np.uint32), edges.view(np.float32)


@compiled()
def _measure(image: Any, diagonals: bool, codes: Any, weights: Any) -> None:
    """Write the halves of all edges in raster order."""
    height, width, _ = image.shape
    edge = 0
    for y in range(height):
        for x in range(width):
            code = 4 * _pixel(y, x, width)
            for direction in range(4 if diagonals else 2):
                to_y = y - 1 if direction == 3 else y + (direction > 0)
                to_x = x if direction == 1 else x + 1
                if to_x == width or to_y == height or to_y < 0:
                    continue
                square = np.float32(0)
                for channel in range(image.shape[2]):
                    difference = image[y, x, channel] - image[to_y, to_x, channel]
                    square += difference * difference
                codes[edge] = code + direction
                weights[edge + 1] = np.sqrt(square)
                edge += 2


@compiled()
def _pixel(y: int, x: int, width: int) -> int:
    """Return the number of a pixel by strips; the last strip has all its rows, in the image or not."""
    return STRIP * (y // STRIP * width + x) + y % STRIP


@compiled()
def _sort(edges: Any, other: Any, counts: Any) -> None:
    """Sort by weight, stably, by radix: the bits of non-negative float32, read as integers, have the same order.

    Edges move to the other array [E] and back with each digit; counts [4, 256] are zeros.
    """
    byte = np.uint64(255)
    for i in range(len(edges)):
        for digit in range(4):
            counts[digit, (edges[i] >> np.uint64(32 + 8 * digit)) & byte] += 1
    for digit in range(4):
        shift = np.uint64(32 + 8 * digit)
        start = counts[digit]
        before = 0
        for bucket in range(256):
            here = start[bucket]
            start[bucket] = before
            before += here
        for i in range(len(edges)):
            bucket = (edges[i] >> shift) & byte
            other[start[bucket]] = edges[i]
            start[bucket] += 1
        edges, other = other, edges


@compiled()
def _find(parent: Any, item: Any) -> Any:
    """Return the root of an item's tree; halves the path on the way."""
    while True:
        above = parent[item]
        if above == item:
            return item
        top = parent[above]
        if top == above:
            return above
        parent[item] = top
        item = top


@compiled()
def _join(parent: Any, size: Any, a: Any, b: Any) -> Any:
    """Join two trees by their roots, the smaller under the larger; returns the root."""
    if size[a] < size[b]:
        a, b = b, a
    parent[b] = a
    size[a] += size[b]
    return a


def _contract(edges: NDArray[np.uint64], height: int, width: int, k: np.float32) -> tuple[Any, ...]:
    """Merge while every k from this one up agrees; returns nodes, sizes, internal, first, second, weights of Graph."""
    count = -(-height // STRIP) * STRIP * width  # of pixels, those of the last strip that lie below the image too
    parent = np.arange(count, dtype=np.int32)
    sizes = np.ones(count, np.int32)
    internal = np.zeros(count, np.float32)
    limit = np.full(count, k)  # Int(component) + k / |component|; below any weight once the component is closed
    first, second = np.empty(len(edges), np.int32), np.empty(len(edges), np.int32)
    weights = np.empty(len(edges), np.float32)
    kept = _accept(*_halves(edges), _steps(width), k, parent, sizes, internal, limit, first, second, weights)

    nodes = np.empty((height, width), np.int32)
    number = np.full(count, -1, np.int32)
    roots = np.empty(count, np.int32)
    found = _number(parent, number, roots, nodes)
    roots = roots[:found]

    table = np.full(max(2, 1 << kept.bit_length()), -1, np.int64)  # each edge counted, far fewer pairs are different
    lightest = _thin(table, number, found, kept, first, second, weights)
    kept_arrays = (array[:lightest].copy() for array in (first, second, weights))
    return (nodes, sizes[roots], internal[roots], *kept_arrays)


def _steps(width: int) -> NDArray[np.int32]:
    """Steps from a pixel's number to the next in each direction, by its row in the strip; [4 * STRIP] int32."""
    steps = np.empty((STRIP, 4), np.int32)
    for row in range(STRIP):
        down = 1 if row + 1 < STRIP else STRIP * (width - 1) + 1
        up = -1 if row > 0 else -STRIP * (width - 1) - 1
        steps[row] = STRIP, down, STRIP + down, STRIP + up
    return steps.ravel()


@compiled(error_model="numpy")
def _accept(
    codes: Any,
    edge_weights: Any,
    steps: Any,
    k: Any,
    parent: Any,
    sizes: Any,
    internal: Any,
    limit: Any,
    first: Any,
    second: Any,
    weights: Any,
) -> int:
    """Merge the components of pixels; returns the number of edges that are kept, written to the last three arrays.

    A component closes at its first edge that is rejected or leads to a closed component: what follows depends on k.
    Until then it equals the plain algorithm's for all these k, since a larger k accepts all that a smaller one accepts.
    """
    kept = 0
    for edge in range(0, len(codes), 2):
        code = np.int32(codes[edge])
        pixel = np.int32(code >> 2)
        a, b = _find(parent, pixel), _find(parent, np.int32(pixel + steps[code & (4 * STRIP - 1)]))
        if a == b:
            continue
        weight = edge_weights[edge + 1]
        if weight <= limit[a] and weight <= limit[b]:
            root = _join(parent, sizes, a, b)
            internal[root] = weight
            limit[root] = weight + k / sizes[root]
        else:
            limit[a] = limit[b] = -1
            first[kept], second[kept], weights[kept] = a, b, weight
            kept += 1
    return kept


@compiled()
def _number(parent: Any, number: Any, roots: Any, nodes: Any) -> int:
    """Number the components in raster order: number and roots of each, nodes [H, W]; returns how many there are."""
    height, width = nodes.shape
    found = 0
    for y in range(height):
        for x in range(width):
            root = _find(parent, np.int32(_pixel(y, x, width)))
            if number[root] < 0:
                number[root] = found
                roots[found] = root
                found += 1
            nodes[y, x] = number[root]
    return found


@compiled()
def _thin(table: Any, number: Any, count: int, kept: int, first: Any, second: Any, weights: Any) -> int:
    """Keep the lightest edge between two of `count` components, which comes first; returns how many there are.

    The table is a set of pairs by open addressing, -1 where it is free.
    """
    mask = len(table) - 1
    lightest = 0
    for edge in range(kept):
        a, b = number[first[edge]], number[second[edge]]
        key = np.int64(a) * count + b if a < b else np.int64(b) * count + a
        slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask  # Fibonacci hashing
        while table[slot] != -1 and table[slot] != key:
            slot = (slot + 1) & mask
        if table[slot] == -1:
            table[slot] = key
            first[lightest], second[lightest], weights[lightest] = a, b, weights[edge]
            lightest += 1
    return lightest


@compiled(error_model="numpy")
def _merge(
    size: Any,
    limit: Any,
    first: Any,
    second: Any,
    weights: Any,
    k: Any,
    min_size: int,
    parent: Any,
    rejected: Any,
    number: Any,
    superpixels: Any,
) -> None:
    """Merge nodes [n] by the edges [m]; the arrays are as merge_nodes makes them."""
    rejections = 0
    for edge in range(len(weights)):
        a, b = _find(parent, first[edge]), _find(parent, second[edge])
        if a == b:
            continue
        weight = weights[edge]
        if weight <= limit[a] and weight <= limit[b]:
            root = _join(parent, size, a, b)
            limit[root] = weight + k / size[root]
        else:
            rejected[rejections] = edge
            rejections += 1
    for rejection in range(rejections):
        edge = rejected[rejection]
        a, b = _find(parent, first[edge]), _find(parent, second[edge])
        if a != b and (size[a] < min_size or size[b] < min_size):
            _join(parent, size, a, b)
    found = 0
    for node in range(len(superpixels)):
        root = _find(parent, np.int32(node))
        if number[root] < 0:
            number[root] = found
            found += 1
        superpixels[node] = number[root]
