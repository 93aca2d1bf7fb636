"""The permutohedral lattice: where points lie in it, and how close its filter is to a Gaussian."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trashseg.config import CrfBackend, CrfConfig
from trashseg.crf import on_gpu, refine
from trashseg.crf.embedding import embed, radix
from trashseg.crf.lattice import Lattice, build, restrict
from trashseg.errors import ConfigError

Points = NDArray[np.float32]


def _grid(side: int, spacing: float) -> Points:
    """(side * side, 2) points so far apart, in standard deviations."""
    y, x = np.mgrid[:side, :side]
    return (np.stack([x, y], axis=-1).reshape(-1, 2) * spacing).astype(np.float32)


def _scene(side: int) -> Points:
    """(side * side, 5): a grid with 9 steps to a deviation, two colours, and a little noise."""
    colours = np.random.default_rng(0).normal(0, 0.3, (side, side, 3))
    colours[:, side // 2 :] += 2
    return np.concatenate([_grid(side, 1 / 9), colours.reshape(-1, 3)], axis=1).astype(np.float32)


POINTS = {"2 dimensions": _grid(24, 1 / 3), "5 dimensions": _scene(24)}


def _filter(lattice: Lattice, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Splat, blur, slice in plain numpy: (N, K) to (N, K)."""
    table = np.zeros((lattice.neighbours.shape[1], values.shape[1]))
    np.add.at(table, lattice.vertices, lattice.weights[..., None] * values[:, None])
    for axis in lattice.neighbours:
        around = table[axis[1:, 0]] + table[axis[1:, 1]]
        table = np.concatenate([table[:1], table[1:] + around / 2])
    result: NDArray[np.float64] = (table[lattice.vertices] * lattice.weights[..., None]).sum(axis=1)
    return result


# --- where points lie --------------------------------------------------------------------------


def _elevation(dimensions: int) -> NDArray[np.float64]:
    """(d+1, d): column i has i+1 ones, then -(i+1), scaled to length 1 / sqrt((i+1) (i+2)) and by the
    expected deviation sqrt(2/3) (d+1), from page 5 of the paper."""
    matrix = np.zeros((dimensions + 1, dimensions))
    for i in range(dimensions):
        matrix[: i + 1, i] = 1
        matrix[i + 1, i] = -(i + 1)
        matrix[:, i] *= np.sqrt(2 / 3) * (dimensions + 1) / np.sqrt((i + 1) * (i + 2))
    return matrix


def _corner_positions(points: Points) -> NDArray[np.int64]:
    """(N, d+1, d) first d coordinates of the corners of each point's simplex, by remainder."""
    embedding, dimensions = embed(points), points.shape[1]
    base, code = radix(dimensions), embedding.codes.copy()
    first = np.empty((len(points), dimensions), dtype=np.int64)
    for i in range(dimensions):  # digits between -base / 2 and base / 2
        first[:, i] = (code + base // 2) % base - base // 2
        code = (code - first[:, i]) // base
    corners = [first]
    for remainder in range(dimensions):
        lower = embedding.descents >> 3 * (dimensions - remainder) & 7
        step = np.where(lower[:, None] == np.arange(dimensions), -dimensions, 1)
        corners.append(corners[-1] + step)
    return np.stack(corners, axis=1)


@pytest.mark.parametrize("dimensions", [2, 5])
def test_each_point_is_the_mean_of_its_corners_by_its_barycentric_coordinates(
    dimensions: int,
) -> None:
    points = np.random.default_rng(0).normal(0, 8, (500, dimensions)).astype(np.float32)
    weights = embed(points).barycentric
    assert (weights > -1e-5).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    mean = (weights[..., None] * _corner_positions(points)).sum(axis=1)
    np.testing.assert_allclose(mean, (points @ _elevation(dimensions).T)[:, :-1], atol=1e-3)


@pytest.mark.parametrize("dimensions", [2, 5])
def test_the_corners_of_a_simplex_have_all_remainders(dimensions: int) -> None:
    points = np.random.default_rng(1).normal(0, 8, (500, dimensions)).astype(np.float32)
    corners = _corner_positions(points)
    remainders = np.arange(dimensions + 1)[:, None]
    assert (corners % (dimensions + 1) == remainders).all()


def test_points_in_one_place_share_their_vertices() -> None:
    points = np.ones((3, 5), dtype=np.float32)
    _, lattice = build(points)
    assert lattice.vertices.tolist() == [[1, 2, 3, 4, 5, 6]] * 3
    assert lattice.neighbours.shape == (6, 7, 2)


@pytest.mark.usefixtures("large_programs")
@pytest.mark.parametrize("dimensions", [2, 5])
def test_a_gpu_finds_the_very_same_simplices(dimensions: int) -> None:
    # Rounded otherwise, some of so many points come to lie in the simplex beside theirs.
    points = np.random.default_rng(0).uniform(-200, 200, (100_000, dimensions)).astype(np.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    codes, weights = on_gpu.embed(torch.from_numpy(points).to(device))
    digits = radix(dimensions) ** np.arange(dimensions)
    assert (codes.cpu().numpy() == _corner_positions(points) @ digits).all()
    np.testing.assert_allclose(weights.cpu().numpy(), embed(points).barycentric, atol=1e-3)


def test_neighbours_are_mutual() -> None:
    _, lattice = build(_scene(24))
    for axis in lattice.neighbours:
        before, after = axis[:, 0], axis[:, 1]
        vertices = np.flatnonzero(before)
        assert len(vertices) > 0
        assert (after[before[vertices]] == vertices).all()


@pytest.mark.parametrize("backend", ["lattice", "gpu"])
def test_kernels_that_are_too_narrow_for_the_lattice_are_refused(backend: CrfBackend) -> None:
    image = np.zeros((1, 2, 3), dtype=np.uint8)
    image[0, 1] = 255
    probabilities = np.full((2, 1, 2), 0.5, dtype=np.float32)
    with pytest.raises(ConfigError, match="too narrow"):
        refine(probabilities, image, CrfConfig(bilateral_srgb=0.01, backend=backend))


# --- the filter --------------------------------------------------------------------------------


def _gaussian(points: Points) -> NDArray[np.float64]:
    """(N, N): every pair, divided by the roots of both row sums."""
    differences = points[:, None].astype(np.float64) - points
    kernel = np.exp(-(differences**2).sum(axis=-1) / 2)
    root = np.sqrt(kernel.sum(axis=1))
    normalised: NDArray[np.float64] = kernel / root[:, None] / root
    return normalised


@pytest.mark.parametrize(
    ("name", "largest", "mean"), [("2 dimensions", 0.05, 0.01), ("5 dimensions", 0.1, 0.03)]
)
def test_the_filter_is_close_to_a_gaussian_of_all_pairs(
    name: str, largest: float, mean: float
) -> None:
    # The lattice approximates: its kernel is a spline, and depends a little on where points lie in their
    # simplex. On values from 0 to 1 it is 0.006 off on average in 2 dimensions and 0.015 in 5.
    points = POINTS[name]
    rng = np.random.default_rng(0)
    values = np.stack([points[:, 0] > 1, points[:, 1] > 1, rng.random(len(points))], axis=1) * 1.0
    _, lattice = build(points)
    off = np.abs(_filter(lattice, values) - _gaussian(points) @ values)
    assert off.max() < largest
    assert off.mean() < mean


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS)
def test_the_filter_is_normalised_symmetrically(points: Points) -> None:
    # D^-1/2 K D^-1/2 leaves D^1/2 1 as it is, because K 1 = D 1. Barycentric coordinates sum to 1, so a
    # row's weights sum to D^-1/2.
    _, lattice = build(points)
    root = 1 / lattice.weights.sum(axis=1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(_filter(lattice, root), root, rtol=1e-5)


def test_blocks_change_the_order_of_rows_and_nothing_else() -> None:
    points = _scene(24)
    blocks = (np.arange(len(points)) % 7).astype(np.uint64)
    _, plain = build(points)
    order, sorted_rows = build(points, blocks=blocks)
    assert (np.diff(blocks[order].astype(int)) >= 0).all()
    assert sorted(order) == list(range(len(points)))
    values = np.random.default_rng(0).random((len(points), 2))
    np.testing.assert_allclose(
        _filter(sorted_rows, values[order]), _filter(plain, values)[order], atol=1e-5
    )


def test_strength_multiplies_the_filter() -> None:
    _, lattice = build(_grid(8, 0.5))
    _, strong = build(_grid(8, 0.5), strength=4.0)
    values = np.random.default_rng(0).random((64, 1))
    rows = np.arange(64)[::-1].copy()
    fourfold = 4 * _filter(lattice, values)
    np.testing.assert_allclose(_filter(strong, values), fourfold, rtol=1e-5)
    taken = lattice.taken(rows, strength=4.0)
    np.testing.assert_allclose(_filter(taken, values[rows]), fourfold[rows], rtol=1e-5)


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), dimensions=st.sampled_from([2, 5]))
@settings(deadline=None, max_examples=60)
def test_what_a_lattice_of_some_rows_brings_from_them_to_them_stays_the_same(
    seed: int, share: float, dimensions: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1.5, (200, dimensions)).astype(np.float32)
    _, lattice = build(points)
    rows = np.flatnonzero(rng.random(200) < share)
    part = restrict(lattice, rows)
    values = np.zeros((200, 2))
    values[rows] = rng.random((len(rows), 2))
    np.testing.assert_allclose(
        _filter(part, values[rows]), _filter(lattice, values)[rows], atol=1e-6
    )
    assert part.neighbours.shape[1] <= lattice.neighbours.shape[1]


def test_a_lattice_of_few_rows_is_small() -> None:
    _, lattice = build(_scene(24))
    part = restrict(lattice, np.arange(5))
    assert part.neighbours.shape[1] < lattice.neighbours.shape[1] / 2
    assert restrict(lattice, np.arange(0)).neighbours.shape == (6, 1, 2)
