"""How a fold's epochs travel from its history file to MLflow."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.checkpoint_store import SharedFolder
from search.config import SearchConfig
from search.display import Display
from search.kept_weights import KeptWeights
from search.outbox import Outbox
from search.retrain import Job, _catch_up, _log_new_epochs, what_is_there
from search.run_folder import RunFolder
from search.tracking import Tracker
from trashseg.config import TrainConfig
from trashseg.config_file import write_yaml
from trashseg.fold_models import FoldModel


def epoch_line(epoch: int) -> str:
    return json.dumps({"epoch": epoch, "miou": 0.1 * epoch, "best_miou": 0.1 * epoch}) + "\n"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "night")


@pytest.fixture
def job(run: RunFolder) -> Job:
    folder = run.fold("trial_003", 1)
    folder.mkdir(parents=True)
    model = FoldModel(candidate=0, fold=1, folder=folder, config=TrainConfig())
    return Job(model, SharedFolder())


def test_a_fold_begins_with_its_first_epoch_and_logs_each_once(job: Job, run: RunFolder) -> None:
    uri = f"sqlite:///{run.path.parent}/mlflow.db"
    assert job.what == "fold/trial_003/1"
    history = job.model.folder / "history.jsonl"
    with Display("folds", 1, "folds") as display, Tracker(run, uri).closing() as tracker:
        _log_new_epochs(job, tracker, display)
        assert not tracker.has_started(job.what), "a fold that has not begun has no run"
        history.write_text(epoch_line(1))
        _log_new_epochs(job, tracker, display)
        history.write_text(epoch_line(1) + epoch_line(2))
        _log_new_epochs(job, tracker, display)
        _log_new_epochs(job, tracker, display)
    points = MlflowClient(uri).get_metric_history(run.mlflow_ids()[job.what], "miou")
    assert [(point.step, point.value) for point in points] == [(1, 0.1), (2, 0.2)]


def test_a_fold_whose_end_mlflow_did_not_hear_of_is_closed_by_the_next_command(
    job: Job, run: RunFolder
) -> None:
    uri = f"sqlite:///{run.path.parent}/mlflow.db"
    folder = job.model.folder
    (folder / "history.jsonl").write_text(epoch_line(1) + epoch_line(2))
    write_yaml(folder / "config.yaml", TrainConfig().model_dump(mode="json"))
    (folder / "metrics.json").write_text('{"miou": 0.25, "fold": 1}')
    for _ in range(2):
        with Display("folds", 1, "folds") as display, Tracker(run, uri).closing() as tracker:
            _catch_up(job, tracker, display)
    logged = MlflowClient(uri).get_run(run.mlflow_ids()[job.what])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["final/miou"] == 0.25
    assert [event["kind"] for event in Outbox(run.mlflow).history].count("end") == 1


def test_what_is_there_names_folds_that_exist_and_those_that_the_search_has_trained(
    run: RunFolder,
) -> None:
    models = [
        FoldModel(0, fold, run.fold(f"trial_{trial:03d}", fold), TrainConfig())
        for trial in (0, 1)
        for fold in (0, 1)
    ]
    kept = KeptWeights(run, SearchConfig())
    assert what_is_there(kept, models, models) == "0 of 4 folds exist, training the rest"
    for trial in (0, 1):
        run.trial_fold(f"trial_{trial:03d}", 0).mkdir(parents=True)
    searched = "2 of 4 folds exist, the search has trained 1, training the rest"
    assert what_is_there(kept, models, models[2:]) == searched
    assert what_is_there(kept, models[::2], models[::2]) == (
        "0 of 2 folds exist, the search has trained 2"
    )
