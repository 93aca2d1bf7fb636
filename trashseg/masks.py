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
from trashseg.oof import Ballot, read_vote, resize_probabilities
from trashseg.weighting import Weights

Result = TypeVar("Result")


@dataclass(frozen=True)
class PhotoMasks:
    """Class maps (H, W) uint8 of one photo, and how sure each class of the final one is."""

    soft_vote: NDArray[np.uint8]
    soft_vote_crf: NDArray[np.uint8] | None
    confidence: NDArray[
        np.float32
    ]  # (C,) mean probability over each class's pixels, 0 if it has none

    @property
    def final(self) -> NDArray[np.uint8]:
        """The refined map where there is one."""
        return self.soft_vote if self.soft_vote_crf is None else self.soft_vote_crf


def photo_masks(vote: NDArray[Any], photo: Path, crf: CrfConfig | None) -> PhotoMasks:
    """Enlarge a softmax (C, S, S) of any float type to the photo, refine it with `crf`, decide."""
    image = read_photo(photo)
    soft = resize_probabilities(vote.astype(np.float32), image.shape[:2])  # (C, H, W)
    soft_vote = decide(soft)
    final, refined_vote = soft, None
    if crf is not None:
        final = refine_limited(soft, image, crf)
        refined_vote = decide(final)
    return PhotoMasks(
        soft_vote=soft_vote,
        soft_vote_crf=refined_vote,
        confidence=_confidence(final, soft_vote if refined_vote is None else refined_vote),
    )


def out_of_fold_masks(
    ballot: Ballot, weights: Weights, views: tuple[str, ...], crf: CrfConfig | None
) -> PhotoMasks:
    """`photo_masks` of the vote that is on disk."""
    return photo_masks(read_vote(ballot, weights, views), ballot.photo.path, crf)


def decide(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(C, H, W) to the likeliest class of each pixel, (H, W) uint8."""
    return np.asarray(probabilities.argmax(axis=0), dtype=np.uint8)


def refine_limited(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], crf: CrfConfig
) -> NDArray[np.float32]:
    """`refine`, on a smaller copy where the photo's longer side is over `crf.max_side`."""
    height, width = image.shape[:2]
    shrink = crf.max_side / max(height, width)
    if shrink >= 1:
        return refine(probabilities, image, crf)
    small = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    small_image = cv2.resize(image, (small[1], small[0]), interpolation=cv2.INTER_AREA)
    refined = refine(
        resize_probabilities(probabilities, small), np.asarray(small_image, dtype=np.uint8), crf
    )
    return resize_probabilities(refined, (height, width))


def _confidence(probabilities: NDArray[np.float32], mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    classes = len(probabilities)
    top = probabilities.max(axis=0).ravel()
    pixels = np.bincount(mask.ravel(), minlength=classes)
    sums = np.bincount(mask.ravel(), weights=top, minlength=classes)
    return (sums / np.maximum(pixels, 1)).astype(np.float32)


# --- over all CPUs -----------------------------------------------------------------------------


@contextmanager
def cpu_pool(cpus: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes of one thread each; on an exception what is queued is dropped."""
    pool = ProcessPoolExecutor(
        cpus, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
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
