"""Proposals for Ray Tune: first the trials that a killed search left open, then new ones.

Ray's own OptunaSearch tells Optuna that a trial which ASHA stopped is complete, so TPE compares its 3
epochs with another's 60, and it ignores the first points of conditional spaces (ray issue 35319).
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from search.ledger import Ledger, State
from search.space import Point

LOST = "its worker did not come up, or was lost too often"
FACTS = ("epoch", "best_epoch", "best_miou", "best_miou_image", "error", "traceback")


class OptunaSearcher(Searcher):
    """Hands out the ledger's open trials and its proposals, and enters how each trial ended.

    `may_propose` is asked before each new trial. `stopped` are the trials that ASHA stopped. Each of
    `on_end` hears of every trial that ends: its name, its state, its epochs and scores or its error.
    """

    def __init__(
        self,
        ledger: Ledger,
        trials: int,
        stopped: set[str],
        may_propose: Callable[[], bool],
        on_end: Sequence[Callable[[str, State, dict[str, Any]], None]] = (),
    ) -> None:
        super().__init__()
        self._ledger, self._trials = ledger, trials
        self._stopped, self._may_propose, self._on_end = stopped, may_propose, on_end
        self._left_open = list(ledger.open)
        self._names: dict[str, str] = {}  # by Tune's id, which is random

    @property
    def to_hand_out(self) -> int:
        """How many trials Tune will get from here."""
        return len(self._left_open) + max(0, self._trials - self._ledger.proposed)

    def suggest(self, trial_id: str) -> Point | str:  # type: ignore[override]  # FINISHED is one
        if self._left_open:
            name = self._left_open.pop(0)
        elif self._ledger.proposed < self._trials and self._may_propose():
            name = self._ledger.propose()
        else:
            return str(Searcher.FINISHED)
        self._names[trial_id] = name
        return self._ledger.points[name]

    def trial_name(self, trial: Trial) -> str:
        return self._names[trial.trial_id]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has entered it."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """finished if the trial ran to its end, pruned if ASHA stopped it, failed if it reported an
        error or Tune gave it up; a trial that was only interrupted stays open."""
        name, result = self._names[trial_id], result or {}
        facts = {key: result[key] for key in FACTS if key in result}
        if error or "error" in result:
            self._end(name, "failed", {"error": LOST, **facts})
        elif name in self._stopped:
            self._stopped.discard(name)
            self._end(name, "pruned", facts)
        elif result.get("finished"):
            self._end(name, "finished", facts)

    def _end(self, name: str, state: State, facts: dict[str, Any]) -> None:
        self._ledger.end(name, state, facts)
        for hear in self._on_end:
            hear(name, state, facts)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Tune works on copies of what it is given; there is one ledger."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts to disk, also with every trial; the ledger is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from its ledger, see search/resume.py."""
