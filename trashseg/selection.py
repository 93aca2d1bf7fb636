"""Which candidates vote, and with which weight: greedy selection on out-of-fold votes.

Caruana et al., Ensemble selection from libraries of models, ICML 2004: again and again add the candidate
that raises the score most, with replacement, so that the good ones are added several times. Bagged: the
paper draws a part of its 2000 models for each bag; here are few, so each bag draws photos instead.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trashseg.choice import Weights
from trashseg.counts import Counts
from trashseg.noise import score

ROUNDS = 10
BAGS = 10
SEED = 0


def greedy_weights(
    counts: Callable[[Weights], Counts],
    candidates: int,
    photos: NDArray[np.int64],
    metric: str,
    rounds: int = ROUNDS,
    bags: int = BAGS,
    seed: int = SEED,
) -> Weights:
    """Weights that sum to 1, the mean over bags of `photos` drawn with replacement.

    `counts` gives (N, C, C) for the weights of a vote; of those N photos only `photos` (positions)
    are looked at. Whoever is asked for the same weights again had better remember.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(candidates)
    for _ in range(bags):
        drawn = rng.choice(photos, len(photos))

        def score_of(weights: Weights, drawn: NDArray[np.int64] = drawn) -> float:
            found = counts(weights)
            return score(found, metric, np.bincount(drawn, minlength=len(found)))

        total += grow(score_of, candidates, rounds)
    return tuple((total / bags).tolist())


def grow(
    score_of: Callable[[Weights], float], candidates: int, rounds: int = ROUNDS
) -> NDArray[np.float64]:
    """One bag's weights: of `rounds` additions, those up to the best score, and of equals the first."""
    chosen = np.zeros(candidates, dtype=np.int64)
    best, best_score = chosen, -np.inf
    for _ in range(rounds):
        options = chosen + np.eye(candidates, dtype=np.int64)
        scores = [score_of(_shares(option)) for option in options]
        winner = int(np.argmax(scores))
        chosen = options[winner]
        if scores[winner] > best_score:
            best, best_score = chosen, scores[winner]
    return np.asarray(_shares(best))


def _shares(times: NDArray[np.int64]) -> Weights:
    """Equal shares are equal floats: 1/2 and 2/4 are asked for once."""
    return tuple((times / times.sum()).tolist())
