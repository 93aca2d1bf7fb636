"""What limits a search on 1, 8, 64 and 512 GPUs: `python -m bench.scale` measures what each part costs
on this machine, simulates the searches, prints both and writes them into docs/scale.md: ten minutes."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from ray import cloudpickle

from bench import machine
from bench.__main__ import ROOT, between_marks
from bench.load import EPOCHS, TRIALS_PER_GPU, Load, Service, simulate
from bench.orchestration import epoch_metrics, run_alone
from bench.trial_start import prepare, starts
from search.config import SearchConfig
from search.run_folder import RunFolder
from search.space import load_space
from search.tracking import Tracker
from search.trainable import TrialSetting
from trashseg.checkpoint import Progress, save_checkpoint
from trashseg.config import ModelConfig, TrainConfig
from trashseg.data.cache import cache_bytes, open_cache
from trashseg.data.coco import CocoDataset
from trashseg.data.folds import Folds
from trashseg.device import local_resources, random_state
from trashseg.train import FoldTraining

PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- begin: bench.scale -->", "<!-- end: bench.scale -->"
GPUS = (1, 8, 64, 512)
EPOCH_SECONDS = (15.0, 120.0)
"""Assumed of a GPU: a few hundred photos, and the team's 2,600, at 512 px."""
SHORT, LONG = 3, 12  # epochs of a trial, from which what each one costs is told apart
TRIALS = 100
MODELS = {
    "FPN, efficientnet-lite0": ModelConfig(weights="none"),
    "DeepLabV3+, resnext101_32x4d": ModelConfig(
        arch="deeplabv3plus", encoder="resnext101_32x4d", weights="none"
    ),
}


@dataclass(frozen=True)
class Checkpoint:
    """What a trial writes after each epoch."""

    model: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Constants:
    """Measured on this machine."""

    driver: Service
    mlflow: Service
    start: float
    setting_bytes: int
    cache_seconds: float
    cache_bytes: int
    checkpoints: list[Checkpoint]


# --- measuring ---------------------------------------------------------------------------------


def measure(folder: Path) -> Constants:
    config, dataset, folds = prepare(folder)
    space = load_space(config.search.space)
    setting = TrialSetting(RunFolder(folder), config, space, folds, "session", 1, 1.0)
    warm = starts("warm", folder)
    return Constants(
        driver=told_apart(*(run_alone("ours", TRIALS, n).per_trial(TRIALS) for n in (SHORT, LONG))),
        mlflow=told_apart(*(mlflow_seconds(config, folder, n) for n in (SHORT, LONG))),
        start=statistics.median(start.seconds for start in warm),
        setting_bytes=len(cloudpickle.dumps(setting)),  # type: ignore[no-untyped-call]
        cache_seconds=cache_seconds(dataset, folder),
        cache_bytes=cache_bytes(1, 512),
        checkpoints=[
            write_checkpoint(name, model, config.train, dataset, folds, folder)
            for name, model in MODELS.items()
        ],
    )


def told_apart(short: float, long: float) -> Service:
    epoch = (long - short) / (LONG - SHORT)
    return Service(trial=short - SHORT * epoch, epoch=epoch)


def mlflow_seconds(config: SearchConfig, folder: Path, epochs: int) -> float:
    """What MLflow takes for a trial of so many epochs, when it never waits for news."""
    tracker = Tracker(RunFolder(folder / f"tracked {epochs}"), config.search.tracking_uri)
    started = time.perf_counter()
    for number in range(TRIALS):
        what = f"trial/{number}"
        tracker.start(what, what, config.train, {"kind": "trial"})
        for epoch in range(1, epochs + 1):
            tracker.log_epoch(what, epoch_metrics(epoch, epochs))
        tracker.end(what, "finished")
    tracker.close()
    return (time.perf_counter() - started) / TRIALS


def cache_seconds(dataset: CocoDataset, folder: Path) -> float:
    """Of a photo that is decoded and rasterised for the cache, at 512 px."""
    started = time.perf_counter()
    open_cache(dataset, 512, folder / "cache")
    return (time.perf_counter() - started) / len(dataset.photos)


def write_checkpoint(
    name: str,
    model: ModelConfig,
    config: TrainConfig,
    dataset: CocoDataset,
    folds: Folds,
    folder: Path,
) -> Checkpoint:
    """Of a training with Adam, whose two moments are part of it, and its best weights."""
    training = FoldTraining(
        config.model_copy(update={"model": model}), dataset, folds, 0,
        checkpoints=folder / name, resources=local_resources(),
    )  # fmt: skip
    trainer = training._trainer
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    progress = Progress("bench", history=[epoch_metrics(1, 2)])
    weights = trainer.model.state_dict()
    started = time.perf_counter()
    path = save_checkpoint(
        folder / name, progress, trainer.model, trainer.optimizer, trainer.schedule, None, weights,
        random_state(), Path.mkdir,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return Checkpoint(name, sum(file.stat().st_size for file in path.iterdir()), seconds)


# --- telling -----------------------------------------------------------------------------------


def describe(constants: Constants, loads: dict[tuple[float, int], Load]) -> str:
    return "\n".join(
        [
            f"{machine.describe()}.",
            "",
            constants_table(constants),
            "",
            *(load_table(seconds, loads, constants) for seconds in EPOCH_SECONDS),
        ]
    )


def constants_table(constants: Constants) -> str:
    driver, mlflow = constants.driver, constants.mlflow
    rows = [
        ("the driver, for a trial", f"{1e3 * driver.trial:.0f} ms"),
        ("the driver, for an epoch of one", f"{1e3 * driver.epoch:.1f} ms"),
        ("MLflow on sqlite, for a trial", f"{1e3 * mlflow.trial:.0f} ms"),
        ("MLflow on sqlite, for an epoch of one", f"{1e3 * mlflow.epoch:.1f} ms"),
        ("a trial's start on a warm worker", f"{constants.start:.2f} s"),
        ("what a trial fetches from Ray's object store", f"{constants.setting_bytes / 1e3:.0f} kB"),
        ("a node's cache, for a photo at 512 px", f"{1e3 * constants.cache_seconds:.0f} ms"),
        ("the same on its disk", f"{constants.cache_bytes / 1e6:.1f} MB"),
        *(
            (f"a checkpoint of {one.model}", f"{one.bytes / 1e6:.0f} MB in {one.seconds:.2f} s")
            for one in constants.checkpoints
        ),
    ]
    return "\n".join(
        ["| what | measured |", "| --- | ---: |", *(f"| {a} | {b} |" for a, b in rows)]
    )


def load_table(
    epoch_seconds: float, loads: dict[tuple[float, int], Load], constants: Constants
) -> str:
    """Of the searches whose epochs take so long, a line for each number of GPUs."""
    lines = [
        f"Epochs of {epoch_seconds:g} s, {TRIALS_PER_GPU} trials a GPU, at most {EPOCHS} epochs each:",
        "",
        "| GPUs | trials | epochs | hours | GPUs wait for the driver | driver busy | MLflow busy | "
        + " | ".join(f"checkpoints of {one.model}" for one in constants.checkpoints)
        + " |",
        "| ---: " * (7 + len(constants.checkpoints)) + "|",
    ]
    for gpus in GPUS:
        load = loads[epoch_seconds, gpus]
        written = [
            f"{load.epochs * one.bytes / load.hours / 3600 / 1e6:,.0f} MB/s"
            for one in constants.checkpoints
        ]
        cells = [
            f"{gpus}", f"{load.trials:,}", f"{load.epochs:,}", f"{load.hours:.2f}",
            f"{load.waited:.1%}", f"{load.driver:.1%}", f"{load.mlflow:.1%}", *written,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="trashseg-scale-") as folder:
        constants = measure(Path(folder))
    loads = {}
    for seconds in EPOCH_SECONDS:
        for gpus in GPUS:
            with tempfile.TemporaryDirectory(prefix="trashseg-scale-") as folder:
                loads[seconds, gpus] = simulate(
                    gpus, seconds, constants.start, constants.driver, constants.mlflow, Path(folder)
                )
    told = describe(constants, loads)
    print(told)
    PAGE.write_text(between_marks(PAGE.read_text(), BEGIN, END, told))


if __name__ == "__main__":
    main()
