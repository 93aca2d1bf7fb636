"""Events of a search, made into MLflow calls. Each may be made again and changes nothing then."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from sqlalchemy.exc import SQLAlchemyError

from search.config import SQLITE
from search.new_sqlite import new_sqlite
from search.outbox import Event, Outbox, read_whole_lines
from trashseg.config_file import to_yaml
from trashseg.errors import TrashSegError

EXPERIMENT = "trashseg"
PARENT = "parent"
MAX_PARAMS, MAX_ENTRIES = 100, 1000  # that one log_batch call takes
NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")  # what MLflow refuses in a metric's name
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"}


class RefusedError(Exception):
    """MLflow will never take this event."""


class MlflowStore:
    """The runs of one search in an MLflow store or server."""

    def __init__(self, tracking_uri: str) -> None:
        """Creates the store and the experiment before anything logs; TrashSegError if unreachable."""
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # no news of its table migrations
        try:
            if tracking_uri.startswith(SQLITE):
                create_sqlite(tracking_uri)
            self._client = MlflowClient(tracking_uri)
            with few_retries():
                self._experiment_id = self._find_experiment(tracking_uri)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise TrashSegError(
                f"--tracking-uri {tracking_uri}: cannot be used ({first_line(error)}): start the "
                "server or name another store"
            ) from None

    def _find_experiment(self, tracking_uri: str) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment:
            return str(experiment.experiment_id)
        return self._client.create_experiment(
            EXPERIMENT,
            artifact_location=artifact_location(tracking_uri),
            tags={"mlflow.experimentKind": "custom_model_development"},  # opens as training
        )

    def open(self, outbox: Outbox, search_id: str, ids_file: Path) -> None:
        """Take events from `outbox`; `ids_file` keeps which run is whose."""
        self._outbox, self._search_id, self._ids_file = outbox, search_id, ids_file
        self._ids = read_ids(ids_file)
        self._found = not outbox.history  # nothing can be there that we do not know of

    def take(self, events: Sequence[Event]) -> None:
        """Log the events, run by run, each run's in their order and in as few calls as that allows.

        Raises RefusedError if one of them will never be taken; anything else may pass. Either way some
        of them may have been logged.
        """
        by_run: dict[str, list[Event]] = {}
        for event in events:
            by_run.setdefault(event["what"], []).append(event)
        with refusals(), few_retries():
            for what, own in by_run.items():
                self._take_of_run(what, own)

    def _take_of_run(self, what: str, events: Sequence[Event]) -> None:
        batch = Batch()
        for event in events:
            if event["kind"] == "start":
                self._log(what, batch)
                self._start(event)
                batch = Batch(params=params_of(event))
            elif event["kind"] == "metrics":
                batch.metrics += metrics_of(event)
            elif event["kind"] == "files":
                self._files(event)
            else:
                batch.tags.append(RunTag("state", event["state"]))
                self._log(what, batch)
                batch = Batch()
                status = event["status"]
                self._client.set_terminated(self._ids[what], status, end_time=event["at"])
        self._log(what, batch)

    def _start(self, event: Event) -> None:
        """Make the run, or take it up again: also one that was made just before a kill."""
        what = event["what"]
        if what not in self._ids and not self._found:
            self._find_runs()
        if what in self._ids:
            self._client.update_run(self._ids[what], status="RUNNING")
        else:
            self._create(event)
        if event["config"]:
            self._client.log_text(self._ids[what], to_yaml(event["config"]), "config.yaml")

    def _create(self, event: Event) -> None:
        what = event["what"]
        tags = {
            MLFLOW_RUN_NAME: event["name"], "search_id": self._search_id, "what": what,
            **({MLFLOW_PARENT_RUN_ID: self._ids[PARENT]} if PARENT in self._ids else {}),
            **event["tags"],
        }  # fmt: skip
        self._found = False  # a server that is lost before it answers may have made the run
        run = self._client.create_run(self._experiment_id, start_time=event["at"], tags=tags)
        self._remember({what: str(run.info.run_id)})
        self._found = True

    def _find_runs(self) -> None:
        """What was made and could not be noted: the command was killed, or the answer was lost."""
        runs = self._client.search_runs(
            [self._experiment_id], f"tags.search_id = '{self._search_id}'", max_results=50_000
        )
        self._remember({run.data.tags["what"]: str(run.info.run_id) for run in runs})
        self._found = True

    def _remember(self, ids: Mapping[str, str]) -> None:
        self._ids.update(ids)
        with self._ids_file.open("a") as file:
            file.writelines(json.dumps({what: id}) + "\n" for what, id in ids.items())

    def _log(self, what: str, batch: "Batch") -> None:
        """All of it, in as many calls as MLflow's limits ask for, at best in one."""
        for part in batch.parts():
            self._client.log_batch(self._ids[what], part.metrics, part.params, part.tags)

    def _files(self, event: Event) -> None:
        folder = self._outbox.files(event)
        if folder.is_dir():  # else it was taken before
            self._client.log_artifacts(self._ids[event["what"]], str(folder))


@dataclass
class Batch:
    """What goes into one run."""

    metrics: list[Metric] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    tags: list[RunTag] = field(default_factory=list)

    def parts(self) -> Iterator["Batch"]:
        """No larger than one log_batch call takes: at most 1000 entries in all."""
        tags = self.tags
        for first in range(MAX_PARAMS, len(self.params), MAX_PARAMS):
            yield Batch(params=self.params[first : first + MAX_PARAMS])
        params, room = self.params[:MAX_PARAMS], MAX_ENTRIES - MAX_PARAMS - len(tags)
        for first in range(room, len(self.metrics), room):
            yield Batch(metrics=self.metrics[first : first + room])
        if params or tags or self.metrics:
            yield Batch(self.metrics[:room], params, tags)


def params_of(start: Event) -> list[Param]:
    return [Param(key, str(value)) for key, value in flatten(start["config"] or {})]


def metrics_of(event: Event) -> list[Metric]:
    """With the event's own time: MLflow stores the same value, time and step once."""
    return [
        Metric(NOT_IN_A_NAME.sub("_", key), float(value), event["at"], event["step"])
        for key, value in event["metrics"].items()
    ]


def read_ids(file: Path) -> dict[str, str]:
    """{what: the id of its run}; a line that a kill has cut off is left out, its run is found again."""
    return dict(entry for line in read_whole_lines(file) for entry in line.items())


def create_sqlite(tracking_uri: str) -> None:
    """Make the file of an sqlite store, if there is none, whole or not at all: MLflow makes its tables
    one by one, and never opens again what a kill meanwhile has left."""
    file = Path(tracking_uri.removeprefix(SQLITE))
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        if file.exists():  # somebody else was first
            return
        partial = file.with_name(f"{file.name}.partial")
        partial.unlink(missing_ok=True)
        with new_sqlite(partial) as address:
            store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
                address, artifact_location(tracking_uri)
            )
            store.engine.dispose()
        partial.rename(file)


@contextmanager
def refusals() -> Iterator[None]:
    """Tell errors that will not pass from those that may: a lost server, a locked or full store."""
    try:
        yield
    except MlflowException as error:
        if error.error_code in REFUSALS:
            raise RefusedError(first_line(error)) from error
        raise


@contextmanager
def few_retries() -> Iterator[None]:
    """MLflow itself would try a server that does not answer for minutes; the outbox is more patient."""
    with environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_REQUEST_TIMEOUT="20"):
        yield


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Settings of MLflow, where the user has made none."""
    unset = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in unset})
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def artifact_location(tracking_uri: str) -> str | None:
    """`mlartifacts` beside an sqlite file (MLflow's default is the current folder); a server's own."""
    if not tracking_uri.startswith(SQLITE):
        return None
    return (Path(tracking_uri.removeprefix(SQLITE)).parent / "mlartifacts").as_uri()


def flatten(
    tree: Mapping[str, Any], prefix: str = "", separator: str = "."
) -> Iterator[tuple[str, Any]]:
    """{"a": {"b": 1}} to ("a.b", 1)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}{separator}", separator)
        else:
            yield prefix + key, value
