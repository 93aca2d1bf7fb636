"""What each trial of a search is worth so far, although most were stopped early.

Optuna ranks every finished trial above every stopped one, however bad. Here a trial is worth the last
rung at which its score is among the best 1 / reduction_factor of all that have reached it, whenever
they did, once they are enough to judge; then its best score so far. So a trial that was stopped is not
held to be worse than those that were not judged as strictly, and the hand-tuned one, which nothing
stops, not better.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from search.rungs import fewest_to_judge, places

Rows = NDArray[np.intp]


class Standings:
    """The trials as arrays, a row for each in the order of their proposals, kept up to date event by
    event: what a proposal costs does not depend on how many there were."""

    def __init__(
        self, parameters: Sequence[str], rungs: Sequence[int], reduction_factor: float
    ) -> None:
        self._column = {path: place for place, path in enumerate(parameters)}
        self._rungs, self._reduction_factor = list(rungs), reduction_factor
        self._count = 0
        self._values = np.empty((0, len(self._column)))  # internal representation; NaN for inactive
        self._at_rungs = np.empty((0, len(self._rungs)))  # best score until then; NaN before it
        self._last = np.empty(0)  # best score so far; NaN before the first epoch
        self._states = np.empty(0, dtype=int)

    # --- what happens to trials ------------------------------------------------------------------

    def proposed(self, trial: FrozenTrial) -> None:
        """The next one, of which only the parameters count."""
        if self._count == len(self._last):
            self._make_room()
        for path, value in trial.params.items():
            if path in self._column:
                internal = trial.distributions[path].to_internal_repr(value)
                self._values[self._count, self._column[path]] = internal
        self._states[self._count] = TrialState.RUNNING
        self._count += 1

    def _make_room(self) -> None:
        more = max(64, self._count)
        self._values = with_room(self._values, more)
        self._at_rungs = with_room(self._at_rungs, more)
        self._last = with_room(self._last, more)
        self._states = np.concatenate([self._states, np.zeros(more, dtype=int)])

    def reported(self, row: int, epoch: int, score: float) -> None:
        """The trial's best score after `epoch`."""
        self._last[row] = score
        if epoch in self._rungs:
            self._at_rungs[row, self._rungs.index(epoch)] = score

    def ended(self, row: int, state: TrialState) -> None:
        self._states[row] = state

    def take_in(self, trial: FrozenTrial) -> None:
        """All of the next one."""
        row = self._count
        self.proposed(trial)
        for epoch, score in sorted(trial.intermediate_values.items()):
            self.reported(row, epoch, score)
        self.ended(row, trial.state)

    # --- what they are worth ---------------------------------------------------------------------

    def worth(self) -> dict[int, tuple[int, float]]:
        """By row, of all that have reached the first rung or finished: the rung, 0 for none, and the
        score. Failed trials have none."""
        judged, scores = self._judge()
        rows = np.flatnonzero(judged >= 0)
        return {int(row): (int(judged[row]), float(scores[row])) for row in rows}

    def best_first(self) -> Rows:
        """The rows of all that are worth something; the older of two equals is the better."""
        judged, scores = self._judge()
        rows = np.flatnonzero(judged >= 0)
        return rows[np.lexsort((rows, -scores[rows], -judged[rows]))]

    def _judge(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Rung, -1 for those that are worth nothing, and score, of each row."""
        scores, states = self._last[: self._count], self._states[: self._count]
        finished = states == TrialState.COMPLETE
        # one that was out of patience before a rung has the score there that it ended with
        at_rungs = self._at_rungs[: self._count]
        at_rungs = np.where(finished[:, None] & np.isnan(at_rungs), scores[:, None], at_rungs)
        at_rungs[states == TrialState.FAIL] = np.nan
        reached = ~np.isnan(at_rungs)
        judged = np.where(reached[:, :1].any(axis=1) | finished, 0, -1)
        for rung, at, there in zip(self._rungs, at_rungs.T, reached.T, strict=True):
            arrived = int(there.sum())
            if arrived >= fewest_to_judge(self._reduction_factor):
                place = places(arrived, self._reduction_factor)
                judged[at >= -np.partition(-at[there], place - 1)[place - 1]] = rung
        return judged, scores

    def rows_before_a_rung(self) -> Rows:
        """Of trials under way that are worth nothing yet."""
        running = self._states[: self._count] == TrialState.RUNNING
        before = np.isnan(self._at_rungs[: self._count, :1]).all(axis=1)
        return np.flatnonzero(running & before)

    def values(self, rows: Rows, path: str) -> NDArray[np.float64]:
        """Of those of `rows` that have the parameter, in Optuna's internal representation."""
        values = self._values[rows, self._column[path]]
        return np.asarray(values[~np.isnan(values)])


def with_room(rows: NDArray[np.float64], more: int) -> NDArray[np.float64]:
    """And so many rows of NaN behind them."""
    return np.concatenate([rows, np.full((more, *rows.shape[1:]), np.nan)])
