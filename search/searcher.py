"""Trials for Ray Tune: first those that a killed search left open, then new proposals.

Ray's own OptunaSearch tells Optuna that a trial which ASHA stopped is complete, so TPE compares its 3
epochs with another's 60, and it ignores the first points of conditional spaces (ray issue 35319).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from search.ledger import Ledger, State
from search.space import Point

FACTS = (
    *("epoch", "best_epoch", "best_miou", "best_miou_image", "error", "traceback"),
    *("hostname", "device"),  # where it ended; the first is Tune's own
)
MOST_LOSSES = 3  # how often a trial that Tune gave up is handed out again
LOST = "its worker did not come up, or was lost too often"
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class OptunaSearcher(Searcher):
    """Hands out the ledger's open trials and its proposals, and enters how each trial ended.

    At most `at_once` trials are out, None for as many as Ray finds room for. `may_propose` is asked
    before each new one. `stopped` are the trials that ASHA stopped. Each of `on_end` hears of every
    trial that ends: its name, its state, its epochs and scores or its error.
    """

    def __init__(
        self,
        ledger: Ledger,
        trials: int,
        at_once: int | None,
        stopped: set[str],
        may_propose: Callable[[], bool],
        on_end: Sequence[Callable[[str, State, dict[str, Any]], None]] = (),
    ) -> None:
        super().__init__()
        self._ledger, self._trials, self._at_once = ledger, trials, at_once
        self._stopped, self._may_propose, self._on_end = stopped, may_propose, on_end
        self._to_resume = list(ledger.open)
        self._names: dict[str, str] = {}  # by Tune's id, which is random
        self._out: dict[str, Trial | None] = {}  # trials that Tune has
        self._losses: Counter[str] = Counter()

    @property
    def has_work(self) -> bool:
        return bool(self._to_resume) or self._ledger.proposed < self._trials

    def suggest(self, trial_id: str) -> Point | str | None:  # type: ignore[override]  # FINISHED
        self._take_back_lost()
        if self._at_once is not None and len(self._out) >= self._at_once:
            return None
        if self._to_resume:
            name = self._to_resume.pop(0)
        elif self._ledger.proposed < self._trials and self._may_propose():
            name = self._ledger.propose()
        else:  # one that is out may have to be handed out again
            return None if self._out else str(Searcher.FINISHED)
        self._names[trial_id] = name
        self._out[name] = None
        return self._ledger.points[name]

    def trial_name(self, trial: Trial) -> str:
        """Its name in the ledger; Tune makes the trial from the point and asks here at once."""
        name = self._names[trial.trial_id]
        self._out[name] = trial
        return name

    def _take_back_lost(self) -> None:
        """Hand out again what Tune gave up. It does so without a new start, whatever `max_failures`,
        where a worker dies while it is being reused, and tells nobody where the reuse fails."""
        for name, trial in list(self._out.items()):
            if trial is None or trial.status != Trial.ERROR:
                continue
            self._losses[name] += 1
            if self._losses[name] > MOST_LOSSES:
                self._end(name, "failed", {"error": LOST, "traceback": read_error(trial)})
            else:
                del self._out[name]
                self._to_resume.append(name)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has entered it."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """finished if the trial ran to its end, pruned if ASHA stopped it, failed if it reported an
        error. One that Tune gave up is taken back; one that was only interrupted stays open."""
        name, result = self._names[trial_id], result or {}
        facts = {key: result[key] for key in FACTS if key in result}
        if error:
            return
        if "error" in result:
            self._end(name, "failed", facts)
        elif name in self._stopped:
            self._stopped.discard(name)
            self._end(name, "pruned", facts)
        elif result.get("finished"):
            self._end(name, "finished", facts)

    def _end(self, name: str, state: State, facts: dict[str, Any]) -> None:
        self._ledger.end(name, state, facts)
        del self._out[name]
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


def read_error(trial: Trial) -> str:
    """What Tune wrote down of a trial that it gave up."""
    return ANSI_COLOUR.sub("", Path(trial.error_file).read_text()) if trial.error_file else ""
