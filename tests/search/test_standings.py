"""What a trial is worth to the sampler, by hand."""

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.standings import Standings

PRUNED, RUNNING, COMPLETE, FAIL = (
    TrialState.PRUNED, TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL
)  # fmt: skip
RANGE = optuna.distributions.FloatDistribution(0.0, 1.0)
LOSSES = optuna.distributions.CategoricalDistribution(["dice", "focal"])
Scores = dict[int, float]


def trial(state: TrialState, scores: Scores, **params: float | str) -> FrozenTrial:
    params = params or {"x": 0.5}
    return optuna.trial.create_trial(
        state=state,
        value=scores[max(scores)] if state == COMPLETE else None,
        params=params,
        distributions={name: RANGE if name == "x" else LOSSES for name in params},
        intermediate_values=scores,
    )


def worth(trials: list[FrozenTrial], rungs: list[int], factor: float) -> dict[int, object]:
    return dict(standings_of(trials, rungs, factor).worth())


def standings_of(trials: list[FrozenTrial], rungs: list[int], factor: float) -> Standings:
    standings = Standings(["loss", "x"], rungs, factor)
    for one in trials:
        standings.take_in(one)
    return standings


def test_a_trial_is_worth_the_last_rung_at_which_it_is_among_the_best_then_its_score() -> None:
    """Rungs at 3 and 9, the best third. At 3: 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, two places, so from 0.5 on.
    At 9: 0.7, 0.65 and 0.6, one place."""
    trials = [
        trial(COMPLETE, {3: 0.6, 9: 0.65, 12: 0.66}),
        trial(PRUNED, {3: 0.4}),
        trial(RUNNING, {3: 0.5, 9: 0.7, 10: 0.72}),
        trial(PRUNED, {3: 0.3, 9: 0.6}),
        trial(PRUNED, {3: 0.2}),
        trial(PRUNED, {3: 0.1}),
    ]
    assert worth(trials, [3, 9], 3.0) == {
        0: (3, 0.66),
        1: (0, 0.4),
        2: (9, 0.72),
        3: (0, 0.6),
        4: (0, 0.2),
        5: (0, 0.1),
    }


def test_the_best_come_first_by_their_rung_then_by_their_score_then_by_their_age() -> None:
    """At 3 the best third of six: 0.6 and 0.5. Of the others the two with 0.2 are equal."""
    scores: list[Scores] = [{3: 0.2}, {3: 0.5}, {3: 0.3, 4: 0.9}, {3: 0.6}, {3: 0.2}, {3: 0.1}]
    found = standings_of([trial(PRUNED, one) for one in scores], [3], 3.0).best_first()
    assert found.tolist() == [3, 1, 2, 0, 4, 5]


def test_a_bad_hand_tuned_trial_is_not_worth_more_because_nothing_stops_it() -> None:
    """At 3 one place of three; two at 9 are too few to judge."""
    trials = [
        trial(COMPLETE, {3: 0.1, 9: 0.2}),
        trial(RUNNING, {3: 0.5, 9: 0.6}),
        trial(PRUNED, {3: 0.3}),
    ]
    assert worth(trials, [3, 9], 3.0) == {0: (0, 0.2), 1: (3, 0.6), 2: (0, 0.3)}


def test_first_arrivals_are_judged_by_those_that_came_later() -> None:
    """Trial 0 went on because it was the first at 3; since then two came that are better."""
    trials = [
        trial(RUNNING, {3: 0.1, 4: 0.2}),
        trial(RUNNING, {3: 0.5}),
        trial(RUNNING, {3: 0.4}),
    ]
    assert worth(trials[:2], [3], 3.0) == {0: (0, 0.2), 1: (0, 0.5)}
    assert worth(trials, [3], 3.0) == {0: (0, 0.2), 1: (3, 0.5), 2: (0, 0.4)}


def test_a_finished_trial_out_of_patience_keeps_its_score_at_later_rungs() -> None:
    trials = [
        trial(COMPLETE, {3: 0.5, 5: 0.6}),
        trial(COMPLETE, {3: 0.4, 9: 0.55}),
        trial(COMPLETE, {3: 0.3, 9: 0.5}),
    ]
    assert worth(trials, [3, 9], 2.0) == {0: (9, 0.6), 1: (0, 0.55), 2: (0, 0.5)}


def test_failed_trials_and_those_before_the_first_rung_are_worth_nothing_yet() -> None:
    trials = [trial(FAIL, {3: 0.9}), trial(RUNNING, {2: 0.8}), trial(RUNNING, {})]
    standings = standings_of(trials, [3, 9], 3.0)
    assert standings.worth() == {}
    assert standings.rows_before_a_rung().tolist() == [1, 2]


def test_without_rungs_finished_trials_are_worth_their_scores() -> None:
    trials = [trial(COMPLETE, {3: 0.5}), trial(RUNNING, {2: 0.9})]
    assert worth(trials, [], 3.0) == {0: (0, 0.5)}


def test_events_one_by_one_come_to_the_same_as_whole_trials() -> None:
    """200 trials, more than there is room for at first, whose epochs come in turns."""
    random = np.random.default_rng(0)
    curves = [np.maximum.accumulate(random.random(count)) for count in random.integers(1, 10, 200)]
    states = [(RUNNING, PRUNED, COMPLETE, FAIL)[number % 4] for number in range(200)]
    whole = standings_of(
        [
            trial(state, {epoch: float(score) for epoch, score in enumerate(curve, 1)})
            for curve, state in zip(curves, states, strict=True)
        ],
        [1, 3, 9],
        3.0,
    )
    told = Standings(["loss", "x"], [1, 3, 9], 3.0)
    for _ in curves:
        told.proposed(trial(RUNNING, {}))
    for epoch in range(1, 11):
        for row, curve in enumerate(curves):
            if epoch <= len(curve):
                told.reported(row, epoch, float(curve[epoch - 1]))
    for row, state in enumerate(states):
        told.ended(row, state)
    assert told.worth() == whole.worth()
    assert told.rows_before_a_rung().tolist() == whole.rows_before_a_rung().tolist()


def test_values_are_those_of_the_trials_that_have_the_parameter() -> None:
    """Choices by their number."""
    standings = standings_of(
        [
            trial(PRUNED, {}, x=0.25),
            trial(PRUNED, {}, loss="focal"),
            trial(PRUNED, {}, x=0.5, loss="dice"),
        ],
        [3],
        3.0,
    )
    rows = np.array([0, 1, 2])
    assert standings.values(rows, "x").tolist() == [0.25, 0.5]
    assert standings.values(rows, "loss").tolist() == [1.0, 0.0]
    assert standings.values(rows[:2], "x").tolist() == [0.25]
