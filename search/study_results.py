"""What came out of a study, as rows of single trainings and as one comparison a variant."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter

from search.significance import TEST, Comparison, compare, spread
from trashseg.config import TrainConfig
from trashseg.files import write_json, write_text
from trashseg.fold_models import FoldModel
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


Ended = tuple[Training, dict[str, Any] | None]
"""A training and its scores, None if it failed."""


@dataclass(frozen=True)
class VariantResult:
    """A variant over its trainings: `mean` score and the `spread` (standard deviation) of single ones,
    and its comparison with the baseline, None of the baseline itself."""

    name: str
    trainings: int
    failed: int
    """Trainings whose loss became NaN or infinite; they are in no other number."""
    mean: float | None
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
    """study.csv and study.json of trainings that have all ended; returns what study.json holds. One
    without scores has failed."""
    ended = [(training, member_scores(*_place(training))) for training in trainings]
    write_text(csv_path, to_csv(ended))
    results = summarise(ended, baseline, config)
    write_json(json_path, asdict(results))
    return results


def read_results(path: Path) -> StudyResults:
    return TypeAdapter(StudyResults).validate_json(path.read_text())


def summarise(ended: Sequence[Ended], baseline: str, config: TrainConfig) -> StudyResults:
    scores: dict[str, dict[tuple[int, int], float]] = {}
    failed: Counter[str] = Counter()
    for training, of_training in ended:
        of_variant = scores.setdefault(training.variant, {})
        if of_training is None:
            failed[training.variant] += 1
        else:
            of_variant[training.pair] = of_training[config.metric]
    # of K folds one is validated on, K - 1 are trained on
    compared = compare(scores, baseline, overlap=1 / (config.data.folds - 1))
    return StudyResults(
        metric=config.metric,
        baseline=baseline,
        test=TEST,
        folds=tuple(sorted({training.model.fold for training, _ in ended})),
        seeds=tuple(sorted({training.seed for training, _ in ended})),
        variants=tuple(
            VariantResult(
                name,
                len(values),
                failed[name],
                fmean(values.values()) if values else None,
                spread(list(values.values())),
                compared.get(name),
            )
            for name, values in scores.items()
        ),
    )


def to_csv(ended: Sequence[Ended]) -> str:
    """variant, seed, fold, best_epoch, miou, miou_image; the last three empty where it failed."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["variant", "seed", "fold", "best_epoch", "miou", "miou_image"])
    for training, scores in ended:
        cells: list[Any] = ["", "", ""]
        if scores is not None:
            cells = [scores["best_epoch"], f"{scores['miou']:.6f}", f"{scores['miou_image']:.6f}"]
        writer.writerow([training.variant, training.seed, training.model.fold, *cells])
    return table.getvalue()


def _place(training: Training) -> tuple[Path, TrainConfig]:
    return training.model.folder, training.model.config
