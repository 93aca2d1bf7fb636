"""The study of a search: read from memory, written through to sqlite.

Optuna's own storage asks the database again for every group of parameters of a proposal. But one
process at a time writes a search's study, so what it has read and written is all there is: nothing is
asked twice. A proposal is one transaction, whole or not there, and so is each later change; each is on
the disk when the call returns (search/study_file.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.study_file import StudyFile


class StudyInMemory(InMemoryStorage):
    """One study, which nothing outlives: what StudyStorage is without a file."""

    def __init__(self, name: str, directions: Sequence[StudyDirection]) -> None:
        super().__init__()
        self._study = self.create_new_study(directions, name)

    def every_trial(self) -> list[FrozenTrial]:
        """In the order of their numbers; not to be changed."""
        return self.get_all_trials(self._study, deepcopy=False)

    def keep(self, trial_id: int) -> None:
        """Write a trial that is new, with all it has; until then it is in memory alone."""

    def together(self) -> AbstractContextManager[None]:
        """What is written in the block is one transaction, on the disk when the block ends."""
        return nullcontext()


class StudyStorage(StudyInMemory):
    """The study called `name` in the sqlite file at `path`; no other process may write to it."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = StudyFile(path, name)
        super().__init__(name, self._file.directions)
        self._kept: dict[int, int] = {}  # the trial's id in the file, by its id here
        for trial in self._file.trials():
            self._kept[self.create_new_trial(self._study, trial)] = trial._trial_id

    def keep(self, trial_id: int) -> None:
        if trial_id not in self._kept:
            self._kept[trial_id] = self._file.add(self.get_trial(trial_id))

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._file.transaction():
            yield

    # --- what Optuna writes ----------------------------------------------------------------------

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
        return done
