"""Early stopping: asynchronous successive halving (ASHA, Li et al. 2020, the stopping variant).

Ray's own ASHA counts `training_iteration`, which starts again at 1 when a trial is restored, forgets
its rungs in a restore (ray issue 30838), and stops the second trial at a rung for being worse than the
first. Here the counter is the reported `epoch`, a rung judges only once it has seen enough trials, and
every arrival is on disk before it is judged, so that a search which was killed judges as it would have.
"""

from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.config import SearchConfig
from search.ledger import HAND_TUNED, Ledger
from search.rungs import goes_on, rung_epochs

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class SuccessiveHalving(FIFOScheduler):
    """Records every epoch, and stops a trial at a rung where its best score so far is not among the
    best. The hand-tuned trial is never stopped: it is what all others are compared with.

    A trial that was taken up again reports its last epoch once more, and is judged as it was then, by
    those that had arrived before it.
    """

    def __init__(self, config: SearchConfig, ledger: Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._score_key = config.score_key
        self._reduction_factor = config.search.reduction_factor
        self._ledger = ledger
        known = ledger.rungs()
        self.rungs: dict[int, dict[str, float]] = {
            epoch: known.get(epoch, {}) for epoch in rung_epochs(config)
        }
        self.stopped: set[str] = set()  # trials that were judged too weak, until they have ended

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Tune works on copies of what it is given; there is one ledger."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts to disk; the ledger is the state."""
        return {}

    def on_trial_result(
        self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]
    ) -> str:
        if "error" in result:
            return str(TrialScheduler.STOP)  # it has failed, for good
        name, epoch, score = str(trial), result["epoch"], result[self._score_key]
        rung = self.rungs.get(epoch)
        with self._ledger.together():
            self._ledger.record_epoch(name, epoch, score)
            if rung is not None and name not in rung:
                self._ledger.record_arrival(name, epoch, before=len(rung))
                rung[name] = score
        if rung is None or self._passes(name, rung, result):
            return str(TrialScheduler.CONTINUE)
        self.stopped.add(name)
        return str(TrialScheduler.STOP)

    def _passes(self, name: str, rung: dict[str, float], result: dict[str, Any]) -> bool:
        if result["finished"] or name == HAND_TUNED:
            return True
        arrived_by_then = islice(rung.items(), list(rung).index(name) + 1)
        return goes_on(result[self._score_key], dict(arrived_by_then), self._reduction_factor)
