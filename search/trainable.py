"""What runs in a Ray worker for one trial: a proposal becomes a configuration, epochs are reported."""

import errno
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from filelock import FileLock
from ray import tune
from ray._raylet import setproctitle  # type: ignore[attr-defined]  # its stubs lack it

from search.attempts import Attempts
from search.checkpoint_store import LOCK, CheckpointStore, open_store
from search.config import SearchConfig
from search.lockstep import Lockstep, Metrics
from search.patience import POLL_SECONDS, wait_for_room
from search.run_folder import RunFolder
from search.space import Point, Space
from trashseg.data.folds import Folds
from trashseg.errors import TrashSegError

if TYPE_CHECKING:
    from trashseg.data.coco import CocoDataset
    from trashseg.train import FoldTraining

NODE_SECONDS = 5.0  # in which a node that lives accepts a connection
PREDECESSOR_SECONDS = 300  # within which a worker of a killed search has noticed that it is over


@dataclass(frozen=True)
class TrialSetting:
    """What all trials of a search have in common."""

    run: RunFolder
    config: SearchConfig
    space: Space
    folds: Folds
    session: str  # names the command under which the trials run
    cpus: int
    gpu_memory: float


def run_trial(point: Point, setting: TrialSetting) -> None:
    """Train the configuration at `point` on the search's folds; report each epoch to Tune.

    A trial that was cut off goes on from its last whole epoch, which it reports once more: whoever was
    killed may not have heard of it, or not have acted on it. An error that would come again ends the
    trial; any other one does so after `max_failures` new starts.
    """
    name = str(tune.get_context().get_trial_name())
    settings = setting.config.search
    store = open_store(settings.checkpoint_uri, settings.name)
    store.sweep(setting.run.path, "trials")
    folder = setting.run.trial(name)
    show_title(setting, name)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK, timeout=PREDECESSOR_SECONDS):
        store.pull(f"trials/{name}", folder)
        attempts = Attempts(folder / "attempts.json")
        here = ray.get_runtime_context().get_node_id()
        attempts.begin(setting.session, here, node_lives)
        store.push(f"trials/{name}", folder)
        if len(attempts.crashes) > settings.max_failures:
            give_up(attempts.crashes[-1])
            return
        try:
            train_folds(point, setting, name, store)
        except TrashSegError as error:
            give_up(traceback.format_exc(), f"{type(error).__name__}: {error}")
        except Exception:
            attempts.crashed(traceback.format_exc())
            store.push(f"trials/{name}", folder)
            if len(attempts.crashes) > settings.max_failures:
                give_up(attempts.crashes[-1])
            else:
                raise  # Tune starts the trial again


def train_folds(point: Point, setting: TrialSetting, name: str, store: CheckpointStore) -> None:
    folder = setting.run.trial(name)

    def keep(_: object) -> None:
        store.push(f"trials/{name}", folder)

    trainings = {
        fold: build_training(point, setting, fold, setting.run.trial_fold(name, fold), keep)
        for fold in setting.config.search.folds
    }
    trial = Lockstep(trainings, setting.config.metric)
    for metrics in trial.history[-1:]:
        report(metrics, setting, name)
    while not trial.finished:
        metrics = next_epoch(trial, folder, setting.config.search.min_free_gb)
        store.push(f"trials/{name}", folder)
        report(metrics, setting, name)


def report(metrics: Metrics, setting: TrialSetting, name: str) -> None:
    """Give Tune an epoch, and return when Tune says to go on, which it does by a call that renames the
    process."""
    tune.report(metrics | {"device": device_here()})
    show_title(setting, name)


@cache
def device_here() -> str:
    """What this worker trains on; the host's name Tune tells by itself."""
    from trashseg.device import device_name, local_resources

    return device_name(local_resources().device)


def show_title(setting: TrialSetting, name: str) -> None:
    """Call this process by its trial, in the dashboard's list of workers, in top and in nvidia-smi.

    Its actor cannot be called so: an actor has one name for life, and goes on with the next trial. The
    prefix is what Ray knows its workers by.
    """
    folds = ",".join(map(str, setting.config.search.folds))
    setproctitle(f"ray::trashseg {setting.config.search.name} {name} fold {folds}")


def next_epoch(trial: Lockstep, folder: Path, min_free_gb: float) -> Metrics:
    """The next epoch, when there is room for its checkpoint; a disk that fills up while it is written
    is waited for too, and what was trained is not trained again."""
    while True:
        wait_for_room(folder, min_free_gb, say=print)
        try:
            return trial.next_epoch()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        time.sleep(POLL_SECONDS)


def build_training(
    point: Point,
    setting: TrialSetting,
    fold: int,
    out: Path,
    on_teacher_epoch: Callable[[Metrics], None] = lambda metrics: None,
) -> "FoldTraining":
    """The training whose epochs are reported; rounds before it, of pseudo labels, are trained first."""
    from trashseg.checkpoint import CHECKPOINTS
    from trashseg.device import local_resources
    from trashseg.rounds import train_teachers
    from trashseg.train import FoldTraining

    config = setting.space.apply(setting.config.train, point)
    dataset = _open_dataset(setting.config.search.data_dir)
    resources = local_resources(setting.cpus, setting.gpu_memory)
    pseudo = train_teachers(config, dataset, setting.folds, fold, out, resources, on_teacher_epoch)
    return FoldTraining(
        config,
        dataset,
        setting.folds,
        fold,
        checkpoints=out / CHECKPOINTS,
        resources=resources,
        pseudo=pseudo,
    )


def give_up(trace: str, error: str = "") -> None:
    """Tell the search that the trial has failed for good."""
    lines = [line.strip() for line in trace.strip().splitlines() if line.strip()]
    tune.report({"error": error or lines[-1][:300], "traceback": trace})


def node_lives(node: str) -> bool:
    """Whether the node answers now: Ray itself may take half a minute to call one dead."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for entry in nodes:
        if entry["NodeID"] == node and entry["Alive"]:
            return answers(entry["NodeManagerAddress"], entry["NodeManagerPort"])
    return False


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=NODE_SECONDS).close()
    except OSError:
        return False
    return True


@lru_cache(maxsize=2)
def _open_dataset(data_dir: str) -> "CocoDataset":
    """Read once per worker: actors are reused by the next trial."""
    from trashseg.data.coco import load_coco

    return load_coco(Path(data_dir))
