"""The simulated clock, on two trials by hand."""

from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from bench.lcbench import EPOCHS
from bench.policies import Policy, ours
from bench.simulation import SCORE, Simulation
from search.searcher import OptunaSearcher
from search.space import Parameter, Space

CURVES = {"a": np.array([0.1, 0.3, 0.2]), "b": np.array([0.4, 0.4, 0.5])}


class Two(Searcher):
    """Suggests a, then b, and writes down what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.points = [{"which": "a"}, {"which": "b"}]
        self.heard: list[tuple[str, int]] = []
        self.ended: list[tuple[str, int]] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        return self.points.pop(0) if self.points else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.heard.append((trial_id, result["epoch"]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        assert result is not None
        self.ended.append((trial_id, result["epoch"]))


class StopsAt(FIFOScheduler):
    """Stops every trial after so many epochs."""

    def __init__(self, epoch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._epoch = epoch

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        stop = result["epoch"] >= self._epoch
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


def play(
    searcher: Searcher, scheduler: TrialScheduler, workers: int
) -> list[tuple[str, int, float, float]]:
    """(trial, epochs of all until then, its best score, time): a's epochs take 1.0, b's 1.5."""
    durations = iter([1.0, 1.5])
    simulation = Simulation(
        searcher,
        scheduler,
        curve_of=lambda point: CURVES[str(point["which"])],
        workers=workers,
        durations=lambda: next(durations),
    )
    return [
        (str(report.trial.point["which"]), report.epochs, report.score, report.time)
        for report in simulation.run()
    ]


def test_two_workers_train_side_by_side_each_at_its_own_pace() -> None:
    """a's epochs end at 1, 2 and 3, b's at 1.5, 3 and 4.5; at 3 a comes first, it started first. The
    third score of a is its second: the best so far counts."""
    searcher = Two()
    assert play(searcher, FIFOScheduler(), workers=2) == [
        ("a", 1, 0.1, 1.0),
        ("b", 2, 0.4, 1.5),
        ("a", 3, 0.3, 2.0),
        ("a", 4, 0.3, 3.0),
        ("b", 5, 0.4, 3.0),
        ("b", 6, 0.5, 4.5),
    ]
    assert searcher.ended == [("00000", 3), ("00001", 3)]


def test_a_worker_starts_the_next_trial_when_the_scheduler_has_stopped_one() -> None:
    """a is stopped at 2.0, when b begins: 3.5 and 5.0. Tune tells the searcher of a result only if the
    trial goes on, and of the last one as its end."""
    searcher = Two()
    assert play(searcher, StopsAt(2), workers=1) == [
        ("a", 1, 0.1, 1.0),
        ("a", 2, 0.3, 2.0),
        ("b", 3, 0.4, 3.5),
        ("b", 4, 0.4, 5.0),
    ]
    assert searcher.heard == [("00000", 1), ("00001", 1)]
    assert searcher.ended == [("00000", 2), ("00001", 2)]


@pytest.fixture
def policy() -> Policy:
    class Middle(Space):
        def point_of(self, config: Any) -> dict[str, Any]:
            return {"x": 0.5}

    return ours(Middle("line", {"x": Parameter.model_validate({"float": [0.0, 1.0]})}), seed=0)


def test_our_own_searcher_and_scheduler_hear_of_every_epoch_and_every_end(policy: Policy) -> None:
    searcher = policy.searcher
    assert isinstance(searcher, OptunaSearcher)
    simulation = Simulation(
        searcher,
        policy.scheduler,
        curve_of=lambda point: float(point["x"]) * np.linspace(0.5, 1.0, EPOCHS),
        workers=3,
        durations=lambda: 1.0,
    )
    epochs = dict.fromkeys(["trial_000"], 0)
    for report in simulation.run():
        assert report.trial.result()[SCORE] == report.score
        epochs[report.trial.name] = report.trial.epoch
        if report.epochs == 400:
            break
    trials = searcher._ledger.trials
    heard = {t.user_attrs["trial_id"]: len(t.intermediate_values) for t in trials}
    # The newest may only just have begun, and not have told of an epoch.
    assert heard == {list(heard)[-1]: 0, **epochs}
    assert trials[0].state == TrialState.COMPLETE  # the hand-tuned one is never stopped
    assert [t.state for t in trials].count(TrialState.RUNNING) == 3
    assert [t.state for t in trials].count(TrialState.PRUNED) > 10
