"""Which parameters matter: Optuna's PED-ANOVA (Watanabe et al. 2023), and what chance makes of it.

It asks how differently a parameter is distributed among the best trials and among all. Trials are
compared after the same epoch as in effects.py, so that those which were stopped count too. With few
trials any parameter seems to matter: so the same is worked out for scores that are dealt to the trials
at random, and what 19 of 20 such deals stay below is given beside it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from search.ledger import NAME
from search.report.trials import TrialFacts

FEWEST = 6  # trials
BEST = 5  # trials, which PED-ANOVA wants among the best at least
SHUFFLES = 40


@dataclass(frozen=True)
class Importance:
    """Of one parameter: its share in all parameters' importance, which sum to 1."""

    parameter: str
    share: float
    chance: float
    """Which 19 of 20 random deals of the scores stay below."""


@dataclass(frozen=True)
class Importances:
    """The largest first; none with fewer than `FEWEST` trials."""

    epoch: int
    trials: int
    best_share: float
    """Which trials are the best: this share of them."""
    parameters: tuple[Importance, ...]


def importances(
    trials: Sequence[FrozenTrial], facts: Sequence[TrialFacts], epoch: int
) -> Importances:
    scores = {trial.name: trial.score_after(epoch) for trial in facts}
    scored = [
        (trial, score)
        for trial in trials
        if (score := scores.get(trial.user_attrs[NAME])) is not None
    ]
    if len(scored) < FEWEST:
        return Importances(epoch, len(scored), 0.0, ())
    points, values = [trial for trial, _ in scored], np.array([score for _, score in scored])
    best = best_share(len(scored))
    shares = ped_anova(points, values, best)
    rng = np.random.default_rng(0)
    dealt = [ped_anova(points, rng.permutation(values), best) for _ in range(SHUFFLES)]
    found = [
        Importance(name, share, float(np.quantile([deal[name] for deal in dealt], 0.95)))
        for name, share in shares.items()
    ]
    found.sort(key=lambda each: -each.share)
    return Importances(epoch, len(scored), best, tuple(found))


def best_share(trials: int) -> float:
    """A tenth of them, or `BEST` where that is more, but half of them at most."""
    return min(0.5, max(0.1, BEST / trials))


def ped_anova(
    trials: Sequence[FrozenTrial], scores: Sequence[float] | np.ndarray, best: float
) -> dict[str, float]:
    """Shares by parameter, of trials that count as complete with these scores."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            create_trial(value=float(score), params=trial.params, distributions=trial.distributions)
            for trial, score in zip(trials, scores, strict=True)
        ]
    )
    with warnings.catch_warnings():  # that few trials are unsure is said beside the figure
        warnings.simplefilter("ignore")
        return get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=best)
        )
