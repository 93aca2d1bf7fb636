"""Objects whose label is likely wrong: models that did not train on them agree on another class.

The idea of confident learning (Northcutt et al. 2021), by object instead of by photo. Background is
not taken for another class: what a model overlooks is seldom labelled wrongly.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.data.coco import Photo, in_drawing_order, owners
from trashseg.data.doctor import Report
from trashseg.data.findings import Case
from trashseg.data.segmentation import decode
from trashseg.errors import DataError
from trashseg.masks import resize_probabilities
from trashseg.member import oof_file, read_metadata, read_oof

LOW = 0.2  # mean probability over an object's pixels: of its own class at most
HIGH = 0.5  # of the other class at least


def find_members(folder: Path) -> list[Path]:
    """All trained folds under `folder`, which may be one itself. DataError where there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: check --run")
    members = sorted(
        path.parent for path in folder.rglob("oof") if (path.parent / "metrics.json").is_file()
    )
    if not members:
        raise DataError(f"{folder}: holds no finished fold: train some with launch.py retrain")
    return members


def folds_file(folder: Path, members: Sequence[Path]) -> Path:
    """Where the folds of a run, or of the members under a folder, are written."""
    own = folder / "folds.json"
    return own if own.is_file() else members[0] / "folds.json"


def wrong_class_cases(report: Report, members: Sequence[Path]) -> list[Case]:
    """Suspects, the surest first. `members` are folders of trained folds (trashseg/member.py).

    Raises DataError where the members know other classes or have predicted none of the photos, and
    CheckpointError where one cannot be read.
    """
    classes = report.listing.dataset.classes
    for member in members:
        if tuple(json.loads(read_metadata(member / "model.safetensors")["classes"])) != classes:
            raise DataError(f"{member}: was trained on other classes: give a run on these photos")
    suspects: list[tuple[float, Case]] = []
    predicted = 0
    for position, photo in enumerate(report.listing.dataset.photos):
        votes = [read_oof(m, photo) for m in members if oof_file(m, photo).is_file()]
        if votes:
            predicted += 1
            suspects += _suspects(report, position, photo, mean_vote(votes))
    if not predicted:
        raise DataError(f"{members[0]}: has predicted none of the photos: give a run on them")
    return [case for _, case in sorted(suspects, key=lambda suspect: -suspect[0])]


def mean_vote(votes: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    """Mean softmax (C, S, S) of votes that may have several sizes, at the largest."""
    size = max(vote.shape[-1] for vote in votes)
    resized = [resize_probabilities(vote.astype(np.float32), (size, size)) for vote in votes]
    return np.asarray(np.mean(resized, axis=0), dtype=np.float32)


def _suspects(
    report: Report, position: int, photo: Photo, vote: NDArray[np.float32]
) -> Iterator[tuple[float, Case]]:
    """(how much surer of the other class, case) for the photo's objects."""
    listing = report.listing
    classes = listing.dataset.classes
    drawn = in_drawing_order(
        (decode(each.segmentation, photo.height, photo.width), each)
        for each in report.drawable[position]
    )
    size = (vote.shape[-1], vote.shape[-1])
    owner = cv2.resize(owners(photo, drawn), size, interpolation=cv2.INTER_NEAREST_EXACT)
    for place, (_, annotation) in enumerate(drawn, start=1):
        pixels = owner == place
        if not pixels.any():
            continue  # too small to be judged at this size
        mean = vote[:, pixels].mean(axis=1)  # (C,)
        own = float(mean[annotation.class_index])
        mean[[0, annotation.class_index]] = 0
        other = int(mean.argmax())
        if own <= LOW and mean[other] >= HIGH:
            detail = (
                f"{classes[annotation.class_index]} {own:.2f}, {classes[other]} "
                f"{mean[other]:.2f} on image {listing.names[position]}"
            )
            name = listing.object_name(position, annotation)
            case = Case("likely_wrong_class", (name,), detail, (position,), annotation)
            yield float(mean[other]) - own, case
