"""How well each photo went and how sure its voters were: which photos are worth a look.

From masks and votes on disk, out of fold; nothing is asked of a network. No torch here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.counts import count_pixels
from trashseg.data.coco import CocoDataset, Photo, rasterize
from trashseg.data.folds import Folds
from trashseg.errors import CheckpointError
from trashseg.manifest import Manifest
from trashseg.oof import Ballot, at_size, oof_file, read_oof, read_vote
from trashseg.views import PLAIN, views_of
from trashseg.weighting import Weight, Weights, sum_of

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Vote:
    """Who votes on a photo out of fold, and with which weights."""

    ballot: Ballot
    weights: Weights
    views: tuple[str, ...]
    """Those of the ensemble, or the plain one alone where the others were deleted."""


@dataclass(frozen=True)
class PhotoScores:
    """IoU are means over the classes in the photo's truth or prediction."""

    iou: float
    """Of the mask that was chosen."""
    iou_other: float
    """Of the one beside it: without the CRF where it was chosen, else with it."""
    disagreement: float
    """Share of pixels whose class the voters do not agree on; 0 where there is but one."""
    doubt: float
    """1 - the probability of the likeliest class, mean over pixels."""


def votes_of(ensemble: Path, manifest: Manifest, dataset: CocoDataset, folds: Folds) -> list[Vote]:
    """One for each photo that was in the validation fold of a member. A member is called after its
    fold, as those of a run are."""
    by_fold: dict[int, list[tuple[Path, Weight]]] = {}
    for member in manifest.members:
        folder = (ensemble / member.folder).resolve()
        by_fold.setdefault(int(folder.name), []).append((folder, member.weight))
    views = tuple(view.name for view in views_of(manifest.tta))
    whole = sum_of([member.weight for member in manifest.members])
    found = []
    for photo, fold in zip(dataset.photos, folds.fold_of.tolist(), strict=True):
        members = by_fold.get(fold, [])
        if members:
            folders = [folder for folder, _ in members]
            weights = rescaled([weight for _, weight in members], whole)
            ballot = Ballot(photo, fold, tuple((folder,) for folder in folders), 0)
            found.append(Vote(ballot, weights, on_disk(views, folders, photo)))
    return found


def rescaled(weights: Sequence[Weight], whole: NDArray[np.float64]) -> Weights:
    """In the same proportions, with the sum `whole`, for each class where they are by class."""
    table = np.array([np.atleast_1d(weight) for weight in weights])  # (M, C), or (M, 1) for all
    table = table / np.maximum(sum_of(weights), 1e-12) * whole
    if table.shape[1] == 1:
        return tuple(table[:, 0].tolist())
    return tuple(map(tuple, table.tolist()))


def on_disk(views: Sequence[str], members: Sequence[Path], photo: Photo) -> tuple[str, ...]:
    whole = all(oof_file(member, photo, view).is_file() for member in members for view in views)
    return tuple(views) if whole else (PLAIN.name,)


def score_photo(vote: Vote, chosen: Path, other: Path, classes: int) -> PhotoScores:
    """`chosen` and `other` are folders of masks. CheckpointError where a mask or vote is missing."""
    photo = vote.ballot.photo
    truth = rasterize(photo)
    masks = [read_mask(folder, photo) for folder in (chosen, other)]
    iou = [mean_iou(count_pixels(truth[None], mask[None], classes)[0]) for mask in masks]
    spoken = [read_oof(member, photo) for (member,) in vote.ballot.candidates]
    size = max(each.shape[-1] for each in spoken)
    decided = np.stack([at_size(each, size).argmax(axis=0) for each in spoken])  # (M, S, S)
    return PhotoScores(
        iou=iou[0],
        iou_other=iou[1],
        disagreement=float((decided != decided[0]).any(axis=0).mean()),
        doubt=float(1 - probability(vote).mean()),
    )


def probability(vote: Vote) -> NDArray[np.float32]:
    """(S, S): that of the likeliest class of each pixel, at the network's size, before any CRF."""
    ballot = vote.ballot
    size = max(read_oof(member, ballot.photo).shape[-1] for (member,) in ballot.candidates)
    sized = replace(ballot, size=size)
    return np.asarray(read_vote(sized, vote.weights, vote.views).max(axis=0))


def read_mask(folder: Path, photo: Photo) -> Mask:
    """(H, W) class map; CheckpointError where it is missing or not of the photo's size."""
    path = folder / Path(photo.file_name).with_suffix(".png")
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
    if mask is None or mask.shape != (photo.height, photo.width):
        raise CheckpointError(
            f"{path}: is missing or not of {photo.file_name}'s size: build the ensemble again"
        )
    return np.asarray(mask, dtype=np.uint8)


def mean_iou(counts: NDArray[np.int64]) -> float:
    """Of one photo (C, C), over the classes in its truth or prediction, as in trashseg/metrics.py."""
    hits = np.diagonal(counts)
    union = counts.sum(0) + counts.sum(1) - hits
    return float((hits[union > 0] / union[union > 0]).mean())
