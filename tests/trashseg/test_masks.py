"""From votes to class maps: sizes, decisions, and the stream over worker processes."""

import math
import operator
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trashseg.config import CrfConfig
from trashseg.crf import refine
from trashseg.masks import (
    cpu_pool,
    decide,
    decide_at,
    decide_photo,
    photo_masks,
    refine_limited,
    stream,
)
from trashseg.oof import resize_probabilities
from trashseg.pictures import write_image


def _probabilities(classes: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).random((classes, height, width)) + 0.01
    return (drawn / drawn.sum(axis=0)).astype(np.float32)


# --- sizes and decisions -----------------------------------------------------------------------


@given(
    classes=st.integers(1, 6),
    sides=st.tuples(*[st.integers(1, 24)] * 4),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_resized_probabilities_still_sum_to_one(
    classes: int, sides: tuple[int, int, int, int], seed: int
) -> None:
    height, width, new_height, new_width = sides
    resized = resize_probabilities(
        _probabilities(classes, height, width, seed), (new_height, new_width)
    )
    assert resized.shape == (classes, new_height, new_width)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized.sum(axis=0), 1, atol=1e-5)


def test_resizing_interpolates_between_pixels() -> None:
    # two pixels to four: centres at -1/4, 1/4, 3/4 and 5/4, clamped at the border
    probabilities = np.array([[[0.0, 1.0]], [[1.0, 0.0]]], dtype=np.float32)
    assert resize_probabilities(probabilities, (1, 4)).tolist() == [
        [[0.0, 0.25, 0.75, 1.0]],
        [[1.0, 0.75, 0.25, 0.0]],
    ]


def test_the_likeliest_class_of_each_pixel_is_chosen_and_the_first_of_equals() -> None:
    probabilities = np.array([[[0.2, 0.5]], [[0.7, 0.5]], [[0.1, 0.0]]], dtype=np.float32)
    decided = decide(probabilities)
    assert decided.tolist() == [[1, 0]]
    assert decided.dtype == np.uint8


# --- refinement at a limited size --------------------------------------------------------------


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("max_side", [40, 41, 1024])
def test_a_photo_within_the_limit_is_refined_as_it_is(
    max_side: int, photo: NDArray[np.uint8]
) -> None:
    probabilities, crf = _probabilities(3, 40, 24), CrfConfig(max_side=max_side)
    assert (refine_limited(probabilities, photo, crf) == refine(probabilities, photo, crf)).all()


@pytest.mark.parametrize(("max_side", "height", "width"), [(39, 39, 23), (20, 20, 12), (1, 1, 1)])
def test_a_larger_photo_is_refined_smaller_and_its_masks_come_back_at_its_size(
    max_side: int, height: int, width: int, photo: NDArray[np.uint8]
) -> None:
    probabilities, crf = _probabilities(3, 40, 24), CrfConfig(max_side=max_side)
    refined = refine_limited(probabilities, photo, crf)
    assert refined.shape == (3, height, width)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-4)
    assert decide_photo(probabilities, photo, crf, by_object=False).mask.shape == (40, 24)


@given(
    classes=st.integers(1, 6),
    sides=st.tuples(*[st.integers(1, 24)] * 4),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_one_class_at_a_time_decides_as_all_at_once(
    classes: int, sides: tuple[int, int, int, int], seed: int
) -> None:
    height, width, new_height, new_width = sides
    # eighths, so that classes are equally likely now and then
    probabilities = np.round(_probabilities(classes, height, width, seed) * 8) / 8
    at_once = resize_probabilities(probabilities, (new_height, new_width))
    decision = decide_at(probabilities, (new_height, new_width))
    assert (decision.mask == decide(at_once)).all()
    assert (decision.probability == at_once.max(axis=0)).all()


# --- a photo -----------------------------------------------------------------------------------


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    write_image(tmp_path / "photo.png", np.full((6, 10, 3), 90, dtype=np.uint8))
    return tmp_path / "photo.png"


def _vote() -> NDArray[np.float16]:
    """(1/8, 1/2, 3/8) in each of 4x4 pixels."""
    vote = np.array([0.125, 0.5, 0.375], dtype=np.float16)
    return np.broadcast_to(vote[:, None, None], (3, 4, 4))


def test_a_vote_is_enlarged_to_the_photo_and_decided(photo_file: Path) -> None:
    masks = photo_masks(_vote(), photo_file, None, by_object=False)
    assert masks.soft_vote.shape == (6, 10)
    assert (masks.soft_vote == 1).all()
    assert masks.soft_vote_crf is None
    assert masks.final is masks.soft_vote
    assert masks.confidence.tolist() == [0.0, 0.5, 0.0]


def test_with_a_crf_the_refined_map_is_the_final_one(photo_file: Path) -> None:
    masks = photo_masks(_vote(), photo_file, CrfConfig(), by_object=False)
    assert masks.soft_vote_crf is not None
    assert masks.final is masks.soft_vote_crf
    assert (masks.final == 1).all()
    assert masks.confidence[1] > 0.5  # neighbours of one colour agree
    assert masks.confidence[0] == masks.confidence[2] == 0


# --- the stream --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stream_keeps_the_order_and_only_a_few_calls_in_flight(workers: int) -> None:
    drawn = 0

    def calls() -> Iterator[tuple[int, int]]:
        nonlocal drawn
        for number in range(20):
            drawn += 1
            yield number, 100

    results = []
    with ThreadPoolExecutor(workers) as pool:  # draws arguments exactly as the process pool does
        for result in stream(pool, operator.add, calls()):  # type: ignore[arg-type]
            results.append(result)
            assert drawn - len(results) < 2 * workers
    assert results == [100 + number for number in range(20)]


def test_a_stream_of_fewer_calls_than_workers_ends() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(stream(pool, math.sqrt, [(4.0,), (9.0,)])) == [2.0, 3.0]  # type: ignore[arg-type]
        assert list(stream(pool, math.sqrt, [])) == []  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_pool_works_in_other_processes_and_keeps_the_order() -> None:
    with cpu_pool(2) as pool:
        assert list(stream(pool, math.factorial, [(n,) for n in range(8)])) == [
            1,
            1,
            2,
            6,
            24,
            120,
            720,
            5040,
        ]
        assert os.getpid() not in set(stream(pool, os.getpid, [()] * 4))


@pytest.mark.slow
def test_an_error_in_a_worker_reaches_the_caller_and_ends_the_pool() -> None:
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"), cpu_pool(1) as pool:
        list(stream(pool, math.sqrt, [(1.0,), (-1.0,), (4.0,)]))
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(os.getpid)


@pytest.mark.slow
def test_what_is_queued_is_dropped_when_the_caller_fails() -> None:
    futures: list[Future[int]] = []

    def submit_and_stop() -> None:
        with cpu_pool(1) as pool:
            futures.extend(pool.submit(os.getpid) for _ in range(500))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit_and_stop()
    assert futures[-1].cancelled()
