"""The ensemble of a run: retrain what is missing, vote, score, log."""

from pathlib import Path
from typing import Any

from search.display import Display
from search.finals import choose_and_train
from search.run_folder import RunFolder
from search.tracking import Tracker
from trashseg.data.coco import CocoDataset, load_coco_test
from trashseg.device import local_resources
from trashseg.ensemble import FoldModel, build_ensemble
from trashseg.errors import ConfigError


def run_ensemble(run: RunFolder, top_k: int, test: Path | None) -> dict[str, Any]:
    """Retrain what is missing, vote, score, choose, log; returns the ensemble's metrics."""
    test_dataset = load_coco_test(test) if test else None
    dataset = run.dataset()
    check_test(dataset, test_dataset)
    with run.locked():
        models = choose_and_train(run, top_k)
        return vote_and_log(run, models, dataset, test_dataset)


def vote_and_log(
    run: RunFolder,
    models: list[FoldModel],
    dataset: CocoDataset,
    test_dataset: CocoDataset | None,
) -> dict[str, Any]:
    config = run.config
    photos = len(dataset.photos) + len(test_dataset.photos if test_dataset else ())
    with (
        Display(f"{config.search.name} ensemble", photos, "photos") as display,
        Tracker(run, config.search.tracking_uri, warn=display.line).closing() as tracker,
    ):
        tracker.start("ensemble", "ensemble", None, {"kind": "ensemble"})
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
        log_ensemble(tracker, run, metrics)
    return metrics


def check_test(dataset: CocoDataset, test: CocoDataset | None) -> None:
    if test is not None and test.classes != dataset.classes:
        raise ConfigError(
            f"{test.root}: its classes are {', '.join(test.classes)}; the run's are "
            f"{', '.join(dataset.classes)}: give a test folder with the same ones"
        )


def log_ensemble(tracker: Tracker, run: RunFolder, metrics: dict[str, Any]) -> None:
    for split in ("oof", "test"):
        for kind, scores in (metrics[split] or {}).items():
            tracker.log_scores("ensemble", scores, prefix=f"{split}/{kind}/")
    tracker.log_file("ensemble", run.ensemble / "metrics.json")
    tracker.log_file("ensemble", run.ensemble / "manifest.yaml")
    tracker.log_file("ensemble", run.search_yaml)
    tracker.log_confusion("ensemble", run.ensemble / "confusion.csv")
    tracker.end("ensemble", "finished", metrics["chosen"])
