"""The statistics of a study, against numbers that were worked out by hand."""

import math
import random

import pytest

from search.significance import (
    Scores,
    compare,
    holm,
    interval,
    p_value,
    paired,
    spread,
    standard_error,
)

PAIRS = [(fold, seed) for fold in range(3) for seed in range(2)]


def scores(*values: float) -> Scores:
    return dict(zip(PAIRS, values, strict=False))


def test_differences_are_taken_between_the_same_fold_and_seed() -> None:
    variant = {(0, 0): 0.5, (1, 0): 0.25, (7, 0): 0.9}
    baseline = {(1, 0): 0.5, (0, 0): 0.25, (8, 0): 0.1}
    assert paired(variant, baseline) == [0.25, -0.25]


def test_the_standard_error_of_independent_differences_is_s_by_root_n() -> None:
    # 1, 2, 3: mean 2, s^2 = (1 + 0 + 1) / 2 = 1, so s / sqrt(3)
    assert standard_error([1, 2, 3], overlap=0) == pytest.approx(1 / math.sqrt(3))


def test_the_standard_error_grows_with_what_the_folds_share() -> None:
    # five folds: each validates on a quarter of what it trains on; s^2 = 1, 1/3 + 1/4 = 7/12
    assert standard_error([1, 2, 3], overlap=1 / 4) == pytest.approx(math.sqrt(7 / 12))


def test_one_difference_has_no_standard_error() -> None:
    assert standard_error([0.3], overlap=0.25) is None
    assert spread([0.3]) is None


def test_the_p_value_is_students() -> None:
    # Two degrees of freedom: P(T < t) = 1/2 + t / (2 sqrt(2 + t^2)), so p = 1 - t / sqrt(2 + t^2).
    # t = 2 / sqrt(7/12) = 2.6186, t^2 = 48/7, p = 1 - sqrt((48/7) / (62/7)) = 1 - sqrt(48/62)
    error = math.sqrt(7 / 12)
    assert p_value(2, error, degrees=2) == pytest.approx(1 - math.sqrt(48 / 62))
    assert p_value(-2, error, degrees=2) == pytest.approx(1 - math.sqrt(48 / 62))
    # one degree is Cauchy's: P(T < 1) = 3/4
    assert p_value(1, 1, degrees=1) == pytest.approx(0.5)


@pytest.mark.parametrize(("mean", "p"), [(0.0, 1.0), (0.1, 0.0), (-0.1, 0.0)])
def test_differences_that_are_all_the_same_are_certain(mean: float, p: float) -> None:
    assert p_value(mean, 0.0, degrees=4) == p


def test_the_interval_is_students() -> None:
    # two degrees: solve 0.975 = 1/2 + t / (2 sqrt(2 + t^2)), t = 0.95 sqrt(2 / (1 - 0.95^2)) = 4.3027
    reach = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    assert interval(2, 0.5, degrees=2) == pytest.approx((2 - reach / 2, 2 + reach / 2))


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        # smallest 0.01 * 3; next 0.03 * 2; last 0.04 * 1, not less than the one before
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holm_multiplies_the_smallest_by_their_number(
    given: list[float], corrected: list[float]
) -> None:
    assert holm(given) == pytest.approx(corrected)


def test_a_comparison_has_all_of_it() -> None:
    compared = compare(
        {"base": scores(0.1, 0.2, 0.3), "better": scores(0.2, 0.4, 0.6)}, "base", overlap=0.25
    )
    assert list(compared) == ["better"]
    one = compared["better"]
    # differences 0.1, 0.2, 0.3; s = 0.1
    assert (one.pairs, one.difference) == (3, pytest.approx(0.2))
    assert one.standard_error == pytest.approx(0.1 * math.sqrt(7 / 12))
    assert one.p == one.p_holm == pytest.approx(1 - math.sqrt(48 / 62))
    assert one.verdict == "undecided"
    assert one.interval is not None
    assert one.interval[0] < 0 < one.interval[1]


def test_only_differences_that_survive_the_correction_are_called_real() -> None:
    base = scores(0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    variants = {
        "base": base,
        "up": scores(0.30, 0.31, 0.29, 0.30, 0.31, 0.29),
        "down": scores(0.05, 0.06, 0.04, 0.05, 0.06, 0.04),
        "noise": scores(0.05, 0.16, 0.08, 0.13, 0.02, 0.17),
    }
    compared = compare(variants, "base", overlap=0.25)
    assert {name: one.verdict for name, one in compared.items()} == {
        "up": "better",
        "down": "worse",
        "noise": "undecided",
    }
    assert compare(variants | {"copy": base}, "base", 0.25)["copy"].p == 1.0


def test_a_difference_that_is_real_alone_may_not_be_among_many() -> None:
    base = scores(*[0.0] * 6)
    one = scores(0.06, 0.14, 0.08, 0.12, 0.06, 0.14)
    noise = {f"noise_{n}": scores(0.5 + n, -0.5, 0.3, -0.3 - n, 0.1, -0.1) for n in range(9)}
    alone = compare({"base": base, "one": one}, "base", 0.25)["one"]
    among = compare({"base": base, "one": one, **noise}, "base", 0.25)["one"]
    assert alone.p == among.p
    assert alone.verdict == "better"
    assert among.p_holm == pytest.approx(10 * (alone.p or 0))
    assert among.verdict == "undecided"


def test_a_variant_is_compared_on_the_pairs_that_are_there() -> None:
    variants = {
        "base": scores(0.1, 0.2, 0.3),
        "one": scores(0.3),
        "none": {},
        "two": scores(0.3, 0.3),
    }
    compared = compare(variants, "base", overlap=0.5)
    assert list(compared) == ["one", "two"]
    assert compared["one"].difference == pytest.approx(0.2)
    assert compared["one"].p is None
    assert compared["one"].interval is None
    assert compared["one"].verdict == "undecided"
    assert compared["two"].pairs == 2
    # the variant without a standard error is no comparison that Holm has to correct for
    assert compared["two"].p_holm == compared["two"].p


def test_equal_networks_are_seldom_called_different() -> None:
    """2000 studies of 15 trainings each without a difference, correlated as Nadeau & Bengio assume: by
    validation photos / all photos, a fifth of five folds."""
    draw = random.Random(0)
    found = {0.0: 0, 0.25: 0}
    for _ in range(2000):
        common = draw.gauss(0, math.sqrt(0.2))
        values = {(n, 0): common + draw.gauss(0, math.sqrt(0.8)) for n in range(15)}
        for overlap in found:
            compared = compare({"base": dict.fromkeys(values, 0.0), "x": values}, "base", overlap)
            found[overlap] += compared["x"].verdict != "undecided"
    # 5 % are promised: 100, give or take three times sqrt(2000 * 0.05 * 0.95) = 10
    assert 70 <= found[0.25] <= 130
    assert found[0.0] > 400  # what the plain t test would find
