"""What is logged can be read from a real MLflow store."""

import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from search.confusion import draw_confusion
from search.mlflow_store import Batch, MlflowStore, flatten
from search.run_folder import RunFolder
from search.tracking import Tracker
from trashseg.config import TrainConfig
from trashseg.errors import TrashSegError


class Store:
    """A tracker on an sqlite file, and MLflow's own view of it once all is delivered."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.run = RunFolder(folder / "night")
        self.warnings: list[str] = []
        self.reopen()
        self.client = MlflowClient(uri)

    def reopen(self) -> None:
        """As the next command does."""
        self.tracker = Tracker(self.run, self.uri, warn=self.warnings.append)

    def start(self, what: str, config: TrainConfig | None = None, **tags: str) -> str:
        self.tracker.start(what, what.rpartition("/")[2], config, tags)
        return what

    def id(self, what: str) -> str:
        assert self.tracker._outbox.wait_until_empty(60)
        return self.run.mlflow_ids()[what]

    def get(self, what: str) -> Run:
        return self.client.get_run(self.id(what))

    def history(self, what: str, metric: str) -> dict[int, float]:
        points = self.client.get_metric_history(self.id(what), metric)
        assert len({point.step for point in points}) == len(points)
        return {point.step: point.value for point in points}

    def artifact(self, what: str, name: str) -> Path:
        return Path(self.client.download_artifacts(self.id(what), name))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def store(uri: str, tmp_path: Path) -> Iterator[Store]:
    store = Store(uri, tmp_path)
    yield store
    store.tracker.close()


# --- runs --------------------------------------------------------------------------------------


def test_trials_folds_and_the_ensemble_are_nested_in_the_search(store: Store) -> None:
    parent = store.start("parent", kind="search")
    children = [store.start(what) for what in ("trial/trial_000", "fold/trial_000/1", "ensemble")]
    assert "mlflow.parentRunId" not in store.get(parent).data.tags
    assert store.get(parent).data.tags["kind"] == "search"
    for child in children:
        assert store.get(child).data.tags["mlflow.parentRunId"] == store.id(parent)
        assert store.get(child).info.status == "RUNNING"
    assert store.get(children[0]).data.tags["mlflow.runName"] == "trial_000"
    assert list(store.run.mlflow_ids()) == [parent, *children]


def test_a_later_command_goes_on_in_the_same_run(store: Store) -> None:
    store.start("parent")
    trial = store.start("trial/trial_000", TrainConfig())
    store.tracker.log_epoch(trial, {"epoch": 1, "loss": 0.5})
    store.tracker.end(trial, "finished")
    before = store.id(trial)
    assert store.tracker.has_ended(trial)
    store.tracker.close()
    store.reopen()
    assert store.tracker.has_ended(trial)
    store.start(trial, TrainConfig())
    assert not store.tracker.has_ended(trial)
    assert store.id(trial) == before
    assert store.get(trial).info.status == "RUNNING"
    store.tracker.log_epoch(trial, {"epoch": 1, "loss": 0.75})  # no news
    store.tracker.log_epoch(trial, {"epoch": 2, "loss": 0.25})
    assert store.history(trial, "loss") == {1: 0.5, 2: 0.25}


def test_a_run_that_was_made_but_whose_answer_was_lost_is_not_made_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Run] = []
    create_run = MlflowClient.create_run

    def lose_the_first_answer(client: MlflowClient, *arguments: Any, **named: Any) -> Run:
        made.append(create_run(client, *arguments, **named))
        if len(made) == 1:
            raise ConnectionResetError("the server was lost")
        return made[-1]

    monkeypatch.setattr(MlflowClient, "create_run", lose_the_first_answer)
    parent = store.start("parent", kind="search")
    assert store.id(parent) == made[0].info.run_id
    trial = store.start("trial/trial_000", kind="trial")
    assert store.id(trial) == made[1].info.run_id
    assert len(made) == 2


def test_two_searches_of_one_store_have_two_parents(store: Store, tmp_path: Path) -> None:
    first = store.start("parent")
    other = Store(store.uri, tmp_path / "other")
    other.start("parent")
    assert store.id(first) != other.id("parent")
    assert store.get(first).info.experiment_id == other.get("parent").info.experiment_id
    other.tracker.close()


@pytest.mark.parametrize(
    ("state", "detail", "status", "tag"),
    [
        ("finished", "", "FINISHED", "finished"),
        ("pruned", "at epoch 3", "KILLED", "pruned at epoch 3"),
        ("stopped", "", "KILLED", "stopped"),
        ("failed", "NonFiniteError: epoch 1", "FAILED", "failed NonFiniteError: epoch 1"),
    ],
)
def test_a_run_ends_with_its_state(
    store: Store, state: str, detail: str, status: str, tag: str
) -> None:
    run = store.start("trial/x")
    store.tracker.end(run, state, detail)
    assert store.get(run).info.status == status
    assert store.get(run).info.end_time is not None
    assert store.get(run).data.tags["state"] == tag


# --- parameters and metrics --------------------------------------------------------------------


def test_every_setting_is_a_parameter_and_the_whole_a_file(store: Store) -> None:
    config = TrainConfig(epochs=7)
    run = store.start("trial/x", config)
    params = store.get(run).data.params
    assert params == {key: str(value) for key, value in flatten(config.model_dump(mode="json"))}
    assert params["epochs"] == "7"
    assert params["loss.name"] == "cross_entropy"
    assert "epochs: 7" in store.artifact(run, "config.yaml").read_text()


def test_more_parameters_than_a_batch_takes_are_all_logged(store: Store) -> None:
    class Wide(TrainConfig):
        many: dict[str, int] = {f"key{number}": number for number in range(250)}

    run = store.start("trial/x", Wide())
    params = store.get(run).data.params
    assert {params[f"many.key{number}"] for number in range(250)} == set(map(str, range(250)))
    assert len(params) == 250 + len(list(flatten(TrainConfig().model_dump())))


def test_metrics_have_the_epoch_as_step(store: Store) -> None:
    run = store.start("trial/x")
    for epoch, loss in ((1, 0.5), (2, 0.25), (3, 0.125)):
        store.tracker.log_epoch(run, {"epoch": epoch, "loss": loss, "miou": 0.0})
    assert store.history(run, "loss") == {1: 0.5, 2: 0.25, 3: 0.125}
    assert store.history(run, "miou") == {1: 0.0, 2: 0.0, 3: 0.0}


def test_iou_is_logged_by_class_and_a_class_without_one_is_left_out(store: Store) -> None:
    run = store.start("trial/x")
    iou = {"Background": 0.75, "General trash": 0.0, "Glass": None}
    store.tracker.log_epoch(run, {"epoch": 1, "iou": iou, "finished": True, "note": "text"})
    assert store.get(run).data.metrics == {
        "epoch": 1.0, "iou/Background": 0.75, "iou/General trash": 0.0
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["Plastic bag & wrapper", "Other (soft)", "50% wool", "No. 7", "A/B", "Etc.", "유리"]
)
def test_a_class_may_have_any_name(store: Store, name: str) -> None:
    """TACO itself has `Plastic bag & wrapper`; MLflow takes letters, digits and - _ . / : only."""
    run = store.start("trial/x")
    store.tracker.log_epoch(run, {"epoch": 1, "iou": {"Background": 0.5, name: 0.25}})
    metrics = store.get(run).data.metrics
    assert sorted(metrics.values()) == [0.25, 0.5, 1.0]


def test_final_scores_have_their_prefix(store: Store) -> None:
    run = store.start("fold/0/0")
    scores: dict[str, Any] = {"miou": 0.5, "images": 20, "iou": {"Glass": 0.25, "Paper": None}}
    store.tracker.log_scores(run, scores, prefix="final/")
    metrics = store.get(run).data.metrics
    assert metrics["final/miou"] == 0.5
    assert metrics["final/images"] == 20.0
    assert metrics["final/iou/Glass"] == 0.25
    assert "final/iou/Paper" not in metrics


def test_newer_scores_count(store: Store) -> None:
    """Of a search that was given more trials, say."""
    run = store.start("parent")
    for best in (0.5, 0.625):
        store.tracker.log_scores(run, {"best": {"miou": best}})
        time.sleep(0.002)  # MLflow's clock ticks in milliseconds
    assert store.get(run).data.metrics["best/miou"] == 0.625


def test_flatten_keeps_order_and_joins_keys_with_dots() -> None:
    assert list(flatten({"b": {"c": {"d": 1}, "e": [2]}, "a": None, "empty": {}})) == [
        ("b.c.d", 1), ("b.e", [2]), ("a", None)
    ]  # fmt: skip


# --- many events at once -----------------------------------------------------------------------


def test_trials_that_report_in_turn_each_have_their_own(store: Store) -> None:
    """All of it waits, so that it goes into one delivery."""
    with store.tracker._outbox._changed:  # nothing is delivered meanwhile
        trials = [store.start(f"trial/{name}", TrainConfig(seed=name)) for name in (3, 4)]
        for epoch in (1, 2, 3):
            for place, trial in enumerate(trials):
                store.tracker.log_epoch(trial, {"epoch": epoch, "loss": place + epoch / 10})
        for trial in trials:
            store.tracker.end(trial, "pruned", "at epoch 3")
    for place, trial in enumerate(trials):
        assert store.history(trial, "loss") == {e: place + e / 10 for e in (1, 2, 3)}
        assert store.get(trial).data.params["seed"] == str(3 + place)
        assert store.get(trial).data.tags["state"] == "pruned at epoch 3"
        assert store.get(trial).info.status == "KILLED"


def test_a_run_that_ends_and_begins_again_in_one_delivery_goes_on(store: Store) -> None:
    with store.tracker._outbox._changed:
        trial = store.start("trial/x", TrainConfig())
        store.tracker.end(trial, "stopped")
        store.start(trial, TrainConfig())
        store.tracker.log_epoch(trial, {"epoch": 1, "loss": 0.5})
    assert store.get(trial).info.status == "RUNNING"
    assert store.history(trial, "loss") == {1: 0.5}


def test_an_event_that_mlflow_refuses_is_set_aside_and_those_around_it_are_taken(
    store: Store,
) -> None:
    with store.tracker._outbox._changed:
        run, other = store.start("trial/x"), store.start("trial/y")
        store.tracker.log_epoch(run, {"epoch": 1, "loss": 0.5})
        store.tracker.log_epoch(run, {"epoch": 2, "x" * 300: 1.0})  # longer than a name may be
        store.tracker.log_epoch(run, {"epoch": 3, "loss": 0.25})
        store.tracker.log_epoch(other, {"epoch": 1, "loss": 0.125})
    assert store.history(run, "loss") == {1: 0.5, 3: 0.25}
    assert store.history(other, "loss") == {1: 0.125}
    [warning] = store.warnings
    assert "refused metrics of trial/x" in warning


def test_a_batch_is_split_as_mlflow_asks() -> None:
    """100 parameters and 1000 entries in all: of 250 and 2000 the first 100 go with 899 metrics and the
    tag, then 100 and 50 parameters, then 899 and 202 metrics."""
    batch = Batch(
        [Metric("m", n, 0, n) for n in range(2000)],
        [Param(f"p{n}", "1") for n in range(250)],
        [RunTag("state", "finished")],
    )
    parts = list(batch.parts())
    sizes = sorted((len(part.metrics), len(part.params), len(part.tags)) for part in parts)
    assert sizes == [(0, 50, 0), (0, 100, 0), (202, 0, 0), (899, 0, 0), (899, 100, 1)]
    assert sorted(m.step for part in parts for m in part.metrics) == list(range(2000))
    assert list(Batch().parts()) == []


# --- files -------------------------------------------------------------------------------------


def test_artifacts_lie_beside_the_database(store: Store) -> None:
    run = store.start("trial/x")
    store.tracker.log_text(run, "Traceback: none", "traceback.txt")
    assert store.artifact(run, "traceback.txt").read_text() == "Traceback: none"
    beside = Path(store.uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert len(list(beside.rglob("traceback.txt"))) >= 1


def test_a_folder_that_is_not_there_is_no_error(store: Store, tmp_path: Path) -> None:
    run = store.start("trial/x")
    store.tracker.log_files(run, tmp_path / "none", "pictures")
    assert store.client.list_artifacts(store.id(run)) == []


CONFUSION = "truth,Background,Glass,Paper\nBackground,90,10,0\nGlass,0,3,1\nPaper,0,0,0\n"


def test_the_confusion_matrix_is_a_picture(store: Store, tmp_path: Path) -> None:
    (tmp_path / "confusion.csv").write_text(CONFUSION)
    run = store.start("ensemble")
    store.tracker.log_confusion(run, tmp_path / "confusion.csv")
    content = store.artifact(run, "confusion.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")


def test_the_confusion_matrix_shows_each_rows_shares(tmp_path: Path) -> None:
    (tmp_path / "confusion.csv").write_text(CONFUSION)
    [axes] = draw_confusion(tmp_path / "confusion.csv").axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    # 90 of 100, 10 of 100, 3 of 4, 1 of 4; a row without pixels shows nothing
    assert shown == {(0, 0): "90%", (1, 0): "10%", (1, 1): "75%", (2, 1): "25%"}
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "Background", "Glass", "Paper"
    ]  # fmt: skip


# --- a store that cannot be used ---------------------------------------------------------------


KILLED_AMID_ITS_TABLES = """
import os, sys
from sqlalchemy import Engine, event
from search.mlflow_store import MlflowStore

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *more):
    if "CREATE TABLE _alembic_tmp_runs" in statement:
        os._exit(9)

MlflowStore(sys.argv[1])
"""


def test_a_store_whose_making_was_killed_is_made_by_the_next_command(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    killed = subprocess.run([sys.executable, "-c", KILLED_AMID_ITS_TABLES, uri], check=False)
    assert killed.returncode == 9
    MlflowStore(uri)
    experiment = MlflowClient(uri).get_experiment_by_name("trashseg")
    assert experiment is not None
    assert experiment.artifact_location == (tmp_path / "mlartifacts").as_uri()


def test_a_store_that_was_left_half_made_is_one_line(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as half_made, half_made:
        half_made.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    with pytest.raises(TrashSegError, match=r"mlflow.db: cannot be used \(.*\): start") as caught:
        MlflowStore(f"sqlite:///{tmp_path}/mlflow.db")
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as listener:  # bound but not listening: nobody else takes the port
        listener.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TrashSegError) as caught:
            Tracker(RunFolder(tmp_path / "night"), uri)
    message = str(caught.value)
    assert message.startswith(f"--tracking-uri {uri}: cannot be used (")
    assert message.endswith("start the server or name another store")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["sqlite:////proc/nowhere/mlflow.db", "gopher://x/y"])
def test_a_store_that_cannot_be_is_one_line(tmp_path: Path, uri: str) -> None:
    with pytest.raises(TrashSegError, match=f"--tracking-uri {uri}: cannot be used"):
        Tracker(RunFolder(tmp_path / "night"), uri)
