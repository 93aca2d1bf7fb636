"""The ensemble of a run: retrain what is missing, vote, score, log, register."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.display import Display
from search.finals import choose_and_train
from search.model_card import write_model_card
from search.registry import register_now
from search.run_folder import RunFolder
from search.tracking import Tracker
from trashseg.assemble import build_ensemble
from trashseg.choice import Proposals
from trashseg.data.coco import CocoDataset, load_coco_test
from trashseg.device import local_resources
from trashseg.errors import ConfigError
from trashseg.fold_models import FoldModel


def run_ensemble(run: RunFolder, top_k: int, seeds: int, test: Path | None) -> dict[str, Any]:
    """Retrain what is missing, vote, score, choose, log; returns the ensemble's metrics."""
    test_dataset = load_coco_test(test) if test else None
    dataset = run.dataset()
    check_test(dataset, test_dataset)
    with run.locked():
        models = choose_and_train(run, top_k, seeds=seeds)
        proposals = Proposals(
            selection_per_class=run.config.selection_per_class,
            tta=(run.config.tta,),
            logit_adjustment=run.config.logit_adjustment,
            by_object=run.config.by_object,
            crf=(run.config.crf,),
        )
        return vote_and_log(run, models, dataset, test_dataset, proposals)


def vote_and_log(
    run: RunFolder,
    models: Sequence[FoldModel],
    dataset: CocoDataset,
    test_dataset: CocoDataset | None,
    proposals: Proposals,
) -> dict[str, Any]:
    """Build the ensemble with what helps of the proposals, tell MLflow, register it there."""
    config = run.config
    photos = len(dataset.photos) + len(test_dataset.photos if test_dataset else ())
    with Display(f"{config.search.name} ensemble", photos, "photos") as display:
        with Tracker(run, config.search.tracking_uri, warn=display.line).closing() as tracker:
            tracker.start("ensemble", "ensemble", None, {"kind": "ensemble"})
            display.line(f"{len(models)} models vote; what is done to their votes has to help")
            metrics = build_ensemble(
                models,
                dataset,
                run.folds(dataset),
                run.ensemble,
                proposals,
                config.metric,
                local_resources(),
                test_dataset,
                on_photo=display.advance,
                on_step=display.line,
            )
            write_model_card(run, dataset)
            log_ensemble(tracker, run, metrics)
        register_now(run, display.line)  # the tracker is through: one at a time writes to sqlite
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
    tracker.log_scores("ensemble", metrics["nested"], prefix="nested/")
    tracker.log_file("ensemble", run.ensemble / "metrics.json")
    tracker.log_file("ensemble", run.ensemble / "post.json")
    tracker.log_file("ensemble", run.ensemble / "manifest.yaml")
    tracker.log_file("ensemble", run.model_card)
    tracker.log_file("ensemble", run.search_yaml)
    tracker.log_confusion("ensemble", run.ensemble / "confusion.csv")
    tracker.end("ensemble", "finished", metrics["chosen"])
