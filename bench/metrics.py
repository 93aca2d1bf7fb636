"""The confusion matrix of class maps: ours, by photo, against numpy's bincount and torchmetrics."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from bench.comparison import Bar, Comparison, UnequalResultsError
from bench.timing import seconds_in_turn
from trashseg.metrics import SegmentationScores

PHOTOS, SIZE, CLASSES = 8, 512, 12
OBJECTS = 6  # squares a photo
RIGHT = 0.8  # share of the pixels that are predicted as they are
ROUNDS = 15
MEGAPIXELS = PHOTOS * SIZE**2 / 1e6


def run() -> list[Comparison]:
    predicted, target = class_maps()
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: ours(predicted, target),
        "numpy": lambda: by_numpy(predicted, target),
        "torchmetrics": lambda: by_torchmetrics(predicted, target),
    }
    matrix = ways["ours"]()
    for name, way in ways.items():
        if not torch.equal(way(), matrix):
            raise UnequalResultsError(f"metrics: the confusion matrix of {name} is another")
    seconds = seconds_in_turn(ways, ROUNDS)
    return [
        Comparison(
            name=f"metrics: confusion matrix, against {peer}",
            unit="ms per megapixel",
            bar=Bar("<=", 1.0),
            ours=1e3 * seconds["ours"] / MEGAPIXELS,
            peer=1e3 * seconds[name] / MEGAPIXELS,
            note="equal matrices; ours also counts each photo by itself and takes its mean IoU",
        )
        for name, peer in {"numpy": "numpy's bincount", "torchmetrics": "torchmetrics"}.items()
    ]


def class_maps() -> tuple[Tensor, Tensor]:
    """What validation has: predictions (N, S, S) int64 and truth (N, S, S) uint8, background and some
    squares; most pixels are predicted right."""
    random = np.random.default_rng(0)
    target = np.zeros((PHOTOS, SIZE, SIZE), dtype=np.uint8)
    for photo in target:
        for top, left in random.integers(0, SIZE - SIZE // 5, (OBJECTS, 2)):
            square = slice(top, top + SIZE // 5), slice(left, left + SIZE // 5)
            photo[square] = random.integers(1, CLASSES)
    right = random.random(target.shape) < RIGHT
    predicted = np.where(right, target, random.integers(0, CLASSES, target.shape))
    return torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(target)


def ours(predicted: Tensor, target: Tensor) -> Tensor:
    scores = SegmentationScores([str(index) for index in range(CLASSES)])
    scores.update(predicted, target)
    return scores.confusion


def by_numpy(predicted: Tensor, target: Tensor) -> Tensor:
    """The usual `fast_hist` of the FCN code (Long et al. 2015)."""
    cell = CLASSES * target.numpy().ravel().astype(np.int64) + predicted.numpy().ravel()
    counts = np.bincount(cell, minlength=CLASSES**2)
    return torch.from_numpy(counts).view(CLASSES, CLASSES)


def by_torchmetrics(predicted: Tensor, target: Tensor) -> Tensor:
    matrix: Tensor = multiclass_confusion_matrix(predicted, target, CLASSES, validate_args=False)
    return matrix
