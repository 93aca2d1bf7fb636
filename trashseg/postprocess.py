"""What is done with the votes, decided out of fold: a step stays only if it helps by more than noise.

The steps, each on top of what was kept before it: from equal weights to those of greedy selection
(selection), from these to weights of each class (selection per class, where asked for), from the plain
view to several (tta), from votes as they are to votes in which rare classes count more (logit
adjustment), from classes of pixels to classes of objects (by object), from the vote to the refined vote
(crf).

It starts with the equal vote, not with the single best candidate: who is best has been read off these
very photos, so that whatever is compared with it seems worse than it is. An average needs no choice, and
weights that are estimated on few cases tend to do worse than equal ones (Smith & Wallis, A simple
explanation of the forecast combination puzzle, 2009).

Whatever a step's parameters are picked on, its gain is measured on photos that they were not picked on.

Nested: the score that is quoted for a fold's photos is that of choices made on the other folds; what is
deployed is chosen on all of them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashseg.choice import Choice, Proposals, equal_vote
from trashseg.counts import Counts
from trashseg.evidence import FullSize, PixelSample, draw_sample
from trashseg.noise import Comparison, compare, score
from trashseg.oof import Ballot
from trashseg.selection import greedy_weights, weights_by_class
from trashseg.weighting import Weights

PARTS = 5  # a step is picked on four of them and measured on the fifth, in turn
SEED = 0
Positions = NDArray[np.int64]
CountsOf = Callable[[Choice, Positions], Counts]
Pick = Callable[[Positions], Choice]


@dataclass(frozen=True)
class Step:
    """One step and whether it was kept."""

    name: str
    before: Choice
    found: Choice
    comparison: Comparison | None
    """None where nothing was found that differs from what was there."""
    photos: int

    @property
    def kept(self) -> bool:
        return self.comparison is not None and self.comparison.beyond_noise

    @property
    def after(self) -> Choice:
        return self.found if self.kept else self.before

    def describe(self) -> dict[str, Any]:
        """For a report; scores and noise are of the metric."""
        compared = self.comparison
        return {
            "step": self.name,
            "without": compared and compared.without,
            "with": compared and compared.with_it,
            "gain": compared and compared.gain,
            "noise": compared and compared.noise,
            "kept": self.kept,
            "why": self.why,
            "photos": self.photos,
            "found": self.found.describe(),
        }

    @property
    def why(self) -> str:
        if self.comparison is None:
            return "nothing was found that differs from what was kept before"
        gain, noise = self.comparison.gain, self.comparison.noise
        return f"the gain, {gain:+.5f}, is {'' if self.kept else 'not '}more than its noise, {noise:.5f}"


@dataclass(frozen=True)
class Decision:
    """What was chosen on some photos, and on what grounds."""

    choice: Choice
    steps: tuple[Step, ...]

    def describe(self) -> dict[str, Any]:
        return {**self.choice.describe(), "steps": [step.describe() for step in self.steps]}


@dataclass(frozen=True)
class Evidence:
    """All that a decision can be made on."""

    sample: PixelSample
    full: FullSize
    fold_of: NDArray[np.int64]
    """(N,) fold of each photo that was voted on."""

    def sampled(self, choice: Choice, photos: Positions) -> Counts:
        return self.sample.counts(choice)[photos]


def gather(
    pool: ProcessPoolExecutor, ballots: Sequence[Ballot], views: Sequence[str], classes: int
) -> Evidence:
    """What the votes on `ballots` say; `views` are those that a choice may name."""
    return Evidence(
        sample=draw_sample(pool, ballots, views, classes),
        full=FullSize(pool, ballots, classes),
        fold_of=np.array([ballot.fold for ballot in ballots]),
    )


def count_by_fold(evidence: Evidence, pick: Pick) -> dict[int, Counts]:
    """Of each fold's photos, at their own size, under what is picked on those of the other folds."""
    counts = {}
    for fold in np.unique(evidence.fold_of).tolist():
        own = evidence.fold_of == fold
        choice = pick(np.flatnonzero(~own))
        counts[fold] = evidence.full.counts(choice, np.flatnonzero(own))
    return counts


def decide_by_fold(evidence: Evidence, proposals: Proposals, metric: str) -> dict[int, Decision]:
    """For each fold what is chosen on the others alone; on nothing, what a decision starts with."""
    decisions = {}
    for fold in np.unique(evidence.fold_of).tolist():
        others = np.flatnonzero(evidence.fold_of != fold)
        if len(others):
            decisions[fold] = decide(evidence, proposals, metric, others, thorough=False)
        else:
            decisions[fold] = Decision(start(evidence, proposals), ())
    return decisions


def decide(
    evidence: Evidence, proposals: Proposals, metric: str, photos: Positions, *, thorough: bool
) -> Decision:
    """Go through the steps on `photos`. CRFs are compared on `proposals.crf_photos` of them; where
    `thorough`, the one that is picked is then checked on all."""
    few = subset(photos, len(evidence.fold_of), proposals.crf_photos)
    crf_on = photos if thorough else few
    sampled, full = evidence.sampled, evidence.full.counts
    kept = start(evidence, proposals)
    steps = [take("selection", kept, weigher(evidence, metric), sampled, metric, photos, photos)]
    kept = steps[-1].after
    if proposals.selection_per_class:
        pick = class_weigher(evidence, metric, kept)
        steps.append(take("selection per class", kept, pick, sampled, metric, photos, photos))
        kept = steps[-1].after
    views = picker([replace(kept, tta=tta) for tta in proposals.tta] or [kept], sampled, metric)
    steps.append(take("tta", kept, views, sampled, metric, photos, photos))
    kept = steps[-1].after
    if proposals.logit_adjustment:
        adjust = adjuster(evidence, metric, kept, proposals.logit_adjustment)
        steps.append(take("logit adjustment", kept, adjust, sampled, metric, photos, photos))
        kept = steps[-1].after
    if proposals.by_object:
        pick = always(replace(kept, by_object=True))
        steps.append(take("by object", kept, pick, full, metric, photos, photos))
        kept = steps[-1].after
    crfs = [replace(kept, crf=crf) for crf in proposals.crf] or [kept]
    refined = cautious_picker(crfs, full, metric)
    steps.append(take("crf", kept, refined, full, metric, crf_on, few))
    return Decision(steps[-1].after, tuple(steps))


def start(evidence: Evidence, proposals: Proposals) -> Choice:
    """What stays where no step helps."""
    return equal_vote(evidence.sample.candidates, proposals.start_with)


def subset(photos: Positions, total: int, count: int) -> Positions:
    """At most `count` of them; subsets of several folds' photos share as many as they can, so that
    what is counted for one serves the other."""
    order = np.random.default_rng(SEED).permutation(total)
    return np.sort(order[np.isin(order, photos)][:count])


def take(
    name: str,
    before: Choice,
    pick: Pick,
    counts: CountsOf,
    metric: str,
    photos: Positions,
    picked_on: Positions,
) -> Step:
    """Pick on `picked_on` and measure on `photos`, each under what was picked without it."""
    if len(picked_on) < 2 or (found := pick(picked_on)) == before:
        return Step(name, before, before, None, len(photos))
    order, after = [], []
    for part in range(min(PARTS, len(picked_on))):
        unseen = np.arange(len(picked_on)) % PARTS == part
        order.append(picked_on[unseen])
        after.append(counts(pick(picked_on[~unseen]), picked_on[unseen]))
    if len(rest := np.setdiff1d(photos, picked_on)):
        order.append(rest)
        after.append(counts(found, rest))
    plain = counts(before, np.concatenate(order))
    comparison = compare(plain, np.concatenate(after), metric)
    return Step(name, before, found, comparison, len(plain))


# --- what is picked ----------------------------------------------------------------------------


def always(choice: Choice) -> Pick:
    """Whatever the photos say."""

    def pick(_: Positions) -> Choice:
        return choice

    return pick


def weigher(evidence: Evidence, metric: str) -> Pick:
    """Weights of all candidates, by greedy selection."""

    def counts(weights: Weights) -> Counts:
        return evidence.sample.counts(Choice(weights))

    def pick(photos: Positions) -> Choice:
        return Choice(greedy_weights(counts, evidence.sample.candidates, photos, metric))

    return pick


def class_weigher(evidence: Evidence, metric: str, kept: Choice) -> Pick:
    """What was kept, with weights of their own for the classes that gain by them."""

    def counts(weights: Weights) -> Counts:
        return evidence.sample.counts(replace(kept, weights=weights))

    def pick(photos: Positions) -> Choice:
        return replace(kept, weights=weights_by_class(counts, kept.weights, photos, metric))

    return pick


def adjuster(evidence: Evidence, metric: str, kept: Choice, powers: Sequence[float]) -> Pick:
    """What was kept, or that with the votes of rare classes raised by one of `powers`."""

    def pick(photos: Positions) -> Choice:
        pixels = evidence.sampled(kept, photos).sum(axis=(0, 2))  # (C,) of the truth
        raised = [replace(kept, class_factors=rarity(pixels, power)) for power in powers]
        return picker([kept, *raised], evidence.sampled, metric)(photos)

    return pick


def rarity(pixels: NDArray[np.int64], power: float) -> tuple[float, ...]:
    """(C,) factors of the classes' votes: how many times rarer than the commonest class each is, to the
    `power`; 1 of a class without a pixel, of which nothing is known. Post-hoc logit adjustment (Menon et
    al., Long-tail learning via logit adjustment, ICLR 2021), by the truth that it is picked on."""
    times = pixels.max() / np.where(pixels > 0, pixels, pixels.max())
    return tuple((times**power).tolist())


def cautious_picker(options: Sequence[Choice], counts: CountsOf, metric: str) -> Pick:
    """The first option, which others have tuned by hand, unless the best of the others is better by more
    than the noise of the difference: on few photos the best of many is mostly the luckiest."""
    best_of = picker(options, counts, metric)

    def pick(photos: Positions) -> Choice:
        first, best = options[0], best_of(photos)
        if best == first:
            return first
        compared = compare(counts(first, photos), counts(best, photos), metric)
        return best if compared.beyond_noise else first

    return pick


def picker(options: Sequence[Choice], counts: CountsOf, metric: str) -> Pick:
    """The option with the best score, of equals the first; a single one is not even scored."""

    def pick(photos: Positions) -> Choice:
        if len(options) == 1:
            return options[0]
        scores = [score(counts(option, photos), metric) for option in options]
        return options[int(np.argmax(scores))]

    return pick
