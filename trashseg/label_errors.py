"""Objects whose label is likely wrong: models that did not train on them agree on another class.

The idea, and the thresholds by class, are of confident learning (Northcutt et al. 2021), here by object
instead of by photo. Background is not taken for another class: what a model overlooks is seldom
labelled wrongly.

With the demo's ten models (60 scenes, miou 0.39) and 10 of 203 labels changed, 10 objects were found, of
which 4 were changed ones; without changes 6. It is a list to look through, surest first.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.data.coco import Annotation, Photo, in_drawing_order, owners
from trashseg.data.doctor import Report
from trashseg.data.findings import Case
from trashseg.data.segmentation import decode
from trashseg.errors import DataError
from trashseg.member import read_metadata
from trashseg.oof import at_size, oof_file, read_oof

LOW = 0.2  # mean probability over an object's pixels: of its own class at most
HIGH = 0.5  # of the other class


@dataclass(frozen=True)
class Judged:
    """An object of the photo at `position`, and the mean softmax (C,) over its pixels."""

    position: int
    annotation: Annotation
    probabilities: NDArray[np.float32]

    @property
    def own(self) -> float:
        """Of the class that it is labelled with."""
        return float(self.probabilities[self.annotation.class_index])


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
    check_classes(report.listing.dataset.classes, members)
    judged: list[Judged] = []
    predicted = 0
    for position, photo in enumerate(report.listing.dataset.photos):
        votes = [read_oof(m, photo) for m in members if oof_file(m, photo).is_file()]
        if votes:
            predicted += 1
            judged += judge(position, photo, report.drawable[position], mean_vote(votes))
    if not predicted:
        raise DataError(f"{members[0]}: has predicted none of the photos: give a run on them")
    found = suspects(judged, len(report.listing.dataset.classes))
    return [_case(report, each, other) for each, other in found]


def check_classes(classes: tuple[str, ...], members: Sequence[Path]) -> None:
    for member in members:
        if tuple(json.loads(read_metadata(member / "model.safetensors")["classes"])) != classes:
            raise DataError(f"{member}: was trained on other classes: give a run on these photos")


def mean_vote(votes: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    """Mean softmax (C, S, S) of votes that may have several sizes, at the largest."""
    size = max(vote.shape[-1] for vote in votes)
    return np.asarray(np.mean([at_size(vote, size) for vote in votes], axis=0), dtype=np.float32)


def judge(
    position: int, photo: Photo, objects: Sequence[Annotation], vote: NDArray[np.float32]
) -> Iterator[Judged]:
    """Each object with the mean of `vote` (C, S, S) over its pixels; not those that have none there."""
    drawn = in_drawing_order(
        (decode(each.segmentation, photo.height, photo.width), each) for each in objects
    )
    size = (vote.shape[-1], vote.shape[-1])
    owner = cv2.resize(owners(photo, drawn), size, interpolation=cv2.INTER_NEAREST_EXACT)
    for place, (_, annotation) in enumerate(drawn, start=1):
        pixels = owner == place
        if pixels.any():
            yield Judged(position, annotation, vote[:, pixels].mean(axis=1))


def suspects(judged: Sequence[Judged], classes: int) -> list[tuple[Judged, int]]:
    """Objects whose own class gets LOW at most and another class enough, with that class.

    Enough is HIGH, or what the other class's own objects get on average where that is less: weak
    models are sure of nothing, and less so of rare classes.
    """
    sure = np.full(classes, HIGH)
    for index in {each.annotation.class_index for each in judged}:
        own = [each.own for each in judged if each.annotation.class_index == index]
        sure[index] = min(HIGH, float(np.mean(own)))
    found = []
    for each in judged:
        others = each.probabilities.copy()
        others[[0, each.annotation.class_index]] = 0
        other = int(others.argmax())
        if each.own <= LOW < others[other] and others[other] >= sure[other]:
            found.append((each, other))
    return sorted(found, key=lambda item: item[0].own - float(item[0].probabilities[item[1]]))


def _case(report: Report, each: Judged, other: int) -> Case:
    listing, position = report.listing, each.position
    classes = listing.dataset.classes
    detail = (
        f"{classes[each.annotation.class_index]} {each.own:.2f}, {classes[other]} "
        f"{each.probabilities[other]:.2f} on image {listing.names[position]}"
    )
    name = listing.object_name(position, each.annotation)
    return Case("likely_wrong_class", (name,), detail, (position,), each.annotation)
