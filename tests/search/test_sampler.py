"""Proposals: a function of what the trials have shown and of the seed."""

import optuna
import pytest
from optuna.trial import TrialState

from search import sampler
from search.sampler import StandingSampler, good_trials
from tests.search.test_standings import COMPLETE, PRUNED, RUNNING, Scores, standings_of, trial

Known = list[tuple[TrialState, Scores, float]]  # state, scores and x of each trial


@pytest.mark.parametrize(
    ("count", "good"), [(1, 1), (8, 1), (9, 2), (32, 2), (33, 3), (100, 4), (1000, 12)]
)
def test_good_ones_are_about_a_third_of_the_root_of_all(count: int, good: int) -> None:
    """0.35 * sqrt: 0.99 for 8, 1.05 for 9, 1.98 for 32, 2.01 for 33, 3.5, 11.07."""
    assert good_trials(count) == good


def propose(known: Known, seed: int, startup: int = 10) -> float:
    study = optuna.create_study()
    trials = [trial(state, scores, x=x) for state, scores, x in known]
    study.sampler = StandingSampler(standings_of(trials, [3], 3.0), startup, seed)
    return study.ask().suggest_float("x", 0.0, 1.0)


def stopped(count: int, state: TrialState = PRUNED) -> Known:
    """The nearer to 0.8, the better; the points are spread evenly, by the golden ratio."""
    points = [(number * 0.618034) % 1.0 for number in range(count)]
    return [(state, {3: 1 - abs(x - 0.8)}, x) for x in points]


def test_a_proposal_is_a_function_of_the_trials_and_the_seed() -> None:
    assert propose(stopped(20), 1) == propose(stopped(20), 1)
    assert propose(stopped(20), 1) != propose(stopped(20), 2)
    assert propose(stopped(20), 1) != propose(stopped(15), 1)


def test_until_enough_trials_are_worth_something_proposals_are_random() -> None:
    assert propose(stopped(9), 1) == propose([], 1)
    assert propose(stopped(10), 1) != propose([], 1)


@pytest.mark.parametrize("state", [PRUNED, RUNNING])
def test_it_learns_from_stopped_and_running_trials_alike(state: TrialState) -> None:
    """Three of four proposals and more lie in the fifth around the best; a fifth would by chance."""
    near = [abs(propose(stopped(20, state), seed) - 0.8) < 0.1 for seed in range(40)]
    assert sum(near) >= 30


def test_proposals_keep_away_from_where_trials_are_under_way() -> None:
    """Sixteen trials that have shown nothing yet, all of them right at the best one."""
    under_way: Known = [(RUNNING, {}, 0.8)] * 16
    near, apart = (
        sum(abs(propose(known, seed) - 0.8) < 0.05 for seed in range(40))
        for known in (stopped(20), stopped(20) + under_way)
    )
    assert apart < near / 2


def test_of_a_long_search_it_sees_the_good_ones_and_the_newest_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 8 trials the first is the good one, and the last two are looked at."""
    monkeypatch.setattr(sampler, "IN_SIGHT", 2)
    points = [0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.9]
    trials: Known = [(COMPLETE, {9: 1 - number / 10}, x) for number, x in enumerate(points)]

    def proposed_with(moved: int | None) -> list[float]:
        known = [(*one[:2], 0.03) if n == moved else one for n, one in enumerate(trials)]
        return [propose(known, seed, startup=3) for seed in range(20)]

    usual = proposed_with(None)
    assert [proposed_with(moved) == usual for moved in range(1, 8)] == [True] * 5 + [False] * 2
