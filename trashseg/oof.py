"""Out-of-fold votes on disk: what each member said of its validation photos, by view.

MEMBER/oof/ID.npz              the plain view (C, S, S) float16, written when the fold is trained
MEMBER/oof_views/VIEW/ID.npz   another view, turned back, written when it is first asked for

Each view takes as much disk as `oof`: 2 * C * S * S bytes a photo before compression.
No torch here: worker processes that should start fast read them.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.data.coco import Photo
from trashseg.errors import CheckpointError
from trashseg.views import PLAIN
from trashseg.weighting import Weights, factors, is_by_class, is_heard, to_probabilities


def oof_folder(member: Path, view: str = PLAIN.name) -> Path:
    return member / "oof" if view == PLAIN.name else member / "oof_views" / view


def oof_file(folder: Path, photo: Photo, view: str = PLAIN.name) -> Path:
    return oof_folder(folder, view) / f"{photo.id}.npz"


def read_oof(folder: Path, photo: Photo, view: str = PLAIN.name) -> NDArray[np.float16]:
    """(C, S, S) softmax that the member in `folder` gave to its validation photo."""
    path = oof_file(folder, photo, view)
    try:
        with np.load(path) as archive:
            return np.asarray(archive["arr_0"])
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        wrong = folder if view == PLAIN.name else path.parent
        again = "and retrain" if view == PLAIN.name else "and start again"
        raise CheckpointError(f"{path}: cannot be read ({error}): delete {wrong} {again}") from None


@dataclass(frozen=True)
class Ballot:
    """A photo and the members that may vote on it, none trained on it."""

    photo: Photo
    fold: int
    candidates: tuple[tuple[Path, ...], ...]
    """The members of each candidate, one for each seed: they vote as one, with their mean."""
    size: int
    """Side in pixels of the largest member's votes; the others' are enlarged to it."""


def read_vote(ballot: Ballot, weights: Weights, views: Sequence[str]) -> NDArray[np.float32]:
    """(C, S, S): the weighted mean of the candidates' votes, each the mean of its members and views.

    `weights` are of each candidate; what has none is not read. Sums over C are 1, also where classes
    have weights of their own.
    """
    total: NDArray[np.float32] | None = None
    for weight, members in zip(weights, ballot.candidates, strict=True):
        for member, view in product(members, views) if is_heard(weight) else ():
            vote = at_size(read_oof(member, ballot.photo, view), ballot.size)
            vote *= factors(weight, len(members) * len(views))[:, None, None]
            total = vote if total is None else np.add(total, vote, out=total)
    assert total is not None, "some candidate has a weight"
    return to_probabilities(total) if is_by_class(weights) else total


def at_size(vote: NDArray[np.float16], size: int) -> NDArray[np.float32]:
    """(C, s, s) to (C, size, size) of its own memory, bilinear: sums over C stay what they were."""
    planes = vote.astype(np.float32)
    return planes if vote.shape[-1] == size else resize_probabilities(planes, (size, size))


def resize_probabilities(
    probabilities: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float32]:
    """(C, h, w) to (C, H, W), bilinear: sums over C stay what they were."""
    height, width = size
    return np.stack(
        [cv2.resize(p, (width, height), interpolation=cv2.INTER_LINEAR) for p in probabilities]
    )
