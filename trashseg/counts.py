"""Confusion matrices photo by photo: what scores and their noise are worked out from. No torch here."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]  # (N, C, C): each photo's pixels by truth (rows) and prediction


def count_pixels(truth: NDArray[np.uint8], predicted: NDArray[np.integer], classes: int) -> Counts:
    """Class maps (N, ...) to (N, C, C)."""
    photos = len(truth)
    cell = truth.reshape(photos, -1).astype(np.int64) * classes + predicted.reshape(photos, -1)
    cell += np.arange(photos)[:, None] * classes**2
    counts = np.bincount(cell.ravel(), minlength=photos * classes**2)
    return counts.reshape(photos, classes, classes)
