"""Which candidates vote, and with which weight: greedy selection on out-of-fold votes.

Caruana et al., Ensemble selection from libraries of models, ICML 2004: again and again add the candidate
that raises the score most, with replacement, so that the good ones are added several times. Bagged: the
paper draws a part of its 2000 models for each bag; here are few, so each bag draws photos instead.

By class: the same for one class after another, each looked at with all others as they were, so that a
vote that was counted for one fold serves every other. What is found is then taken class by class, the
rarest first, as long as it helps on top of what was taken before: where two classes want the same
pixels, they are most of the rare one's IoU and next to nothing of the common one's.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trashseg.counts import Counts
from trashseg.noise import score
from trashseg.weighting import Shares, Weights, by_candidate, by_class

ROUNDS = 10
BAGS = 10
CLASS_ROUNDS = 3  # few: of 2 candidates 5 votes for each class, of 3 at most 13
CLASS_BAGS = 5
SEED = 0


def greedy_weights(
    counts: Callable[[Shares], Counts],
    candidates: int,
    photos: NDArray[np.int64],
    metric: str,
    rounds: int = ROUNDS,
    bags: int = BAGS,
    seed: int = SEED,
    start: Shares | None = None,
) -> Shares:
    """Weights that sum to 1, the mean over bags of `photos` drawn with replacement.

    `counts` gives (N, C, C) for the weights of a vote; of those N photos only `photos` (positions)
    are looked at. Whoever is asked for the same weights again had better remember. A bag in which
    nothing is better than `start` stays with it.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(candidates)
    for _ in range(bags):
        drawn = rng.choice(photos, len(photos))

        def score_of(weights: Shares, drawn: NDArray[np.int64] = drawn) -> float:
            found = counts(weights)
            return score(found, metric, np.bincount(drawn, minlength=len(found)))

        total += grow(score_of, candidates, rounds, start)
    return tuple((total / bags).tolist())


def grow(
    score_of: Callable[[Shares], float],
    candidates: int,
    rounds: int = ROUNDS,
    start: Shares | None = None,
) -> NDArray[np.float64]:
    """One bag's weights: of `start` and `rounds` additions to nothing, those up to the best score, and
    of equals the first."""
    chosen = np.zeros(candidates, dtype=np.int64)
    best, best_score = (_shares(chosen + 1), -np.inf) if start is None else (start, score_of(start))
    for _ in range(rounds):
        options = chosen + np.eye(candidates, dtype=np.int64)
        scores = [score_of(_shares(option)) for option in options]
        winner = int(np.argmax(scores))
        chosen = options[winner]
        if scores[winner] > best_score:
            best, best_score = _shares(chosen), scores[winner]
    return np.asarray(best)


def weights_by_class(
    counts: Callable[[Weights], Counts], start: Weights, photos: NDArray[np.int64], metric: str
) -> Weights:
    """`start`, with weights of their own for those classes that gain by them; `start` itself where none
    does. Of a class without a pixel on `photos` nothing can be learnt: it stays as it is."""
    plain = counts(start)[photos]
    pixels = plain.sum(axis=(0, 2))  # (C,) of the truth
    shares = kept = by_class(start, len(pixels))
    best = score(plain, metric)
    for label in (c for c in np.argsort(pixels, kind="stable").tolist() if pixels[c] > 0):

        def counts_of(own: Shares, label: int = label) -> Counts:
            return counts(by_candidate(_changed(shares, label, own)))

        own = greedy_weights(
            counts_of, len(start), photos, metric, CLASS_ROUNDS, CLASS_BAGS, start=shares[label]
        )
        option = _changed(kept, label, own)
        reached = score(counts(by_candidate(option))[photos], metric)
        if reached > best:
            kept, best = option, reached
    return start if kept == shares else by_candidate(kept)


def _changed(shares: tuple[Shares, ...], label: int, own: Shares) -> tuple[Shares, ...]:
    return (*shares[:label], own, *shares[label + 1 :])


def _shares(times: NDArray[np.int64]) -> Shares:
    """Equal shares are equal floats: 1/2 and 2/4 are asked for once."""
    return tuple((times / times.sum()).tolist())
