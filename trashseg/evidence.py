"""How right a choice is, photo by photo, from votes on disk: nothing is trained or asked of a network.

Weights and views are compared often and cheaply: on a sample of pixels that stays in memory
(`PixelSample`). CRFs need whole photos: they run over all CPUs, and nothing is counted twice
(`FullSize`). No torch here: worker processes that should start fast run some of these functions.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.choice import Choice
from trashseg.counts import Counts, count_pixels
from trashseg.data.coco import rasterize
from trashseg.masks import out_of_fold_masks, stream
from trashseg.oof import Ballot, at_size, read_oof
from trashseg.pictures import encode_mask
from trashseg.weighting import Weights, factors, is_heard

SAMPLE_BYTES = 256 * 2**20
SAMPLE_PIXELS = 2**19  # of all photos together: 0.02 to 0.1 s to count a vote
MEMO_BYTES = 256 * 2**20
MASK_BYTES = 256 * 2**20


class PixelSample:
    """Votes (N, M, V, C, K) float16 of M candidates in V views on K pixels of each photo; truth
    (N, K) uint8. Takes `SAMPLE_BYTES` and for what it remembers `MEMO_BYTES`, whatever N, at most
    (a photo has one pixel at the least)."""

    def __init__(
        self, votes: NDArray[np.float16], truth: NDArray[np.uint8], views: Sequence[str]
    ) -> None:
        self._votes, self._truth, self._views = votes, truth, list(views)
        photos, classes = len(votes), votes.shape[3]
        remembered = max(1, MEMO_BYTES // (photos * classes**2 * 8))
        self._counts = lru_cache(maxsize=remembered)(self._count)

    @property
    def candidates(self) -> int:
        return int(self._votes.shape[1])

    def counts(self, choice: Choice) -> Counts:
        """Of all photos, at the network's size, pixel by pixel: before objects become of one class, and
        before any CRF; not to be changed."""
        views = tuple(self._views.index(view) for view in choice.views)
        counts: Counts = self._counts(choice.effective_weights, views)
        return counts

    def _count(self, weights: Weights, views: tuple[int, ...]) -> Counts:
        # imported where it is used: numba takes a fifth of a second, which workers do without
        from trashseg.half_votes import labels

        classes = self._votes.shape[3]
        heard = [
            (candidate, view, np.broadcast_to(factors(weight, len(views)), classes))
            for candidate, weight in enumerate(weights)
            for view in (views if is_heard(weight) else ())
        ]
        of_candidates, in_views, with_factors = map(np.array, zip(*heard, strict=True))
        said = labels(self._votes.view(np.uint16), of_candidates, in_views, with_factors)
        return count_pixels(self._truth, said, classes)


# --- the sample --------------------------------------------------------------------------------


def draw_sample(
    pool: ProcessPoolExecutor,
    ballots: Sequence[Ballot],
    views: Sequence[str],
    classes: int,
    budget: int = SAMPLE_BYTES,
) -> PixelSample:
    """The same pixels of every candidate and view, drawn by the photo's id; as many of each photo as fit
    `budget` bytes and `SAMPLE_PIXELS`, at least one."""
    candidates = len(ballots[0].candidates)
    a_pixel = len(ballots) * candidates * len(views) * classes * 2  # float16
    fit = min(budget // a_pixel, SAMPLE_PIXELS // len(ballots))
    pixels = int(np.clip(fit, 1, ballots[0].size ** 2))  # all ballots are of one size
    votes = np.empty((len(ballots), candidates, len(views), classes, pixels), dtype=np.float16)
    truth = np.empty((len(ballots), pixels), dtype=np.uint8)
    calls = ((ballot, tuple(views), pixels) for ballot in ballots)
    for row, drawn in enumerate(stream(pool, sample_photo, calls)):
        votes[row], truth[row] = drawn
    return PixelSample(votes, truth, views)


def sample_photo(
    ballot: Ballot, views: Sequence[str], pixels: int
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Votes (M, V, C, K) and truth (K,) on pixels of the photo at the network's size."""
    size = ballot.size
    rng = np.random.default_rng(ballot.photo.id)
    drawn = np.sort(rng.choice(size * size, pixels, replace=False))
    mask = cv2.resize(
        rasterize(ballot.photo), (size, size), interpolation=cv2.INTER_NEAREST_EXACT
    )  # as the cache does

    def vote(members: Sequence[Path], view: str) -> NDArray[np.float32]:
        spoken = (at_size(read_oof(member, ballot.photo, view), size) for member in members)
        drawn_of = [planes.reshape(-1, size * size)[:, drawn] for planes in spoken]
        return np.asarray(np.mean(drawn_of, axis=0))

    votes = [[vote(members, view) for view in views] for members in ballot.candidates]
    return np.asarray(votes, dtype=np.float16), np.asarray(mask, dtype=np.uint8).ravel()[drawn]


# --- whole photos ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a choice makes of a photo, at the photo's own size."""

    counts: Counts
    """(C, C)."""
    mask: bytes | None
    """The class map (H, W) as PNG, as long as there is room to remember it."""


class FullSize:
    """Outcomes at the photos' own size, over all CPUs. Counts are worked out once for each choice and
    photo, and remembered (8 * C * C bytes each); so are masks, up to `MASK_BYTES` of them."""

    def __init__(self, pool: ProcessPoolExecutor, ballots: Sequence[Ballot], classes: int) -> None:
        self._pool, self._ballots, self._classes = pool, ballots, classes
        self._known: dict[tuple[Choice, int], Outcome] = {}
        self._room = MASK_BYTES
        self.refinements = 0
        """How many times a CRF has run."""

    def counts(self, choice: Choice, photos: NDArray[np.int64]) -> Counts:
        """(N, C, C) of these photos (positions among the ballots), in this order."""
        places = photos.tolist()
        new = self._work_out(choice, [p for p in places if (choice, p) not in self._known])
        for _ in new:
            pass
        return np.stack([self._known[choice, place].counts for place in places])

    def masks(self, choice: Choice) -> Iterator[tuple[Ballot, bytes]]:
        """Every photo's class map as PNG."""
        known = [self._known.get((choice, place)) for place in range(len(self._ballots))]
        kept = [outcome.mask if outcome else None for outcome in known]
        new = self._work_out(choice, [place for place, mask in enumerate(kept) if mask is None])
        for ballot, mask in zip(self._ballots, kept, strict=True):
            yield ballot, mask if mask is not None else next(new)

    def _work_out(self, choice: Choice, places: list[int]) -> Iterator[bytes]:
        """Masks with the choice's CRF; the outcome without it falls off on the way."""
        calls = ((self._ballots[place], choice, self._classes) for place in places)
        results = stream(self._pool, judge_photo, calls)
        for place, (plain, final) in zip(places, results, strict=True):
            self.refinements += choice.crf is not None
            for made, outcome in ((choice.without_crf, plain), (choice, final)):
                self._remember(made, place, outcome)
            assert final.mask is not None
            yield final.mask

    def _remember(self, choice: Choice, place: int, outcome: Outcome) -> None:
        before = self._known.get((choice, place))
        if before is not None and before.mask is not None:
            return
        size = len(outcome.mask or b"")
        keep = size <= self._room
        self._known[choice, place] = outcome if keep else replace(outcome, mask=None)
        self._room -= size if keep else 0


def judge_photo(ballot: Ballot, choice: Choice, classes: int) -> tuple[Outcome, Outcome]:
    """Without and with the choice's CRF; twice the same where it has none."""
    masks = out_of_fold_masks(
        ballot, choice.effective_weights, choice.views, choice.crf, by_object=choice.by_object
    )
    truth = rasterize(ballot.photo)[None]
    plain, final = (
        Outcome(count_pixels(truth, mask[None], classes)[0], encode_mask(mask))
        for mask in (masks.soft_vote, masks.final)
    )
    return plain, final
