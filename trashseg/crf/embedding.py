"""Where points of d dimensions lie in the permutohedral lattice.

They are embedded in the d-dimensional plane of R^(d+1) whose coordinates sum to zero, which simplices of
d+1 vertices tile. Vertices have integer coordinates that are all congruent to one remainder modulo d+1;
each simplex has one vertex of each remainder. Source: Adams, Baek & Davis, "Fast High-Dimensional
Filtering Using the Permutohedral Lattice", Eurographics 2010; pages in comments are of that paper.

All is rounded as pydensecrf does it. A point on the border of two simplices has no share in one of its
vertices, but others are blurred through that vertex: where one rounding puts it into the other simplex,
probabilities move by up to 0.1.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trashseg.compiled import compiled_exactly
from trashseg.errors import ConfigError

SORT_BITS = 9  # of each coordinate in `z_order`

Scale = tuple[np.float32, ...]


class Embedding(NamedTuple):
    """Of N points, each in its simplex."""

    codes: NDArray[np.int64]
    """(N,) the vertex of remainder 0: its first d coordinates, as digits (see `radix`)."""
    descents: NDArray[np.int32]
    """(N,) the coordinate in which the vertex of the next remainder is lower, from the last remainder
    to the first; 3 bits each. In all others it is higher by 1."""
    barycentric: NDArray[np.float32]
    """(N, d+1) by remainder."""
    z_order: NDArray[np.uint64]
    """(N,) small differences for most points that are close to each other."""


def embed(features: NDArray[np.float32]) -> Embedding:
    """Points (N, d) with d up to 5, in units of the Gaussian's standard deviation.

    Raises ConfigError where they are too far apart for the lattice's coordinates.
    """
    dimensions = features.shape[1]
    scale = scale_of(dimensions)
    lowest = lowest_coordinates(_ends(features), scale)
    return Embedding(*_embed(features, scale, lowest, _spread_bits(dimensions), radix(dimensions)))


def radix(dimensions: int) -> int:
    """So many values may a coordinate have where d of them are the digits of one int64."""
    return int(2 ** (62.9 / dimensions))


def scale_of(dimensions: int) -> Scale:
    """Of each feature, so that splat, blur and slice together have a standard deviation of 1 (p. 6)."""
    deviation = float(np.float32(math.sqrt(2 / 3) * (dimensions + 1)))
    return tuple(
        np.float32(1 / math.sqrt((i + 1) * (i + 2)) * deviation) for i in range(dimensions)
    )


def lowest_coordinates(ends: NDArray[np.float32], scale: Scale) -> NDArray[np.int64]:
    """(d,) lower bounds of the coordinates of remainder 0, divided by d+1, of points between `ends`
    (2, d). Raises ConfigError where these are too far apart for the lattice's coordinates."""
    dimensions = len(scale)
    low, high = (end * np.array(scale, dtype=np.float64) for end in ends)
    bottom = [low[i:].sum() - (i * high[i - 1] if i else 0) for i in range(dimensions)]
    top = [high[i:].sum() - (i * low[i - 1] if i else 0) for i in range(dimensions)]
    if np.subtract(top, bottom).max() > radix(dimensions) - 4 * (dimensions + 1):
        raise ConfigError(
            "crf: the kernels are too narrow for this photo: make bilateral_sxy, bilateral_srgb and "
            "gaussian_sxy larger, or max_side smaller"
        )
    return np.floor(np.array(bottom) / (dimensions + 1)).astype(np.int64) - 1


def _spread_bits(dimensions: int) -> NDArray[np.uint64]:
    """All numbers of SORT_BITS bits, with d-1 zeros between their bits."""
    numbers = np.arange(1 << SORT_BITS, dtype=np.uint64)
    spread = np.zeros_like(numbers)
    for bit in range(SORT_BITS):
        spread |= (numbers >> np.uint64(bit) & np.uint64(1)) << np.uint64(bit * dimensions)
    return spread


@compiled_exactly
def _ends(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, d) the smallest and the largest of each feature."""
    points, dimensions = features.shape
    ends = np.empty((2, dimensions), np.float32)
    for i in range(dimensions):
        ends[0, i] = ends[1, i] = features[0, i]
    for p in range(points):
        for i in range(dimensions):
            ends[0, i] = min(ends[0, i], features[p, i])
            ends[1, i] = max(ends[1, i], features[p, i])
    return ends


@compiled_exactly
def _embed(features: Any, scale: Any, lowest: Any, spread: Any, base: int) -> Any:
    dimensions, points = len(scale), len(features)
    codes, descents = np.empty(points, np.int64), np.empty(points, np.int32)
    weights = np.empty((points, dimensions + 1), np.float32)
    z_order = np.empty(points, np.uint64)
    elevated = np.empty(dimensions + 1, np.float32)
    simplex, rank = np.empty(dimensions + 1, np.int64), np.empty(dimensions + 1, np.int64)
    barycentric = np.empty(dimensions + 2, np.float32)
    for p in range(points):
        _elevate(features, p, scale, elevated)
        _find_simplex(scale, elevated, simplex, rank)
        _weigh(scale, elevated, rank, barycentric, weights, p)
        code, descent, key = 0, dimensions << 3 * rank[dimensions], np.uint64(0)
        for i in range(dimensions - 1, -1, -1):
            code = code * base + simplex[i] * (dimensions + 1)
            descent |= i << 3 * rank[i]
            key |= spread[min(simplex[i] - lowest[i], len(spread) - 1)] << np.uint64(i)
        codes[p], descents[p], z_order[p] = code, descent, key
    return codes, descents, weights, z_order


@compiled_exactly
def _elevate(features: Any, p: int, scale: Any, elevated: Any) -> None:
    """Onto the plane: y = E p (p. 5)."""
    total = np.float32(0)
    for i in range(len(scale), 0, -1):
        scaled = features[p, i - 1] * scale[i - 1]
        elevated[i] = total - np.float32(i) * scaled
        total += scaled
    elevated[0] = total


@compiled_exactly
def _find_simplex(scale: Any, elevated: Any, simplex: Any, rank: Any) -> None:
    """The vertex of remainder 0, divided by d+1, and how many coordinates lie further above it than
    each does. `elevated` becomes the difference from it (p. 7)."""
    corners = len(scale) + 1
    excess = 0
    for i in range(corners):
        nearest = np.rint(elevated[i] * np.float32(1.0 / corners))
        elevated[i] -= nearest * np.float32(corners)
        simplex[i] = np.int64(nearest)
        excess += simplex[i]
        rank[i] = 0
    for i in range(corners - 1):
        for j in range(i + 1, corners):
            less = np.int64(elevated[i] < elevated[j])
            rank[i] += less
            rank[j] += 1 - less
    for i in range(corners):  # what was rounded may lie beside the plane: back onto it
        place = rank[i] + excess
        move = np.int64(place < 0) - np.int64(place >= corners)
        rank[i] = place + move * corners
        simplex[i] += move
        elevated[i] -= np.float32(move * corners)


@compiled_exactly
def _weigh(scale: Any, difference: Any, rank: Any, barycentric: Any, weights: Any, p: int) -> None:
    """Barycentric coordinates from the differences and their ranks (p. 10)."""
    corners = len(scale) + 1
    for i in range(corners + 1):
        barycentric[i] = 0
    for i in range(corners):
        share = difference[i] * np.float32(1.0 / corners)
        barycentric[corners - 1 - rank[i]] += share
        barycentric[corners - rank[i]] -= share
    barycentric[0] += np.float32(1) + barycentric[corners]
    for i in range(corners):
        weights[p, i] = barycentric[i]
