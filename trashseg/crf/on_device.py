"""The dense CRF in torch's operations alone: on a GPU where there is one, else on the CPU.

The lattice and the mean field are those of embedding.py, lattice.py and mean_field.py, written for whole
arrays; pages in comments are of Adams, Baek & Davis, Eurographics 2010. No pixel is held.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from trashseg.config import CrfConfig
from trashseg.crf import LEAST
from trashseg.crf.embedding import radix, too_narrow


def refine_photo(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], config: CrfConfig
) -> NDArray[np.float32]:
    """Mean-field probabilities (C, H, W) float32 of probabilities (C, H, W) and an image (H, W, 3)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    votes, photo = (torch.from_numpy(array.copy()).to(device) for array in (probabilities, image))
    return refine_tensors(votes, photo, config).cpu().numpy()


@torch.inference_mode()
def refine_tensors(probabilities: Tensor, image: Tensor, config: CrfConfig) -> Tensor:
    """The same of tensors on one device."""
    height, width = image.shape[:2]
    wide = build(_place_and_colour(image, config), config.bilateral_weight)
    near = _place_lattice(height, width, config.gaussian_sxy, image.device)
    prior = probabilities.flatten(1).T.clamp(min=LEAST).log()  # (N, C)
    q = prior.softmax(dim=1)
    for _ in range(config.iterations):
        messages = wide.filter(q).add_(near.filter(q), alpha=config.gaussian_weight)
        q = messages.add_(prior).softmax(dim=1)
    return q.T.reshape(probabilities.shape).contiguous()


@dataclass(frozen=True)
class Lattice:
    """Of N points among M vertices; vertex M is none."""

    vertices: Tensor
    """(N, d+1) int64 of the simplex around the point."""
    weights: Tensor
    """(N, d+1) float32 with which values go to these vertices and come back."""
    neighbours: Tensor
    """(d+1, 2, M+1) int64 the vertices after and before each one, by axis."""

    def filter(self, values: Tensor) -> Tensor:
        """(N, C) float32: splat, blur along each axis by (1/2, 1, 1/2), slice."""
        shares = self.weights[..., None] * values[:, None]  # (N, d+1, C)
        table = values.new_zeros(self.neighbours.shape[-1], values.shape[1])
        table.index_add_(0, self.vertices.flatten(), shares.flatten(0, 1))
        for after, before in self.neighbours:
            table = table.add(table[after].add_(table[before]), alpha=0.5)
        return embedding_bag(self.vertices, table, per_sample_weights=self.weights, mode="sum")


def build(features: Tensor, strength: float = 1.0) -> Lattice:
    """The lattice of points (N, d) in units of the Gaussian's standard deviation, normalised
    symmetrically, the filter multiplied by `strength`.

    Raises ConfigError where points are too far apart.
    """
    codes, weights = _embed(features)
    found, vertices = torch.unique(codes, return_inverse=True)  # (M,), (N, d+1)
    lattice = Lattice(vertices, weights, _find_neighbours(found, features.shape[1]))
    row_sums = lattice.filter(weights.new_ones(len(weights), 1)) + 1e-20
    return Lattice(vertices, weights * (strength / row_sums).sqrt(), lattice.neighbours)


def _embed(features: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, d+1) int64 of the vertices around each point and barycentric coordinates (N, d+1), both
    by remainder."""
    corners = features.shape[1] + 1
    difference, simplex, rank = _find_simplex(_elevate(features))
    share = difference / corners
    barycentric = share.new_zeros(len(share), corners + 1)  # (p. 10)
    barycentric.scatter_add_(1, corners - 1 - rank, share).scatter_add_(1, corners - rank, -share)
    barycentric[:, 0] += 1 + barycentric[:, corners]
    base = radix(corners - 1)
    if (simplex.amax(0) - simplex.amin(0)).amax() * corners > base - 4 * corners:
        raise too_narrow()
    digits = torch.tensor([base**i for i in range(corners - 1)], device=features.device)
    below = [corners * (rank >= corners - remainder) for remainder in range(corners)]
    vertices = [corners * simplex + r - lower for r, lower in enumerate(below)]
    codes = torch.stack([(vertex[:, :-1] * digits).sum(1) for vertex in vertices], dim=1)
    return codes, barycentric[:, :corners].contiguous()


def _elevate(features: Tensor) -> Tensor:
    """(N, d+1) on the plane whose coordinates sum to zero: y = E p (p. 5)."""
    dimensions = features.shape[1]
    deviation = math.sqrt(2 / 3) * (dimensions + 1)
    numbers = torch.arange(1, dimensions + 1, device=features.device)
    scaled = features * (deviation / (numbers * (numbers + 1)).sqrt())
    sums = scaled.flip(1).cumsum(1).flip(1)  # of this feature and those that follow
    elevated = torch.nn.functional.pad(sums, (0, 1))
    elevated[:, 1:] -= numbers * scaled
    return elevated


def _find_simplex(elevated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The difference from the vertex of remainder 0, that vertex divided by d+1, and how many
    coordinates lie further above it than each does (p. 7); each (N, d+1)."""
    corners = elevated.shape[1]
    nearest = (elevated / corners).round()
    difference = elevated - nearest * corners
    simplex = nearest.long()
    order = difference.argsort(dim=1, descending=True, stable=True)
    place = order.argsort(dim=1) + simplex.sum(1, keepdim=True)
    move = (place < 0).long() - (place >= corners).long()  # back onto the plane
    return difference - move * corners, simplex + move, place + move * corners


def _find_neighbours(found: Tensor, dimensions: int) -> Tensor:
    """(d+1, 2, M+1) of the vertices with these sorted codes: a step is -1 in each coordinate, but d in
    the axis' own. The last axis' coordinate is not in the code."""
    base, count = radix(dimensions), len(found)
    steps = [
        sum((dimensions if i == axis else -1) * base**i for i in range(dimensions))
        for axis in range(dimensions + 1)
    ]
    signed = torch.tensor([[step, -step] for step in steps], device=found.device)
    wanted = found + signed[..., None]  # (d+1, 2, M)
    place = torch.searchsorted(found, wanted).clamp(max=count - 1)
    neighbours = torch.where(found[place] == wanted, place, count)
    return torch.nn.functional.pad(neighbours, (0, 1), value=count)


def _place_and_colour(image: Tensor, config: CrfConfig) -> Tensor:
    """(N, 5) features of the bilateral kernel."""
    height, width = image.shape[:2]
    places = _places(height, width, config.bilateral_sxy, image.device)
    return torch.cat([places, image.flatten(0, 1) / config.bilateral_srgb], dim=1)


@lru_cache(maxsize=2)
def _place_lattice(height: int, width: int, sxy: float, device: torch.device) -> Lattice:
    """Of the kernel that only sees distance: the same for all photos of that size."""
    return build(_places(height, width, sxy, device))


def _places(height: int, width: int, sxy: float, device: torch.device) -> Tensor:
    """(N, 2) x and y."""
    y, x = (torch.arange(length, device=device) / sxy for length in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1)
