"""Sampling: each photo's share of the draws by hand, and epochs that keep it as closely as can be."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trashseg.config import (
    ClassBalancedConfig,
    RareClassConfig,
    SamplingConfig,
    TrainConfig,
    UniformConfig,
)
from trashseg.config_file import sections_of
from trashseg.data.dataset import EpochBatches
from trashseg.data.sampling import WEIGHTS, draw_weighted, photo_weights, with_pseudo_labelled

VARIANTS = sections_of(TrainConfig.model_fields["sampling"].annotation)
# pixels of background, a common class and a rare one in four photos; a fourth class never occurs
PIXELS = np.array([[9, 0, 0, 0], [5, 4, 0, 0], [5, 4, 0, 0], [5, 0, 4, 0]])
CONFIGS: list[SamplingConfig] = [
    ClassBalancedConfig(),
    ClassBalancedConfig(strength=0.3),
    RareClassConfig(threshold=1.0),
]


def test_every_sampling_that_a_configuration_can_name_exists() -> None:
    assert set(VARIANTS) == set(WEIGHTS)


# --- shares by hand ----------------------------------------------------------------------------


def test_uniform_has_no_weights() -> None:
    assert photo_weights(UniformConfig(), PIXELS) is None


def test_balanced_draws_a_class_first_and_then_one_of_its_photos() -> None:
    # each of three classes has a third of the draws: the background's is shared by four photos, the
    # common class's by two, the rare one's goes to the last photo alone: twelfths 1, 1+2, 1+2, 1+4
    weights = photo_weights(ClassBalancedConfig(), PIXELS)
    np.testing.assert_allclose(weights, np.array([1, 3, 3, 5]) / 12)


def test_strength_is_the_share_of_balanced_draws() -> None:
    weights = photo_weights(ClassBalancedConfig(strength=0.5), PIXELS)
    np.testing.assert_allclose(weights, (np.array([1, 3, 3, 5]) / 12 + 1 / 4) / 2)
    weights = photo_weights(ClassBalancedConfig(strength=0.0), PIXELS)
    np.testing.assert_allclose(weights, 1 / 4)


def test_rare_photos_are_repeated_by_their_rarest_class() -> None:
    # shares of photos: 1, 1/2, 1/4; factors with t = 1: 1, sqrt 2, 2
    repeats = np.array([1, 2**0.5, 2**0.5, 2])
    weights = photo_weights(RareClassConfig(threshold=1.0), PIXELS)
    np.testing.assert_allclose(weights, repeats / repeats.sum())
    # with t = 1/2 only the last class is rare: factor sqrt(1/2 / 1/4)
    weights = photo_weights(RareClassConfig(threshold=0.5), PIXELS)
    np.testing.assert_allclose(weights, np.array([1, 1, 1, 2**0.5]) / (3 + 2**0.5))
    np.testing.assert_allclose(photo_weights(RareClassConfig(threshold=0.2), PIXELS), 1 / 4)


# --- draws -------------------------------------------------------------------------------------


@given(
    shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=30),
    count=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_a_photo_comes_its_expected_times_rounded_down_or_up(
    shares: list[float], count: int, seed: int
) -> None:
    positions = np.arange(100, 100 + len(shares))
    weights = np.array(shares) / sum(shares)
    drawn = draw_weighted(positions, weights, count, np.random.default_rng(seed))
    assert len(drawn) == count
    times = Counter(drawn.tolist())
    assert set(times) <= set(positions.tolist())
    for position, weight in zip(positions.tolist(), weights, strict=True):
        assert abs(times[position] - weight * count) < 1 + 1e-9


def test_over_many_epochs_each_photo_gets_its_share() -> None:
    weights = np.array([0.05, 0.25, 0.7])
    times = Counter[int]()
    for epoch in range(400):
        drawn = draw_weighted(np.arange(3), weights, 3, np.random.default_rng([0, epoch]))
        times.update(drawn.tolist())
    # 60, 300 and 840 of 1200 are expected, the deviation of each is below sqrt(400 / 4) = 10
    assert [times[photo] for photo in range(3)] == pytest.approx([60, 300, 840], abs=30)


# --- epochs ------------------------------------------------------------------------------------


def batches(config: SamplingConfig, seed: int = 0, epoch: int = 1) -> list[list[tuple[int, ...]]]:
    pixels = np.repeat(PIXELS, 5, axis=0)
    positions = np.arange(20) + 7
    made = EpochBatches(positions, 6, seed, shuffle=True, weights=photo_weights(config, pixels))
    made.epoch = epoch
    assert len(list(made)) == len(made)
    return list(made)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_an_epoch_has_as_many_whole_batches_as_without(config: SamplingConfig) -> None:
    plain, drawn = batches(UniformConfig()), batches(config)
    assert [len(batch) for batch in drawn] == [len(batch) for batch in plain] == [6, 6, 6]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_draws_depend_on_seed_and_epoch_alone(config: SamplingConfig) -> None:
    assert batches(config) == batches(config)
    assert batches(config, seed=1) != batches(config)
    positions = [[item[1] for batch in batches(config, epoch=e) for item in batch] for e in (1, 2)]
    assert positions[0] != positions[1]


def test_a_photo_drawn_again_is_another_item_and_so_augmented_anew() -> None:
    weights = np.array([0.75, 0.25, 0.0, 0.0])  # of four draws: three and one
    made = EpochBatches(np.arange(4), 2, shuffle=True, weights=weights)
    made.epoch = 5
    items = [item for batch in made for item in batch]
    assert sorted(items) == [(5, 0), (5, 0, 1), (5, 0, 2), (5, 1)]
    in_order = [item for item in items if item[1] == 0]
    assert in_order == [(5, 0), (5, 0, 1), (5, 0, 2)]


def test_without_strength_no_photo_comes_twice() -> None:
    items = [item for batch in batches(ClassBalancedConfig(strength=0.0)) for item in batch]
    assert len({item[1] for item in items}) == len(items) == 18


# --- with pseudo-labelled photos ---------------------------------------------------------------


def test_pseudo_labelled_photos_share_their_part_of_the_draws_alike() -> None:
    np.testing.assert_allclose(
        with_pseudo_labelled(None, labelled=2, pseudo_labelled=3, share=0.4),
        [0.3, 0.3, 0.4 / 3, 0.4 / 3, 0.4 / 3],
    )
    own = np.array([0.75, 0.25])
    np.testing.assert_allclose(
        with_pseudo_labelled(own, labelled=2, pseudo_labelled=1, share=0.2), [0.6, 0.2, 0.2]
    )


def test_they_come_on_top_and_the_labelled_ones_as_often_as_without() -> None:
    # 12 labelled photos and a quarter of 16 from 7 others: each labelled one once, 4 of the 7
    positions = np.concatenate([np.arange(12), 100 + np.arange(7)])
    weights = with_pseudo_labelled(None, 12, 7, share=0.25)
    batches = EpochBatches(positions, 4, seed=1, shuffle=True, weights=weights, photos=16)
    others = Counter[int]()
    for epoch in range(1, 101):
        batches.epoch = epoch
        drawn = [item[1] for batch in batches for item in batch]
        assert len(batches) == 4
        assert sorted(position for position in drawn if position < 100) == list(range(12))
        assert len({position for position in drawn if position >= 100}) == 4
        others.update(position for position in drawn if position >= 100)
    assert set(others) == set(range(100, 107))
    assert max(others.values()) < 2 * min(others.values())


def test_a_few_of_them_come_more_than_once_and_are_told_apart() -> None:
    positions = np.array([0, 1, 2, 3, 100])
    weights = with_pseudo_labelled(None, 4, 1, share=0.5)  # 4 of 8 draws are of one photo
    batches = EpochBatches(positions, 4, shuffle=True, weights=weights, photos=8)
    items = [item for batch in batches for item in batch if item[1] == 100]
    assert sorted(items) == [(0, 100), (0, 100, 1), (0, 100, 2), (0, 100, 3)]
