"""Proposals by TPE, which learns from what each trial has shown so far (search/standings.py).

Each parameter is modelled by itself: on learning curves of 34 data sets (docs/performance.md) that found
better settings, and more often, than Optuna's default, one model of all parameters.
"""

import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from search.standings import Standings
from search.tpe import propose

IN_SIGHT = 250  # how many of the trials that are not good ones are looked at, the newest


def good_trials(count: int) -> int:
    """How many of `count` trials are good ones: the fewer, the closer to the best it looks."""
    return math.ceil(0.35 * math.sqrt(count))


class StandingSampler(optuna.samplers.BaseSampler):
    """Draws one proposal: a function of the trials in `standings` and of the seed.

    At random, until `startup_trials` of them are worth something. Trials that have shown nothing yet
    count as bad ones, so that proposals that are made at about the same time keep apart (the constant
    liar of Ginsbourger et al. 2010).
    """

    def __init__(self, standings: Standings, startup_trials: int, seed: int) -> None:
        self._standings = standings
        ranked = standings.best_first()
        self._random = optuna.samplers.RandomSampler(seed) if len(ranked) < startup_trials else None
        self._generator = np.random.default_rng(seed)
        good = good_trials(len(ranked))
        self._good = np.sort(ranked[:good])
        others = np.concatenate([ranked[good:], standings.rows_before_a_rung()])
        self._others = np.sort(others)[-IN_SIGHT:]  # older ones weigh little in any case

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}  # each parameter by itself

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if self._random:
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        good, others = (
            self._standings.values(rows, param_name) for rows in (self._good, self._others)
        )
        internal = propose(param_distribution, good, others, self._generator)
        return param_distribution.to_external_repr(internal)
