"""Rows of numbers as single values in compiled code, and the exponential of a row."""

from typing import Any

import numba
import numpy as np
import pytest

from trashseg.crf import mean_field
from trashseg.crf.simd import (
    CACHE_LINE,
    Rows,
    empty_rows,
    fill,
    lane_count,
    lanes_of,
    larger,
    largest,
    load,
    magnitude,
    put_rows,
    store,
    take_rows,
    total,
)

exponential: Any = mean_field._exponential


def _rows(count: int, lanes: int) -> Rows:
    rows = empty_rows(count, lanes)
    lanes_of(rows)[:] = np.random.default_rng(lanes).normal(0, 3, (count, lanes))
    return rows


@numba.njit  # type: ignore[untyped-decorator]
def _calculate(first: Any, second: Any, results: Any, numbers: Any) -> None:
    for i in range(len(first)):
        a, b = load(first, i), load(second, i)
        store(results, 0 * len(first) + i, a + b)
        store(results, 1 * len(first) + i, a - b)
        store(results, 2 * len(first) + i, a * b)
        store(results, 3 * len(first) + i, a * np.float32(2) + 1)
        store(results, 4 * len(first) + i, larger(a, b))
        store(results, 5 * len(first) + i, magnitude(a))
        store(results, 6 * len(first) + i, fill(first, 7))
        numbers[0, i], numbers[1, i] = total(a), largest(a)


@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_rows_are_calculated_with_number_by_number(lanes: int) -> None:
    first, second = _rows(5, lanes), _rows(5, lanes)[::-1].copy()
    results, numbers = empty_rows(7 * 5, lanes), np.empty((2, 5), dtype=np.float32)
    _calculate(first, second, results, numbers)
    a, b = lanes_of(first), lanes_of(second)
    expected = [a + b, a - b, a * b, a * 2 + 1, np.maximum(a, b), np.abs(a), np.full_like(a, 7)]
    np.testing.assert_allclose(lanes_of(results), np.concatenate(expected), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(numbers, [a.sum(axis=1), a.max(axis=1)], rtol=1e-5, atol=1e-5)


@numba.njit  # type: ignore[untyped-decorator]
def _exponentials(rows: Any) -> None:
    for i in range(len(rows)):
        store(rows, i, exponential(load(rows, i)))


@pytest.mark.parametrize(("lowest", "accuracy"), [(-20, 1e-5), (-50, 1e-2)])
def test_the_exponential_is_as_right_as_it_says(lowest: float, accuracy: float) -> None:
    rows = empty_rows(1000, 4)
    x = np.linspace(lowest, 0, 4000, dtype=np.float32).reshape(1000, 4)
    lanes_of(rows)[:] = x
    _exponentials(rows)
    np.testing.assert_allclose(lanes_of(rows), np.exp(x.astype(np.float64)), rtol=accuracy)
    assert lanes_of(rows)[-1, -1] == 1


@pytest.mark.parametrize("count", [0, 1, 7])
def test_rows_begin_with_a_cache_line_and_are_seen_as_numbers(count: int) -> None:
    rows = empty_rows(count, 8)
    assert rows.shape == (count,)
    assert lane_count(rows) == 8
    assert count == 0 or rows.ctypes.data % CACHE_LINE == 0
    lanes_of(rows)[:] = 3
    assert (rows["lanes"] == 3).all()
    assert lanes_of(rows).shape == (count, 8)


def test_rows_are_taken_and_put_as_numpy_does_it() -> None:
    rows, places = _rows(6, 4), np.array([4, 0, 5])
    taken = take_rows(rows, places)
    assert (lanes_of(taken) == lanes_of(rows)[places]).all()
    expected = lanes_of(rows).copy()
    expected[places[::-1]] = lanes_of(taken)
    put_rows(rows, places[::-1].copy(), taken)
    assert (lanes_of(rows) == expected).all()
