"""The bootstrap over photos, against standard errors that are known without it."""

import numpy as np
import pytest
import torch

from trashseg.counts import Counts
from trashseg.metrics import SegmentationScores, resampled_score
from trashseg.noise import compare, score


def two_classes(right: list[int], of: int = 4) -> Counts:
    """Photos of `of` pixels, all of class 1, of which so many were found; (N, 2, 2)."""
    return np.array([[[0, 0], [of - hits, hits]] for hits in right])


def test_a_score_is_that_of_the_metrics_module() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = (torch.from_numpy(rng.integers(0, 4, (5, 6, 6))) for _ in range(2))
    counts, totals = np.zeros((5, 4, 4), dtype=np.int64), SegmentationScores("abcd")
    for n in range(5):
        np.add.at(counts[n], (truth[n].ravel(), predicted[n].ravel()), 1)
    totals.update(predicted, truth)
    for metric in ("miou", "miou_image"):
        assert score(counts, metric) == pytest.approx(totals.scores()[metric])


def test_a_photo_that_is_drawn_twice_counts_twice_and_one_that_is_not_drawn_not_at_all() -> None:
    counts = two_classes([4, 1, 0])
    times = np.array([2, 1, 0])
    # background is predicted 3 times, never true: 0.  class 1: (2 * 4 + 1) / 12 = 3/4, mean 3/8
    assert score(counts, "miou", times) == pytest.approx(3 / 8)
    # the perfect photo has one class, IoU 1; the other background 0 and class 1/4: 1/8
    assert score(counts, "miou_image", times) == pytest.approx((2 * 1 + 1 / 8) / 3)


def test_many_draws_at_once_are_each_as_if_alone() -> None:
    counts = two_classes([4, 1, 0])
    times = torch.tensor([[1.0, 1, 1], [0, 3, 0]], dtype=torch.float64)
    for metric in ("miou", "miou_image"):
        both = resampled_score(torch.from_numpy(counts), metric, times)
        alone = [score(counts, metric, row.long().numpy()) for row in times]
        assert both.tolist() == pytest.approx(alone)


def test_the_noise_of_a_mean_over_photos_is_its_standard_error() -> None:
    # The change makes every second photo perfect: differences of miou_image are d and 0 by turns,
    # with mean d/2 and deviation d/2 over the photos, so the standard error is d/2/sqrt(100).
    before = two_classes([2] * 100)  # background 0, class 2/4: 1/4 each
    after = two_classes([2, 4] * 50)
    compared = compare(before, after, "miou_image", draws=4000)
    assert compared.without == pytest.approx(1 / 4)
    assert compared.gain == pytest.approx((1 - 1 / 4) / 2)
    assert compared.noise == pytest.approx(3 / 8 / 10, rel=0.05)
    assert compared.beyond_noise


def test_what_is_hard_about_photos_is_no_noise_where_each_gains_the_same() -> None:
    # IoU of class 1 from 1/8..6/8 to 2/8..7/8: photos differ, the gain is the same in each (and no
    # photo becomes perfect, which would drop the background from its mean)
    hits = np.tile(np.arange(1, 7), 10)
    before, after = (two_classes(h.tolist(), of=8) for h in (hits, hits + 1))
    compared = compare(before, after, "miou_image")
    assert compared.gain == pytest.approx(1 / 16)
    assert compared.noise == pytest.approx(0, abs=1e-12)
    assert compared.beyond_noise


def test_a_gain_that_one_photo_in_many_makes_is_not_beyond_its_noise() -> None:
    before = two_classes([2] * 40)
    after = before.copy()
    after[0] = [[0, 0], [1, 3]]
    compared = compare(before, after, "miou_image")
    # differences: one of 1/8, 39 of 0: mean (1/8)/40, standard error about (1/8)/40 as well;
    # without the photo the gain is 0, with it twice or thrice it is more
    assert compared.gain == pytest.approx(1 / 320)
    assert compared.noise == pytest.approx(1 / 320 * np.sqrt(39 / 40), rel=0.1)


def test_a_loss_and_no_change_at_all_are_not_beyond_noise() -> None:
    worse, better = two_classes([1] * 10), two_classes([2] * 10)
    assert not compare(better, worse, "miou").beyond_noise
    same = compare(better, better, "miou")
    assert (same.gain, same.noise, same.beyond_noise) == (0.0, 0.0, False)


def test_the_same_seed_gives_the_same_noise() -> None:
    rng = np.random.default_rng(1)
    before, after = (two_classes(rng.integers(0, 5, 30).tolist()) for _ in range(2))
    noises = [compare(before, after, "miou", draws=200, seed=seed).noise for seed in (0, 0, 1)]
    assert noises[0] == noises[1] != noises[2]
