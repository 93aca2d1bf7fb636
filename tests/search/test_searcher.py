"""What Tune is given to run, and what the ledger hears of how it ended."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from search.config import SearchConfig
from search.searcher import LOST, MOST_LOSSES, OptunaSearcher
from search.space import load_space
from tests.search.ledgers import open_ledger

CONFIG = SearchConfig.model_validate(
    {"epochs": 9, "search": {"name": "night", "startup_trials": 3, "seed": 4}}
)
SPACE = load_space("optim")


@dataclass
class GivenTrial:
    """What the searcher sees of a Tune trial, which cannot be had without Ray."""

    trial_id: str
    point: Any
    name: str = ""
    status: str = Trial.RUNNING
    error_file: str | None = None


class Desk:
    """A searcher on a real ledger."""

    def __init__(self, folder: Path, trials: int = 9, at_once: int | None = None) -> None:
        self.ledger = open_ledger(folder / "study.db", CONFIG, SPACE)
        self.stopped: set[str] = set()
        self.may_propose = True
        self.heard: list[tuple[str, str]] = []
        self.searcher = OptunaSearcher(
            self.ledger,
            trials,
            at_once,
            self.stopped,
            may_propose=lambda: self.may_propose,
            on_end=[lambda name, state, facts: self.heard.append((name, state))],
        )

    def hand_out(self, tune_id: str) -> "GivenTrial":
        """As Tune does: it makes a trial from the point, and asks for its name."""
        point = self.searcher.suggest(tune_id)
        trial = GivenTrial(tune_id, point)
        if isinstance(point, dict):
            trial.name = self.searcher.trial_name(cast(Trial, trial))
        return trial

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


def test_it_proposes_until_the_search_has_its_trials_and_ends_with_the_last(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, trials=2)
    first, second = desk.hand_out("x"), desk.hand_out("y")
    assert (first.name, second.name) == ("trial_000", "trial_001")
    assert first.point == desk.ledger.points["trial_000"]
    assert desk.searcher.suggest("z") is None  # one of the two may come back
    for tune_id, name in (("x", "trial_000"), ("y", "trial_001")):
        desk.ledger.record_epoch(name, 9, 0.5)
        desk.searcher.on_trial_complete(tune_id, result(9, 0.5, finished=True))
    assert desk.searcher.suggest("z") == Searcher.FINISHED
    assert desk.ledger.proposed == 2


def test_no_more_trials_are_out_at_once_than_may_be(tmp_path: Path) -> None:
    desk = Desk(tmp_path, at_once=1)
    desk.hand_out("x")
    assert desk.searcher.suggest("y") is None
    assert desk.ledger.proposed == 1
    desk.ledger.record_epoch("trial_000", 9, 0.5)
    desk.searcher.on_trial_complete("x", result(9, 0.5, finished=True))
    assert desk.hand_out("y").name == "trial_001"


def test_open_trials_of_a_killed_search_come_first_then_new_ones(tmp_path: Path) -> None:
    before = Desk(tmp_path)
    for tune_id in "abc":
        before.hand_out(tune_id)
    before.ledger.record_epoch("trial_001", 1, 0.5)
    before.searcher.on_trial_complete("b", result(9, 0.5, finished=True))
    after = Desk(tmp_path, trials=4)
    assert after.searcher.has_work
    given = [after.hand_out(tune_id) for tune_id in "uvw"]
    assert [trial.name for trial in given] == ["trial_000", "trial_002", "trial_003"]
    assert [trial.point for trial in given] == [after.ledger.points[trial.name] for trial in given]
    assert after.searcher.suggest("x") is None


def test_no_new_trial_is_proposed_when_that_is_not_allowed_but_open_ones_go_on(
    tmp_path: Path,
) -> None:
    Desk(tmp_path).hand_out("a")
    desk = Desk(tmp_path)
    desk.may_propose = False
    assert desk.hand_out("b").name == "trial_000"
    assert desk.searcher.suggest("c") is None
    assert desk.ledger.proposed == 1


def test_a_search_that_has_all_its_trials_has_no_work(tmp_path: Path) -> None:
    desk = Desk(tmp_path, trials=1)
    desk.hand_out("a")
    desk.ledger.record_epoch("trial_000", 9, 0.5)
    desk.searcher.on_trial_complete("a", result(9, 0.5, finished=True))
    assert not Desk(tmp_path, trials=1).searcher.has_work
    assert Desk(tmp_path, trials=2).searcher.has_work


def test_a_trial_that_tune_gave_up_is_handed_out_again(desk: Desk) -> None:
    """As when a worker dies while it is being reused: Tune then starts nothing again."""
    lost = desk.hand_out("x")
    lost.status = Trial.ERROR
    desk.searcher.on_trial_complete("x", error=True)
    assert desk.states() == [TrialState.RUNNING]
    again = desk.hand_out("y")
    assert (again.name, again.point) == (lost.name, lost.point)
    assert desk.ledger.proposed == 1


def test_a_trial_that_tune_gives_up_again_and_again_fails_with_what_tune_wrote(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "error.txt").write_text("\x1b[36mray::ImplicitFunc\x1b[0m\nImportError: torch\n")
    for number in range(1 + MOST_LOSSES):
        lost = desk.hand_out(str(number))
        assert lost.name == "trial_000"
        lost.status, lost.error_file = Trial.ERROR, str(tmp_path / "error.txt")
    assert desk.hand_out("next").name == "trial_001"
    assert desk.states() == [TrialState.FAIL, TrialState.RUNNING]
    facts = desk.ledger.trials[0].user_attrs
    assert facts["error"] == LOST
    assert facts["traceback"] == "ray::ImplicitFunc\nImportError: torch\n"
    assert desk.heard == [("trial_000", "failed")]


# --- how trials end ----------------------------------------------------------------------------


def test_a_trial_that_ran_to_its_end_is_finished(desk: Desk) -> None:
    desk.hand_out("x")
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
    desk.hand_out("x")
    desk.ledger.record_epoch("trial_000", 3, 0.25)
    desk.stopped.add("trial_000")
    desk.searcher.on_trial_complete("x", result(3, 0.25))
    assert desk.states() == [TrialState.PRUNED]
    assert desk.heard == [("trial_000", "pruned")]
    assert desk.stopped == set()


def test_a_trial_that_reported_an_error_is_failed(desk: Desk) -> None:
    desk.hand_out("x")
    told = {"error": "NonFiniteError: nan", "traceback": "..."}
    desk.searcher.on_trial_complete("x", told)
    assert desk.states() == [TrialState.FAIL]
    assert desk.ledger.trials[0].user_attrs["error"] == "NonFiniteError: nan"
    assert desk.ledger.trials[0].user_attrs["traceback"] == "..."


@pytest.mark.parametrize("last", [None, {}, result(2, 0.5)], ids=str)
def test_a_trial_that_was_only_interrupted_stays_open(
    desk: Desk, last: dict[str, Any] | None
) -> None:
    """Tune says "complete" of every trial that it stops, also when the search is stopped."""
    desk.hand_out("x")
    desk.searcher.on_trial_complete("x", last)
    assert desk.states() == [TrialState.RUNNING]
    assert list(desk.ledger.open) == ["trial_000"]
    assert desk.heard == []


def test_its_pickles_are_empty_because_tune_writes_one_with_every_trial(desk: Desk) -> None:
    assert len(pickle.dumps(desk.searcher)) < 200
