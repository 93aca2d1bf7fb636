"""What Tune's events leave in MLflow, told by hand: some of them Tune tells rarely."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from search.callbacks import SearchCallback
from search.config import SearchConfig
from search.ledger import State
from search.live import SearchDisplay
from search.patience import TimeBudget
from search.run_folder import RunFolder
from search.space import load_space
from search.tracking import Tracker
from tests.search.ledgers import open_ledger

CONFIG = SearchConfig.model_validate({"epochs": 9, "search": {"min_free_gb": 0}})
SPACE = load_space("optim")


@dataclass
class ToldTrial:
    """What the callback needs of a Tune trial, which cannot be had without Ray."""

    name: str

    @property
    def config(self) -> dict[str, Any]:
        return SPACE.point_of(CONFIG.train)

    def __str__(self) -> str:
        return self.name


class Scene:
    """A callback with a real ledger of three trials and a real store, as after each (re)start."""

    def __init__(self, folder: Path) -> None:
        uri = f"sqlite:///{folder}/mlflow.db"
        self.run = RunFolder(folder / "night")
        self.run.path.mkdir(exist_ok=True)
        self.ledger = open_ledger(self.run.study_db, CONFIG, SPACE)
        while self.ledger.proposed < 3:
            self.ledger.propose()
        self.tracker = Tracker(self.run, uri)
        self.client = MlflowClient(uri)  # on the store that the tracker has made
        self.callback = SearchCallback(
            self.run, CONFIG, SPACE, self.ledger, self.tracker, SearchDisplay(CONFIG),
            TimeBudget(None, 9),
        )  # fmt: skip

    def tell(self, event: str, name: str, **more: Any) -> None:
        trial = ToldTrial(name)
        getattr(self.callback, event)(iteration=1, trials=[trial], trial=trial, **more)

    def start(self, name: str) -> None:
        self.tell("on_trial_start", name)

    def epoch(self, name: str, epoch: int) -> None:
        numbers = {"epoch": epoch, "loss": 0.5, "miou": 0.25, "best_miou": 0.25, "pid": 7}
        result = {**numbers, "iou": {"Glass": 0.125}, "seconds": 1.0, "finished": False}
        self.tell("on_trial_result", name, result=result)

    def id(self, name: str) -> str:
        assert self.tracker._outbox.wait_until_empty(60)
        return self.run.mlflow_ids()[f"trial/{name}"]

    def mlflow_run(self, name: str) -> Any:
        return self.client.get_run(self.id(name))

    def state(self, name: str) -> tuple[str, str]:
        run = self.mlflow_run(name)
        return run.info.status, run.data.tags.get("state", "")

    def traceback(self, name: str) -> str:
        return Path(self.client.download_artifacts(self.id(name), "traceback.txt")).read_text()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def weights_of(scene: Scene, name: str) -> Path:
    folder = scene.run.trial_fold(name, 0) / "checkpoints" / "epoch_0003"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "scene.png").write_bytes(b"png")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize(
    ("state", "facts", "expected", "kept"),
    [
        ("finished", {"epoch": 9, "best_miou": 0.5}, ("FINISHED", "finished"), True),
        ("pruned", {"epoch": 3, "best_miou": 0.5}, ("KILLED", "pruned at epoch 3"), False),
        ("failed", {"error": "ValueError: [/x]"}, ("FAILED", "failed ValueError: [/x]"), False),
    ],
)  # fmt: skip
def test_a_trial_that_ends_is_closed_with_its_pictures_and_only_a_finished_one_keeps_its_weights(
    scene: Scene, state: State, facts: dict[str, Any], expected: tuple[str, str], kept: bool
) -> None:
    scene.start("trial_001")
    assert scene.state("trial_001") == ("RUNNING", "")
    scene.epoch("trial_001", 3)
    weights = weights_of(scene, "trial_001")
    scene.callback.trial_ended("trial_001", state, facts)
    assert scene.state("trial_001") == expected
    metrics = scene.mlflow_run("trial_001").data.metrics
    assert metrics["iou/Glass"] == 0.125
    assert "pid" not in metrics
    pictures = scene.client.list_artifacts(scene.id("trial_001"), "pictures")
    assert [picture.path for picture in pictures] == ["pictures/scene.png"]
    assert weights.exists() == kept


def test_only_the_hand_tuned_trial_is_tagged_so(scene: Scene) -> None:
    for name, tag in (("trial_000", "true"), ("trial_001", "false")):
        scene.start(name)
        assert scene.mlflow_run(name).data.tags["hand_tuned"] == tag


def test_a_failed_trial_keeps_its_traceback_as_a_file(scene: Scene) -> None:
    scene.start("trial_001")
    facts = {"error": "ValueError: wrong", "traceback": "Traceback\n  in a.py\nValueError: wrong\n"}
    scene.callback.trial_ended("trial_001", "failed", facts)
    assert scene.traceback("trial_001") == facts["traceback"]


def test_a_trial_whose_worker_never_came_up_is_a_failed_trial(scene: Scene) -> None:
    """Tune tells of no start."""
    scene.callback.trial_ended("trial_002", "failed", {"error": "its worker did not come up"})
    assert scene.state("trial_002") == ("FAILED", "failed its worker did not come up")


def test_an_error_report_is_no_epoch(scene: Scene) -> None:
    scene.start("trial_001")
    scene.tell("on_trial_result", "trial_001", result={"error": "NonFiniteError: nan"})
    assert scene.mlflow_run("trial_001").data.metrics == {}


# --- after a kill ------------------------------------------------------------------------------


def test_a_trial_that_is_taken_up_again_goes_on_in_its_run_and_repeats_no_epoch(
    scene: Scene, tmp_path: Path
) -> None:
    scene.start("trial_001")
    scene.epoch("trial_001", 1)
    scene.epoch("trial_001", 2)
    before = scene.id("trial_001")
    again = Scene(tmp_path)
    again.start("trial_001")
    again.epoch("trial_001", 2)
    again.epoch("trial_001", 3)
    assert again.id("trial_001") == before
    history = again.client.get_metric_history(before, "miou")
    assert sorted(point.step for point in history) == [1, 2, 3]
    assert again.state("trial_001") == ("RUNNING", "")


def test_what_had_ended_in_the_ledger_only_is_closed_at_the_next_start(
    scene: Scene, tmp_path: Path
) -> None:
    for name in ("trial_000", "trial_001", "trial_002"):
        scene.start(name)
        scene.epoch(name, 3)
    weights = [weights_of(scene, name) for name in ("trial_000", "trial_001", "trial_002")]
    scene.ledger.record_epoch("trial_000", 3, 0.5)
    scene.ledger.end("trial_000", "finished", {"epoch": 3, "best_miou": 0.5})
    scene.ledger.end("trial_001", "failed", {"error": "ValueError: x", "traceback": "trace"})
    again = Scene(tmp_path)
    again.callback.catch_up()
    assert again.state("trial_000") == ("FINISHED", "finished")
    assert again.state("trial_001") == ("FAILED", "failed ValueError: x")
    assert again.traceback("trial_001") == "trace"
    assert again.state("trial_002") == ("RUNNING", "")
    assert [folder.exists() for folder in weights] == [True, False, True]
