"""A search from its configuration to its leaderboard. Read it top to bottom."""

import os
import tempfile
import uuid
from pathlib import Path

from ray import tune

from search.callbacks import SearchCallback
from search.checkpoint_store import check_unused
from search.cluster import TrialResources, await_node, connect, divide
from search.config import SearchConfig
from search.ledger import Ledger
from search.live import SearchDisplay
from search.packing import trials_in_gpu
from search.patience import TimeBudget, TooManyFailures
from search.preflight import preflight
from search.results import Row, summary, write_results
from search.resume import check_same_search, check_trials
from search.run_folder import RunFolder, new_run_folder, open_run_folder
from search.scheduler import SuccessiveHalving
from search.searcher import OptunaSearcher
from search.space import load_space
from search.tables import ui_command
from search.tracking import Tracker, check_store
from search.trainable import TrialSetting, run_trial
from trashseg.config import TrainConfig
from trashseg.data.cache import open_cache
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, make_folds
from trashseg.errors import TrashSegError

# How often Tune starts a trial again; which of its failures count, the trial knows.
LOST_NODES = 20


def run_search(config: SearchConfig, *, resume: bool = False) -> tuple[RunFolder, list[Row]]:
    """Run all trials, or those that are missing; returns the run's folder and its leaderboard.

    Everything that can be wrong with the input is found before the run's folder is made or changed.
    Raises TrashSegError for that, and KeyboardInterrupt where the search was stopped; a trial that
    fails is a row of the leaderboard.
    """
    space = load_space(config.search.space)
    space.first_points(config.train)
    space.check(config.train)
    run = the_run(config, resume)
    dataset = load_coco(Path(config.search.data_dir))
    if resume:
        check_same_search(run, config, space, dataset)
    folds = run.folds(dataset) if resume else make_folds(dataset, config.data)
    check_training(config, dataset, folds)
    dashboard = connect(config.search.address)
    await_node(config.search, print)
    per_gpu = trials_in_gpu(config, len(dataset.classes), print)
    resources = divide(config.search, config.search.trials, per_gpu)
    preflight(config, dataset, resources, run.path if resume else None)
    check_store(config.search.tracking_uri)
    with run.locked():
        if not resume:
            run.create(config, space, dataset, folds)
        return run, run_trials(run, config, folds, resources, dashboard)


def the_run(config: SearchConfig, resume: bool) -> RunFolder:
    if resume:
        return open_run_folder(config.search.name, Path(config.search.storage))
    check_unused(config.search.checkpoint_uri, config.search.name)
    return new_run_folder(config)


def run_trials(
    run: RunFolder,
    config: SearchConfig,
    folds: Folds,
    resources: TrialResources,
    dashboard: str,
) -> list[Row]:
    """Let Ray Tune run what the ledger lacks, write the results, close the books."""
    space = run.space
    ledger = Ledger(run.study_db, config, space)
    check_trials(ledger, config, run)
    run.keep(config)
    budget, failures = TimeBudget(config.search.budget_seconds, config.epochs), TooManyFailures()
    with (
        SearchDisplay(config) as display,
        Tracker(run, config.search.tracking_uri, warn=display.line).closing() as tracker,
    ):
        tracker.start("parent", config.search.name, config.train, {"kind": "search"})
        announce(display, run, config, resources, dashboard, ledger)
        callback = SearchCallback(run, config, space, ledger, tracker, display, budget)
        callback.catch_up()
        scheduler = SuccessiveHalving(config, ledger)
        searcher = OptunaSearcher(
            ledger, config.search.trials, resources.max_concurrent, scheduler.stopped,
            budget.allows_a_trial, on_end=[callback.trial_ended, failures.trial_ended],
        )  # fmt: skip
        setting = TrialSetting(
            run, config, space, folds, uuid.uuid4().hex, resources.cpus, resources.gpu_memory
        )  # fmt: skip
        if searcher.has_work:
            run.finals_json.unlink(missing_ok=True)  # new trials are candidates too
            fit(setting, resources, searcher, scheduler, callback, failures)
        if budget.spent:
            display.line(
                f"time budget of {config.search.time_budget} used up after {ledger.proposed} of "
                f"{config.search.trials} trials; started again (search with --resume) it goes on"
            )
        rows = write_results(run, ledger.trials, config, space)
        tracker.log_file("parent", run.leaderboard)
        tracker.log_scores("parent", summary(rows))
        check_outcome(run, config, rows, failures, budget)
        tracker.end("parent", "finished")
    return rows


def fit(
    setting: TrialSetting,
    resources: TrialResources,
    searcher: OptunaSearcher,
    scheduler: SuccessiveHalving,
    callback: SearchCallback,
    failures: TooManyFailures,
) -> None:
    """Tune's own files are scratch: what it knows is in the ledger, checkpoints are in the run."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # MLflow has it all
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the display is ours
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # MLflow has the tracebacks
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "inf"  # snapshots: nobody reads them
    trainable = tune.with_parameters(run_trial, setting=setting)
    trainable.__name__ = f"trashseg {setting.run.path.name}"  # its actors, in Ray's dashboard
    with tempfile.TemporaryDirectory(prefix="trashseg-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, resources.request),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,  # the searcher knows when it is over
                reuse_actors=True,
                trial_name_creator=searcher.trial_name,
                trial_dirname_creator=searcher.trial_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=LOST_NODES),
                callbacks=[callback],
                stop=failures,
                verbose=0,
            ),
        ).fit()


def check_training(config: TrainConfig, dataset: CocoDataset, folds: Folds) -> None:
    """Decode every photo and build the first trial's network once, so that a bad photo or missing
    weights are one error, not N trials; the same for a batch that the photos of a fold do not fill."""
    from trashseg.data.copy_paste import check_classes
    from trashseg.data.unlabelled import open_pool
    from trashseg.models import build_model
    from trashseg.train import check_fits

    check_classes(config.augment.copy_paste.classes, dataset.classes)
    open_cache(dataset, config.data.image_size)
    for fold in range(folds.count):
        check_fits(config, folds, fold)
        if config.pseudo.name != "none":
            open_pool(config.pseudo, dataset, folds, fold)
    build_model(config.model, classes=2)


def check_outcome(
    run: RunFolder,
    config: SearchConfig,
    rows: list[Row],
    failures: TooManyFailures,
    budget: TimeBudget,
) -> None:
    """TrashSegError if the search gave up or nothing finished, KeyboardInterrupt if it was stopped."""
    if failures.stop_all():
        raise TrashSegError(
            f"{run.path}: ended early, {failures.verdict}: mend that and search under another --name, "
            "or add --resume to go on regardless"
        )
    finished = sum(row.state == "finished" for row in rows)
    if len(rows) < config.search.trials and not budget.spent:
        raise KeyboardInterrupt(
            f"{len(rows)} of {config.search.trials} trials ended, {finished} of them finished; "
            f"see {run.leaderboard}; started again (search with --resume) it goes on"
        )
    if not finished:
        raise TrashSegError(
            f"{run.path}: no trial finished; the reason of each is in its MLflow run: mend it and "
            "search again under another --name"
        )


def announce(
    display: SearchDisplay,
    run: RunFolder,
    config: SearchConfig,
    resources: TrialResources,
    dashboard: str,
    ledger: Ledger,
) -> None:
    display.line(f"Ray dashboard  {dashboard} (its token: ray get-auth-token)")
    display.line(f"MLflow, Optuna {ui_command(run)}")
    display.line(
        f"{config.search.trials} trials of up to {config.epochs} epochs, {resources.concurrent} at a "
        f"time{' for now' if resources.growing else ''}, each with {resources}"
    )
    if ledger.proposed:
        running = ", ".join(
            f"{name} after epoch {max(trial.scores, default=0)}"
            for name, trial in ledger.open.items()
        )
        ended = ledger.proposed - len(ledger.open)
        display.line(f"resumed: {ended} trials have ended; go on: {running or 'none'}")
