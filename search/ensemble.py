"""The ensemble of a run: retrain what is missing, vote, score, log."""

from pathlib import Path
from typing import Any

from search.display import Display
from search.retrain import retrain
from search.run_folder import RunFolder
from search.tracking import Tracker
from trashseg.data.coco import CocoDataset, load_coco_test
from trashseg.ensemble import build_ensemble
from trashseg.errors import ConfigError
from trashseg.train import local_resources


def run_ensemble(run: RunFolder, top_k: int, test: Path | None) -> dict[str, Any]:
    """Retrain what is missing, vote, score, choose, log; returns the ensemble's metrics."""
    config = run.config
    test_dataset = load_coco_test(test) if test else None
    dataset = run.dataset()
    check_test(dataset, test_dataset)
    models = retrain(run, top_k)
    tracker = Tracker(run, config.search.tracking_uri)
    photos = len(dataset.photos) + len(test_dataset.photos if test_dataset else ())
    title = f"{config.search.name} ensemble"
    with Display(title, photos, "photos") as display, tracker.closing():
        run_id = tracker.start("ensemble", "ensemble", None, {"kind": "ensemble"})
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
