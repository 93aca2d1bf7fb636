"""What votes weigh: each candidate has one weight for all classes, or one for each of them.

With weights by class the vote for class c is the sum over candidates k of w[k, c] * p_k[c]. The classes
are then weighted by different candidates, or some count more than others, so that the votes of a pixel
no longer sum to 1 by themselves. No torch here.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Shares = tuple[float, ...]
"""Of each candidate, sum 1."""
Weight = float | tuple[float, ...]
"""Of one candidate: for all classes, or (C,) for each class."""
Weights = tuple[Weight, ...]
"""Of each candidate; they sum to 1, for each class where they are by class and all classes count the
same."""
TINY = np.float32(1e-12)  # far below the smallest vote that 16 bits hold, 6e-8


def is_by_class(weights: Weights) -> bool:
    return any(isinstance(weight, tuple) for weight in weights)


def by_class(weights: Weights, classes: int) -> tuple[Shares, ...]:
    """What each of `classes` classes weighs the candidates with."""
    table = np.stack([np.broadcast_to(weight, classes) for weight in weights], axis=1)  # (C, M)
    return tuple(map(tuple, table.tolist()))


def by_candidate(shares: tuple[Shares, ...]) -> Weights:
    """The inverse of `by_class`."""
    return tuple(zip(*shares, strict=True))


def scaled(weights: Weights, class_factors: tuple[float, ...]) -> Weights:
    """Weights by class under which the vote for each class counts so many times."""
    shares = np.array(by_class(weights, len(class_factors))) * np.array(class_factors)[:, None]
    return by_candidate(tuple(map(tuple, shares.tolist())))


def is_heard(weight: Weight) -> bool:
    """Whether it counts for any class."""
    return bool(np.any(np.asarray(weight) > 0))


def sum_of(weights: Sequence[Weight]) -> NDArray[np.float64]:
    """(C,), or (1,) where they are not by class."""
    return np.asarray(np.sum([np.atleast_1d(weight) for weight in weights], axis=0))


def split(weight: Weight, parts: int) -> Weight:
    """One of so many equal parts."""
    if isinstance(weight, tuple):
        return tuple(own / parts for own in weight)
    return weight / parts


def factors(weight: Weight, parts: int) -> NDArray[np.float32]:
    """What each of so many votes is multiplied with: (C,) by class, (1,) for all."""
    return np.atleast_1d(split(weight, parts)).astype(np.float32)


def to_probabilities(votes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., C, S, S) weighted by class to sums of 1 over C; of nothing but zeros all are alike."""
    votes = votes + TINY
    return np.asarray(votes / votes.sum(axis=-3, keepdims=True))
