"""A search on many GPUs with a simulated clock: the real searcher, scheduler and ledger decide, and the
driver is a single server that takes the measured time for each of their answers."""

import heapq
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ray.tune.experiment import Trial

from search.config import SearchConfig
from search.ledger import Ledger, create_ledger
from search.scheduler import SuccessiveHalving
from search.searcher import OptunaSearcher
from search.space import Point, load_space

EPOCHS = 27
TRIALS_PER_GPU = 4


@dataclass(frozen=True)
class Service:
    """Seconds of the driver's one thread, or of MLflow's, for one of them."""

    trial: float
    epoch: float


@dataclass
class SimulatedTrial:
    """What the searcher and the scheduler need of a Tune trial."""

    trial_id: str
    status: str = Trial.RUNNING
    name: str = ""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Load:
    """What a simulated search came to."""

    trials: int
    epochs: int
    hours: float
    waited: float
    """Share of the GPUs' time in which they waited for the driver."""
    driver: float
    """Share of the time in which the driver was busy."""
    mlflow: float
    """The same of MLflow, which nobody waits for; above 1 it falls behind."""


@dataclass(order=True)
class Event:
    """A GPU asks the driver for a trial, or reports an epoch."""

    at: float
    gpu: int
    trial: Any = field(compare=False, default=None)
    epoch: int = field(compare=False, default=0)


def simulate(
    gpus: int, epoch_seconds: float, start: float, driver: Service, mlflow: Service, folder: Path
) -> Load:
    """A search of `TRIALS_PER_GPU` trials a GPU, each at work `start` seconds after it was called."""
    search = Search(gpus, folder)
    events = [Event(0.0, gpu) for gpu in range(gpus)]
    free = waited = ended = 0.0
    epochs = 0
    while events:
        event = heapq.heappop(events)
        begun = max(event.at, free)
        free = begun + (driver.epoch if event.trial else driver.trial)
        if event.trial:
            epochs += 1
            goes_on = search.report(event.trial, event.epoch)
            ended = free
            following = Event(0.0, event.gpu, *((event.trial, event.epoch + 1) if goes_on else ()))
            following.at = free + (epoch_seconds if goes_on else 0.0)
            waited += free - event.at
        elif trial := search.suggest():
            waited += free - event.at
            following = Event(free + start + epoch_seconds, event.gpu, trial, 1)
        else:
            free = begun  # there is nothing to do for it
            continue
        heapq.heappush(events, following)
    trials = search.ledger.proposed
    return Load(
        trials,
        epochs,
        ended / 3600,
        waited / (gpus * ended),
        (trials * driver.trial + epochs * driver.epoch) / ended,
        (trials * mlflow.trial + epochs * mlflow.epoch) / ended,
    )


class Search:
    """The real parts, driven by hand as Tune drives them."""

    def __init__(self, gpus: int, folder: Path) -> None:
        search = {"trials": TRIALS_PER_GPU * gpus, "grace_period": 3, "reduction_factor": 3}
        config = SearchConfig.model_validate({"epochs": EPOCHS, "search": search})
        create_ledger(folder / f"{gpus}.db", config.search.name)
        self.ledger = Ledger(folder / f"{gpus}.db", config, load_space("aug_loss"))
        self._scheduler = SuccessiveHalving(config, self.ledger)
        self._searcher = OptunaSearcher(
            self.ledger, config.search.trials, gpus, self._scheduler.stopped, lambda: True
        )

    def suggest(self) -> SimulatedTrial | None:
        trial = SimulatedTrial(f"id_{self.ledger.proposed}")
        if not isinstance(self._searcher.suggest(trial.trial_id), dict):
            return None
        trial.name = self._searcher.trial_name(cast(Trial, trial))
        return trial

    def report(self, trial: SimulatedTrial, epoch: int) -> bool:
        """Whether it goes on, after an epoch's score."""
        score = learning_curve(self.ledger.points[trial.name], epoch)
        result = {"epoch": epoch, "best_miou": score, "finished": epoch == EPOCHS}
        told = cast(Trial, trial)
        decision = self._scheduler.on_trial_result(cast(Any, None), told, result)
        if decision == "CONTINUE" and not result["finished"]:
            return True
        self._searcher.on_trial_complete(trial.trial_id, result)
        return False


def learning_curve(point: Point, epoch: int) -> float:
    """Some: it rises with the epochs, to a height that the decoder's rate decides."""
    height = math.exp(-((math.log10(float(point["optim.decoder_lr"])) + 2.8) ** 2))
    return 0.6 * height * (1 - math.exp(-epoch / 6))
