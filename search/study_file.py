"""An Optuna study in an sqlite file, written by one process, a transaction for what belongs together.

The tables are those of Optuna's RDBStorage, which makes the file, checks its version and reads it. Only
the writing is done here: RDBStorage makes several queries and a transaction of every parameter and
attribute.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.orm import Session


class StudyFile:
    """The study called `name` in the file at `path`; trials go by their ids there."""

    def __init__(self, path: Path, name: str) -> None:
        self._optuna = RDBStorage(f"sqlite:///{path}")
        self._study = self._optuna.get_study_id_from_name(name)
        self._session: Session | None = None  # of the transaction that is open

    @property
    def directions(self) -> list[StudyDirection]:
        return self._optuna.get_study_directions(self._study)

    def trials(self) -> list[FrozenTrial]:
        """All of them, in the order of their numbers."""
        return self._optuna.get_all_trials(self._study, deepcopy=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """All that is written in the block is on the disk when it ends, or nothing of it."""
        if self._session is not None:
            yield self._session
            return
        with Session(self._optuna.engine) as session, session.begin():
            self._session = session
            try:
                yield session
            finally:
                self._session = None

    def add(self, trial: FrozenTrial) -> int:
        """Write a new trial that has not ended; returns its id."""
        with self.transaction() as session:
            row = TrialModel(study_id=self._study, number=trial.number, state=trial.state)
            row.datetime_start = trial.datetime_start
            session.add(row)
            session.flush()
            trial_id = int(row.trial_id)
            self._set(
                TrialParamModel,
                ("trial_id", "param_name"),
                [
                    row_of_param(trial_id, name, distribution.to_internal_repr(value), distribution)
                    for name, value in trial.params.items()
                    for distribution in [trial.distributions[name]]
                ],
            )
            self.set_user_attrs(trial_id, trial.user_attrs)
            self.set_system_attrs(trial_id, trial.system_attrs)
        return trial_id

    def set_param(
        self, trial_id: int, name: str, internal: float, distribution: BaseDistribution
    ) -> None:
        row = row_of_param(trial_id, name, internal, distribution)
        self._set(TrialParamModel, ("trial_id", "param_name"), [row])

    def set_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        self._set(TrialUserAttributeModel, ("trial_id", "key"), rows_of_attrs(trial_id, attributes))

    def set_system_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        rows = rows_of_attrs(trial_id, attributes)
        self._set(TrialSystemAttributeModel, ("trial_id", "key"), rows)

    def set_intermediate_value(self, trial_id: int, step: int, value: float) -> None:
        stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": stored,
            "intermediate_value_type": kind,
        }
        self._set(TrialIntermediateValueModel, ("trial_id", "step"), [row])

    def set_state(self, trial_id: int, trial: FrozenTrial) -> None:
        """`trial`'s state, value and times."""
        with self.transaction() as session:
            row = session.get_one(TrialModel, trial_id)
            row.state = trial.state
            row.datetime_start = trial.datetime_start
            row.datetime_complete = trial.datetime_complete
            self._set(
                TrialValueModel, ("trial_id", "objective"), rows_of_values(trial_id, trial.values)
            )

    def _set(self, table: Any, key: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of which there is one for each `key`; the newest counts."""
        if rows:
            with self.transaction() as session:
                session.execute(upsert(table, tuple(key), tuple(rows[0])), list(rows))


@cache
def upsert(table: Any, key: tuple[str, ...], columns: tuple[str, ...]) -> Insert:
    """Insert rows of `columns`, or put their values into the rows that have their `key`."""
    statement = insert(table)
    others = {name: statement.excluded[name] for name in columns if name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=others)


Row = dict[str, Any]


def row_of_param(trial_id: int, name: str, internal: float, distribution: BaseDistribution) -> Row:
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": internal,
        "distribution_json": distribution_to_json(distribution),
    }


def rows_of_attrs(trial_id: int, attributes: Mapping[str, Any]) -> list[Row]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]


def rows_of_values(trial_id: int, values: Sequence[float] | None) -> list[Row]:
    stored = [TrialValueModel.value_to_stored_repr(value) for value in values or ()]
    return [
        {"trial_id": trial_id, "objective": objective, "value": value, "value_type": kind}
        for objective, (value, kind) in enumerate(stored)
    ]
