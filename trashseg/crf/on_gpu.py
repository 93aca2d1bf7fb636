"""The dense CRF on a GPU, by kernels in Triton.

The lattice and the mean field are those of embedding.py, lattice.py and mean_field.py; pages in comments
are of Adams, Baek & Davis, Eurographics 2010. No pixel is held.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from trashseg.config import CrfConfig
from trashseg.crf import LEAST
from trashseg.crf.embedding import lowest_coordinates, radix, scale_of
from trashseg.errors import ConfigError

POINTS = 64  # of a program, or vertices
ENTRIES = 16  # of a program that splats them, with one warp: of 64 they take twice as long
EXACT = {"enable_fp_fusion": False}  # how a kernel is started that must round as a CPU does
LEAST_LANES = 16  # what tl.dot multiplies at least

kernel: Callable[[Callable[..., Any]], Any] = triton.jit


def refine_photo(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], config: CrfConfig
) -> NDArray[np.float32]:
    """Mean-field probabilities (C, H, W) float32 of probabilities (C, H, W) and an image (H, W, 3).

    Raises ConfigError where there is no GPU.
    """
    device = _device()
    votes, photo = (torch.from_numpy(array.copy()).to(device) for array in (probabilities, image))
    return refine_tensors(votes, photo, config).cpu().numpy()


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    # Triton's own way of running kernels without one
    if os.environ.get("TRITON_INTERPRET") == "1":
        return torch.device("cpu")
    raise ConfigError("crf.backend: gpu: there is no GPU here: set crf.backend=lattice")


@torch.inference_mode()
def refine_tensors(probabilities: Tensor, image: Tensor, config: CrfConfig) -> Tensor:
    """The same of tensors on one device.

    Raises ConfigError where the kernels are too narrow for the lattice's coordinates.
    """
    classes, height, width = probabilities.shape
    wide = build(_place_and_colour(image, config), config.bilateral_weight)
    near = _place_lattice(height, width, config.gaussian_sxy, config.gaussian_weight, image.device)
    both = join(wide, near)
    lanes = max(LEAST_LANES, triton.next_power_of_2(classes))
    prior = probabilities.new_full((height * width, lanes), -math.inf)
    prior[:, :classes] = probabilities.flatten(1).T.clamp(min=LEAST).log()
    q = prior.softmax(dim=1)
    for _ in range(config.iterations):
        _update[_programs(len(q), POINTS)](
            q, prior, both.filtered(q), both.vertices, both.weights,
            len(q), lanes, both.corners, POINTS,
        )  # fmt: skip
    return q[:, :classes].T.reshape(probabilities.shape).contiguous()


@dataclass(frozen=True)
class Lattice:
    """Of N points with K vertices each, among M vertices, which are numbered from 1; 0 is none."""

    vertices: Tensor
    """(N, K) int32 of the simplex around the point."""
    weights: Tensor
    """(N, K) float32 with which values go to these vertices and come back."""
    entries: Tensor
    """(N * K,) int32 places in `vertices`, in the order of the vertices there."""
    neighbours: Tensor
    """(axes, M+1, 2) int32 the vertices after and before each one; as many axes as make pairs."""

    @property
    def corners(self) -> int:
        return self.vertices.shape[1]

    @cached_property
    def sorted_entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """(N * K,) points int32, vertices int32 and weights float32 in the order of `entries`: each
        vertex is the one before it or the next. Read in a row, which is quicker than by place."""
        points = self.entries // self.corners
        return points, self.vertices.flatten()[self.entries], self.weights.flatten()[self.entries]

    def filtered(self, values: Tensor) -> Tensor:
        """(M+1, L) of values (N, L) float32: splat and blur along each axis by (1/2, 1, 1/2)."""
        rows, lanes = self.neighbours.shape[1], values.shape[1]
        table, count = values.new_zeros(rows, lanes), len(self.entries)
        splat = _splat[_programs(count, ENTRIES)]
        splat(values, table, *self.sorted_entries, count, lanes, ENTRIES, num_warps=1)
        other = torch.empty_like(table)
        for pair in torch.split(self.neighbours, 2):
            _blur[_programs(rows, POINTS)](table, other, pair, rows, lanes, POINTS)
            table, other = other, table
        return table


def build(features: Tensor, strength: float) -> Lattice:
    """The lattice of points (N, d) in units of the Gaussian's standard deviation, normalised
    symmetrically, the filter multiplied by `strength`.

    Raises ConfigError where points are too far apart.
    """
    points, corners = len(features), features.shape[1] + 1
    codes, weights = embed(features)
    ordered, entries = codes.flatten().sort()
    first = pad(ordered[1:] != ordered[:-1], (1, 0), value=True)
    numbers = first.cumsum(0, dtype=torch.int32)
    vertices = torch.empty_like(numbers).index_put_((entries,), numbers).view(points, corners)
    neighbours = _find_neighbours(ordered[first], corners - 1)
    lattice = Lattice(vertices, weights, entries.int(), neighbours)
    ones = weights.new_ones(points, LEAST_LANES)
    row_sums = (lattice.filtered(ones)[:, 0][vertices] * weights).sum(1, keepdim=True)
    return replace(lattice, weights=weights * (strength / (row_sums + 1e-20)).sqrt())


def embed(features: Tensor) -> tuple[Tensor, Tensor]:
    """By remainder, codes (N, d+1) int64 of the vertices around points (N, d), and their barycentric
    coordinates (N, d+1) float32. All is rounded as in embedding.py, for the reason given there."""
    points, dimensions = features.shape
    corners, scale = dimensions + 1, scale_of(dimensions)
    lowest_coordinates(torch.stack(features.aminmax(dim=0)).cpu().numpy(), scale)  # or it raises
    codes = torch.empty(points, corners, dtype=torch.int64, device=features.device)
    weights = torch.empty(points, corners, device=features.device)
    width, digits = triton.next_power_of_2(corners), _digits(dimensions)
    _embed[_programs(points, POINTS)](
        features.contiguous(),
        torch.tensor(scale, device=features.device),
        pad(digits, (0, width - dimensions)).to(features.device),
        codes, weights, points, dimensions, width, POINTS, **EXACT,
    )  # fmt: skip
    return codes, weights


def join(one: Lattice, other: Lattice) -> Lattice:
    """What both of them bring from point to point, added up: one table, and half as many kernels."""
    count, corners = one.neighbours.shape[1] - 1, one.corners + other.corners

    def behind(vertices: Tensor) -> Tensor:
        return torch.where(vertices > 0, vertices + count, 0)

    def widened(lattice: Lattice, ahead: int) -> Tensor:
        entries = lattice.entries
        return entries + entries // lattice.corners * (corners - lattice.corners) + ahead

    idle = len(one.neighbours) - len(other.neighbours)  # the other's vertices stay as they are
    neighbours = pad(behind(other.neighbours[:, 1:]), (0, 0, 0, 0, 0, idle))
    return Lattice(
        torch.cat([one.vertices, behind(other.vertices)], dim=1),
        torch.cat([one.weights, other.weights], dim=1),
        torch.cat([widened(one, 0), widened(other, one.corners)]),
        torch.cat([one.neighbours, neighbours], dim=1),
    )


def _digits(dimensions: int) -> Tensor:
    """(d,) int64 what a vertex' first coordinates are multiplied with, the sum being its code. The last
    coordinate is not in it: all sum to zero."""
    return torch.tensor([radix(dimensions) ** i for i in range(dimensions)])


def _find_neighbours(found: Tensor, dimensions: int) -> Tensor:
    """(d+1, M+1, 2), or one axis more that leads nowhere, of the vertices with these sorted codes. A
    step is -1 in each coordinate, but d in the axis' own."""
    digits = _digits(dimensions)
    steps = torch.cat([(dimensions + 1) * digits, digits.new_zeros(1)]) - digits.sum()
    signed = torch.stack([steps, -steps], dim=1).to(found.device)
    wanted = found[:, None] + signed[:, None]  # (d+1, M, 2)
    place = torch.searchsorted(found, wanted, out_int32=True).clamp(max=len(found) - 1)
    neighbours = torch.where(found[place] == wanted, place + 1, 0)
    return pad(neighbours, (0, 0, 1, 0, 0, (dimensions + 1) % 2))


def _place_and_colour(image: Tensor, config: CrfConfig) -> Tensor:
    """(N, 5) features of the bilateral kernel."""
    height, width = image.shape[:2]
    places = _places(height, width, config.bilateral_sxy, image.device)
    return torch.cat([places, _divided(image.flatten(0, 1), config.bilateral_srgb)], dim=1)


@lru_cache(maxsize=2)
def _place_lattice(
    height: int, width: int, sxy: float, strength: float, device: torch.device
) -> Lattice:
    """Of the kernel that only sees distance: the same for all photos of that size."""
    return build(_places(height, width, sxy, device), strength)


def _places(height: int, width: int, sxy: float, device: torch.device) -> Tensor:
    """(N, 2) x and y."""
    y, x = (_divided(torch.arange(length, device=device), sxy) for length in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1)


def _divided(values: Tensor, width: float) -> Tensor:
    """Rounded as everywhere: with a plain number a GPU multiplies by the reciprocal instead."""
    return values / torch.tensor(width, device=values.device)


def _programs(count: int, each: int) -> tuple[int]:
    return (triton.cdiv(count, each),)


# --- kernels: each program is for `block` points, vertices or entries ----------------------------


@kernel
def _embed(
    features: tl.tensor, scale: tl.tensor, digits: tl.tensor, codes: tl.tensor, weights: tl.tensor,
    points: tl.tensor, dimensions: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """As embedding.py has it. Coordinates are a dimension of `width`, remainders another; both d+1 and
    filled up."""
    corners: tl.constexpr = dimensions + 1
    point = tl.program_id(0) * block + tl.arange(0, block)
    axis = tl.arange(0, width)
    inside, valid = point < points, axis[None, :] < corners
    # onto the plane (p. 5)
    elevated, total = tl.zeros((block, width), tl.float32), tl.zeros((block,), tl.float32)
    for last in tl.static_range(dimensions):
        i = dimensions - last
        feature = tl.load(features + point * dimensions + i - 1, mask=inside, other=0.0)
        scaled = feature * tl.load(scale + i - 1)
        elevated = tl.where(axis[None, :] == i, (total - i * scaled)[:, None], elevated)
        total += scaled
    elevated = tl.where(axis[None, :] == 0, total[:, None], elevated)
    # the vertex of remainder 0, divided by d+1, and how many coordinates lie further above it (p. 7)
    nearest = tl.floor(
        elevated * (1.0 / corners) + 0.5
    )  # either way from a half: the simplex is one
    difference = tl.where(valid, elevated - nearest * corners, float("-inf"))
    mine, others = difference[:, :, None], difference[:, None, :]
    before = (others == mine) & (axis[None, None, :] < axis[None, :, None])
    rank = tl.sum(((others > mine) | before).to(tl.int32), axis=2)
    simplex = nearest.to(tl.int32)
    rank += tl.sum(simplex, axis=1)[:, None]
    move = (rank < 0).to(tl.int32) - (rank >= corners).to(tl.int32)  # back onto the plane
    simplex += move
    rank = tl.where(valid, rank + move * corners, 2 * corners)
    # by remainder (p. 10)
    share = tl.where(valid, (difference - move * corners) * (1.0 / corners), 0.0)
    remainder = axis[None, :, None]
    share, rank = share[:, None, :], rank[:, None, :]
    above = tl.sum(tl.where(rank == corners - 1 - remainder, share, 0.0), axis=2)
    beyond = tl.sum(tl.where(rank == corners - remainder, share, 0.0), axis=2)
    least = tl.sum(tl.where(rank == 0, share, 0.0), axis=2)
    barycentric = above - beyond + tl.where(axis[None, :] == 0, 1 - least, 0.0)
    lower = (rank >= corners - remainder).to(tl.int64)
    coordinates = corners * (simplex[:, None, :] - lower) + remainder
    code = tl.sum(coordinates * tl.load(digits + axis)[None, None, :], axis=2)
    place = point[:, None] * corners + axis[None, :]
    tl.store(weights + place, barycentric, mask=inside[:, None] & valid)
    tl.store(codes + place, code, mask=inside[:, None] & valid)


@kernel
def _splat(
    values: tl.tensor, table: tl.tensor, points: tl.tensor, vertices: tl.tensor, weights: tl.tensor,
    count: tl.tensor, lanes: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Entries of one vertex follow each other: they are added up before the table is touched."""
    start = tl.program_id(0) * block
    place = start + tl.arange(0, block)
    inside = place < count
    weight = tl.load(weights + place, mask=inside, other=0.0)
    rows = _row(values, tl.load(points + place, mask=inside, other=0), lanes) * weight[:, None]
    first = tl.load(vertices + start)
    number = tl.load(vertices + place, mask=inside, other=first) - first
    which = tl.arange(0, block)[:, None]
    sums = tl.dot((number[None, :] == which).to(tl.float32), rows, input_precision="tf32x3")
    target = table + (first + which) * lanes + tl.arange(0, lanes)[None, :]
    tl.atomic_add(target, sums, mask=which <= tl.max(number, axis=0), sem="relaxed")


@kernel
def _blur(
    table: tl.tensor, blurred: tl.tensor, neighbours: tl.tensor,
    rows: tl.tensor, lanes: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Along one axis, then another: a row of the second blur needs three of the first."""
    vertex = tl.program_id(0) * block + tl.arange(0, block)
    vertex = tl.where(vertex < rows, vertex, 0)
    second = neighbours + 2 * rows
    after, before = tl.load(second + 2 * vertex), tl.load(second + 2 * vertex + 1)
    sides = _blurred(table, neighbours, after, lanes) + _blurred(table, neighbours, before, lanes)
    place = vertex[:, None] * lanes + tl.arange(0, lanes)[None, :]
    tl.store(blurred + place, _blurred(table, neighbours, vertex, lanes) + 0.5 * sides)


@kernel
def _blurred(
    table: tl.tensor, neighbours: tl.tensor, vertex: tl.tensor, lanes: tl.constexpr
) -> tl.tensor:
    """(block, lanes) these rows, blurred along the first axis."""
    after, before = tl.load(neighbours + 2 * vertex), tl.load(neighbours + 2 * vertex + 1)
    sides = _row(table, after, lanes) + _row(table, before, lanes)
    return _row(table, vertex, lanes) + 0.5 * sides


@kernel
def _update(
    q: tl.tensor, prior: tl.tensor, table: tl.tensor, vertices: tl.tensor, weights: tl.tensor,
    points: tl.tensor, lanes: tl.constexpr, corners: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Receive messages, by slicing the table, and decide."""
    point = tl.program_id(0) * block + tl.arange(0, block)
    point = tl.where(point < points, point, points - 1)
    log = _row(prior, point, lanes)
    for i in tl.static_range(corners):
        place = point * corners + i
        log += tl.load(weights + place)[:, None] * _row(table, tl.load(vertices + place), lanes)
    share = tl.exp(log - tl.max(log, axis=1)[:, None])
    place = point[:, None] * lanes + tl.arange(0, lanes)[None, :]
    tl.store(q + place, share / tl.sum(share, axis=1)[:, None])


@kernel
def _row(table: tl.tensor, number: tl.tensor, lanes: tl.constexpr) -> tl.tensor:
    return tl.load(table + number[:, None] * lanes + tl.arange(0, lanes)[None, :])
