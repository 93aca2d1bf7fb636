"""The best configurations on every fold, as Ray tasks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock
from ray.exceptions import RayError, RayTaskError

from search.cluster import TrialResources, connect, divide
from search.config import SearchConfig
from search.display import Display
from search.results import best_trials
from search.run_folder import RunFolder
from search.tracking import Tracker
from search.trainable import PREDECESSOR_SECONDS
from trashseg.data.coco import load_coco
from trashseg.data.folds import read_folds
from trashseg.device import local_resources
from trashseg.errors import ConfigError, TrashSegError
from trashseg.fold_models import FoldModel
from trashseg.member import member_scores, train_member

POLL_SECONDS = 1.0


@dataclass
class Job:
    """One fold that is being trained, and whether its MLflow run has begun."""

    model: FoldModel
    begun: bool = False

    @property
    def what(self) -> str:
        """Its MLflow run."""
        return f"fold/{self.model.name}"


def retrain(run: RunFolder, top_k: int, fold_count: int | None = None) -> list[FoldModel]:
    """Train the `top_k` best configurations on folds 0..fold_count-1 (default: on all of the run's).

    Returns where all of them lie. Raises the first error of a fold, after stopping the others.
    """
    models = plan_folds(run, top_k, fold_count)
    with run.locked():
        train_folds(run, models)
    return models


def plan_folds(run: RunFolder, top_k: int, fold_count: int | None = None) -> list[FoldModel]:
    """The folds to train, whether they exist or not."""
    config = run.config
    fold_count = config.data.folds if fold_count is None else fold_count
    if not 1 <= fold_count <= config.data.folds:
        raise ConfigError(
            f"--folds {fold_count}: the run has {config.data.folds} folds: ask for fewer"
        )
    return [
        FoldModel(rank, fold, run.fold(trial, fold), best)
        for rank, (trial, best) in enumerate(best_trials(run, top_k))
        for fold in range(fold_count)
    ]


def train_folds(run: RunFolder, models: list[FoldModel]) -> None:
    """What exists is kept as it is, what was begun goes on from its last epoch."""
    config = run.config
    missing = [model for model in models if member_scores(model.folder, model.config) is None]
    resources = _find_room(config, len(missing)) if missing else None
    with (
        Display(f"{config.search.name} folds", len(missing), "folds") as display,
        Tracker(run, config.search.tracking_uri, warn=display.line).closing() as tracker,
    ):
        for model in models:
            if model not in missing:
                _catch_up(Job(model), tracker, display)
        if resources:
            _train_missing(run, missing, len(models), resources, tracker, display)


def _find_room(config: SearchConfig, jobs: int) -> TrialResources:
    connect(config.search.address)
    return divide(config.search, jobs)


def _catch_up(job: Job, tracker: Tracker, display: Display) -> None:
    """The fold was trained, but a kill came before MLflow heard that it has ended."""
    scores = member_scores(job.model.folder, job.model.config)
    if scores is not None and not tracker.has_ended(job.what):
        _log_new_epochs(job, tracker, display)
        _log_end(job, scores, tracker)


def _train_missing(
    run: RunFolder,
    missing: list[FoldModel],
    of: int,
    resources: TrialResources,
    tracker: Tracker,
    display: Display,
) -> None:
    display.line(f"{of - len(missing)} of {of} folds exist, training the rest")
    task = _train_fold.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    data_dir, folds_json = run.config.search.data_dir, str(run.folds_json)
    jobs = {
        task.remote(model, data_dir, folds_json, resources.cpus): Job(model) for model in missing
    }
    _follow(jobs, tracker, display)


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
    model.folder.parent.mkdir(parents=True, exist_ok=True)
    lock = model.folder.with_name(f"{model.folder.name}.lock")
    with FileLock(lock, timeout=PREDECESSOR_SECONDS):
        return train_member(
            model.config, dataset, folds, model.fold, model.folder, local_resources(cpus)
        )


def _log_new_epochs(job: Job, tracker: Tracker, display: Display) -> None:
    """The task writes history.jsonl, the driver alone writes to MLflow."""
    history = job.model.folder / "history.jsonl"
    lines = history.read_text().splitlines() if history.is_file() else []
    if lines:
        _start(job, tracker)
    for line in lines:
        metrics = json.loads(line)
        tracker.log_epoch(job.what, metrics)
        display.epoch(f"fold {job.model.name}", metrics["epoch"], metrics["best_miou"])


def _start(job: Job, tracker: Tracker) -> None:
    """The fold's MLflow run begins with its first epoch, not while it waits for a free worker."""
    if job.begun:
        return
    job.begun = True
    model = job.model
    tags = {"kind": "fold", "candidate": str(model.candidate), "fold": str(model.fold)}
    name = f"{model.folder.parent.name}_fold_{model.fold}"
    tracker.start(job.what, name, model.config, tags)


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
        tracker.log_text(job.what, str(error), "traceback.txt")
        tracker.end(job.what, "failed", str(cause)[:300])
        if isinstance(cause, TrashSegError):
            raise cause from None
        problem = f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
        raise TrashSegError(
            f"fold {job.model.name}: {problem}: see "
            "traceback.txt of its MLflow run; the same command goes on with what is missing"
        ) from error
    _log_end(job, scores, tracker)
    display.line(f"fold {job.model.name} finished, miou {scores['miou']:.4f}")
    display.advance()


def _log_end(job: Job, scores: dict[str, Any], tracker: Tracker) -> None:
    tracker.log_scores(job.what, scores, prefix="final/")
    tracker.log_files(job.what, job.model.folder / "pictures", "pictures")
    tracker.end(job.what, "finished")
