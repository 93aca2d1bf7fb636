"""TPE (Bergstra et al. 2011) on trials of which most were stopped early.

Optuna ranks every finished trial above every stopped one, however bad, and takes a trial under way for
a bad one until it has ended. Here a trial is worth what it has shown so far: see `standings`. Each
parameter is modelled by itself: on learning curves of 34 data sets (docs/performance.md) that found
better settings, and more often, than Optuna's default, one model of all parameters.
"""

import copy
import math
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from search.rungs import fewest_to_judge, places

CANDIDATES = 48  # that are drawn for each parameter; the likeliest to be good is proposed
IN_SIGHT = 250  # how many of the trials that are not good ones are looked at, the newest
Standing = tuple[int, float]


def good_trials(count: int) -> int:
    """How many of `count` trials are good ones: the fewer, the closer to the best it looks."""
    return math.ceil(0.35 * math.sqrt(count))


def standings(
    trials: Sequence[FrozenTrial], rungs: Sequence[int], reduction_factor: float
) -> dict[int, Standing]:
    """By its number, what each trial that has reached the first rung is worth, so far.

    That is the last rung (its epoch, 0 for none) at which the trial's score is among the best
    1 / reduction_factor of all that have reached it, whenever they did, once they are enough to judge;
    then its best score so far.
    So a trial that was stopped is not held to be worse than those that were not judged as strictly, and
    the hand-tuned one, which nothing stops, not better. Failed trials have none.
    """
    alive = [trial for trial in trials if trial.state != TrialState.FAIL]
    worth = {
        trial.number: (0, last_score(trial))
        for trial in alive
        if trial.state == TrialState.COMPLETE or (rungs and rungs[0] in trial.intermediate_values)
    }
    for rung in rungs:
        scores = scores_at(alive, rung)
        if len(scores) < fewest_to_judge(reduction_factor):
            continue
        ranked = sorted(scores.values(), reverse=True)
        for number, score in scores.items():
            if score >= ranked[places(len(ranked), reduction_factor) - 1]:
                worth[number] = (rung, worth[number][1])
    return worth


def scores_at(trials: Sequence[FrozenTrial], rung: int) -> dict[int, float]:
    """Of each trial that has reached the rung, by number, its best score until then; a finished one that
    was out of patience before it has the score that it ended with."""
    scores = {}
    for trial in trials:
        if rung in trial.intermediate_values:
            scores[trial.number] = trial.intermediate_values[rung]
        elif trial.state == TrialState.COMPLETE:
            scores[trial.number] = last_score(trial)
    return scores


def last_score(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]


class StandingSampler(optuna.samplers.BaseSampler):
    """Draws one proposal, after `trials`; a function of them and of the seed.

    At random, until `startup_trials` of them are worth something.
    """

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        rungs: Sequence[int],
        reduction_factor: float,
        startup_trials: int,
        seed: int,
    ) -> None:
        worth = standings(trials, rungs, reduction_factor)
        good = good_trials(len(worth))
        self._seen = Seen(in_sight(trials, worth, good))
        self._draw: optuna.samplers.BaseSampler = (
            optuna.samplers.RandomSampler(seed)
            if len(worth) < startup_trials
            else make_tpe(good, seed)
        )

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
        return self._draw.sample_independent(self._seen, trial, param_name, param_distribution)


def make_tpe(good: int, seed: int) -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():  # that Optuna 6 will have no `gamma`
        warnings.simplefilter("ignore", FutureWarning)
        return optuna.samplers.TPESampler(
            multivariate=False,
            n_startup_trials=0,
            n_ei_candidates=CANDIDATES,
            gamma=lambda seen: good,
            seed=seed,
        )


class Seen(optuna.Study):
    """The study that TPE learns from: these trials and no others."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        storage = optuna.storages.InMemoryStorage()
        storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "seen")
        super().__init__("seen", storage)
        self._trials = trials

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        """What a sampler asks. Optuna's own would copy every trial into the storage first."""
        return [trial for trial in self._trials if states is None or trial.state in states]


def in_sight(
    trials: Sequence[FrozenTrial], worth: Mapping[int, Standing], good: int
) -> list[FrozenTrial]:
    """What TPE is shown, by number: the good ones and the newest others, so that a proposal costs the
    same however long the search is (TPE gives older ones less weight in any case).

    Those of some worth are complete, with their place from the worst on as value. Those that have not
    reached a rung yet are running, which keeps others from the same spot.
    """
    value = {standing: place for place, standing in enumerate(sorted(set(worth.values())))}
    best = set(sorted(worth, key=lambda number: (worth[number], -number), reverse=True)[:good])
    known = [t for t in trials if t.number in worth or t.state == TrialState.RUNNING]
    others = [trial.number for trial in known if trial.number not in best]
    shown = best.union(others[-IN_SIGHT:])
    return [
        valued(trial, value[worth[trial.number]]) if trial.number in worth else trial
        for trial in known
        if trial.number in shown
    ]


def valued(trial: FrozenTrial, value: float) -> FrozenTrial:
    """The trial as one that has ended with `value`."""
    seen = copy.copy(trial)
    seen.state, seen.value = TrialState.COMPLETE, float(value)
    return seen
