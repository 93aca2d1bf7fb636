"""Trainings of folds, as Ray tasks."""

import json
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock
from ray.exceptions import RayError, RayTaskError

from search.checkpoint_store import LOCK, CheckpointStore, open_store
from search.cluster import TrialResources, connect, divide
from search.config import SearchConfig
from search.display import Display
from search.kept_weights import KeptWeights
from search.results import best_trials
from search.run_folder import RunFolder
from search.tracking import Tracker
from search.trainable import PREDECESSOR_SECONDS
from trashseg.config import TrainConfig
from trashseg.data.coco import load_coco
from trashseg.data.folds import Folds
from trashseg.device import device_name, local_resources
from trashseg.errors import ConfigError, TrashSegError
from trashseg.files import write_json
from trashseg.fold_models import FoldModel
from trashseg.member import member_scores
from trashseg.rounds import train_in_rounds

POLL_SECONDS = 1.0
Frame = AbstractContextManager[object]


@dataclass
class Job:
    """One fold that is being trained, where it is kept meanwhile, whether its MLflow run has begun."""

    model: FoldModel
    store: CheckpointStore
    begun: bool = False

    @property
    def what(self) -> str:
        """Its MLflow run."""
        return f"fold/{self.model.name}"


def copy_of(model: FoldModel) -> str:
    """What its copy is called in the checkpoint store."""
    return f"folds/{model.name}"


def plan_folds(
    run: RunFolder, top_k: int, fold_count: int | None = None, seeds: int = 1
) -> list[FoldModel]:
    """Folds 0..fold_count-1 (default: all) of the `top_k` best trials with `seeds` seeds, whether they
    are trained or not; and with each further seed that all of these folds are trained with already.

    Raises ConfigError where there are not as many trials or folds.
    """
    folds = run.config.data.folds
    fold_count = folds if fold_count is None else fold_count
    if not 1 <= fold_count <= folds:
        raise ConfigError(f"--folds {fold_count}: the run has {folds} folds: ask for fewer")
    planned = []
    for rank, (trial, best) in enumerate(best_trials(run, top_k)):
        for seed in count(best.seed):
            of_seed = [fold_model(run, rank, trial, best, fold, seed) for fold in range(fold_count)]
            if seed >= best.seed + seeds and not all(map(is_trained, of_seed)):
                break
            planned += of_seed
    return planned


def fold_model(
    run: RunFolder, rank: int, trial: str, config: TrainConfig, fold: int, seed: int
) -> FoldModel:
    """The training of `trial`, of that rank, on a fold with a seed, whether it is there or not."""
    name = trial if seed == config.seed else f"{trial}_seed_{seed}"
    return FoldModel(rank, fold, run.fold(name, fold), config.model_copy(update={"seed": seed}))


def is_trained(model: FoldModel) -> bool:
    return member_scores(model.folder, model.config) is not None


def train_folds(
    run: RunFolder,
    models: list[FoldModel],
    *,
    why: str = "",
    within: Callable[[Tracker], Frame] = nullcontext,
    survived: tuple[type[TrashSegError], ...] = (),
) -> None:
    """What exists is kept as it is; what was begun, also by the search (search/kept_weights.py), goes
    on from its last epoch. All of it happens `within` a frame, which can say more to MLflow before and
    after. `why` is told to the user.

    Raises the first error of a fold, after stopping the others, unless it is one that is `survived`:
    that fold then is missing in the end.
    """
    config = run.config
    missing = [model for model in models if not is_trained(model)]
    resources = _find_room(config, len(missing)) if missing else None
    with (
        Display(f"{config.search.name} folds", len(missing), "folds") as display,
        Tracker(run, config.search.tracking_uri, warn=display.line).closing() as tracker,
        within(tracker),
    ):
        store = open_store(config.search.checkpoint_uri, config.search.name)
        for model in models:
            if model not in missing:
                _catch_up(Job(model, store), tracker, display)
        if resources:
            there = what_is_there(KeptWeights(run, config), models, missing)
            display.line(f"{why}: {there}" if why else there)
            jobs = [Job(model, store) for model in missing]
            _follow(_send(run, jobs, resources), tracker, display, survived)


def what_is_there(kept: KeptWeights, models: list[FoldModel], missing: list[FoldModel]) -> str:
    """Such as: 2 of 8 folds exist, the search has trained 3, training the rest."""
    searched = sum(map(kept.has, missing))
    return ", ".join(
        [
            f"{len(models) - len(missing)} of {len(models)} folds exist",
            *([f"the search has trained {searched}"] if searched else []),
            *(["training the rest"] if searched < len(missing) else []),
        ]
    )


def _find_room(config: SearchConfig, jobs: int) -> TrialResources:
    connect(config.search.address)
    return divide(config.search, jobs)


def _catch_up(job: Job, tracker: Tracker, display: Display) -> None:
    """The fold was trained, but a kill came before MLflow heard that it has ended."""
    scores = member_scores(job.model.folder, job.model.config)
    if scores is not None and not tracker.has_ended(job.what):
        _log_new_epochs(job, tracker, display)
        _log_end(job, scores, tracker)


def _send(run: RunFolder, jobs: list[Job], resources: TrialResources) -> dict[Any, Job]:
    """Each job as a Ray task."""
    config, folds = run.config, run.folds(run.dataset())
    return {
        _train_fold.options(
            name=f"trashseg {config.search.name} fold {job.model.name}",  # in Ray's dashboard
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
        ).remote(run, config, job.model, folds, resources.cpus): job
        for job in jobs
    }


def _follow(
    jobs: dict[Any, Job],
    tracker: Tracker,
    display: Display,
    survived: tuple[type[TrashSegError], ...],
) -> None:
    """Log and show the jobs until all have ended; takes out of `jobs` those that have."""
    while jobs:
        done, _ = ray.wait(list(jobs), timeout=POLL_SECONDS)
        for job in jobs.values():
            _log_new_epochs(job, tracker, display)
        for reference in done:
            try:
                _finish(reference, jobs.pop(reference), tracker, display)
            except survived as error:
                display.line(f"a training failed and is left out: {error}")
            except TrashSegError:
                for other in jobs:
                    ray.cancel(other)
                raise


@ray.remote(max_retries=2)
def _train_fold(
    run: RunFolder, config: SearchConfig, model: FoldModel, folds: Folds, cpus: int
) -> dict[str, Any]:
    store = open_store(config.search.checkpoint_uri, config.search.name)
    store.sweep(run.path, "folds")
    dataset = load_coco(Path(config.search.data_dir))
    model.folder.mkdir(parents=True, exist_ok=True)

    def keep(_: object = None) -> None:
        store.push(copy_of(model), model.folder)

    with FileLock(model.folder / LOCK, timeout=PREDECESSOR_SECONDS):
        store.pull(copy_of(model), model.folder)
        resources = local_resources(cpus)
        place = {"hostname": socket.gethostname(), "device": device_name(resources.device)}
        write_json(model.folder / "place.json", place)
        KeptWeights(run, config).take_over(model)
        scores = train_in_rounds(
            model.config,
            dataset,
            folds,
            model.fold,
            model.folder,
            resources,
            on_epoch=keep,
        )
        keep()
    return scores


def _log_new_epochs(job: Job, tracker: Tracker, display: Display) -> None:
    """The task writes history.jsonl, the driver alone writes to MLflow."""
    history = job.store.read(copy_of(job.model), job.model.folder, "history.jsonl")
    lines = history.splitlines()
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


def _finish(reference: Any, job: Job, tracker: Tracker, display: Display) -> None:
    _start(job, tracker)
    try:
        scores = ray.get(reference)
    except RayError as error:
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
    what, folder = copy_of(job.model), job.model.folder
    job.store.pull(what, folder)
    job.store.drop(what, folder)
    tracker.log_scores(job.what, scores, prefix="final/")
    tracker.log_files(job.what, folder / "pictures", "pictures")
    tracker.end(job.what, "finished")
