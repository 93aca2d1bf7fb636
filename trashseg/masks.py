"""From votes at the network's size to class maps at the photo's size, over all CPUs.

No torch here: these functions run in worker processes that should start fast.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.config import CrfConfig
from trashseg.crf import refine
from trashseg.data.coco import read_photo
from trashseg.objects import one_class_per_object
from trashseg.oof import Ballot, read_vote, resize_probabilities
from trashseg.weighting import Weights

Result = TypeVar("Result")


@dataclass(frozen=True)
class PhotoMasks:
    """Class maps (H, W) uint8 of one photo, and how sure each class of the final one is."""

    soft_vote: NDArray[np.uint8]
    soft_vote_crf: NDArray[np.uint8] | None
    confidence: NDArray[np.float32]
    """(C,) mean probability over each class's pixels, 0 if it has none."""

    @property
    def final(self) -> NDArray[np.uint8]:
        """The refined map where there is one."""
        return self.soft_vote if self.soft_vote_crf is None else self.soft_vote_crf


@dataclass(frozen=True)
class Decision:
    """The likeliest class of each pixel, (H, W) uint8, and how likely it is, (H, W) float32."""

    mask: NDArray[np.uint8]
    probability: NDArray[np.float32]


def photo_masks(
    vote: NDArray[Any], photo: Path, crf: CrfConfig | None, *, by_object: bool
) -> PhotoMasks:
    """Enlarge a softmax (C, S, S) of any float type to the photo, refine it with `crf`, decide;
    `by_object` as in `decide_photo`."""
    image = read_photo(photo)
    probabilities = probabilities_of(vote, by_object=by_object)
    soft = decide_refined(probabilities, image, None)
    final = soft if crf is None else decide_refined(probabilities, image, crf)
    return PhotoMasks(
        soft_vote=soft.mask,
        soft_vote_crf=None if crf is None else final.mask,
        confidence=confidence(final, len(vote)),
    )


def out_of_fold_masks(
    ballot: Ballot,
    weights: Weights,
    views: tuple[str, ...],
    crf: CrfConfig | None,
    *,
    by_object: bool,
) -> PhotoMasks:
    """`photo_masks` of the vote that is on disk."""
    vote = read_vote(ballot, weights, views)
    return photo_masks(vote, ballot.photo.path, crf, by_object=by_object)


def decide_photo(
    vote: NDArray[Any], image: NDArray[np.uint8], crf: CrfConfig | None, *, by_object: bool
) -> Decision:
    """The decision at the size of `image` (H, W, 3): `by_object` with one class for each object
    (trashseg/objects.py), refined where there is a `crf`."""
    return decide_refined(probabilities_of(vote, by_object=by_object), image, crf)


def probabilities_of(vote: NDArray[Any], *, by_object: bool) -> NDArray[np.float32]:
    """(C, S, S), what is decided on."""
    probabilities = vote.astype(np.float32)
    return one_class_per_object(probabilities) if by_object else probabilities


def decide_refined(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], crf: CrfConfig | None
) -> Decision:
    """The decision at the size of `image` (H, W, 3), refined where there is a `crf`."""
    if crf is not None:
        probabilities = refine_limited(probabilities, image, crf)
    return decide_at(probabilities, image.shape[:2])


def decide_at(probabilities: NDArray[np.float32], size: tuple[int, int]) -> Decision:
    """`decide` of (C, h, w) enlarged to (H, W), one class in memory at a time: all of them would take
    half a gigabyte for the photo of a phone."""
    first, *others = probabilities
    top, mask = _enlarge(first, size), np.zeros(size, dtype=np.uint8)
    for value, plane in enumerate(others, start=1):
        plane = _enlarge(plane, size)
        mask[plane > top] = value  # the first of equals stays, as in argmax
        np.maximum(top, plane, out=top)
    return Decision(mask, top)


def decide(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(C, H, W) to the likeliest class of each pixel, (H, W) uint8."""
    return np.asarray(probabilities.argmax(axis=0), dtype=np.uint8)


def refine_limited(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], crf: CrfConfig
) -> NDArray[np.float32]:
    """`refine` of (C, h, w) enlarged to the photo, or to a smaller copy of it where its longer side is
    over `crf.max_side`: what comes back has the size of that copy."""
    height, width = image.shape[:2]
    shrink = crf.max_side / max(height, width)
    if shrink >= 1:
        return refine(resize_probabilities(probabilities, (height, width)), image, crf)
    small = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    small_image = cv2.resize(image, (small[1], small[0]), interpolation=cv2.INTER_AREA)
    seen = np.stack([_enlarge(_enlarge(plane, (height, width)), small) for plane in probabilities])
    return refine(seen, np.asarray(small_image, dtype=np.uint8), crf)


def confidence(decision: Decision, classes: int) -> NDArray[np.float32]:
    """(C,) mean probability over each class's pixels, 0 if it has none."""
    mask = decision.mask.ravel()
    pixels = np.bincount(mask, minlength=classes)
    sums = np.bincount(mask, weights=decision.probability.ravel(), minlength=classes)
    return (sums / np.maximum(pixels, 1)).astype(np.float32)


def _enlarge(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    height, width = size
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR))


# --- over all CPUs -----------------------------------------------------------------------------


@contextmanager
def cpu_pool(cpus: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes of one thread each; on an exception what is queued is dropped.

    They are forks of a process without threads that has imported this module, and stays for later pools:
    importing is most of what a worker that is spawned does for a few photos.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(cpus, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def _start_worker() -> None:
    cv2.setNumThreads(0)


def stream(
    pool: ProcessPoolExecutor, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]
) -> Iterator[Result]:
    """Results in order, with only a few calls' arguments and results in memory at a time."""
    in_flight = 2 * (getattr(pool, "_max_workers", None) or os.cpu_count() or 1)
    pending: deque[Future[Result]] = deque()
    for arguments in calls:
        pending.append(pool.submit(function, *arguments))
        if len(pending) >= in_flight:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
