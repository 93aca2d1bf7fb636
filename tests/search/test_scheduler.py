"""ASHA by hand: where the rungs are, who goes on, and which number it counts by."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.config import SearchConfig
from search.rungs import Arrivals, rung_epochs
from search.scheduler import SuccessiveHalving
from search.space import load_space
from tests.search.ledgers import open_ledger

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
NO_CONTROLLER = cast(TuneController, None)  # the scheduler does not look at it
SPACE = load_space("optim")


def make_config(epochs: int, grace: int, factor: float, metric: str = "miou") -> SearchConfig:
    search = {"grace_period": grace, "reduction_factor": factor}
    return SearchConfig.model_validate({"epochs": epochs, "metric": metric, "search": search})


@dataclass
class NamedTrial:
    """What the scheduler needs of a Tune trial: its name."""

    name: str

    def __str__(self) -> str:
        return self.name


class Arena:
    """A scheduler that is told results by trial name: trial_000 is the hand-tuned one, then a, b, ..."""

    def __init__(self, folder: Path, config: SearchConfig) -> None:
        self.file, self.config = folder / "study.db", config
        self.reopen()
        for _ in range(len(NAMES) + 1):
            self.ledger.propose()

    def reopen(self) -> None:
        """As after a kill: all that is known is on disk."""
        self.ledger = open_ledger(self.file, self.config, SPACE)
        self.scheduler = SuccessiveHalving(self.config, self.ledger)

    def hears(self, name: str, epoch: int, score: float, finished: bool = False) -> str:
        result: dict[str, Any] = {
            "epoch": epoch,
            "best_miou": score,
            "finished": finished,
            "training_iteration": 1,  # as after every restart: it must not matter
        }
        trial = cast(Trial, NamedTrial(NAMES.get(name, name)))
        return self.scheduler.on_trial_result(NO_CONTROLLER, trial, result)

    def rung(self, epoch: int) -> dict[str, float]:
        letters = {name: letter for letter, name in NAMES.items()}
        scores = self.scheduler.rungs[epoch].scores
        return {letters.get(name, name): score for name, score in scores.items()}


NAMES = {letter: f"trial_{number:03d}" for number, letter in enumerate("abcdef", start=1)}
Make = Callable[[SearchConfig], Arena]


@pytest.fixture
def arena_of(tmp_path: Path) -> Make:
    return lambda config: Arena(tmp_path, config)


# --- rungs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "grace", "factor", "expected"),
    [
        (30, 3, 3.0, [3, 9, 27]),
        (27, 3, 3.0, [3, 9]),  # 27 is the last epoch: nothing is left to stop
        (28, 3, 3.0, [3, 9, 27]),
        (100, 5, 3.0, [5, 15, 45]),  # 135 is beyond
        (9, 3, 3.0, [3]),
        (3, 3, 3.0, []),
        (3, 1, 2.0, [1, 2]),
        (10, 2, 1.5, [2, 3, 4, 7]),  # 2, 3, 4.5 (to even), 6.75; 10.125 is beyond
        (4, 1, 1.2, [1, 2, 3]),  # 1, 1.2, 1.44, 1.73, 2.07, 2.49, 2.99, 3.58: 4 is the last
    ],
)
def test_rungs_are_the_grace_period_times_powers_below_the_last_epoch(
    epochs: int, grace: int, factor: float, expected: list[int]
) -> None:
    assert rung_epochs(make_config(epochs, grace, factor)) == expected


# --- who goes on -------------------------------------------------------------------------------


def passes(scores: list[float], factor: float) -> list[bool]:
    """Whether each score goes on, arriving one after another."""
    rung = Arrivals({})
    answers = []
    for number, score in enumerate(scores):
        rung.add(str(number), score)
        answers.append(rung.lets_go_on(str(number), factor))
    return answers


@pytest.mark.parametrize(
    ("scores", "factor", "expected"),
    [
        # falling: the first two pass unjudged; then 1 of 3, 4, 5 goes on, 2 of 6: never the worst
        ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 3.0, [True, True, False, False, False, False]),
        # rising: everyone is the best so far
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 3.0, [True] * 6),
        # the second best goes on from the sixth on: floor(6 / 3) = 2
        ([0.9, 0.1, 0.5, 0.5, 0.5, 0.8], 3.0, [True, True, False, False, False, True]),
        ([0.9, 0.1, 0.5, 0.5, 0.8], 3.0, [True, True, False, False, False]),
        # halving: floor(3/2) = 1, floor(4/2) = 2, floor(5/2) = 2, floor(6/2) = 3 go on
        ([0.9, 0.1, 0.8, 0.7, 0.85, 0.82], 2.0, [True, True, False, False, True, True]),
        # a factor of 5: the first four pass, then the best one does
        ([0.9, 0.1, 0.2, 0.3, 0.8, 0.95], 5.0, [True, True, True, True, False, True]),
        # equals of the best go on: nobody is better
        ([0.5, 0.5, 0.5, 0.5, 0.4, 0.5], 3.0, [True, True, True, True, False, True]),
        # a score of zero is a score
        ([0.0, 0.0, 0.0], 3.0, [True, True, True]),
    ],
)
def test_who_goes_on_of_one_to_six_arrivals(
    scores: list[float], factor: float, expected: list[bool]
) -> None:
    assert passes(scores, factor) == expected


# --- the scheduler -----------------------------------------------------------------------------


def test_a_weak_trial_is_stopped_at_a_rung_and_not_before(arena_of: Make) -> None:
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))  # rungs at 3 and 9
    for name, score in (("a", 0.5), ("b", 0.4)):
        for epoch in (1, 2, 3, 4):
            assert arena.hears(name, epoch, score) == CONTINUE
    assert arena.hears("c", 1, 0.1) == CONTINUE
    assert arena.hears("c", 2, 0.1) == CONTINUE
    assert arena.hears("c", 3, 0.1) == STOP
    assert arena.rung(3) == {"a": 0.5, "b": 0.4, "c": 0.1}
    assert arena.rung(9) == {}
    assert arena.scheduler.stopped == {NAMES["c"]}


def test_a_trial_is_stopped_after_a_rung_once_too_many_better_ones_have_arrived_there(
    arena_of: Make,
) -> None:
    """floor(3 / 3), floor(4 / 3) and floor(5 / 3) are one place, floor(6 / 3) are two."""
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    assert arena.hears("a", 3, 0.5) == CONTINUE
    assert arena.hears("b", 3, 0.1) == CONTINUE
    assert arena.hears("b", 4, 0.1) == CONTINUE  # two are too few to judge
    assert arena.hears("c", 3, 0.6) == CONTINUE
    assert arena.hears("b", 5, 0.9) == STOP  # by what it had at the rung, whatever it has now
    assert arena.scheduler.stopped == {NAMES["b"]}
    assert arena.hears("c", 4, 0.6) == CONTINUE
    assert arena.rung(3) == {"a": 0.5, "b": 0.1, "c": 0.6}


def test_the_second_best_of_a_rung_goes_on_while_there_are_two_places(arena_of: Make) -> None:
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    for name, score in (("trial_000", 0.1), ("a", 0.2), ("e", 0.3), ("f", 0.4), ("b", 0.8)):
        arena.hears(name, 3, score)
    assert arena.hears("c", 3, 0.9) == CONTINUE
    assert arena.hears("b", 4, 0.8) == CONTINUE
    assert arena.hears("d", 3, 0.85) == CONTINUE  # seven have arrived: still two places
    assert arena.hears("b", 5, 0.8) == STOP
    assert arena.hears("c", 4, 0.9) == CONTINUE


def test_a_trial_has_to_stay_among_the_best_of_the_rungs_before_its_last(arena_of: Make) -> None:
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    for name in ("a", "b"):
        arena.hears(name, 3, 0.5)
    assert arena.hears("a", 9, 0.7) == CONTINUE  # alone at the second rung
    assert arena.hears("c", 3, 0.6) == CONTINUE
    assert arena.hears("a", 10, 0.7) == STOP


def test_the_hand_tuned_trial_is_never_stopped_but_sets_the_bar(arena_of: Make) -> None:
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    for name in ("a", "b", "c"):
        arena.hears(name, 3, 0.5)
        arena.hears(name, 9, 0.6)
    assert arena.hears("trial_000", 3, 0.01) == CONTINUE
    assert arena.hears("trial_000", 9, 0.02) == CONTINUE
    assert arena.rung(3)["trial_000"] == 0.01
    assert arena.rung(9)["trial_000"] == 0.02
    assert arena.hears("d", 3, 0.005) == STOP


def test_a_hand_tuned_trial_that_is_best_stops_the_others(arena_of: Make) -> None:
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    arena.hears("trial_000", 3, 0.9)
    arena.hears("a", 3, 0.1)
    assert arena.hears("b", 3, 0.8) == STOP


def test_a_trial_that_ends_at_a_rung_is_recorded_and_not_stopped(arena_of: Make) -> None:
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    arena.hears("a", 3, 0.5)
    arena.hears("b", 3, 0.5)
    assert arena.hears("c", 3, 0.1, finished=True) == CONTINUE  # out of patience
    assert arena.rung(3)["c"] == 0.1


def test_it_compares_the_metric_that_the_search_is_about(tmp_path: Path) -> None:
    arena = Arena(tmp_path, make_config(9, 3, 3.0, "miou_image"))
    for name, score in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        result = {"epoch": 3, "best_miou": 1 - score, "best_miou_image": score, "finished": False}
        trial = cast(Trial, NamedTrial(NAMES[name]))
        assert arena.scheduler.on_trial_result(NO_CONTROLLER, trial, result) == CONTINUE
    assert arena.rung(3) == {"a": 0.1, "b": 0.2, "c": 0.3}


def test_a_trial_that_reports_its_failure_is_stopped_and_enters_no_rung(arena_of: Make) -> None:
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    trial = cast(Trial, NamedTrial(NAMES["a"]))
    failure = {"error": "NonFiniteError: ...", "traceback": "..."}
    assert arena.scheduler.on_trial_result(NO_CONTROLLER, trial, failure) == STOP
    assert arena.rung(3) == {}
    assert arena.scheduler.stopped == set()


# --- after a kill ------------------------------------------------------------------------------


def test_the_rungs_of_a_killed_search_come_back_in_their_order(arena_of: Make) -> None:
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    for name, score in (("c", 0.1), ("a", 0.5), ("b", 0.4)):
        arena.hears(name, 3, score)
    arena.hears("a", 9, 0.6)
    before = {epoch: list(arena.rung(epoch).items()) for epoch in (3, 9)}
    arena.reopen()
    assert {epoch: list(arena.rung(epoch).items()) for epoch in (3, 9)} == before
    assert before[3] == [("c", 0.1), ("a", 0.5), ("b", 0.4)]


def test_after_a_kill_a_trial_is_judged_as_it_would_have_been_without(arena_of: Make) -> None:
    """c passed as the first arrival, and would not have had another epoch."""
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    decisions = {}
    for name, score in (("c", 0.1), ("a", 0.5), ("b", 0.6), ("d", 0.4)):
        decisions[name] = arena.hears(name, 3, score)
    assert decisions == {"c": CONTINUE, "a": CONTINUE, "b": CONTINUE, "d": STOP}
    without = {name: arena.hears(name, 4, 0.7) for name in "abcd"}
    assert without == {"a": STOP, "b": CONTINUE, "c": STOP, "d": STOP}
    arena.reopen()
    for name, score in (("d", 0.4), ("b", 0.6), ("a", 0.5), ("c", 0.1)):
        assert arena.hears(name, 3, score) == without[name]
    assert list(arena.rung(3)) == ["c", "a", "b", "d"]


def test_an_epoch_that_was_entered_without_its_arrival_arrives_when_it_is_repeated(
    arena_of: Make,
) -> None:
    """The kill came between the two transactions: no decision was made yet."""
    arena = arena_of(make_config(epochs=12, grace=3, factor=3.0))
    arena.hears("a", 3, 0.5)
    arena.hears("b", 3, 0.6)
    arena.ledger.record_epoch(NAMES["c"], 3, 0.1)
    arena.reopen()
    assert arena.rung(3) == {"a": 0.5, "b": 0.6}
    assert arena.hears("c", 3, 0.1) == STOP
    assert arena.rung(3) == {"a": 0.5, "b": 0.6, "c": 0.1}
