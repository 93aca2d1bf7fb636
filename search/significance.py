"""Which differences are real: variants against a baseline, paired, with a test that is stated.

A difference is taken between trainings on the same fold with the same seed, so that what makes a fold
hard or a seed lucky cancels. The folds of one data set share most of their training photos: their
differences are not independent, and the plain t test finds too much. So the variance of the mean of n
differences of variance s^2 is taken as (1 / n + overlap) s^2, `overlap` being validation photos by
training photos: the corrected resampled t test (Nadeau & Bengio 2003), n - 1 degrees of freedom. Several
variants against one baseline are Holm's (1979) to correct.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from scipy.special import stdtr, stdtrit

ALPHA = 0.05
TEST = (
    "corrected resampled t test of paired differences (Nadeau & Bengio 2003), two-sided, "
    f"Holm over all variants, level {ALPHA:g}"
)
Verdict = Literal["better", "worse", "undecided"]
Scores = Mapping[tuple[int, int], float]
"""A variant's score of each training, by what pairs it with the others': its fold and its seed."""


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline. What needs two pairs at least is None with fewer."""

    pairs: int
    difference: float
    """Mean over the pairs of the variant's score minus the baseline's."""
    standard_error: float | None
    """Of `difference`, corrected for the overlap."""
    interval: tuple[float, float] | None
    """Of this comparison alone, at level 1 - ALPHA; not corrected for the number of variants."""
    p: float | None
    """As small as this or smaller by chance, were there no difference; of this comparison alone."""
    p_holm: float | None
    """Corrected for the number of variants; the verdict goes by this one."""
    verdict: Verdict


def compare(variants: Mapping[str, Scores], baseline: str, overlap: float) -> dict[str, Comparison]:
    """Each of `variants` but the baseline against it, on the pairs that both have; a variant without
    any is left out. Larger scores are better."""
    differences = {
        name: paired(scores, variants[baseline])
        for name, scores in variants.items()
        if name != baseline and scores.keys() & variants[baseline].keys()
    }
    errors = {name: standard_error(values, overlap) for name, values in differences.items()}
    tested = {name: error for name, error in errors.items() if error is not None}
    p = {
        name: p_value(fmean(differences[name]), error, len(differences[name]) - 1)
        for name, error in tested.items()
    }
    p_holm = dict(zip(p, holm(list(p.values())), strict=True))
    return {
        name: Comparison(
            pairs=len(values),
            difference=fmean(values),
            standard_error=errors[name],
            interval=interval(fmean(values), tested[name], len(values) - 1)
            if name in tested
            else None,
            p=p.get(name),
            p_holm=p_holm.get(name),
            verdict=verdict(fmean(values), p_holm.get(name)),
        )
        for name, values in differences.items()
    }


def paired(scores: Scores, baseline: Scores) -> list[float]:
    """Score minus baseline's, of each training that both have."""
    return [score - baseline[key] for key, score in scores.items() if key in baseline]


def standard_error(differences: Sequence[float], overlap: float) -> float | None:
    """Of the mean of `differences`; None of fewer than two. Without overlap it is s / sqrt(n)."""
    if len(differences) < 2:
        return None
    return stdev(differences) * math.sqrt(1 / len(differences) + overlap)


def p_value(mean: float, error: float, degrees: int) -> float:
    """Two-sided, of Student's t = mean / error."""
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(degrees, -abs(mean) / error))


def interval(mean: float, error: float, degrees: int) -> tuple[float, float]:
    """At level 1 - ALPHA, by Student's t."""
    reach = float(stdtrit(degrees, 1 - ALPHA / 2)) * error
    return mean - reach, mean + reach


def holm(p: Sequence[float]) -> list[float]:
    """Corrected p values, in the order given: the smallest times their number, the next times one
    less, and so on; never less than one before, never more than 1."""
    corrected = [0.0] * len(p)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = least
    return corrected


def verdict(difference: float, p_holm: float | None) -> Verdict:
    if p_holm is None or p_holm >= ALPHA:
        return "undecided"
    return "better" if difference > 0 else "worse"


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation of single trainings, folds and seeds together; None of fewer than two."""
    return stdev(values) if len(values) > 1 else None
