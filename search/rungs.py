"""Where successive halving looks at a trial, and which of those that arrive there go on."""

import math
from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence

from search.config import SearchConfig

FEWEST_TO_JUDGE = 3


def rung_epochs(config: SearchConfig) -> list[int]:
    """grace_period * reduction_factor^k, below the last epoch, at which nothing is left to stop."""
    epochs, milestone = [], float(config.search.grace_period)
    while round(milestone) < config.epochs:
        epochs.append(round(milestone))
        milestone *= config.search.reduction_factor
    return sorted(set(epochs))


class Arrivals:
    """Who has come to a rung, with what score, in order: a place among them is looked up."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self.scores = dict(scores)  # by trial, in the order of their arrival
        self._ascending = sorted(scores.values())

    def add(self, name: str, score: float) -> None:
        """The next one."""
        self.scores[name] = score
        insort(self._ascending, score)

    def lets_go_on(self, name: str, reduction_factor: float) -> bool:
        """As of now, one that has come here."""
        return goes_on(self.scores[name], self._ascending, reduction_factor)


def goes_on(score: float, arrived: Sequence[float], reduction_factor: float) -> bool:
    """Whether a trial goes on that came to a rung with `score`, which is among the scores, in ascending
    order, of all that have `arrived` there.

    All do until the rung has seen 3 trials, or `reduction_factor`; then the best
    1 / reduction_factor of those that have arrived do, at least one.
    """
    if len(arrived) < fewest_to_judge(reduction_factor):
        return True
    better = len(arrived) - bisect_right(arrived, score)
    return better < places(len(arrived), reduction_factor)


def fewest_to_judge(reduction_factor: float) -> int:
    return max(FEWEST_TO_JUDGE, math.ceil(reduction_factor))


def places(arrived: int, reduction_factor: float) -> int:
    """How many of so many trials go on."""
    return max(1, math.floor(arrived / reduction_factor))
