"""How a fold's epochs travel from its history file to MLflow."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.display import Display
from search.retrain import Job, _log_new_epochs
from search.run_folder import RunFolder
from search.tracking import Tracker
from trashseg.config import TrainConfig
from trashseg.ensemble import FoldModel


def epoch_line(epoch: int) -> str:
    return json.dumps({"epoch": epoch, "miou": 0.1 * epoch, "best_miou": 0.1 * epoch}) + "\n"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    folder = tmp_path / "night" / "folds" / "0" / "1"
    folder.mkdir(parents=True)
    return Job(FoldModel(candidate=0, fold=1, folder=folder, config=TrainConfig()))


def test_each_epoch_is_logged_once_and_a_half_written_line_waits(job: Job, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = Tracker(RunFolder(tmp_path / "night"), uri)
    history = job.model.folder / "history.jsonl"
    with Display("folds", 1, "folds") as display:
        _log_new_epochs(job, tracker, display)
        assert job.run_id == "", "a fold that has not begun has no run"

        history.write_text(epoch_line(1) + epoch_line(2)[:10])
        _log_new_epochs(job, tracker, display)
        assert job.logged == 1

        history.write_text(epoch_line(1) + epoch_line(2))
        _log_new_epochs(job, tracker, display)
        _log_new_epochs(job, tracker, display)
    points = MlflowClient(uri).get_metric_history(job.run_id, "miou")
    assert [(point.step, point.value) for point in points] == [(1, 0.1), (2, 0.2)]
