"""MLflow: one parent run per search; trials, retrained folds and the ensemble nested in it.

Only the driver logs, so only one process writes to sqlite (mlflow issue 6490). The ids of all runs
are kept in the run folder, so that a later command goes on in the same ones.
"""

import csv
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from search.config import SQLITE
from search.run_folder import RunFolder
from trashseg.config import TrainConfig
from trashseg.errors import TrashSegError

EXPERIMENT = "trashseg"
MAX_BATCH = 100  # parameters that one log_batch call takes
NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")  # what MLflow refuses in a metric's name
STATUS = {"finished": "FINISHED", "pruned": "KILLED", "stopped": "KILLED", "failed": "FAILED"}


class Tracker:
    """The MLflow runs of one search."""

    def __init__(self, run: RunFolder, tracking_uri: str) -> None:
        """Creates the store and the experiment before anything logs; TrashSegError if unreachable."""
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # no news of its table migrations
        self._run = run
        self._open: set[str] = set()
        try:
            self._client = MlflowClient(tracking_uri)
            with few_retries():
                self._experiment_id = self._find_experiment(tracking_uri)
        except (MlflowException, OSError) as error:
            problem = str(error).splitlines()[0][:200]
            raise TrashSegError(
                f"--tracking-uri {tracking_uri}: cannot be used ({problem}): start the server or "
                "name another store"
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

    def start(
        self, what: str, name: str, config: TrainConfig | None, tags: Mapping[str, str]
    ) -> str:
        """The MLflow run of `what` ("parent", "trial/ID", ...), made or taken up again."""
        known = self._run.mlflow_ids()
        if what in known:
            self._client.update_run(known[what], status="RUNNING")
            self._open.add(known[what])
            return known[what]
        parent = {MLFLOW_PARENT_RUN_ID: known["parent"]} if "parent" in known else {}
        run = self._client.create_run(
            self._experiment_id, tags={MLFLOW_RUN_NAME: name, **parent, **tags}
        )
        run_id = str(run.info.run_id)
        self._run.remember_mlflow_id(what, run_id)
        self._open.add(run_id)
        if config is not None:
            self._log_config(run_id, config)
        return run_id

    def _log_config(self, run_id: str, config: TrainConfig) -> None:
        tree = config.model_dump(mode="json")
        params = [Param(key, str(value)) for key, value in flatten(tree)]
        for first in range(0, len(params), MAX_BATCH):
            self._client.log_batch(run_id, params=params[first : first + MAX_BATCH])
        self._client.log_dict(run_id, tree, "config.yaml")

    def log_epoch(self, run_id: str, metrics: Mapping[str, Any]) -> None:
        """All numbers of one epoch, with the epoch as step; per-class IoU as iou/CLASS."""
        now = int(time.time() * 1000)
        self._client.log_batch(
            run_id,
            metrics=[
                Metric(NOT_IN_A_NAME.sub("_", key), float(value), now, int(metrics["epoch"]))
                for key, value in flatten(dict(metrics), separator="/")
                if isinstance(value, int | float) and not isinstance(value, bool)
            ],
        )

    def log_scores(self, run_id: str, scores: Mapping[str, Any], prefix: str = "") -> None:
        """Final scores, once."""
        self.log_epoch(
            run_id, {**{f"{prefix}{key}": value for key, value in scores.items()}, "epoch": 0}
        )

    def log_files(self, run_id: str, folder: Path, artifact_path: str) -> None:
        if folder.is_dir():
            self._client.log_artifacts(run_id, str(folder), artifact_path)

    def log_file(self, run_id: str, file: Path) -> None:
        self._client.log_artifact(run_id, str(file))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self._client.log_text(run_id, text, artifact_file)

    def log_confusion(self, run_id: str, table: Path) -> None:
        """confusion.csv as a picture, each row as shares of its truth."""
        self._client.log_figure(run_id, draw_confusion(table), "confusion.png")

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Whatever ends the block early also ends the runs that are open: none is left RUNNING."""
        try:
            yield
        except BaseException as error:
            state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            for run_id in sorted(self._open):
                self.end(run_id, state, str(error)[:300])
            raise

    def end(self, run_id: str, state: str, detail: str = "") -> None:
        """`state` is a key of STATUS; `detail` is shown with it, e.g. "at epoch 3"."""
        self._client.log_batch(run_id, tags=[RunTag("state", f"{state} {detail}".strip())])
        self._client.set_terminated(run_id, STATUS[state])
        self._open.discard(run_id)


@contextmanager
def few_retries() -> Iterator[None]:
    """At the start a server that does not answer is an error in seconds; later MLflow's own patience
    of several minutes holds."""
    variable = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(variable)
    os.environ[variable] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]


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


def draw_confusion(table: Path) -> Any:
    """A matplotlib figure of the matrix in `table` (truth in rows), coloured by the row's shares."""
    from matplotlib.figure import Figure

    with table.open() as file:
        header, *rows = csv.reader(file)
    classes = header[1:]
    counts = [[int(cell) for cell in row[1:]] for row in rows]
    shares = [[cell / max(1, sum(row)) for cell in row] for row in counts]
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title("Share of each class's pixels, out of fold")
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share >= 0.005:
                axes.text(
                    x, y, f"{share:.0%}", ha="center", va="center", fontsize=7,
                    color="white" if share > 0.6 else "black",
                )  # fmt: skip
    return figure
