"""The best configurations on every fold, as Ray tasks; then their ensemble."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from search.cluster import connect, divide
from search.display import Display
from search.run_folder import RunFolder
from search.tracking import Tracker
from trashseg.data.coco import CocoDataset, load_coco, load_coco_test
from trashseg.data.folds import read_folds
from trashseg.ensemble import FoldModel, build_ensemble
from trashseg.errors import ConfigError, TrashSegError
from trashseg.member import member_scores, train_member
from trashseg.train import local_resources

POLL_SECONDS = 1.0


@dataclass
class Job:
    """One fold that is being trained, and how much of its history MLflow has."""

    model: FoldModel
    run_id: str
    logged: int = field(default=0)


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
            run_id = _start_fold(tracker, model)
            data_dir, folds_json = config.search.data_dir, str(run.folds_json)
            jobs[task.remote(model, data_dir, folds_json, resources.cpus)] = Job(model, run_id)
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


def _start_fold(tracker: Tracker, model: FoldModel) -> str:
    tags = {"kind": "fold", "candidate": str(model.candidate), "fold": str(model.fold)}
    name = f"best_{model.candidate}_fold_{model.fold}"
    return tracker.start(f"fold/{model.name}", name, model.config, tags)


def _log_new_epochs(job: Job, tracker: Tracker, display: Display) -> None:
    """The task writes history.jsonl, the driver alone writes to MLflow."""
    history = job.model.folder / "history.jsonl"
    if not history.is_file():
        return
    lines = history.read_text().splitlines()
    for line in lines[job.logged :]:
        metrics = json.loads(line)
        tracker.log_epoch(job.run_id, metrics)
        display.epoch(f"fold {job.model.name}", metrics["epoch"], metrics["best_miou"])
    job.logged = len(lines)


def _finish(
    reference: Any, job: Job, others: list[Any], tracker: Tracker, display: Display
) -> None:
    try:
        scores = ray.get(reference)
    except RayTaskError as error:
        for other in others:
            ray.cancel(other)
        tracker.log_text(job.run_id, str(error), "traceback.txt")
        tracker.end(job.run_id, "failed", str(error.cause)[:300])
        if isinstance(error.cause, TrashSegError):
            raise error.cause from None
        raise
    _log_new_epochs(job, tracker, display)
    tracker.log_scores(job.run_id, scores, prefix="final/")
    tracker.log_files(job.run_id, job.model.folder / "pictures", "pictures")
    tracker.end(job.run_id, "finished")
    display.line(f"fold {job.model.name} finished, miou {scores['miou']:.4f}")
    display.advance()


# --- the ensemble ------------------------------------------------------------------------------


def run_ensemble(run: RunFolder, top_k: int, test: Path | None) -> dict[str, Any]:
    """Retrain what is missing, vote, score, choose, log; returns the ensemble's metrics."""
    config = run.config
    test_dataset = load_coco_test(test) if test else None
    dataset = run.dataset()
    check_test(dataset, test_dataset)
    models = retrain(run, top_k)
    tracker = Tracker(run, config.search.tracking_uri)
    run_id = tracker.start("ensemble", "ensemble", None, {"kind": "ensemble"})
    photos = len(dataset.photos) + len(test_dataset.photos if test_dataset else ())
    title = f"{config.search.name} ensemble"
    with Display(title, photos, "photos") as display, tracker.closing():
        display.line(f"{len(models)} models vote, the CRF refines")
        metrics = build_ensemble(
            models,
            dataset,
            run.folds(dataset),
            run.ensemble,
            config.crf,
            config.metric,
            local_resources(),
            test_dataset,
            on_photo=display.advance,
        )
    log_ensemble(tracker, run_id, run, metrics)
    return metrics


def check_test(dataset: CocoDataset, test: CocoDataset | None) -> None:
    if test is not None and test.classes != dataset.classes:
        raise ConfigError(
            f"{test.root}: its classes are {', '.join(test.classes)}; the run's are "
            f"{', '.join(dataset.classes)}: give a test folder with the same ones"
        )


def log_ensemble(tracker: Tracker, run_id: str, run: RunFolder, metrics: dict[str, Any]) -> None:
    for split in ("oof", "test"):
        for kind, scores in (metrics[split] or {}).items():
            tracker.log_scores(run_id, scores, prefix=f"{split}/{kind}/")
    tracker.log_file(run_id, run.ensemble / "metrics.json")
    tracker.log_file(run_id, run.ensemble / "manifest.yaml")
    tracker.log_file(run_id, run.search_yaml)
    tracker.log_confusion(run_id, run.ensemble / "confusion.csv")
    tracker.end(run_id, "finished", metrics["chosen"])
