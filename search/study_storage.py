"""The study of a search: read from memory, written through to sqlite.

Optuna's own storage asks the database again for every group of parameters of a proposal. But one
process at a time writes a search's study, so what it has read and written is all there is: nothing is
asked twice. A proposal is one transaction, whole or not there, and so is each later change; each is on
the disk when the call returns (search/study_file.py).
"""

import copy
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from heapq import nsmallest
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from search.study_file import StudyFile

IN_SIGHT = 250  # ended trials that a sampler looks at
GOOD = 25  # the most that TPE takes for good ones: a tenth, from 250 on no more (its default_gamma)
LEARNT_FROM = (TrialState.COMPLETE, TrialState.PRUNED)


def in_sight(ended: Sequence[FrozenTrial], most: int = IN_SIGHT) -> list[FrozenTrial]:
    """All of the `ended` trials, or the `most` that matter, by number: those that TPE takes for good
    ones, and the newest of the others.

    TPE models the good ones and the rest, and looks at each trial for each parameter. The good ones
    stay exactly those of all trials. Of the rest the newest count in full in any case, the older ones
    the less the longer ago they were; beyond `most` they count nothing, and a proposal costs the same
    however long the search is.
    """
    if len(ended) <= most:
        return sorted(ended, key=_number)
    by_number = sorted(ended, key=_number)
    good = {trial.number for trial in nsmallest(min(GOOD, most), by_number, key=_rank)}
    rest = [trial for trial in by_number if trial.number not in good]
    newest = {trial.number for trial in rest[len(rest) - (most - len(good)) :]}
    return [trial for trial in by_number if trial.number in good | newest]


def _number(trial: FrozenTrial) -> int:
    return trial.number


def _rank(trial: FrozenTrial) -> tuple[float, ...]:
    """TPE's order of a study that maximizes: finished ones by value, then pruned ones by how far they
    got, then by their last score."""
    if trial.state == TrialState.COMPLETE:
        assert trial.value is not None
        return 0, -trial.value
    if not trial.intermediate_values:
        return 1, 1, 0.0
    step, value = max(trial.intermediate_values.items())
    return 1, -step, -value


class StudyStorage(InMemoryStorage):
    """The study called `name` in the sqlite file at `path`; no other process may write to it.

    `get_all_trials`, from which samplers learn, gives the open trials and those `in_sight`; failed ones
    are left out. `every_trial` gives all.
    """

    def __init__(self, path: Path, name: str) -> None:
        super().__init__()
        self._file = StudyFile(path, name)
        self._study = self.create_new_study(self._file.directions, name)
        self._kept: dict[int, int] = {}  # the trial's id in the file, by its id here
        self._open: set[int] = set()
        self._ended: list[FrozenTrial] = []
        self._sight: list[FrozenTrial] | None = None  # of those; None where one has ended since
        for trial in self._file.trials():
            self._kept[self.create_new_trial(self._study, trial)] = trial._trial_id

    def every_trial(self) -> list[FrozenTrial]:
        """In the order of their numbers; not to be changed."""
        return super().get_all_trials(self._study, deepcopy=False)

    def keep(self, trial_id: int) -> None:
        """Write a trial that is new, with all it has; until then it is in memory alone."""
        if trial_id not in self._kept:
            self._kept[trial_id] = self._file.add(self.get_trial(trial_id))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written in the block is one transaction, on the disk when the block ends."""
        with self._file.transaction():
            yield

    # --- what Optuna asks for --------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        self._open.add(trial_id)
        self._look_at(trial_id)
        return trial_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if self._sight is None:
            self._sight = in_sight(self._ended)
        seen = [*self._sight, *map(self.get_trial, self._open)]
        chosen = [trial for trial in seen if states is None or trial.state in states]
        chosen.sort(key=_number)
        return copy.deepcopy(chosen) if deepcopy else chosen

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        if trial_id in self._kept:
            at = self._kept[trial_id]
            self._file.set_param(at, param_name, param_value_internal, distribution)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        if trial_id in self._kept:
            self._file.set_intermediate_value(self._kept[trial_id], step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, value)
        if trial_id in self._kept:
            self._file.set_user_attrs(self._kept[trial_id], {key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        if trial_id in self._kept:
            self._file.set_system_attrs(self._kept[trial_id], {key: value})

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        if done and trial_id in self._kept:
            self._file.set_state(self._kept[trial_id], self.get_trial(trial_id))
        self._look_at(trial_id)
        return done

    def _look_at(self, trial_id: int) -> None:
        """Sort in a trial that may have ended."""
        trial = self.get_trial(trial_id)
        if not trial.state.is_finished():
            return
        self._open.discard(trial_id)
        if trial.state in LEARNT_FROM:
            self._ended.append(trial)
            self._sight = None
