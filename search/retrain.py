"""The best configurations on every fold, as Ray tasks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from search.cluster import connect, divide
from search.display import Display
from search.run_folder import RunFolder
from search.tracking import Tracker
from trashseg.data.coco import load_coco
from trashseg.data.folds import read_folds
from trashseg.ensemble import FoldModel
from trashseg.errors import ConfigError, TrashSegError
from trashseg.member import member_scores, train_member
from trashseg.train import local_resources

POLL_SECONDS = 1.0


@dataclass
class Job:
    """One fold that is being trained, its MLflow run, and how many of its epochs that has."""

    model: FoldModel
    run_id: str = ""
    logged: int = 0


def retrain(run: RunFolder, top_k: int, fold_count: int | None = None) -> list[FoldModel]:
    """Train the `top_k` best configurations on folds 0..fold_count-1 (default: on all of the run's);
    what exists is kept as it is.

    Returns where all of them lie. Raises the first error of a fold, after stopping the others.
    """
    config = run.config
    fold_count = config.data.folds if fold_count is None else fold_count
    if not 1 <= fold_count <= config.data.folds:
        raise ConfigError(
            f"--folds {fold_count}: the run has {config.data.folds} folds: ask for fewer"
        )
    models = [
        FoldModel(rank, fold, run.fold(rank, fold), best)
        for rank, best in enumerate(run.best_configs(top_k))
        for fold in range(fold_count)
    ]
    missing = [model for model in models if member_scores(model.folder, model.config) is None]
    if not missing:
        return models
    connect(config.search.address)
    resources = divide(config.search, len(missing))
    tracker = Tracker(run, config.search.tracking_uri)
    task = _train_fold.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    with Display(f"{config.search.name} folds", len(missing), "folds") as display:
        display.line(
            f"{len(models) - len(missing)} of {len(models)} folds exist, training the rest"
        )
        jobs: dict[Any, Job] = {}
        for model in missing:
            data_dir, folds_json = config.search.data_dir, str(run.folds_json)
            jobs[task.remote(model, data_dir, folds_json, resources.cpus)] = Job(model)
        with tracker.closing():
            _follow(jobs, tracker, display)
    return models


def _follow(jobs: dict[Any, Job], tracker: Tracker, display: Display) -> None:
    """Log and show the jobs until all have ended; takes out of `jobs` those that have."""
    while jobs:
        done, _ = ray.wait(list(jobs), timeout=POLL_SECONDS)
        for job in jobs.values():
            _log_new_epochs(job, tracker, display)
        for reference in done:
            _finish(reference, jobs.pop(reference), list(jobs), tracker, display)


@ray.remote(max_retries=2)
def _train_fold(model: FoldModel, data_dir: str, folds_json: str, cpus: int) -> dict[str, Any]:
    dataset = load_coco(Path(data_dir))
    folds = read_folds(Path(folds_json), dataset)
    resources = local_resources(cpus)
    return train_member(model.config, dataset, folds, model.fold, model.folder, resources)


def _log_new_epochs(job: Job, tracker: Tracker, display: Display) -> None:
    """The task writes history.jsonl, the driver alone writes to MLflow."""
    history = job.model.folder / "history.jsonl"
    written = history.read_text() if history.is_file() else ""
    lines = written[: written.rfind("\n") + 1].splitlines()  # not what is half-written
    if lines:
        _start(job, tracker)
    for line in lines[job.logged :]:
        metrics = json.loads(line)
        tracker.log_epoch(job.run_id, metrics)
        display.epoch(f"fold {job.model.name}", metrics["epoch"], metrics["best_miou"])
    job.logged = len(lines)


def _start(job: Job, tracker: Tracker) -> None:
    """The fold's MLflow run begins with its first epoch, not while it waits for a free worker."""
    if job.run_id:
        return
    model = job.model
    tags = {"kind": "fold", "candidate": str(model.candidate), "fold": str(model.fold)}
    name = f"best_{model.candidate}_fold_{model.fold}"
    job.run_id = tracker.start(f"fold/{model.name}", name, model.config, tags)


def _finish(
    reference: Any, job: Job, others: list[Any], tracker: Tracker, display: Display
) -> None:
    _start(job, tracker)
    try:
        scores = ray.get(reference)
    except RayError as error:
        for other in others:
            ray.cancel(other)
        cause = error.cause if isinstance(error, RayTaskError) else error
        tracker.log_text(job.run_id, str(error), "traceback.txt")
        tracker.end(job.run_id, "failed", str(cause)[:300])
        if isinstance(cause, TrashSegError):
            raise cause from None
        problem = f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
        raise TrashSegError(
            f"fold {job.model.name}: {problem}: see "
            "traceback.txt of its MLflow run; the same command goes on with what is missing"
        ) from error
    tracker.log_scores(job.run_id, scores, prefix="final/")
    tracker.log_files(job.run_id, job.model.folder / "pictures", "pictures")
    tracker.end(job.run_id, "finished")
    display.line(f"fold {job.model.name} finished, miou {scores['miou']:.4f}")
    display.advance()
