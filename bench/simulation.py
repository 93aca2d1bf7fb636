"""A search on a simulated clock: any searcher and scheduler of Ray Tune, on known learning curves.

Searcher and scheduler are asked and told what Tune's controller asks and tells, in its order
(ray/tune/execution/tune_controller.py), by workers that train an epoch in about a unit of time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from bench.lcbench import Curve
from search.searcher import OptunaSearcher
from search.space import Point

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

NO_CONTROLLER = cast("TuneController", None)  # these schedulers do not look at it
SCORE = "best_miou"  # what `search` compares; here it is the best accuracy so far


@dataclass(eq=False)
class SimulatedTrial:
    """What searchers and schedulers see of a Tune trial, and what became of it."""

    trial_id: str
    point: Point
    best: Curve
    """Its best score after each epoch, (epochs,)."""
    epoch_time: float
    """In units of the clock."""
    name: str = ""
    epoch: int = 0
    """The last one that it was trained for."""
    status: str = Trial.RUNNING

    def __str__(self) -> str:
        return self.name

    def result(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "training_iteration": self.epoch,
            SCORE: float(self.best[self.epoch - 1]),
            "best_epoch": int(np.argmax(self.best[: self.epoch])) + 1,
            "finished": self.epoch == len(self.best),
        }


@dataclass
class Report:
    """One epoch, of whichever trial; what the search has spent until then, in epochs and time."""

    trial: SimulatedTrial
    score: float
    epochs: int
    time: float


@dataclass
class Simulation:
    """`workers` of a search that train what `searcher` suggests until `scheduler` stops it, or for all
    the epochs of its curve. `durations` draws how long an epoch of a trial takes."""

    searcher: Searcher
    scheduler: TrialScheduler
    curve_of: Callable[[Point], Curve]
    workers: int
    durations: Callable[[], float]
    started: int = 0

    def run(self) -> Iterator[Report]:
        """Every epoch in the order of time, equal times in that of their trials; without an end where
        the searcher has none."""
        due: list[tuple[float, int, SimulatedTrial]] = []
        for _ in range(self.workers):
            self._start(0.0, due)
        epochs = 0
        while due:
            now, number, trial = heappop(due)
            trial.epoch += 1
            epochs += 1
            over = self._tell(trial)
            yield Report(trial, float(trial.best[trial.epoch - 1]), epochs, now)
            if over:
                self._start(now, due)
            else:
                heappush(due, (now + trial.epoch_time, number, trial))

    def _start(self, now: float, due: list[tuple[float, int, SimulatedTrial]]) -> None:
        """Let a free worker take up what the searcher suggests, if anything."""
        trial_id = f"{self.started:05d}"
        point = self.searcher.suggest(trial_id)
        if not isinstance(point, dict):
            return
        best = np.maximum.accumulate(self.curve_of(point))
        trial = SimulatedTrial(trial_id, point, best, self.durations(), name=trial_id)
        if isinstance(self.searcher, OptunaSearcher):
            trial.name = self.searcher.trial_name(cast(Trial, trial))
        self.scheduler.on_trial_add(NO_CONTROLLER, cast(Trial, trial))
        heappush(due, (now + trial.epoch_time, self.started, trial))
        self.started += 1

    def _tell(self, trial: SimulatedTrial) -> bool:
        """The trial has trained an epoch; whether it was its last."""
        result, seen = trial.result(), cast(Trial, trial)
        decision = self.scheduler.on_trial_result(NO_CONTROLLER, seen, result)
        stopped = decision == TrialScheduler.STOP
        if not stopped:
            self.searcher.on_trial_result(trial.trial_id, result)
        if not stopped and not result["finished"]:
            return False
        trial.status = Trial.TERMINATED
        if not stopped:  # it came to its end by itself, which Tune tells the scheduler
            self.scheduler.on_trial_complete(NO_CONTROLLER, seen, result)
        self.searcher.on_trial_complete(trial.trial_id, result)
        return True
