"""The ensemble on the page: scores with and without each step, by class, and what is taken for what."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.config import SearchConfig
from search.ledger import HAND_TUNED
from search.report.trainings import Training, scores_by_variant
from search.run_folder import RunFolder
from search.significance import Comparison, Scores, compare


@dataclass(frozen=True)
class StepFacts:
    """What one step of post-processing brings, on photos that its parameters were not picked on."""

    step: str
    without: float
    with_it: float
    gain: float
    noise: float
    kept: bool
    why: str


@dataclass(frozen=True)
class EnsembleFacts:
    """runs/NAME/ensemble. Scores are trees of metrics.json: miou, miou_image, iou by class, ..."""

    classes: tuple[str, ...]
    chosen: str
    """soft_vote, or soft_vote_crf."""
    oof: Mapping[str, Any]
    """By kind, out of fold."""
    nested: Mapping[str, Any]
    """The scores to quote: each fold's photos under choices made on the other folds."""
    test: Mapping[str, Any] | None
    members: Mapping[str, Any]
    """By "TRIAL/FOLD", on that fold's photos."""
    candidates: Mapping[str, Any]
    """By trial: the votes of its folds and seeds alone."""
    steps: tuple[StepFacts, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Pixels by truth (rows) and chosen prediction, out of fold."""
    against_hand: Comparison | None
    """The nested score of each fold minus that of hand tuning on it."""
    against_best: Comparison | None
    """The same, minus that of the best configuration alone."""


def read_ensemble(
    run: RunFolder, trainings: Sequence[Training], config: SearchConfig
) -> EnsembleFacts | None:
    """None where there is none yet."""
    file = run.ensemble / "metrics.json"
    if not file.is_file():
        return None
    metrics = json.loads(file.read_text())
    classes, confusion = read_confusion(run)
    trials = [names[0].partition("/")[0] for names in metrics["voters"].values()]
    nested = {
        (int(fold), config.seed): float(scores[config.metric])
        for fold, scores in metrics["nested_by_fold"].items()
    }
    alone = scores_by_variant(trainings, config.metric)
    return EnsembleFacts(
        classes=classes,
        chosen=metrics["chosen"],
        oof=metrics["oof"],
        nested=metrics["nested"],
        test=metrics["test"],
        members=metrics["members"],
        candidates=dict(zip(trials, metrics["candidates"].values(), strict=True)),
        steps=tuple(map(_step, metrics["steps"])),
        confusion=confusion,
        against_hand=against(nested, alone.get(HAND_TUNED), config),
        against_best=against(nested, alone.get(trials[0]), config),
    )


def _step(step: Mapping[str, Any]) -> StepFacts:
    numbers = (step["step"], step["without"], step["with"], step["gain"], step["noise"])
    return StepFacts(*numbers, kept=step["kept"], why=step["why"])


def read_confusion(run: RunFolder) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Classes, and confusion.csv."""
    with (run.ensemble / "confusion.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    return tuple(header[1:]), tuple(tuple(map(int, row[1:])) for row in rows)


def against(nested: Scores, alone: Scores | None, config: SearchConfig) -> Comparison | None:
    overlap = 1 / (config.data.folds - 1)
    both = compare({"alone": alone or {}, "nested": nested}, "alone", overlap)
    return both.get("nested")
