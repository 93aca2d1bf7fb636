"""Which losses and augmentations help, as far as the trials of a search can tell.

Trials are compared by their scores after one epoch that all of them were given, the first rung: later
scores exist only of those that did well. An effect is the difference of two means: trials with a loss
against all others; trials with an augmentation against those without it, or, where it is a probability
that hardly any trial has at zero, trials above the median probability against the rest.

These are observations, not an experiment. Trials differ in everything else too, and the sampler proposes
more of what did well: what happened to go along with a good learning rate looks good itself. An interval
is that of a bootstrap over trials, within each of the two groups (Efron 1979). The p value is that of a
permutation test: how often a difference as large comes about when scores are dealt to trials at random.
It is corrected for the number of effects in a family (Holm 1979), and the verdict goes by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.report.trials import TrialFacts
from search.significance import ALPHA, holm
from search.space import Space, key_of

FEWEST = 3  # trials on either side of a difference that gets an interval
RESAMPLES = 4000
SHUFFLES = 4999
AUGMENTATION, PROBABILITY = "augment.", ".p"

Verdict = Literal["helps", "harms", "not shown", "too few"]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """One difference. What needs `FEWEST` trials on both sides is None with fewer."""

    name: str
    """The choice, or the augmentation."""
    contrast: str
    """Who is compared with whom, in words."""
    trials: int
    others: int
    difference: float | None
    """Mean score of the trials minus that of the others; None where one side is empty."""
    interval: tuple[float, float] | None
    """At level 1 - ALPHA, of this effect alone."""
    p: float | None
    """Of this effect alone."""
    p_holm: float | None
    """Corrected for all effects of the family."""
    verdict: Verdict
    failed: int
    """How many trials with it failed before they had a score: they are on neither side."""


@dataclass(frozen=True)
class Family:
    """Effects that are corrected together."""

    key: str
    """The configuration key that is chosen, or `augment`."""
    epoch: int
    """After which trials are compared."""
    trials: int
    """That are compared."""
    effects: tuple[Effect, ...]
    """The largest difference first; those without one last."""


def families(trials: Sequence[TrialFacts], space: Space, epoch: int) -> list[Family]:
    """One of each choice that every trial makes, `loss.name` first, and one of all augmentations."""
    scores = {
        trial.name: score for trial in trials if (score := trial.score_after(epoch)) is not None
    }
    found = [choice(trials, scores, key) for key in choices(space)]
    found.append(augmentations(trials, scores, space))
    return [
        Family(key, epoch, len(scores), tuple(corrected(effects)))
        for key, effects in found
        if effects
    ]


def choices(space: Space) -> list[str]:
    """Keys that are chosen from a list in every trial; the loss first."""
    keys = [
        path
        for path, parameter in space.parameters.items()
        if parameter.choice is not None
        and len(parameter.choice) > 1
        and not parameter.when
        and not path.startswith(AUGMENTATION)
    ]
    return sorted(keys, key=lambda key: key != "loss.name")


def choice(
    trials: Sequence[TrialFacts], scores: Mapping[str, float], key: str
) -> tuple[str, list[Effect]]:
    """Each value that some trial has, against all others."""
    values = {trial.name: trial.point[key] for trial in trials if key in trial.point}
    distinct = sorted(set(values.values()), key=str)
    if len(distinct) < 2:
        return key, []
    return key, [
        effect(
            str(value),
            "against all other trials",
            {name: own == value for name, own in values.items()},
            scores,
            sum(trial.point.get(key) == value for trial in lost(trials, scores)),
        )
        for value in distinct
    ]


def augmentations(
    trials: Sequence[TrialFacts], scores: Mapping[str, float], space: Space
) -> tuple[str, list[Effect]]:
    """Each augmentation whose probability is searched."""
    effects = []
    for key in dict.fromkeys(map(key_of, space.parameters)):
        if not (key.startswith(AUGMENTATION) and key.endswith(PROBABILITY)):
            continue
        values = {
            trial.name: float(trial.point[key])
            for trial in trials
            if key in trial.point and trial.name in scores
        }
        contrast, has_it = split(values)
        name = key.removeprefix(AUGMENTATION).removesuffix(PROBABILITY)
        failed = sum(float(trial.point.get(key, 0)) > 0 for trial in lost(trials, scores))
        effects.append(effect(name, contrast, has_it, scores, failed))
    return "augment", effects


def split(probabilities: Mapping[str, float]) -> tuple[str, dict[str, bool]]:
    """With against without, where enough trials are without; else above the median against the rest."""
    without = sum(p == 0 for p in probabilities.values())
    if without >= FEWEST:
        return "on against off", {name: p > 0 for name, p in probabilities.items()}
    middle = float(np.median(list(probabilities.values()))) if probabilities else 0.0
    return (
        f"probability above {middle:.2g} against the rest",
        {name: p > middle for name, p in probabilities.items()},
    )


def lost(trials: Sequence[TrialFacts], scores: Mapping[str, float]) -> list[TrialFacts]:
    """Who failed before it had a score."""
    return [trial for trial in trials if trial.state == "failed" and trial.name not in scores]


# --- one difference ----------------------------------------------------------------------------


def effect(
    name: str, contrast: str, has_it: Mapping[str, bool], scores: Mapping[str, float], failed: int
) -> Effect:
    """Of the trials that have a score; not corrected yet."""
    sides = [
        np.array(
            [scores[trial] for trial, has in has_it.items() if trial in scores and has == side]
        )
        for side in (True, False)
    ]
    ours, others = sides
    enough = min(len(ours), len(others)) >= FEWEST
    return Effect(
        name=name,
        contrast=contrast,
        trials=len(ours),
        others=len(others),
        difference=float(ours.mean() - others.mean()) if len(ours) and len(others) else None,
        interval=bootstrap_interval(ours, others) if enough else None,
        p=permutation_p(ours, others) if enough else None,
        p_holm=None,
        verdict="too few",
        failed=failed,
    )


def corrected(effects: Sequence[Effect]) -> list[Effect]:
    """With p values for all of them together, and verdicts; the largest difference first."""
    tested = [effect for effect in effects if effect.p is not None]
    p_holm = holm([effect.p for effect in tested if effect.p is not None])
    judged = [
        replace(effect, p_holm=p, verdict=verdict(effect.difference or 0.0, p))
        for effect, p in zip(tested, p_holm, strict=True)
    ]
    every = [*judged, *(effect for effect in effects if effect.p is None)]
    return sorted(every, key=lambda e: (e.interval is None, -(e.difference or 0.0)))


def verdict(difference: float, p_holm: float) -> Verdict:
    if p_holm >= ALPHA:
        return "not shown"
    return "helps" if difference > 0 else "harms"


def bootstrap_interval(ours: Scores, others: Scores) -> tuple[float, float]:
    """Percentiles of the difference of means, each side resampled on its own; always the same draws."""
    rng = np.random.default_rng(0)
    means = [
        side[rng.integers(0, len(side), (RESAMPLES, len(side)))].mean(1) for side in (ours, others)
    ]
    low, high = np.quantile(means[0] - means[1], [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def permutation_p(ours: Scores, others: Scores) -> float:
    """Two-sided; the deal that was dealt counts as one of them (Phipson & Smyth 2010)."""
    rng = np.random.default_rng(0)
    pooled = np.concatenate([ours, others])
    dealt = rng.permuted(np.tile(pooled, (SHUFFLES, 1)), axis=1)
    differences = dealt[:, : len(ours)].mean(1) - dealt[:, len(ours) :].mean(1)
    as_large = np.abs(differences) >= abs(ours.mean() - others.mean()) - 1e-12
    return float((1 + as_large.sum()) / (1 + SHUFFLES))
