"""What came out of `launch.py results`, as one row for each thing that was tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from search.significance import Comparison, compare, standard_error

METRICS = ("miou", "miou_image")
GOAL = 0.05  # of miou, beyond two standard errors
Group = Literal["training", "votes", "together"]
Pair = tuple[int, int]  # fold and seed


@dataclass(frozen=True)
class Arm:
    """Something that was tried."""

    name: str
    what: str
    """In words, or the settings in which it differs."""
    group: Group
    scores: Mapping[Pair, Mapping[str, Any]]
    """Scores on the fold's photos, of each fold and seed."""
    against: str | None = None
    """Name of the arm that it is compared with."""
    failed: int = 0
    """Trainings whose loss became NaN or infinite; they are in no score."""
    pooled: Mapping[str, Any] | None = None
    """Scores over all photos at once, where there is one vote for each."""


@dataclass(frozen=True)
class Measured:
    """One metric over the folds and seeds."""

    mean: float
    standard_error: float | None
    """Corrected for the photos that trainings share (search/significance.py); None of fewer than two."""
    compared: Comparison | None
    """With the arm that it is against."""


@dataclass(frozen=True)
class ArmResult:
    """An arm and what it came to."""

    name: str
    what: str
    group: Group
    against: str | None
    scored: int
    """Pairs of fold and seed."""
    failed: int
    metrics: Mapping[str, Measured | None]
    """By `METRICS`; None where nothing was scored."""
    pooled: Mapping[str, Any] | None


@dataclass(frozen=True)
class Results:
    """All of it. Scores are out of fold, on the photos' own size, with the weights of the best epoch."""

    photos: int
    folds: int
    seeds: tuple[int, ...]
    epochs: int
    image_size: int
    architecture: str
    encoder: str
    trials: Mapping[str, int]
    """How many trials of the search ended how."""
    test: str
    arms: tuple[ArmResult, ...]

    def arm(self, name: str) -> ArmResult:
        return next(arm for arm in self.arms if arm.name == name)


def measure(arms: Sequence[Arm], folds: int) -> tuple[ArmResult, ...]:
    """Each arm against the one that it names; of `folds` folds one is validated on."""
    overlap = 1 / (folds - 1)
    compared = {metric: compare_all(arms, metric, overlap) for metric in METRICS}

    def measured(arm: Arm, metric: str) -> Measured | None:
        values = list(of_metric(arm, metric).values())
        if not values:
            return None
        return Measured(
            fmean(values), standard_error(values, overlap), compared[metric].get(arm.name)
        )

    return tuple(
        ArmResult(
            name=arm.name,
            what=arm.what,
            group=arm.group,
            against=arm.against,
            scored=len(arm.scores),
            failed=arm.failed,
            metrics={metric: measured(arm, metric) for metric in METRICS},
            pooled=arm.pooled,
        )
        for arm in arms
    )


def compare_all(arms: Sequence[Arm], metric: str, overlap: float) -> dict[str, Comparison]:
    """By name; those against the same arm are corrected together."""
    scores = {arm.name: of_metric(arm, metric) for arm in arms}
    found: dict[str, Comparison] = {}
    for baseline in {arm.against for arm in arms if arm.against is not None}:
        names = [baseline, *(arm.name for arm in arms if arm.against == baseline)]
        found |= compare({name: scores[name] for name in names}, baseline, overlap)
    return found


def of_metric(arm: Arm, metric: str) -> dict[Pair, float]:
    return {pair: float(scores[metric]) for pair, scores in arm.scores.items()}


def reaches_goal(compared: Comparison) -> bool:
    """At least `GOAL` better, by more than two standard errors."""
    error = compared.standard_error
    return error is not None and compared.difference >= GOAL and compared.difference > 2 * error
