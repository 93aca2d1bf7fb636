"""The permutohedral lattice: a Gaussian filter of points in d dimensions, in time linear in points.

Values are splatted onto the vertices of each point's simplex, blurred along the d+1 axes of the lattice,
and sliced back. Source: Adams, Baek & Davis, Eurographics 2010.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashseg.compiled import compiled
from trashseg.crf.embedding import SORT_BITS, embed, radix


@dataclass(frozen=True)
class Lattice:
    """Rows are of points: N of them among M vertices, which are numbered from 1; 0 is none."""

    vertices: NDArray[np.int32]
    """(N, d+1) of the simplex around the point."""
    weights: NDArray[np.float32]
    """(N, d+1) with which values go to these vertices and come back."""
    neighbours: NDArray[np.int32]
    """(d+1, M+1, 2) the vertices before and after each one, by axis."""

    def taken(self, rows: NDArray[np.intp], strength: float) -> "Lattice":
        """These rows in this order; the filter multiplied by `strength`."""
        root = np.float32(np.sqrt(strength))  # on the way to vertices, and again on the way back
        vertices, weights = _take(self.vertices, self.weights, rows, root)
        return Lattice(vertices, weights, self.neighbours)


def build(
    features: NDArray[np.float32],
    strength: float = 1.0,
    blocks: NDArray[np.uint64] | None = None,
) -> tuple[NDArray[np.intp], Lattice]:
    """The order of rows (N,) and the lattice of N points (N, d), d up to 5, in units of the Gaussian's
    standard deviation.

    Weights are such that the filter is `strength` D^-1/2 K D^-1/2, where K is splat, blur and slice,
    and D has K's row sums: what pydensecrf calls symmetric normalisation.

    Rows are in the order of points or, with `blocks` (N,), sorted by block, and within a block such
    that most points that are close to each other follow each other: the vertices that a row needs are
    then in the processor's cache.

    Raises ConfigError where points are too far apart.
    """
    dimensions = features.shape[1]
    embedding = embed(features)
    if blocks is None:
        order = np.arange(len(features))
    else:
        key = blocks << np.uint64(SORT_BITS * dimensions) | embedding.z_order
        order = np.argsort(key)
    vertices, weights, codes = _number_vertices(order, embedding, radix(dimensions))
    neighbours = _find_neighbours(codes, dimensions, radix(dimensions))
    _normalise(vertices, weights, neighbours, np.float32(strength))
    return order, Lattice(vertices, weights, neighbours)


def restrict(lattice: Lattice, rows: NDArray[np.intp]) -> Lattice:
    """The lattice of these rows alone; what the filter brings from them to them stays the same.

    Vertices that nothing passes on its way between these rows are left out.
    """
    kept = _passed(lattice.vertices, lattice.neighbours, rows)
    number = np.cumsum(kept, dtype=np.int32) * kept  # 0 where a vertex is left out
    neighbours = _renumber(lattice.neighbours, number, int(np.count_nonzero(kept)))
    return Lattice(number[lattice.vertices[rows]], lattice.weights[rows], neighbours)


@compiled
def _take(vertices: Any, weights: Any, rows: Any, factor: Any) -> Any:
    """Vertices of these rows and their weights, multiplied."""
    taken = np.empty((len(rows), vertices.shape[1]), np.int32)
    taken_weights = np.empty((len(rows), vertices.shape[1]), np.float32)
    for row in range(len(rows)):
        for i in range(vertices.shape[1]):
            taken[row, i] = vertices[rows[row], i]
            taken_weights[row, i] = weights[rows[row], i] * factor
    return taken, taken_weights


# --- vertices and neighbours -------------------------------------------------------------------


@compiled
def _number_vertices(order: Any, embedding: Any, base: int) -> Any:
    """Vertices (N, d+1), numbered as they come in `order`; their weights; the code (M+1,) of each."""
    points, corners = embedding.barycentric.shape
    vertices = np.empty((points, corners), np.int32)
    weights = np.empty((points, corners), np.float32)
    found = np.empty(corners * points + 1, np.int64)
    table = np.zeros(1 << 17, np.int32)
    jumps = np.empty(corners, np.int64)  # to the next remainder, by the coordinate that is lower
    for axis in range(corners):
        jumps[axis] = -_axis_step(axis, corners - 1, base)
    count = 0
    for row in range(points):
        p = order[row]
        code, descent = embedding.codes[p], embedding.descents[p]
        if 2 * (count + corners) >= len(table):
            table = _hash(found, count, 4 * len(table))
        for remainder in range(corners):
            slot = _slot(table, found, code)
            if table[slot] == 0:
                count += 1
                found[count] = code
                table[slot] = count
            vertices[row, remainder] = table[slot]
            weights[row, remainder] = embedding.barycentric[p, remainder]
            code += jumps[descent >> 3 * (corners - 1 - remainder) & 7]
    return vertices, weights, found[: count + 1].copy()


@compiled
def _axis_step(axis: int, dimensions: int, base: int) -> int:
    """What a step adds to a code: -1 to each coordinate, but d to the axis' own. The last axis'
    coordinate is not in the code."""
    step, power = 0, 1
    for i in range(dimensions):
        step += power * (dimensions if i == axis else -1)
        power *= base
    return step


@compiled
def _slot(table: Any, found: Any, code: int) -> Any:
    """Where in the hash table the vertex is, or the free place where it belongs."""
    mask = np.uint64(len(table) - 1)
    slot = (np.uint64(code) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & mask
    while table[slot] != 0 and found[table[slot]] != code:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _hash(found: Any, count: int, size: int) -> Any:
    """A hash table of vertices 1 to `count`; `size` is a power of 2."""
    table = np.zeros(size, np.int32)
    for vertex in range(1, count + 1):
        table[_slot(table, found, found[vertex])] = vertex
    return table


@compiled
def _find_neighbours(codes: Any, dimensions: int, base: int) -> Any:
    count = len(codes) - 1
    size = 4
    while size < 2 * count:
        size *= 2
    table = _hash(codes, count, size)
    neighbours = np.zeros((dimensions + 1, count + 1, 2), np.int32)
    for axis in range(dimensions + 1):
        step = _axis_step(axis, dimensions, base)
        for vertex in range(1, count + 1):
            other = table[_slot(table, codes, codes[vertex] + step)]
            neighbours[axis, vertex, 0] = other
            if other != 0:
                neighbours[axis, other, 1] = vertex
    return neighbours


# --- weights -----------------------------------------------------------------------------------


@compiled
def _normalise(vertices: Any, weights: Any, neighbours: Any, strength: Any) -> None:
    """Multiply each row's weights by sqrt(strength / row sum): of what the filter makes of ones."""
    axes, count, _ = neighbours.shape
    values, blurred = np.zeros(count, np.float32), np.zeros(count, np.float32)
    for row in range(len(weights)):
        for i in range(axes):
            values[vertices[row, i]] += weights[row, i]
    for axis in range(axes):
        for vertex in range(1, count):
            before, after = neighbours[axis, vertex, 0], neighbours[axis, vertex, 1]
            blurred[vertex] = values[vertex] + np.float32(0.5) * (values[before] + values[after])
        values, blurred = blurred, values
    for row in range(len(weights)):
        row_sum = np.float32(1e-20)
        for i in range(axes):
            row_sum += weights[row, i] * values[vertices[row, i]]
        root = np.sqrt(strength / row_sum)
        for i in range(axes):
            weights[row, i] *= root


# --- a part of the points ----------------------------------------------------------------------


@compiled
def _passed(vertices: Any, neighbours: Any, rows: Any) -> Any:
    """(M+1,) bool: the vertices that something passes which is splatted from `rows`, blurred along one
    axis after the other, and sliced at `rows`."""
    axes, count, _ = neighbours.shape
    reached = np.zeros(count, np.uint8)  # bit a: there is something before the blur along axis a
    needed = np.zeros(count, np.uint8)  # bit a: what is there before it comes to one of the rows
    for row in range(len(rows)):
        for i in range(axes):
            reached[vertices[rows[row], i]] = 1
            needed[vertices[rows[row], i]] = 1 << axes
    for axis in range(axes):
        for vertex in range(1, count):
            before, after = neighbours[axis, vertex, 0], neighbours[axis, vertex, 1]
            around = reached[vertex] | reached[before] | reached[after]
            reached[vertex] |= (around >> axis & 1) << (axis + 1)
    for axis in range(axes - 1, -1, -1):
        for vertex in range(1, count):
            before, after = neighbours[axis, vertex, 0], neighbours[axis, vertex, 1]
            around = needed[vertex] | needed[before] | needed[after]
            needed[vertex] |= (around >> (axis + 1) & 1) << axis
    return (reached & needed) != 0


@compiled
def _renumber(neighbours: Any, number: Any, kept: int) -> Any:
    axes, count, _ = neighbours.shape
    renumbered = np.zeros((axes, kept + 1, 2), np.int32)
    for axis in range(axes):
        for vertex in range(1, count):
            if number[vertex] != 0:
                for side in range(2):
                    neighbour = number[neighbours[axis, vertex, side]]
                    renumbered[axis, number[vertex], side] = neighbour
    return renumbered
