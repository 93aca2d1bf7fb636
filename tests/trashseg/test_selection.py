"""Greedy selection on tiny votes whose best weights can be seen by eye."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from trashseg.choice import Choice, Weights
from trashseg.counts import Counts
from trashseg.evidence import PixelSample
from trashseg.noise import score
from trashseg.selection import greedy_weights, grow

PHOTOS = 8
ALL = np.arange(PHOTOS)
TRUTH = np.tile(np.array([0, 0, 1, 1], dtype=np.uint8), (PHOTOS, 1))  # four pixels a photo


def sample(*sure_of_one: list[float]) -> PixelSample:
    """Candidates that give class 1 these probabilities on the four pixels of every photo."""
    one = np.array(sure_of_one)  # (M, K)
    votes = np.stack([1 - one, one], axis=1)  # (M, C, K)
    votes = np.broadcast_to(votes[None, :, None], (PHOTOS, len(one), 1, 2, 4))
    return PixelSample(votes.astype(np.float16), TRUTH, ["identity_1"])


def counts_of(some: PixelSample) -> Callable[[Weights], Counts]:
    return lambda weights: some.counts(Choice(weights))


def selected(some: PixelSample, metric: str = "miou", photos: NDArray[np.int64] = ALL) -> Weights:
    return greedy_weights(counts_of(some), some.candidates, photos, metric)


# Each is right on three of four pixels, unsure on its wrong one and surer than the other there.
LEFT = [0.6, 0.1, 0.9, 0.9]  # wrong on the first
RIGHT = [0.1, 0.1, 0.9, 0.4]  # wrong on the last
USELESS = [0.5, 0.5, 0.5, 0.5]
WRONG = [0.9, 0.9, 0.1, 0.1]

both_metrics = pytest.mark.parametrize("metric", ["miou", "miou_image"])


@both_metrics
@pytest.mark.parametrize("useless", [USELESS, WRONG])
@pytest.mark.parametrize("place", [0, 1])
def test_a_useless_member_gets_no_weight(metric: str, useless: list[float], place: int) -> None:
    members = [LEFT]
    members.insert(place, useless)
    weights = selected(sample(*members), metric)
    assert weights[place] == 0
    assert sum(weights) == 1


@both_metrics
def test_two_complementary_members_beat_each_of_them(metric: str) -> None:
    some = sample(LEFT, RIGHT)
    weights = selected(some, metric)
    # on the first pixel the mean is 0.35 for class 1, on the last 0.65: all four are right
    assert score(counts_of(some)(weights), metric) == 1
    # alone: IoU of the class that loses a pixel 1/2, of the other 2/3
    for alone in ((1.0, 0.0), (0.0, 1.0)):
        assert score(counts_of(some)(alone), metric) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert min(weights) > 0


def test_a_member_that_is_added_twice_has_twice_the_weight() -> None:
    # class 1 on the first pixel (truth 0): 0.45 and 0.6, so halves are wrong (0.525) and two thirds
    # right (0.5 is a tie, which goes to class 0); on the last (truth 1): 0.45 and 0.9
    some = sample([0.45, 0.1, 0.9, 0.45], [0.6, 0.1, 0.9, 0.9])
    best = grow(lambda weights: score(counts_of(some)(weights), "miou"), 2)
    assert score(counts_of(some)(tuple(best.tolist())), "miou") == 1
    assert best[0] > best[1] > 0


def test_of_equal_members_the_first_is_taken() -> None:
    assert selected(sample(LEFT, LEFT, LEFT)) == (1.0, 0.0, 0.0)
    assert grow(lambda weights: 0.5, 3).tolist() == [1.0, 0.0, 0.0]


def test_an_only_member_has_all_the_weight() -> None:
    assert selected(sample(WRONG)) == (1.0,)


def test_bags_are_drawn_by_seed_and_each_counts_the_same() -> None:
    # The first member is right on even photos, the second on odd ones: bags disagree.
    even = np.arange(PHOTOS) % 2 == 0
    right = np.stack([even, ~even])  # (M, N)
    one = np.where(right[..., None], TRUTH[None], 1 - TRUTH[None]).transpose(1, 0, 2)  # (N, M, K)
    votes = np.stack([1 - one, one], axis=2)[:, :, None].astype(np.float16)  # (N, M, 1, C, K)
    some = PixelSample(votes, TRUTH, ["identity_1"])
    seeded = [
        greedy_weights(counts_of(some), 2, ALL, "miou_image", bags=50, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert seeded[0] == seeded[1] != seeded[2]
    for weights in seeded:  # every bag takes one of the two: halves would be wrong by ties
        assert sum(weights) == pytest.approx(1)
        assert all(weight * 50 == pytest.approx(round(weight * 50)) for weight in weights)


def test_photos_that_are_not_asked_about_do_not_matter() -> None:
    half = ALL[: PHOTOS // 2]
    asked = sample(LEFT, RIGHT)
    flipped = TRUTH.copy()
    flipped[PHOTOS // 2 :] = 1 - flipped[PHOTOS // 2 :]
    other = PixelSample(asked._votes, flipped, ["identity_1"])
    assert selected(asked, photos=half) == selected(other, photos=half)


def test_the_same_vote_is_counted_once() -> None:
    asked: list[Weights] = []
    some = sample(LEFT, RIGHT)

    def counts(weights: Weights) -> Counts:
        asked.append(weights)
        return some.counts(Choice(weights))

    greedy_weights(counts, 2, ALL, "miou", rounds=10, bags=10)
    assert len(asked) == 10 * 10 * 2
    # at most the fractions n / d with d <= 10: there are 33 of them in [0, 1]
    assert len(set(asked)) <= 33
    assert some._counts.cache_info().misses == len(set(asked))
