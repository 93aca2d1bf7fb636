"""A search whose trials do nothing: what is left is what it costs to have a trial.

`run_alone` runs one in a process of its own, so that none has another's memory or its Ray.

ours    all of a search but the training: our searcher and scheduler, the ledger, MLflow on sqlite,
        the display, the leaderboard
peer    Ray Tune with its own OptunaSearch (Optuna's storage in memory) and its own ASHA; no MLflow

Both draw from the same space, with a TPE of the same settings, two trials at a time in reused workers,
and all epochs of all trials have equal scores, so that neither stops one early.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cache
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from bench.resident import resident
from search import driver
from search.cluster import TrialResources
from search.config import SearchConfig
from search.ledger import read_trials
from search.outbox import Outbox
from search.run_folder import RunFolder
from search.space import Space, load_space
from search.trainable import TrialSetting
from trashseg.data.coco import load_coco
from trashseg.data.folds import make_folds
from trashseg.data.sample import write_sample

AT_ONCE, CLASSES = 2, 12
SPACE = "aug_loss"
STARTUP = 10  # random proposals before TPE's
BLOCK = 10  # trials


@dataclass(frozen=True)
class Orchestration:
    """What a run of `trials` no-op trials took."""

    trials: int
    """That ended."""
    reports: int
    """Epochs of all trials together."""
    completed: list[float]
    """Seconds from the first completion, of each, in order."""
    seconds: float
    """From the first completion until everything was written and closed."""
    rss: int
    """Bytes of the driver at the end."""

    def per_trial(self, trials: int) -> float:
        """Seconds, of the first `trials`; Ray's start and the end of the search are not in it."""
        return self.completed[trials - 1] / (trials - 1)

    @property
    def ending(self) -> float:
        """Seconds from the last completion on; were MLflow behind, it would be in it."""
        return self.seconds - self.completed[-1]

    def typical(self, first: int, last: int) -> float:
        """Seconds a trial from trial `first` to `last`, counted by their ends from 0: the median of
        blocks of ten, which a machine that is slow for some seconds leaves alone."""
        starts = range(first, last - BLOCK + 1, BLOCK)
        return median((self.completed[at + BLOCK] - self.completed[at]) / BLOCK for at in starts)


def run_alone(way: str, trials: int, epochs: int) -> Orchestration:
    """`ours` or `peer`, in a new process."""
    command = [sys.executable, "-m", "bench.orchestration", way, str(trials), str(epochs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Orchestration(**json.loads(done.stdout.splitlines()[-1]))


def no_op(point: dict[str, Any], epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        tune.report(epoch_metrics(epoch, epochs))


def epoch_metrics(epoch: int, epochs: int) -> dict[str, Any]:
    """As many numbers as a training reports, all trials' the same."""
    return {
        "epoch": epoch, "loss": 1.0, "val_loss": 1.0, "miou": 0.5, "miou_image": 0.5,
        "pixel_accuracy": 0.5, "best_epoch": 1, "best_miou": 0.5, "best_miou_image": 0.5,
        "lr_encoder": 1e-4, "lr_decoder": 1e-3, "micro_batch": 8, "seconds": 1e-3,
        "iou": {f"class {number}": 0.5 for number in range(CLASSES)},
        "finished": epoch == epochs,
    }  # fmt: skip


# --- ours --------------------------------------------------------------------------------------


def our_trial(point: dict[str, Any], setting: TrialSetting) -> None:
    no_op(point, setting.config.epochs)


def ours(trials: int, epochs: int, folder: Path) -> Orchestration:
    """`search.driver.run_trials`, with nothing for a trial to do."""
    write_sample(folder / "data", images=10, size=64, seed=0)
    config = search_config(trials, epochs, folder)
    dataset = load_coco(folder / "data")
    folds = make_folds(dataset, config.data)
    run = RunFolder(folder / "runs" / config.search.name)
    run.create(config, load_space(SPACE), dataset, folds)
    driver.run_trial = our_trial  # type: ignore[attr-defined]
    driver.run_trials(run, config, folds, TrialResources(1, 0.0, AT_ONCE), dashboard="none")
    ended = time.time()
    assert not Outbox(run.mlflow), "MLflow lacks events: their cost would not be counted"
    recorded = read_trials(run.study_db, config.search.name)
    done = [trial.datetime_complete.timestamp() for trial in recorded if trial.datetime_complete]
    return measured(done, sum(len(trial.intermediate_values) for trial in recorded), ended)


def search_config(trials: int, epochs: int, folder: Path) -> SearchConfig:
    return SearchConfig.model_validate(
        {
            "epochs": epochs,
            "data": {"folds": 2},
            "search": {
                "data_dir": str(folder / "data"), "storage": str(folder / "runs"),
                "tracking_uri": f"sqlite:///{folder}/mlflow.db", "space": SPACE, "trials": trials,
                "startup_trials": STARTUP, "grace_period": 1, "reduction_factor": 3,
            },
        }
    )  # fmt: skip


# --- the peer ----------------------------------------------------------------------------------


class Completions(Callback):
    """When each trial ended, and how many epochs it had reported."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.epochs = 0

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self.epochs += 1

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        self.at.append(time.time())


def define(trial: Any) -> None:
    """The space, for OptunaSearch, which pickles it now and then."""
    the_space().sample(trial)


@cache
def the_space() -> Space:
    return load_space(SPACE)


def peer(trials: int, epochs: int, folder: Path) -> Orchestration:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    completions, numbers = Completions(), count()
    sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, group=True, seed=0)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(no_op, epochs=epochs), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(define, metric="best_miou", mode="max", sampler=sampler),
            scheduler=ASHAScheduler(
                time_attr="epoch", metric="best_miou", mode="max",
                grace_period=1, reduction_factor=3, max_t=epochs + 1,
            ),
            num_samples=trials,
            max_concurrent_trials=AT_ONCE,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial_{next(numbers):03d}",
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder), callbacks=[completions], verbose=0
        ),
    ).fit()  # fmt: skip
    return measured(completions.at, completions.epochs, time.time())


# --- measuring ---------------------------------------------------------------------------------


def measured(completed: list[float], epochs: int, ended: float) -> Orchestration:
    done = sorted(completed)
    since_first = [at - done[0] for at in done]
    return Orchestration(len(done), epochs, since_first, ended - done[0], resident("VmRSS"))


WAYS = {"ours": ours, "peer": peer}


def main(way: str, trials: int, epochs: int) -> None:
    ray.init(address="local", num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory(prefix="trashseg-bench-") as folder:
            print(json.dumps(asdict(WAYS[way](trials, epochs, Path(folder)))))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    from bench.orchestration import main as importable  # the workers know no __main__

    importable(sys.argv[1], *map(int, sys.argv[2:]))
