"""Which training photos an epoch draws, and how often: by the classes that they hold, and by whether a
network labelled them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashseg.config import SamplingConfig

Weights = NDArray[np.float64]
Holds = NDArray[np.bool_]


def photo_weights(config: SamplingConfig, class_pixels: NDArray[np.int64]) -> Weights | None:
    """(N,) share of the draws that each photo gets, given its pixels of each class (N, C).

    None where every photo is drawn once.
    """
    return WEIGHTS[config.name](config, class_pixels > 0)


def with_pseudo_labelled(
    weights: Weights | None, labelled: int, pseudo_labelled: int, share: float
) -> Weights:
    """(labelled + pseudo_labelled,): `weights` of the labelled photos, None for all alike, and behind
    them those of the others, which have `share` of the draws, all alike."""
    own = np.full(labelled, 1 / labelled) if weights is None else weights
    return np.concatenate([own * (1 - share), np.full(pseudo_labelled, share / pseudo_labelled)])


def draw_weighted(
    positions: NDArray[np.int64], weights: Weights, count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """`count` of `positions`, in random order: a photo that should come 2.3 times comes twice or
    three times, never more or less (systematic sampling), so that epochs differ as little as can be."""
    order = generator.permutation(len(positions))
    ends = np.cumsum(weights[order]) * count  # each photo is a stretch of its length
    ends[-1] = np.inf  # rounding must not end the last one early
    marks = np.arange(count) + generator.random()  # one mark in every unit of length
    drawn = order[np.searchsorted(ends, marks, side="right")]
    return generator.permutation(positions[drawn])


def _class_balanced(config: Any, holds: Holds) -> Weights:
    """The background is a class like any other, which keeps photos without objects in."""
    photos = holds.sum(axis=0)  # that hold each class
    seen = photos > 0
    balanced = (holds[:, seen] / photos[seen]).mean(axis=1)
    uniform = 1 / len(holds)
    return np.asarray(config.strength * balanced + (1 - config.strength) * uniform)


def _rare_class(config: Any, holds: Holds) -> Weights:
    share = np.maximum(holds.mean(axis=0), 1 / len(holds))  # of photos; no division by zero
    factors = np.sqrt(config.threshold / share).clip(min=1.0)
    repeats = np.where(holds, factors, 1.0).max(axis=1)
    return np.asarray(repeats / repeats.sum())


WEIGHTS: dict[str, Callable[[Any, Holds], Weights | None]] = {
    "uniform": lambda config, holds: None,
    "class_balanced": _class_balanced,
    "rare_class": _rare_class,
}
