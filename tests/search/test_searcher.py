"""What Tune is given to run, and what the ledger hears of how it ended."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search.config import SearchConfig
from search.searcher import LOST, OptunaSearcher
from search.space import load_space
from tests.search.ledgers import open_ledger

CONFIG = SearchConfig.model_validate(
    {"epochs": 9, "search": {"name": "night", "startup_trials": 3, "seed": 4}}
)
SPACE = load_space("optim")


class Desk:
    """A searcher on a real ledger."""

    def __init__(self, folder: Path, trials: int = 9) -> None:
        self.ledger = open_ledger(folder / "study.db", CONFIG, SPACE)
        self.stopped: set[str] = set()
        self.may_propose = True
        self.heard: list[tuple[str, str]] = []
        self.searcher = OptunaSearcher(
            self.ledger,
            trials,
            self.stopped,
            may_propose=lambda: self.may_propose,
            on_end=[lambda name, state, facts: self.heard.append((name, state))],
        )

    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.ledger.trials]


def result(epoch: int, score: float, finished: bool = False) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "best_epoch": epoch,
        "best_miou": score,
        "best_miou_image": score / 2,
        "finished": finished,
        "pid": 7,
    }


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# --- what is handed out ------------------------------------------------------------------------


def test_it_proposes_until_the_search_has_its_trials(tmp_path: Path) -> None:
    desk = Desk(tmp_path, trials=2)
    assert desk.searcher.to_hand_out == 2
    points = [desk.searcher.suggest("x"), desk.searcher.suggest("y")]
    assert points == [desk.ledger.points["trial_000"], desk.ledger.points["trial_001"]]
    assert desk.searcher.suggest("z") == Searcher.FINISHED
    assert desk.ledger.proposed == 2


def test_open_trials_of_a_killed_search_come_first_then_new_ones(tmp_path: Path) -> None:
    before = Desk(tmp_path)
    for tune_id in "abc":
        before.searcher.suggest(tune_id)
    before.ledger.record_epoch("trial_001", 1, 0.5)
    before.searcher.on_trial_complete("b", result(9, 0.5, finished=True))

    after = Desk(tmp_path, trials=4)
    assert after.searcher.to_hand_out == 3
    points = [after.searcher.suggest(tune_id) for tune_id in "uvw"]
    names = ["trial_000", "trial_002", "trial_003"]
    assert points == [after.ledger.points[name] for name in names]
    assert after.searcher.suggest("x") == Searcher.FINISHED


def test_no_new_trial_is_proposed_when_that_is_not_allowed_but_open_ones_go_on(
    tmp_path: Path,
) -> None:
    Desk(tmp_path).searcher.suggest("a")
    desk = Desk(tmp_path)
    desk.may_propose = False
    assert desk.searcher.suggest("b") == desk.ledger.points["trial_000"]
    assert desk.searcher.suggest("c") == Searcher.FINISHED
    assert desk.ledger.proposed == 1


# --- how trials end ----------------------------------------------------------------------------


def test_a_trial_that_ran_to_its_end_is_finished(desk: Desk) -> None:
    desk.searcher.suggest("x")
    desk.ledger.record_epoch("trial_000", 9, 0.75)
    desk.searcher.on_trial_complete("x", result(9, 0.75, finished=True))
    [trial] = desk.ledger.trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.75)
    facts = {key: value for key, value in trial.user_attrs.items() if key != "hand_tuned"}
    assert facts == {
        "trial_id": "trial_000", "epoch": 9, "best_epoch": 9, "best_miou": 0.75,
        "best_miou_image": 0.375,
    }  # fmt: skip
    assert desk.heard == [("trial_000", "finished")]


def test_a_trial_that_asha_stopped_is_pruned(desk: Desk) -> None:
    desk.searcher.suggest("x")
    desk.ledger.record_epoch("trial_000", 3, 0.25)
    desk.stopped.add("trial_000")
    desk.searcher.on_trial_complete("x", result(3, 0.25))
    assert desk.states() == [TrialState.PRUNED]
    assert desk.heard == [("trial_000", "pruned")]
    assert desk.stopped == set()


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ({"result": {"error": "NonFiniteError: nan", "traceback": "..."}}, "NonFiniteError: nan"),
        ({"error": True}, LOST),
        ({"result": result(2, 0.5), "error": True}, LOST),
    ],
    ids=["reported", "never came up", "lost too often"],
)
def test_a_trial_that_reported_an_error_or_was_given_up_is_failed(
    desk: Desk, ending: dict[str, Any], error: str
) -> None:
    desk.searcher.suggest("x")
    desk.searcher.on_trial_complete("x", **ending)
    assert desk.states() == [TrialState.FAIL]
    assert desk.ledger.trials[0].user_attrs["error"] == error


@pytest.mark.parametrize("last", [None, {}, result(2, 0.5)], ids=str)
def test_a_trial_that_was_only_interrupted_stays_open(
    desk: Desk, last: dict[str, Any] | None
) -> None:
    """Tune says "complete" of every trial that it stops, also when the search is stopped."""
    desk.searcher.suggest("x")
    desk.searcher.on_trial_complete("x", last)
    assert desk.states() == [TrialState.RUNNING]
    assert list(desk.ledger.open) == ["trial_000"]
    assert desk.heard == []


def test_its_pickles_are_empty_because_tune_writes_one_with_every_trial(desk: Desk) -> None:
    assert len(pickle.dumps(desk.searcher)) < 200
