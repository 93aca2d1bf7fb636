"""Events of a search, made into MLflow calls. Each may be made again and changes nothing then."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
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
from search.outbox import Event, Outbox
from trashseg.errors import TrashSegError
from trashseg.files import write_json

EXPERIMENT = "trashseg"
PARENT = "parent"
MAX_PARAMS, MAX_METRICS = 100, 1000  # that one log_batch call takes
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
        self._ids: dict[str, str] = json.loads(ids_file.read_text()) if ids_file.is_file() else {}
        self._found = not outbox.history  # nothing can be there that we do not know of

    def take(self, events: Sequence[Event]) -> int:
        """Log the first event, and those after it that go into the same call; returns how many.

        Raises RefusedError for one that will never be taken; anything else may pass.
        """
        first = events[0]
        with refusals(), few_retries():
            if first["kind"] != "metrics":
                {"start": self._start, "files": self._files, "end": self._end}[first["kind"]](first)
                return 1
            alike = list(
                takewhile(lambda e: (e["kind"], e["what"]) == ("metrics", first["what"]), events)
            )
            return self._metrics(alike)

    def _start(self, event: Event) -> None:
        """Make the run, or take it up again: also one that was made just before a kill."""
        what = event["what"]
        if what not in self._ids and not self._found:
            self._find_runs()
        if what in self._ids:
            self._client.update_run(self._ids[what], status="RUNNING")
        else:
            self._create(event)
        params = [Param(key, str(value)) for key, value in flatten(event["config"] or {})]
        for first in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self._ids[what], params=params[first : first + MAX_PARAMS])

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
        write_json(self._ids_file, self._ids)

    def _metrics(self, events: Sequence[Event]) -> int:
        """With the events' own times: MLflow stores the same value, time and step once."""
        metrics: list[Metric] = []
        for count, event in enumerate(events):
            of_event = [
                Metric(NOT_IN_A_NAME.sub("_", key), float(value), event["at"], event["step"])
                for key, value in event["metrics"].items()
            ]
            if metrics and len(metrics) + len(of_event) > MAX_METRICS:
                break
            metrics += of_event
            taken = count + 1
        self._client.log_batch(self._ids[events[0]["what"]], metrics=metrics)
        return taken

    def _files(self, event: Event) -> None:
        folder = self._outbox.files(event)
        if folder.is_dir():  # else it was taken before
            self._client.log_artifacts(self._ids[event["what"]], str(folder))

    def _end(self, event: Event) -> None:
        run_id = self._ids[event["what"]]
        self._client.log_batch(run_id, tags=[RunTag("state", event["state"])])
        self._client.set_terminated(run_id, event["status"], end_time=event["at"])


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
        store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            f"{SQLITE}{partial}", artifact_location(tracking_uri)
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
    variables = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
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
