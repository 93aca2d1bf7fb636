"""The estimator of one parameter: densities against Optuna's own, small ones by hand."""

import math

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights

from search.tpe import (
    Scale,
    choice_probabilities,
    draw,
    kernels,
    log_density,
    propose,
    weights_of,
)

NUMBERS: dict[str, FloatDistribution | IntDistribution] = {
    "float": FloatDistribution(-2.0, 3.0),
    "log": FloatDistribution(1e-5, 1e-2, log=True),
    "steps": FloatDistribution(0.0, 1.0, step=0.25),
    "int": IntDistribution(1, 12),
    "int_steps": IntDistribution(64, 256, step=32),
    "int_log": IntDistribution(1, 64, log=True),
}
CHOICES = CategoricalDistribution(["dice", "focal", "lovasz", "tversky"])
ALL: dict[str, BaseDistribution] = {**NUMBERS, "choice": CHOICES}
COUNTS = [0, 1, 2, 3, 30, 130]


def observed(distribution: BaseDistribution, count: int, seed: int = 0) -> np.ndarray:
    """`count` values, in Optuna's internal representation, oldest first."""
    random = np.random.default_rng(seed)
    if isinstance(distribution, CategoricalDistribution):
        return random.integers(0, len(distribution.choices), count).astype(float)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return Scale.of(distribution).from_unit(random.random(count))


def optunas(distribution: BaseDistribution, values: np.ndarray) -> _ParzenEstimator:
    parameters = _ParzenEstimatorParameters(
        prior_weight=1.0, consider_magic_clip=True, consider_endpoints=False,
        weights=default_weights, multivariate=False,
    )  # fmt: skip
    return _ParzenEstimator({"x": values}, {"x": distribution}, parameters)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", NUMBERS)
def test_densities_of_numbers_are_optunas_up_to_a_constant(name: str, count: int) -> None:
    distribution = NUMBERS[name]
    scale, values = Scale.of(distribution), observed(distribution, count)
    points = observed(distribution, 50, seed=1)
    ours = log_density(kernels(scale.to_unit(values)), *scale.cell(points))
    theirs = optunas(distribution, values).log_pdf({"x": points})
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("count", COUNTS)
def test_probabilities_of_choices_are_optunas(count: int) -> None:
    values = observed(CHOICES, count)
    theirs = np.exp(optunas(CHOICES, values).log_pdf({"x": np.arange(4.0)}))
    np.testing.assert_allclose(choice_probabilities(4, values), theirs, rtol=1e-12)


def test_weights_are_even_for_the_newest_and_fall_with_age() -> None:
    """28 trials: ramp of 3 from 1/28 to 1, 25 ones and the prior, 1; in all 1.5536 + 26."""
    weights = weights_of(28)
    ramp = [1 / 28, (1 / 28 + 1) / 2, 1]
    np.testing.assert_allclose(weights, np.array(ramp + [1] * 26) / (sum(ramp) + 26))
    assert weights_of(0).tolist() == [1.0]


def test_a_kernel_is_as_wide_as_the_way_to_its_farther_neighbour() -> None:
    """0.3 and 0.7 are each other's only neighbours; 0.5 lies 0.2 from both; none is narrower than a
    fifth with three trials, and the prior's is the whole range."""
    np.testing.assert_allclose(kernels(np.array([0.7, 0.3])).widths, [0.4, 0.4, 1.0])
    np.testing.assert_allclose(kernels(np.array([0.3, 0.5, 0.7])).widths, [0.2, 0.2, 0.2, 1.0])
    np.testing.assert_allclose(kernels(np.array([0.5, 0.52, 0.54])).widths, [0.2, 0.2, 0.2, 1.0])
    np.testing.assert_allclose(kernels(np.array([0.25])).widths, [0.75, 1.0])


def test_a_density_without_trials_is_a_wide_bell_by_hand() -> None:
    """One kernel at 0.5, as wide as the range, cut off at its ends: ends are exp(-1/8) of the middle."""
    points = np.array([0.0, 0.5, 1.0])
    found = log_density(kernels(np.empty(0)), points, points)
    np.testing.assert_allclose(found - found[1], [-0.125, 0.0, -0.125])


def test_candidates_are_spread_as_the_density_says() -> None:
    """Of one trial at 0.1: its kernel has a width of 0.9. The mean of many draws is that of both
    truncated kernels, by numerical integration."""
    mixture = kernels(np.array([0.1]))
    random = np.random.default_rng(0)
    drawn = np.concatenate([draw(mixture, random) for _ in range(2000)])
    grid = (np.arange(10_000) + 0.5) / 10_000
    density = np.exp(log_density(mixture, grid, grid))
    mean = float((grid * density).sum() / density.sum())
    spread = math.sqrt(float((grid**2 * density).sum() / density.sum()) - mean**2)
    assert abs(drawn.mean() - mean) < 4 * spread / math.sqrt(len(drawn))
    assert drawn.min() >= 0
    assert drawn.max() <= 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("good", "others"), [(0, 0), (1, 0), (3, 40), (12, 250)])
def test_proposals_are_values_of_the_range(name: str, good: int, others: int) -> None:
    distribution = ALL[name]
    known = observed(distribution, good), observed(distribution, others, seed=1)
    for seed in range(20):
        value = propose(distribution, *known, np.random.default_rng(seed))
        assert distribution._contains(value)
        if not isinstance(distribution, CategoricalDistribution):
            assert distribution.to_internal_repr(distribution.to_external_repr(value)) == value


def test_a_choice_that_good_trials_have_more_often_than_others_is_proposed() -> None:
    good, others = np.array([2.0, 2.0, 1.0]), np.array([1.0, 0.0, 3.0, 1.0, 0.0, 3.0])
    found = [propose(CHOICES, good, others, np.random.default_rng(seed)) for seed in range(20)]
    assert found == [2.0] * 20


@pytest.mark.parametrize("name", ["log", "int_log"])
def test_a_number_goes_where_good_trials_are_and_others_are_not(name: str) -> None:
    """Good ones about the middle of the logarithmic range, others spread over all of it."""
    scale = Scale.of(NUMBERS[name])
    good = scale.from_unit(np.linspace(0.45, 0.55, 30))
    others = scale.from_unit(np.linspace(0, 1, 40))
    found = [propose(NUMBERS[name], good, others, np.random.default_rng(n)) for n in range(20)]
    near = np.abs(scale.to_unit(np.array(found)) - 0.5) < 0.15
    assert near.sum() >= 18
