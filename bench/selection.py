"""A vote on the sampled pixels, of which greedy selection asks for hundreds: ours, against numpy."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bench.comparison import Bar, Comparison, UnequalResultsError
from bench.timing import seconds_in_turn
from trashseg.choice import equal_vote
from trashseg.counts import Counts, count_pixels
from trashseg.evidence import SAMPLE_PIXELS, PixelSample

PHOTOS, CANDIDATES, CLASSES = 256, 10, 12
PIXELS = SAMPLE_PIXELS // PHOTOS
ROUNDS = 7


def run() -> list[Comparison]:
    votes, truth = drawn_votes()
    choice = equal_vote(CANDIDATES)
    ways: dict[str, Callable[[], Counts]] = {
        # a sample remembers what it has counted: each time a new one
        "ours": lambda: PixelSample(votes, truth, ["identity_1"]).counts(choice),
        "numpy": lambda: by_numpy(votes, truth),
    }
    if not np.array_equal(ways["ours"](), ways["numpy"]()):
        raise UnequalResultsError("selection: numpy counts other pixels")
    seconds = seconds_in_turn(ways, ROUNDS)
    return [
        Comparison(
            name=f"selection: a vote of {CANDIDATES} on the sampled pixels",
            unit="ms",
            bar=Bar("<=", 1.0),
            ours=1e3 * seconds["ours"],
            peer=1e3 * seconds["numpy"],
            note=f"{PHOTOS} photos, {PIXELS} pixels of each, {CLASSES} classes; every count is equal",
        )
    ]


def drawn_votes() -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Votes (N, M, 1, C, K), each pixel's about as sure as a network's, and truth (N, K)."""
    random = np.random.default_rng(0)
    drawn = random.gamma(0.3, size=(CANDIDATES, 1, CLASSES, PIXELS))
    of_a_photo = (drawn / drawn.sum(axis=2, keepdims=True)).astype(np.float16)
    votes = np.stack([np.roll(of_a_photo, photo, axis=-1) for photo in range(PHOTOS)])
    return votes, random.integers(0, CLASSES, (PHOTOS, PIXELS), dtype=np.uint8)


def by_numpy(votes: NDArray[np.float16], truth: NDArray[np.uint8]) -> Counts:
    """Photo by photo, so that the sums stay in the caches."""
    share = np.float32(1 / CANDIDATES)
    said = np.empty(truth.shape, np.uint8)
    for photo, of_all in enumerate(votes):
        total = np.zeros((CLASSES, PIXELS), np.float32)
        for of_one in of_all[:, 0]:
            total += of_one * share
        said[photo] = total.argmax(axis=0)
    return count_pixels(truth, said, CLASSES)
