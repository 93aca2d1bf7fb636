"""From a trial's start to its first training batch: on a worker that has run trials before, and in a
process of its own.

Warm is a search on two workers in which all is real but the steps of training: a trial's clock starts
when Ray calls its function, and stops with its first batch. Fresh is the same training in a new process,
whose clock starts with it. All begin with the same weights and the same batch, which is checked.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import ray

import trashseg.train
from search import driver
from search.cluster import TrialResources
from search.config import SearchConfig
from search.run_folder import RunFolder
from search.space import Point, load_space
from search.trainable import TrialSetting, run_trial
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, make_folds
from trashseg.data.sample import write_sample
from trashseg.device import local_resources
from trashseg.epoch import Trainer
from trashseg.train import FoldTraining

PHOTOS, SIZE, TRIALS, AT_ONCE = 60, 128, 14, 2


@dataclass(frozen=True)
class Start:
    """One trial's, or one process's."""

    process: int
    began: float
    """Seconds since 1970."""
    seconds: float
    """Until the first batch was there."""
    digest: str
    """Of the network's weights and of the batch."""


def starts(way: str, folder: Path) -> list[Start]:
    """`warm` or `fresh`, in a new process; the photos are made in `folder` where they are missing."""
    command = [sys.executable, "-m", "bench.trial_start", way, str(folder), str(time.time())]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [Start(**start) for start in json.loads(done.stdout.splitlines()[-1])]


# --- warm --------------------------------------------------------------------------------------


def warm(folder: Path) -> list[Start]:
    """The starts of all trials that ran on a worker after another one, oldest first."""
    config, dataset, folds = prepare(folder)
    run = RunFolder(folder / "runs" / config.search.name)
    run.create(config, load_space(config.search.space), dataset, folds)
    driver.run_trial = timed_trial  # type: ignore[attr-defined]
    ray.init(address="local", num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False)
    try:
        driver.run_trials(run, config, folds, TrialResources(1, 0.0, AT_ONCE), dashboard="none")
    finally:
        ray.shutdown()
    starts = [Start(**json.loads(file.read_text())) for file in run.path.glob("*.start")]
    starts.sort(key=lambda start: start.began)
    seen = [start.process for start in starts]
    return [start for place, start in enumerate(starts) if start.process in seen[:place]]


def timed_trial(point: Point, setting: TrialSetting) -> None:
    """`run_trial`, an epoch of which is its first batch; imported by the workers."""
    began = time.time()

    def first_batch(trainer: Trainer, epoch: int) -> float:
        start = stop(trainer, epoch, began)
        (setting.run.path / f"{began}.start").write_text(json.dumps(asdict(start)))
        return 1.0

    trashseg.train.train_epoch = first_batch  # type: ignore[attr-defined]
    run_trial(point, setting)


def stop(trainer: Trainer, epoch: int, began: float) -> Start:
    """Draw the first batch of the epoch: the clock stops."""
    trainer.train_batches.epoch = epoch
    images, masks = next(iter(trainer.train_loader))
    seconds = time.time() - began
    digest = hashlib.blake2b(images.numpy().tobytes() + masks.numpy().tobytes(), digest_size=8)
    for name, value in trainer.model.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return Start(os.getpid(), began, seconds, digest.hexdigest())


# --- fresh -------------------------------------------------------------------------------------


def fresh(folder: Path, began: float) -> Start:
    """The same training in this process, which began at `began` (seconds since 1970)."""
    config, dataset, folds = prepare(folder)
    training = FoldTraining(
        config.train,
        dataset,
        folds,
        0,
        checkpoints=folder / "fresh",
        resources=local_resources(1),
    )
    return stop(training._trainer, 1, began)


def prepare(folder: Path) -> tuple[SearchConfig, CocoDataset, Folds]:
    """The photos, made where they are missing. All points of the space begin with the same weights."""
    if not (folder / "data").is_dir():
        write_sample(folder / "data", images=PHOTOS, size=SIZE, seed=0)
        (folder / "space.yaml").write_text("optim.decoder_lr: {float: [1.0e-4, 5.0e-3]}\n")
    config = SearchConfig.model_validate(
        {
            "epochs": 1,
            "data": {"folds": 2, "image_size": SIZE},
            "search": {
                "data_dir": str(folder / "data"), "storage": str(folder / "runs"),
                "tracking_uri": f"sqlite:///{folder}/mlflow.db", "trials": TRIALS,
                "space": str(folder / "space.yaml"), "startup_trials": TRIALS, "grace_period": 1,
            },
        }
    )  # fmt: skip
    dataset = load_coco(folder / "data")
    return config, dataset, make_folds(dataset, config.data)


def main(way: str, folder: Path, began: float) -> None:
    starts = warm(folder) if way == "warm" else [fresh(folder, began)]
    print(json.dumps([asdict(start) for start in starts]))


if __name__ == "__main__":
    # as the workers import it, not as __main__: what they run must have a module
    from bench.trial_start import main as importable

    importable(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
