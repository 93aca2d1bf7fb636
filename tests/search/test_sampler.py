"""What a trial is worth to the sampler, by hand."""

from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search import sampler
from search.sampler import StandingSampler, good_trials, in_sight, standings

PRUNED, RUNNING, COMPLETE, FAIL = (
    TrialState.PRUNED, TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL
)  # fmt: skip
RANGE = optuna.distributions.FloatDistribution(0.0, 1.0)


def trial(number: int, state: TrialState, scores: dict[int, float], x: float = 0.5) -> FrozenTrial:
    made = optuna.trial.create_trial(
        state=state,
        value=scores[max(scores)] if state == COMPLETE else None,
        params={"x": x},
        distributions={"x": RANGE},
        intermediate_values=scores,
    )
    made.number = number
    return made


# --- what a trial is worth -------------------------------------------------------------------------


def test_a_trial_is_worth_the_last_rung_at_which_it_is_among_the_best_then_its_score() -> None:
    """Rungs at 3 and 9, the best third. At 3: 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, two places, so from 0.5 on.
    At 9: 0.7, 0.65 and 0.6, one place."""
    trials = [
        trial(0, COMPLETE, {3: 0.6, 9: 0.65, 12: 0.66}),
        trial(1, PRUNED, {3: 0.4}),
        trial(2, RUNNING, {3: 0.5, 9: 0.7, 10: 0.72}),
        trial(3, PRUNED, {3: 0.3, 9: 0.6}),
        trial(4, PRUNED, {3: 0.2}),
        trial(5, PRUNED, {3: 0.1}),
    ]
    assert standings(trials, [3, 9], 3.0) == {
        0: (3, 0.66),
        1: (0, 0.4),
        2: (9, 0.72),
        3: (0, 0.6),
        4: (0, 0.2),
        5: (0, 0.1),
    }


def test_a_bad_hand_tuned_trial_is_not_worth_more_because_nothing_stops_it() -> None:
    """At 3 one place of three; two at 9 are too few to judge."""
    trials = [
        trial(0, COMPLETE, {3: 0.1, 9: 0.2}),
        trial(1, RUNNING, {3: 0.5, 9: 0.6}),
        trial(2, PRUNED, {3: 0.3}),
    ]
    assert standings(trials, [3, 9], 3.0) == {0: (0, 0.2), 1: (3, 0.6), 2: (0, 0.3)}


def test_first_arrivals_are_judged_by_those_that_came_later() -> None:
    """Trial 0 went on because it was the first at 3; since then two came that are better."""
    trials = [
        trial(0, RUNNING, {3: 0.1, 4: 0.2}),
        trial(1, RUNNING, {3: 0.5}),
        trial(2, RUNNING, {3: 0.4}),
    ]
    assert standings(trials[:2], [3], 3.0) == {0: (0, 0.2), 1: (0, 0.5)}
    assert standings(trials, [3], 3.0) == {0: (0, 0.2), 1: (3, 0.5), 2: (0, 0.4)}


def test_a_finished_trial_out_of_patience_keeps_its_score_at_later_rungs() -> None:
    trials = [
        trial(0, COMPLETE, {3: 0.5, 5: 0.6}),
        trial(1, COMPLETE, {3: 0.4, 9: 0.55}),
        trial(2, COMPLETE, {3: 0.3, 9: 0.5}),
    ]
    assert standings(trials, [3, 9], 2.0) == {0: (9, 0.6), 1: (0, 0.55), 2: (0, 0.5)}


def test_failed_trials_and_those_before_the_first_rung_are_worth_nothing_yet() -> None:
    trials = [trial(0, FAIL, {3: 0.9}), trial(1, RUNNING, {2: 0.8}), trial(2, RUNNING, {})]
    assert standings(trials, [3, 9], 3.0) == {}


def test_without_rungs_finished_trials_are_worth_their_scores() -> None:
    trials = [trial(0, COMPLETE, {3: 0.5}), trial(1, RUNNING, {2: 0.9})]
    assert standings(trials, [], 3.0) == {0: (0, 0.5)}


@pytest.mark.parametrize(
    ("count", "good"), [(1, 1), (8, 1), (9, 2), (32, 2), (33, 3), (100, 4), (1000, 12)]
)
def test_good_ones_are_about_a_third_of_the_root_of_all(count: int, good: int) -> None:
    """0.35 * sqrt: 0.99 for 8, 1.05 for 9, 1.98 for 32, 2.01 for 33, 3.5, 11.07."""
    assert good_trials(count) == good


# --- what TPE is shown -----------------------------------------------------------------------------


def test_tpe_sees_the_order_as_values_and_the_unjudged_as_running() -> None:
    trials = [
        trial(0, COMPLETE, {3: 0.1, 9: 0.2}),
        trial(1, RUNNING, {3: 0.5, 9: 0.6}),
        trial(2, PRUNED, {3: 0.2}),
        trial(3, RUNNING, {1: 0.9}),
        trial(4, FAIL, {}),
    ]
    seen = in_sight(trials, standings(trials, [3, 9], 3.0), good=1)
    assert [(t.number, t.state, t.value) for t in seen] == [
        (0, COMPLETE, 0.0),  # (0, 0.2), as trial 2
        (1, COMPLETE, 1.0),  # (3, 0.6)
        (2, COMPLETE, 0.0),
        (3, RUNNING, None),
    ]
    assert [t.state for t in trials] == [COMPLETE, RUNNING, PRUNED, RUNNING, FAIL]  # untouched


def test_of_a_long_search_it_sees_the_good_ones_and_the_newest_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampler, "IN_SIGHT", 3)
    trials = [trial(number, COMPLETE, {9: 1 - number / 10}) for number in range(8)]
    seen = in_sight(trials, standings(trials, [], 3.0), good=2)
    assert [t.number for t in seen] == [0, 1, 5, 6, 7]


# --- proposals -------------------------------------------------------------------------------------


def propose(trials: list[FrozenTrial], seed: int, startup: int = 10) -> float:
    study = optuna.create_study()
    study.sampler = StandingSampler(trials, [3], 3.0, startup, seed)
    return study.ask().suggest_float("x", 0.0, 1.0)


def pruned(count: int, **changes: Any) -> list[FrozenTrial]:
    """The nearer to 0.8, the better; the points are spread evenly, by the golden ratio."""
    points = [(number * 0.618034) % 1.0 for number in range(count)]
    return [trial(n, PRUNED, {3: 1 - abs(x - 0.8)}, x) for n, x in enumerate(points)]


def test_a_proposal_is_a_function_of_the_trials_and_the_seed() -> None:
    trials = pruned(20)
    assert propose(trials, 1) == propose(trials, 1)
    assert propose(trials, 1) != propose(trials, 2)
    assert propose(trials, 1) != propose(trials[:15], 1)


def test_until_enough_trials_are_worth_something_proposals_are_random() -> None:
    assert propose(pruned(9), 1) == propose([], 1)
    assert propose(pruned(10), 1) != propose([], 1)


def test_it_learns_from_stopped_and_running_trials_alike() -> None:
    """Three of four proposals and more lie in the fifth around the best; a fifth would by chance."""
    stopped = pruned(20)
    running = [trial(t.number, RUNNING, t.intermediate_values, t.params["x"]) for t in stopped]
    for trials in (stopped, running):
        near = [abs(propose(trials, seed) - 0.8) < 0.1 for seed in range(40)]
        assert sum(near) >= 30
