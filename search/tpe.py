"""The tree-structured Parzen estimator of one parameter (Bergstra et al. 2011).

Of some values that are drawn from l the one with the greatest l(x) / g(x) is proposed, where l is the
density of the good trials' values and g that of the others'. Both are as in Optuna's TPESampler, number
for number; but that takes three to seven times as long for a proposal, and longer with every trial.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy.special import ndtr, ndtri

CANDIDATES = 48
EVEN = 25  # of the newest trials, which weigh the same; older ones weigh the less, the older
MOST_KERNELS = 100.0  # a kernel is never narrower than a hundredth of the range
Values = NDArray[np.float64]


def propose(
    distribution: BaseDistribution, good: Values, others: Values, random: np.random.Generator
) -> float:
    """A value, in Optuna's internal representation, as `good` (n,) and `others` (m,) are: the values of
    those trials that have the parameter, oldest first."""
    if isinstance(distribution, CategoricalDistribution):
        return _propose_choice(len(distribution.choices), good, others, random)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return _propose_number(Scale.of(distribution), good, others, random)


def _propose_choice(
    choices: int, good: Values, others: Values, random: np.random.Generator
) -> float:
    likely = choice_probabilities(choices, good)
    candidates = random.choice(choices, CANDIDATES, p=likely)
    ratio = np.log(likely) - np.log(choice_probabilities(choices, others))
    return float(candidates[np.argmax(ratio[candidates])])


def _propose_number(
    scale: "Scale", good: Values, others: Values, random: np.random.Generator
) -> float:
    likely = kernels(scale.to_unit(good))
    candidates = scale.from_unit(draw(likely, random))
    below, above = scale.cell(candidates)
    ratio = log_density(likely, below, above) - log_density(
        kernels(scale.to_unit(others)), below, above
    )
    return float(candidates[np.argmax(ratio)])


def weights_of(count: int) -> Values:
    """Of so many trials, oldest first, and behind them of the prior, (count + 1,); their sum is 1."""
    ramp = np.linspace(1 / max(count, 1), 1.0, max(count - EVEN, 0))
    weights = np.concatenate([ramp, np.ones(min(count, EVEN) + 1)])
    return np.asarray(weights / weights.sum())


def choice_probabilities(choices: int, observed: Values) -> Values:
    """(choices,), none of them 0: each trial's own choice, and a share for all."""
    count = len(observed)
    share = 1 / (count + 1)
    weights = weights_of(count)
    probabilities = np.full(choices, weights[-1] / choices)
    probabilities += weights[:-1].sum() * share / (1 + choices * share)
    np.add.at(probabilities, observed.astype(int), weights[:-1] / (1 + choices * share))
    return probabilities


# --- numbers -----------------------------------------------------------------------------------


class Scale(NamedTuple):
    """The range of a number as 0 to 1, where it is modelled: logarithmic ones are even there, and one
    with steps has half a step more at each end."""

    low: float
    high: float
    step: float | None
    log: bool

    @classmethod
    def of(cls, distribution: FloatDistribution | IntDistribution) -> "Scale":
        low, high, step = distribution.low, distribution.high, distribution.step
        return cls(low, high, step, distribution.log)

    @property
    def _ends(self) -> tuple[float, float]:
        half = (self.step or 0) / 2
        low, high = self.low - half, self.high + half
        return (float(np.log(low)), float(np.log(high))) if self.log else (low, high)

    def to_unit(self, values: Values) -> Values:
        low, high = self._ends
        return ((np.log(values) if self.log else values) - low) / (high - low)

    def from_unit(self, units: Values) -> Values:
        """Values of the range; with steps, the nearest one."""
        low, high = self._ends
        values = low + units * (high - low)
        values = np.exp(values) if self.log else values
        if self.step:
            values = self.low + np.round((values - self.low) / self.step) * self.step
        return np.clip(values, self.low, self.high)

    def cell(self, values: Values) -> tuple[Values, Values]:
        """Where each value's step begins and ends, from 0 to 1; the value itself twice without steps."""
        half = (self.step or 0) / 2
        return self.to_unit(values - half), self.to_unit(values + half)


class Kernels(NamedTuple):
    """A density from 0 to 1: normal distributions, cut off there. All arrays are (K,)."""

    weights: Values
    centres: Values
    widths: Values

    @property
    def within(self) -> tuple[Values, Values]:
        """The distribution function of each kernel at 0 and at 1."""
        return ndtr(-self.centres / self.widths), ndtr((1 - self.centres) / self.widths)


def kernels(observed: Values) -> Kernels:
    """One for each value of `observed` (n,), as wide as the way to the farther of its neighbours, and
    one for what is known without any, as wide as the range."""
    count = len(observed)
    order = np.argsort(observed)
    gaps = np.diff(observed[order], prepend=0.0, append=1.0)
    if count >= 2:  # the ends of the range are no neighbours
        gaps[0], gaps[-1] = gaps[1], gaps[-2]
    widths = np.empty(count + 1)
    widths[order] = np.maximum(gaps[:-1], gaps[1:])
    widths[:count] = np.clip(widths[:count], 1 / min(MOST_KERNELS, 2.0 + count), 1.0)
    widths[count] = 1.0
    return Kernels(weights_of(count), np.append(observed, 0.5), widths)


def draw(likely: Kernels, random: np.random.Generator) -> Values:
    """CANDIDATES values from 0 to 1."""
    chosen = random.choice(len(likely.weights), CANDIDATES, p=likely.weights)
    from_, to = (ends[chosen] for ends in likely.within)
    drawn = ndtri(from_ + (to - from_) * random.random(CANDIDATES))
    values = likely.centres[chosen] + likely.widths[chosen] * drawn
    return np.asarray(np.clip(values, 0.0, 1.0))


def log_density(mixture: Kernels, below: Values, above: Values) -> Values:
    """(N,), of the values that are cells from `below` to `above` (N,), or points where these are equal;
    up to a constant that is the same for every mixture."""
    from_, to = mixture.within
    heights = mixture.weights / (to - from_)
    left = (below[:, None] - mixture.centres) / mixture.widths
    if np.array_equal(below, above):
        densities = np.exp(-0.5 * left**2) @ (heights / mixture.widths)
    else:
        right = (above[:, None] - mixture.centres) / mixture.widths
        densities = (ndtr(right) - ndtr(left)) @ heights
    return np.asarray(np.log(densities))
