"""Early stopping: asynchronous successive halving (ASHA, Li et al. 2020, the stopping variant).

Ray's own ASHA counts `training_iteration`, which starts again at 1 when a trial is restored, forgets
its rungs in a restore (ray issue 30838), and stops the second trial at a rung for being worse than the
first. Here the counter is the reported `epoch`, the rungs are plain data, and a rung judges only once
it has seen enough trials.
"""

import math
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.config import SearchConfig

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

FEWEST_TO_JUDGE = 3


def rung_epochs(config: SearchConfig) -> list[int]:
    """grace_period * reduction_factor^k, below the last epoch, at which nothing is left to stop."""
    epochs, milestone = [], float(config.search.grace_period)
    while round(milestone) < config.epochs:
        epochs.append(round(milestone))
        milestone *= config.search.reduction_factor
    return sorted(set(epochs))


def goes_on(score: float, rung: dict[str, float], reduction_factor: float) -> bool:
    """Whether a trial that reached `rung` with `score` (which the rung has already) goes on.

    The first trials pass, until the rung has seen 3 or `reduction_factor`; then the best
    1 / reduction_factor do, at least one.
    """
    if len(rung) < max(FEWEST_TO_JUDGE, math.ceil(reduction_factor)):
        return True
    better = sum(other > score for other in rung.values())
    return better < max(1, math.floor(len(rung) / reduction_factor))


class SuccessiveHalving(FIFOScheduler):
    """Stops a trial at a rung where its best score so far is not among the best.

    The hand-tuned trial is never stopped: it is what all others are compared with.
    """

    def __init__(self, config: SearchConfig, hand_tuned: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._score_key = config.score_key
        self._reduction_factor = config.search.reduction_factor
        self._hand_tuned = hand_tuned
        self.rungs: dict[int, dict[str, float]] = {epoch: {} for epoch in rung_epochs(config)}

    def on_trial_result(
        self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]
    ) -> str:
        name, epoch, score = str(trial), result["epoch"], result[self._score_key]
        decision: str = TrialScheduler.CONTINUE
        for milestone, rung in self.rungs.items():
            if epoch < milestone or name in rung:
                continue
            rung[name] = score
            if result["finished"] or name == self._hand_tuned:
                continue
            if not goes_on(score, rung, self._reduction_factor):
                decision = TrialScheduler.STOP
        return decision
