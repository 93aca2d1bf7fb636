"""What simulated searches came to, as regret and as epochs.

A search's incumbent is the trial with the best score so far; it is worth the best score of its full
training. Regret is normalised by data set: 0 is the best that any search found, 1 the median of random
configurations.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.comparison import Bar, Comparison
from bench.lcbench import EPOCHS, Task, load_space
from bench.policies import POLICIES

RANDOM_BUDGET = 100  # full trainings of random search, whose result is the reference
BUDGETS = (10, 15, 20, 30, 40, 50)  # full trainings, at which regret is compared
SHOWN = (10, 20, 50)
Regrets = dict[tuple[str, int], dict[int, float]]
"""By (policy, workers), then by full trainings."""


@dataclass(frozen=True)
class Outcome:
    """What one search came to."""

    task: str
    policy: str
    workers: int
    seed: int
    worth: dict[int, float]
    """The incumbent's, by full trainings spent."""
    reached: int | None
    """Epochs until it was worth what random search found; None if it never was. Of ours alone."""


def regrets(outcomes: Sequence[Outcome]) -> Regrets:
    """The mean over data sets and seeds."""
    tops: dict[str, float] = {}
    for one in outcomes:
        tops[one.task] = max(tops.get(one.task, 0.0), *one.worth.values())
    usual = {task: typical(Task(task)) for task in tops}
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.policy, one.workers), []).append(one)
    return {
        group: {
            budget: statistics.fmean(
                (tops[one.task] - one.worth[budget]) / (tops[one.task] - usual[one.task])
                for one in members
            )
            for budget in BUDGETS
        }
        for group, members in groups.items()
    }


def typical(task: Task, count: int = 500) -> float:
    """The median of random configurations' accuracies after a full training."""
    policy = POLICIES["random"](load_space(), 0)
    points = [policy.searcher.suggest(str(number)) for number in range(count)]
    final = task.curves([point for point in points if point], np.array([EPOCHS]))
    return float(np.median(final))


def epochs_ratio(outcomes: Sequence[Outcome], workers: int) -> tuple[float, float]:
    """Of ours with so many workers: median epochs until it is worth what random search found, infinite
    for those that never are; share of searches that are."""
    ours = [one for one in outcomes if one.policy == "ours" and one.workers == workers]
    reached = [np.inf if one.reached is None else float(one.reached) for one in ours]
    return float(np.median(reached)), float(np.mean(np.isfinite(reached)))


def comparisons(outcomes: Sequence[Outcome], what: str, note: str) -> list[Comparison]:
    """Three for each number of workers: epochs, reliability, regret against the best of the others."""
    found: list[Comparison] = []
    by_group = regrets(outcomes)
    for workers in sorted({one.workers for one in outcomes}):
        median, share = epochs_ratio(outcomes, workers)
        at = f"{what}, {workers} worker{'s' if workers > 1 else ''}"
        spent = float(RANDOM_BUDGET * EPOCHS)
        found.append(
            Comparison(
                f"{at}: epochs to random search's result", "epochs", Bar("<=", 0.15),
                ours=min(median, 10 * spent), peer=spent, note=note,
            )
        )  # fmt: skip
        found.append(
            Comparison(f"{at}: searches that reach it", "share", Bar(">=", 0.97), ours=share)
        )
        ours, other, budget, name = closest(by_group, workers)
        found.append(
            Comparison(
                f"{at}: regret against the best other", "regret", Bar("<", 1.0), ours, other,
                note=f"where it is closest: {name} after {budget} full trainings",
            )
        )  # fmt: skip
    return found


def closest(by_group: Regrets, workers: int) -> tuple[float, float, int, str]:
    """Our regret, the other's, the budget and the other's name where ours is least ahead."""
    ours = by_group["ours", workers]
    return max(
        (
            (ours[budget], regret[budget], budget, name)
            for (name, count), regret in by_group.items()
            if count == workers and name != "ours"
            for budget in BUDGETS
        ),
        key=lambda found: found[0] / found[1],
    )


def page_table(outcomes: Sequence[Outcome]) -> str:
    """As Markdown: a row for each policy and number of workers."""
    lines = [
        f"| workers | policy | {' | '.join(f'regret at {budget}' for budget in SHOWN)} "
        "| epochs ratio | reach it |",
        f"| ---: | --- | {'---: | ' * len(SHOWN)}---: | ---: |",
    ]
    by_group = regrets(outcomes)
    for workers, name in product(sorted({one.workers for one in outcomes}), POLICIES):
        cells = [f"{by_group[name, workers][budget]:.4f}" for budget in SHOWN]
        ratio = ["", ""]
        if name == "ours":
            median, share = epochs_ratio(outcomes, workers)
            ratio = [f"{median / (RANDOM_BUDGET * EPOCHS):.3f}", f"{share:.1%}"]
        lines.append(f"| {workers} | {name} | {' | '.join([*cells, *ratio])} |")
    return "\n".join(lines) + "\n"
