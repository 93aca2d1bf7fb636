"""A search from its configuration to its leaderboard. Read it top to bottom."""

import os
from pathlib import Path

from ray import tune

from search.callbacks import SearchCallback
from search.cluster import TrialResources, connect, divide
from search.config import SearchConfig
from search.display import Display
from search.results import Row, summary, write_results
from search.run_folder import RunFolder, new_run_folder
from search.scheduler import SuccessiveHalving
from search.searcher import OptunaSearcher, open_study
from search.space import Space, load_space
from search.tracking import Tracker
from search.trainable import run_trial
from trashseg.data.cache import open_cache
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, make_folds
from trashseg.errors import TrashSegError


def run_search(config: SearchConfig) -> tuple[RunFolder, list[Row]]:
    """Run all trials; returns the run's folder and its leaderboard.

    Everything that can be wrong with the input is found before the run's folder is made. Raises
    TrashSegError for that; a trial that fails is a row of the leaderboard.
    """
    space = load_space(config.search.space)
    first = space.point_of(config.train)
    space.check(config.train)
    run = new_run_folder(config)
    dataset, folds = check_data(config)
    check_model(config, folds)
    dashboard = connect(config.search.address)
    resources = divide(config.search, config.search.trials)
    tracker = Tracker(run, config.search.tracking_uri)
    run.create(config, space, dataset, folds)
    parent = tracker.start("parent", config.search.name, config.train, {"kind": "search"})
    with tracker.closing():
        study = open_study(run.study_db, config)
        with Display(config.search.name, config.search.trials, "trials") as display:
            announce(display, config, resources, dashboard)
            searcher = OptunaSearcher(study, space, first, config.score_key)
            callback = SearchCallback(config, space, searcher.hand_tuned, tracker, display)
            build_tuner(run, config, space, resources, searcher, callback).fit()
        rows = write_results(run, study, config, space)
        tracker.log_file(parent, run.leaderboard)
        tracker.log_scores(parent, summary(rows))
        check_outcome(run, config, rows)
    tracker.end(parent, "finished")
    return run, rows


def check_outcome(run: RunFolder, config: SearchConfig, rows: list[Row]) -> None:
    """KeyboardInterrupt if the search was stopped, TrashSegError if no trial finished."""
    finished = sum(row.state == "finished" for row in rows)
    if len(rows) < config.search.trials:
        raise KeyboardInterrupt(
            f"{len(rows)} of {config.search.trials} trials ended, {finished} of them finished; "
            f"see {run.leaderboard}"
        )
    if not finished:
        raise TrashSegError(
            f"{run.path}: no trial finished; the reason of each is in MLflow and in the trial's "
            f"error.txt under {run.tune}: mend it and search again under another --name"
        )


def check_data(config: SearchConfig) -> tuple[CocoDataset, Folds]:
    """Read and decode everything once, so that no trial meets a bad photo."""
    dataset = load_coco(Path(config.search.data_dir))
    folds = make_folds(dataset, config.data)
    open_cache(dataset, config.data.image_size)
    return dataset, folds


def check_model(config: SearchConfig, folds: Folds) -> None:
    """Build the first trial's network once, so that missing weights are one error, not N trials;
    the same for a batch that the photos of a fold do not fill."""
    from trashseg.models import build_model
    from trashseg.train import check_fits

    for fold in range(folds.count):
        check_fits(config, folds, fold)
    build_model(config.model, classes=2)


def build_tuner(
    run: RunFolder,
    config: SearchConfig,
    space: Space,
    resources: TrialResources,
    searcher: OptunaSearcher,
    callback: SearchCallback,
) -> tune.Tuner:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # MLflow has it all
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the display is ours
    trainable = tune.with_parameters(
        run_trial,
        config=config,
        space=space,
        folds_file=str(run.folds_json),
        cpus=resources.cpus,
    )
    return tune.Tuner(
        tune.with_resources(trainable, resources.request),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=SuccessiveHalving(config, hand_tuned=searcher.hand_tuned),
            num_samples=config.search.trials,
            max_concurrent_trials=resources.concurrent,
            reuse_actors=True,
            trial_name_creator=searcher.trial_name,
            trial_dirname_creator=searcher.trial_name,
        ),
        run_config=tune.RunConfig(
            name=run.tune.name,
            storage_path=str(run.path),
            failure_config=tune.FailureConfig(max_failures=config.search.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            callbacks=[callback],
            verbose=0,
        ),
    )


def announce(
    display: Display, config: SearchConfig, resources: TrialResources, dashboard: str
) -> None:
    gpus = f" and {resources.gpus:g} GPUs" if resources.gpus else ""
    display.line(f"Ray dashboard  {dashboard} (its token: ray get-auth-token)")
    display.line(f"MLflow         mlflow ui --backend-store-uri {config.search.tracking_uri}")
    display.line(
        f"{config.search.trials} trials of up to {config.epochs} epochs, {resources.concurrent} at a "
        f"time, each with {resources.cpus} CPUs{gpus}"
    )
