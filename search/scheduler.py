"""Early stopping: asynchronous successive halving (ASHA, Li et al. 2020, the stopping variant) that
looks back.

Ray's own ASHA counts `training_iteration`, which starts again at 1 when a trial is restored, forgets
its rungs in a restore (ray issue 30838), and stops the second trial at a rung for being worse than the
first. Here the counter is the reported `epoch`, a rung judges only once it has seen enough trials, and
every arrival is on disk before it is judged, so that a search which was killed judges by the same ones.

ASHA judges a trial once at a rung, by those that came before it: the first pass unjudged, and train on
while better ones arrive behind them. Here it is judged again after every epoch, by all that have arrived
since: what that is worth is in docs/performance.md, Search efficiency.
"""

from typing import TYPE_CHECKING, Any, Self

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.config import SearchConfig
from search.ledger import HAND_TUNED, Ledger
from search.rungs import Arrivals, rung_epochs

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class SuccessiveHalving(FIFOScheduler):
    """Records every epoch, and stops a trial that is not, or no longer, among the best of each rung that
    it has reached, by the best scores that all had there. The hand-tuned trial is never stopped: it is
    what all others are compared with.
    """

    def __init__(self, config: SearchConfig, ledger: Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._score_key = config.score_key
        self._reduction_factor = config.search.reduction_factor
        self._ledger = ledger
        known = ledger.rungs()
        self.rungs = {epoch: Arrivals(known.get(epoch, {})) for epoch in rung_epochs(config)}
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
            if rung is not None and name not in rung.scores:
                self._ledger.record_arrival(name, epoch, before=len(rung.scores))
                rung.add(name, score)
        if result["finished"] or name == HAND_TUNED or self._is_among_the_best(name):
            return str(TrialScheduler.CONTINUE)
        self.stopped.add(name)
        return str(TrialScheduler.STOP)

    def _is_among_the_best(self, name: str) -> bool:
        return all(
            rung.lets_go_on(name, self._reduction_factor)
            for rung in self.rungs.values()
            if name in rung.scores
        )
