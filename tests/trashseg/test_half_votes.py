"""Votes in 16 bits, summed up in compiled loops."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trashseg.half_votes import labels

EVERY = np.arange(0x7C00, dtype=np.uint16)  # all float16 from 0 to 65504, below infinity


def by_numpy(votes: NDArray[np.float16], factors: NDArray[np.float32]) -> NDArray[np.intp]:
    """Of votes (N, M, V, C, K) and factors (M, V, C): the same sums in the same order."""
    total = np.zeros((len(votes), *votes.shape[3:]), np.float32)
    for candidate, view in np.ndindex(votes.shape[1:3]):
        total += votes[:, candidate, view] * factors[candidate, view][:, None]
    return np.asarray(total.argmax(axis=1))


def said(votes: NDArray[np.float16], factors: NDArray[np.float32]) -> NDArray[np.uint8]:
    heard = np.array(list(np.ndindex(votes.shape[1:3])))
    of_each = factors.reshape(len(heard), -1)
    return labels(votes.view(np.uint16), heard[:, 0].copy(), heard[:, 1].copy(), of_each)


def test_the_class_with_the_greatest_sum_is_said_and_of_equals_the_first() -> None:
    # two candidates, three pixels; sums by hand, with factors 1/4 and 3/4:
    # 0.2 + 0.15, 0.05 + 0.6; 0.125 + 0.375 twice; 0 and 0
    first = [[0.8, 0.5, 0.0], [0.2, 0.5, 0.0]]
    second = [[0.2, 0.5, 0.0], [0.8, 0.5, 0.0]]
    votes = np.array([[[first], [second]]], np.float16)  # (1, 2, 1, 2, 3)
    factors = np.array([[[0.25, 0.25]], [[0.75, 0.75]]], np.float32)
    assert said(votes, factors).tolist() == [[1, 0, 0]]
    only_the_first = factors * np.array([[[1]], [[0]]], np.float32)
    assert said(votes, only_the_first).tolist() == [[0, 0, 0]]


def test_every_number_of_16_bits_is_read_as_what_it_is() -> None:
    # against a class whose vote is the number before: a number is greater than that, and not than itself
    before, itself = np.maximum(EVERY, 1) - 1, EVERY
    for other, wins in ((before, EVERY > 0), (itself, np.zeros(len(EVERY), bool))):
        votes = np.stack([other, itself]).astype(np.uint16).view(np.float16)[None, None, None]
        assert said(votes, np.ones((1, 1, 2), np.float32))[0].tolist() == wins.astype(int).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_those_of_numpy_to_the_last_bit(seed: int) -> None:
    """Every class adds up the same numbers in another order: roundings alone say which is greatest."""
    rng = np.random.default_rng(seed)
    numbers = rng.random((3, 8, 4001)).astype(np.float16)
    turned = np.stack([np.roll(numbers, label, axis=1) for label in range(5)], axis=2)
    votes = turned.reshape(3, 4, 2, 5, 4001)
    factors = np.full((4, 2, 5), rng.random(), np.float32)
    expected = by_numpy(votes, factors)
    assert len(np.unique(expected)) == 5
    np.testing.assert_array_equal(said(votes, factors), expected)
