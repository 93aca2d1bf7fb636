"""What Tune's events leave in MLflow, told by hand: some of them Tune tells rarely."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from search.callbacks import SearchCallback
from search.config import SearchConfig
from search.display import Display
from search.run_folder import RunFolder
from search.space import Point, load_space
from search.tracking import Tracker

CONFIG = SearchConfig.model_validate({"epochs": 9})
SPACE = load_space("optim")


@dataclass
class ToldTrial:
    """What the callback needs of a Tune trial, which cannot be had without Ray."""

    trial_id: str
    config: Point = field(default_factory=lambda: SPACE.point_of(CONFIG.train))
    last_result: dict[str, Any] | None = None
    error_file: str | None = None
    checkpoint: None = None

    def __str__(self) -> str:
        return self.trial_id


class Scene:
    """A callback with a real store."""

    def __init__(self, folder: Path) -> None:
        uri = f"sqlite:///{folder}/mlflow.db"
        self.run = RunFolder(folder / "night")
        self.client = MlflowClient(uri)
        self.callback = SearchCallback(
            CONFIG, SPACE, "trial_000", Tracker(self.run, uri), Display("night", 2, "trials")
        )

    def tell(self, event: str, trial: ToldTrial, **more: Any) -> None:
        getattr(self.callback, event)(iteration=1, trials=[trial], trial=trial, **more)

    def state(self, trial: ToldTrial) -> tuple[str, str]:
        run = self.client.get_run(self.run.mlflow_ids()[f"trial/{trial}"])
        return run.info.status, run.data.tags.get("state", "")

    def traceback(self, trial: ToldTrial) -> str:
        run_id = self.run.mlflow_ids()[f"trial/{trial}"]
        return Path(self.client.download_artifacts(run_id, "traceback.txt")).read_text()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("callbacks"))


@pytest.mark.parametrize(
    ("name", "epoch", "finished", "state"),
    [
        ("trial_010", 9, True, ("FINISHED", "finished")),
        ("trial_011", 3, False, ("KILLED", "pruned at epoch 3")),
    ],
)
def test_a_trial_that_ends_is_finished_or_pruned(
    scene: Scene, name: str, epoch: int, finished: bool, state: tuple[str, str]
) -> None:
    trial = ToldTrial(name)
    scene.tell("on_trial_start", trial)
    assert scene.state(trial) == ("RUNNING", "")
    numbers = {"epoch": epoch, "loss": 0.5, "miou": 0.25, "best_miou": 0.25, "pid": 7}
    trial.last_result = {**numbers, "iou": {"Glass": 0.125}, "finished": finished}
    scene.tell("on_trial_result", trial, result=trial.last_result)
    scene.tell("on_trial_complete", trial)
    assert scene.state(trial) == state
    run = scene.client.get_run(scene.run.mlflow_ids()[f"trial/{name}"])
    assert run.data.metrics["iou/Glass"] == 0.125
    assert "pid" not in run.data.metrics


def test_only_the_hand_tuned_trial_is_tagged_so(scene: Scene) -> None:
    for name, tag in (("trial_000", "true"), ("trial_001", "false")):
        scene.tell("on_trial_start", ToldTrial(name))
        run = scene.client.get_run(scene.run.mlflow_ids()[f"trial/{name}"])
        assert run.data.tags["hand_tuned"] == tag


def test_a_failed_trial_keeps_the_last_line_as_state_and_the_traceback_as_file(
    scene: Scene, tmp_path: Path
) -> None:
    (tmp_path / "error.txt").write_text("Failure # 1\n  in a.py\nValueError: [/x] is wrong\n\n")
    trial = ToldTrial("trial_020", error_file=str(tmp_path / "error.txt"))
    scene.tell("on_trial_start", trial)
    scene.tell("on_trial_error", trial)
    assert scene.state(trial) == ("FAILED", "failed ValueError: [/x] is wrong")
    assert scene.traceback(trial) == (tmp_path / "error.txt").read_text()


def test_a_trial_whose_worker_never_came_up_is_a_failed_trial(scene: Scene) -> None:
    """Tune tells of the error without having told of a start; it must not end the search."""
    trial = ToldTrial("trial_021")
    scene.tell("on_trial_error", trial)
    assert scene.state(trial) == ("FAILED", "failed unknown error")


def test_a_trial_that_is_started_again_goes_on_in_its_run(scene: Scene) -> None:
    trial = ToldTrial("trial_030")
    scene.tell("on_trial_start", trial)
    before = scene.run.mlflow_ids()["trial/trial_030"]
    scene.tell("on_trial_start", trial)
    assert scene.run.mlflow_ids()["trial/trial_030"] == before
