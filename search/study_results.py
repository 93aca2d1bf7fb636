"""What came out of a study, as rows of single trainings and as one comparison a variant."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter

from search.evidence import TEST, Comparison, compare, spread
from trashseg.config import TrainConfig
from trashseg.ensemble import FoldModel
from trashseg.files import write_json, write_text
from trashseg.member import member_scores


@dataclass(frozen=True)
class Training:
    """One variant with one seed, on the fold of `model`."""

    variant: str
    seed: int
    model: FoldModel

    @property
    def pair(self) -> tuple[int, int]:
        """What it shares with one training of each other variant: fold and seed."""
        return self.model.fold, self.seed


@dataclass(frozen=True)
class VariantResult:
    """A variant over its trainings: `mean` score and the `spread` (standard deviation) of single ones,
    and its comparison with the baseline, None of the baseline itself."""

    name: str
    trainings: int
    mean: float
    spread: float | None
    compared: Comparison | None


@dataclass(frozen=True)
class StudyResults:
    """Scores are `metric` on validation photos at their own size, each training's with the weights of
    its best epoch."""

    metric: str
    baseline: str
    test: str
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    variants: tuple[VariantResult, ...]
    """In the order of the study's file."""


def write_results(
    csv_path: Path,
    json_path: Path,
    baseline: str,
    trainings: Sequence[Training],
    config: TrainConfig,
) -> StudyResults:
    """study.csv and study.json of trainings that have all ended; returns what study.json holds."""
    done = [(training, _scores(training)) for training in trainings]
    write_text(csv_path, to_csv(done))
    results = summarise(done, baseline, config)
    write_json(json_path, asdict(results))
    return results


def read_results(path: Path) -> StudyResults:
    return TypeAdapter(StudyResults).validate_json(path.read_text())


def summarise(
    done: Sequence[tuple[Training, dict[str, Any]]], baseline: str, config: TrainConfig
) -> StudyResults:
    scores: dict[str, dict[tuple[int, int], float]] = {}
    for training, of_training in done:
        scores.setdefault(training.variant, {})[training.pair] = of_training[config.metric]
    # of K folds one is validated on, K - 1 are trained on
    compared = compare(scores, baseline, overlap=1 / (config.data.folds - 1))
    pairs = sorted({training.pair for training, _ in done})
    return StudyResults(
        metric=config.metric,
        baseline=baseline,
        test=TEST,
        folds=tuple(sorted({fold for fold, _ in pairs})),
        seeds=tuple(sorted({seed for _, seed in pairs})),
        variants=tuple(
            VariantResult(
                name,
                len(values),
                fmean(values.values()),
                spread(list(values.values())),
                compared.get(name),
            )
            for name, values in scores.items()
        ),
    )


def to_csv(done: Sequence[tuple[Training, dict[str, Any]]]) -> str:
    """variant, seed, fold, best_epoch, miou, miou_image."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["variant", "seed", "fold", "best_epoch", "miou", "miou_image"])
    for training, scores in done:
        numbers = [f"{scores[key]:.6f}" for key in ("miou", "miou_image")]
        fold = training.model.fold
        writer.writerow([training.variant, training.seed, fold, scores["best_epoch"], *numbers])
    return table.getvalue()


def _scores(training: Training) -> dict[str, Any]:
    scores = member_scores(training.model.folder, training.model.config)
    assert scores is not None, "train_folds returns when all folds are trained"
    return scores
