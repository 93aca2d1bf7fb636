"""The dense CRF of a photo by lattices: from (C, H, W) to rows of pixels and back."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashseg.compiled import compiled
from trashseg.config import CrfConfig
from trashseg.crf import LEAST
from trashseg.crf.lattice import Lattice, build
from trashseg.crf.mean_field import infer
from trashseg.crf.simd import Rows, empty_rows, lanes_of, take_rows

BLOCK = 64  # pixels: what a block needs of the lattices fits into the cache next to the core
AT_ONCE = 128  # rows


def refine_photo(
    probabilities: NDArray[np.float32],
    image: NDArray[np.uint8],
    config: CrfConfig,
    *,
    hold_decided: bool = True,
) -> NDArray[np.float32]:
    """Mean-field probabilities (C, H, W) float32 of probabilities (C, H, W) and an image (H, W, 3);
    `hold_decided` as in `infer`."""
    height, width = image.shape[:2]
    features, blocks = _place_and_colour(image, config)
    order, wide = build(features, config.bilateral_weight, blocks)
    near = _place_lattice(height, width, config.gaussian_sxy)
    prior = take_rows(_to_rows(probabilities), order)
    taken = near.taken(order, config.gaussian_weight)
    q = infer(prior, wide, taken, config.iterations, hold_decided=hold_decided)
    refined = np.empty(probabilities.shape, dtype=np.float32)
    _scatter(lanes_of(q), order, refined.reshape(len(refined), -1))
    return refined


def _place_and_colour(
    image: NDArray[np.uint8], config: CrfConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """Features (N, 5) of the bilateral kernel, and each pixel's block (N,)."""
    height, width = image.shape[:2]
    features = np.empty((height, width, 5), dtype=np.float32)
    features[..., :2] = _places(height, width, config.bilateral_sxy)
    np.divide(image, np.float32(config.bilateral_srgb), out=features[..., 2:])
    rows, columns = np.arange(height)[:, None] // BLOCK, np.arange(width) // BLOCK
    blocks = (rows * (width // BLOCK + 1) + columns).astype(np.uint64)
    return features.reshape(-1, 5), blocks.reshape(-1)


@lru_cache(maxsize=2)
def _place_lattice(height: int, width: int, sxy: float) -> Lattice:
    """Of the kernel that only sees distance: the same for all photos of that size."""
    _, lattice = build(_places(height, width, sxy).reshape(-1, 2))
    return lattice


def _places(height: int, width: int, sxy: float) -> NDArray[np.float32]:
    """(H, W, 2) x and y."""
    places = np.empty((height, width, 2), dtype=np.float32)
    places[..., 0] = np.arange(width, dtype=np.float32) / np.float32(sxy)
    places[..., 1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(sxy)
    return places


def _to_rows(probabilities: NDArray[np.float32]) -> Rows:
    """(H*W,) rows; as long as the next power of two, from 4: what processors load at once."""
    classes = len(probabilities)
    rows = empty_rows(probabilities[0].size, max(4, 1 << (classes - 1).bit_length()))
    lanes = lanes_of(rows)
    lanes[:, classes:] = 0
    np.maximum(probabilities.reshape(classes, -1).T, np.float32(LEAST), out=lanes[:, :classes])
    return rows


@compiled
def _scatter(lanes: Any, order: Any, planes: Any) -> None:
    """Rows (N, lanes) to planes (C, N): plane by plane, for a few rows at a time. Planes are often a
    power of two apart, and such places compete for the same lines of the processor's cache."""
    for start in range(0, len(order), AT_ONCE):
        for label in range(len(planes)):
            for row in range(start, min(start + AT_ONCE, len(order))):
                planes[label, order[row]] = lanes[row, label]
