"""Candidates whose out-of-fold votes are written by hand: what a network would have said is known; and
what is decided on such votes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.trashseg.trained_folds import tiny_config
from trashseg import postprocess
from trashseg.choice import Choice, Proposals
from trashseg.config_file import write_yaml
from trashseg.data.coco import CocoDataset, Photo, rasterize
from trashseg.data.folds import Folds
from trashseg.files import write_json
from trashseg.fold_models import FoldModel, ballots_of, by_candidate
from trashseg.oof import oof_file
from trashseg.pictures import encode_mask
from trashseg.postprocess import Decision, Evidence, Step, decide, decide_by_fold
from trashseg.views import PLAIN

CLASSES = 12
Labels = NDArray[np.integer]
Say = Callable[[Photo], NDArray[Any]]  # labels (H, W), or votes (C, H, W)


def write_votes(
    run: Path, rank: int, dataset: CocoDataset, folds: Folds, say: Say, view: str = PLAIN.name
) -> list[FoldModel]:
    """Candidate `rank` says something of each photo, labels with 0.6; its folds count as trained."""
    config = tiny_config(64)
    models = [
        FoldModel(rank, fold, run / str(rank) / str(fold), config) for fold in range(folds.count)
    ]
    for model in models:
        write_yaml(model.folder / "config.yaml", config.model_dump(mode="json"))
        write_json(model.folder / "metrics.json", {"miou": 0.5})
        for position in folds.split(model.fold)[1]:
            photo = dataset.photos[position]
            file = oof_file(model.folder, photo, view)
            file.parent.mkdir(parents=True, exist_ok=True)
            said = say(photo)
            np.savez_compressed(file, softmax(said) if said.ndim == 2 else said)
    return models


def softmax(labels: Labels, sure: float = 0.6) -> NDArray[np.float16]:
    """(H, W) to (C, H, W): `sure` of the label, the rest shared by all others."""
    votes = np.full((CLASSES, *labels.shape), (1 - sure) / (CLASSES - 1), dtype=np.float16)
    np.put_along_axis(votes, labels[None].astype(np.int64), np.float16(sure), axis=0)
    return votes


def truth(photo: Photo) -> Labels:
    return rasterize(photo)


def noisy(share: float, seed: int = 0) -> Say:
    """The truth, but a `share` of the pixels is of any class."""

    def say(photo: Photo) -> Labels:
        rng = np.random.default_rng([seed, photo.id])
        labels = rasterize(photo)
        wrong = rng.random(labels.shape) < share
        return np.where(wrong, rng.integers(0, CLASSES, labels.shape), labels)

    return say


def blind(left: bool) -> Callable[[Photo], NDArray[np.float16]]:
    """Votes: the truth in one half of the photo, no opinion in the other."""

    def say(photo: Photo) -> NDArray[np.float16]:
        votes = softmax(rasterize(photo))
        votes[:, :, slice(None, 32) if left else slice(32, None)] = 1 / CLASSES
        return votes

    return say


def shifted(photo: Photo) -> Labels:
    """Every object is taken for the next class."""
    labels = rasterize(photo).astype(np.int64)
    return np.where(labels > 0, labels % (CLASSES - 1) + 1, 0)


def specialist(known: Sequence[int], right: float, wrong: float) -> Say:
    """Votes: `right` for the truth where that is background or `known`, elsewhere `wrong` for
    background."""

    def say(photo: Photo) -> NDArray[np.float16]:
        labels = rasterize(photo)
        sees = np.isin(labels, [0, *known])
        return np.where(sees, softmax(labels, right), softmax(np.zeros_like(labels), wrong))

    return say


def shy(photo: Photo) -> NDArray[np.float16]:
    """Votes: 0.95 for background where it is; of an object 0.3 for the truth, 0.6 for background."""
    labels = rasterize(photo)
    objects = np.full((CLASSES, *labels.shape), 0.1 / (CLASSES - 2), dtype=np.float16)
    objects[0] = 0.6
    np.put_along_axis(objects, labels[None].astype(np.int64), np.float16(0.3), axis=0)
    return np.where(labels > 0, objects, softmax(labels, 0.95))


def guesses(seed: int, sure: float = 0.6) -> Say:
    """Votes at random, a little more for the truth."""

    def say(photo: Photo) -> NDArray[np.float16]:
        rng = np.random.default_rng([seed, photo.id])
        votes = rng.random((CLASSES, 64, 64)) + softmax(rasterize(photo), sure)
        return (votes / votes.sum(axis=0)).astype(np.float16)

    return say


# --- what is decided on them -------------------------------------------------------------------


def gather(
    pool: ThreadPoolExecutor,
    models: Sequence[FoldModel],
    dataset: CocoDataset,
    folds: Folds,
    proposals: Proposals = Proposals(),  # noqa: B008
) -> Evidence:
    ballots = ballots_of(by_candidate(models), dataset, folds)
    views = [view.name for view in proposals.views]
    return postprocess.gather(pool, ballots, views, CLASSES)  # type: ignore[arg-type]


def decided(evidence: Evidence, proposals: Proposals, metric: str = "miou") -> Decision:
    return decide(evidence, proposals, metric, np.arange(20), thorough=True)


def step(decision: Decision, name: str) -> Step:
    return next(step for step in decision.steps if step.name == name)


def share_right(evidence: Evidence, choice: Choice) -> float:
    """Of all pixels of all photos, at the photos' own size."""
    counts = evidence.full.counts(choice, np.arange(20)).sum(axis=0)
    return float(counts.trace() / counts.sum())


def assert_masks_are_the_truth(ensemble: Path, dataset: CocoDataset) -> None:
    """Those that were written for each photo, to the byte."""
    for photo in dataset.photos:
        mask = ensemble / "masks" / Path(photo.file_name).with_suffix(".png")
        assert mask.read_bytes() == encode_mask(rasterize(photo))


def decisions_beside_other_truths(
    pool: ThreadPoolExecutor,
    models: Sequence[FoldModel],
    dataset: CocoDataset,
    folds: Folds,
    proposals: Proposals,
) -> list[Decision]:
    """All that are made for each fold, with the truth as it is and where one fold has another. A fold's
    own truth must have no part in its decision, and that of each other fold must have one."""
    before = decide_by_fold(gather(pool, models, dataset, folds, proposals), proposals, "miou")
    made = [*before.values()]
    for fold in range(folds.count):
        other = drawn_elsewhere(dataset, folds, fold)
        evidence = gather(pool, models, other, folds, proposals)
        after = decide_by_fold(evidence, proposals, "miou")
        assert after[fold] == before[fold]
        for another in set(range(folds.count)) - {fold}:
            assert after[another] != before[another]  # who may look, sees it
        made += after.values()
    return made


def drawn_elsewhere(dataset: CocoDataset, folds: Folds, fold: int) -> CocoDataset:
    """The photos of `fold` have the polygons of their neighbours in the list."""
    photos = list(dataset.photos)
    for position in folds.split(fold)[1]:
        other = dataset.photos[(position + 1) % len(photos)]
        photos[position] = replace(photos[position], annotations=other.annotations)
    return replace(dataset, photos=tuple(photos))
