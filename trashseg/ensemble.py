"""Soft voting over trained folds: the softmax of all members, averaged pixel by pixel as a stream.

OUT/manifest.yaml    members, classes, and whether the CRF is part of it: all `predict` needs
OUT/metrics.json     scores out of fold and on the test folder, with and without CRF
OUT/masks/           the chosen prediction for each photo, out of fold, at the photo's size;
                     what was not chosen is beside it, as masks_soft_vote(_crf)
OUT/test_masks/      the same for the test folder, where one was given
OUT/confusion.csv    pixels by truth (rows) and chosen out-of-fold prediction (columns)
"""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trashseg.config import CrfConfig, TrainConfig
from trashseg.config_file import read_yaml, validate, write_yaml
from trashseg.data.coco import CocoDataset, Photo, rasterize, read_photo
from trashseg.data.folds import Folds
from trashseg.device import Resources
from trashseg.errors import CheckpointError, DataError
from trashseg.files import new_folder, write_json, write_text
from trashseg.masks import PhotoMasks, cpu_pool, photo_masks, resize_probabilities, stream
from trashseg.member import Member, batched, load_member, member_scores, probabilities, read_oof
from trashseg.metrics import Scores, SegmentationScores
from trashseg.pictures import write_image

KINDS = ("soft_vote", "soft_vote_crf")
PHOTOS_AT_A_TIME = 4
OnPhoto = Callable[[], None]


@dataclass(frozen=True)
class FoldModel:
    """Where a trained fold lies: configuration `candidate` (its rank), trained without `fold`."""

    candidate: int
    fold: int
    folder: Path
    config: TrainConfig

    @property
    def name(self) -> str:
        """CONFIGURATION/FOLD, as its folder is called."""
        return f"{self.folder.parent.name}/{self.fold}"


@dataclass(frozen=True)
class Ensemble:
    """What `predict` and `evaluate` load: members ready to vote, and how their vote is refined."""

    members: tuple[Member, ...]
    crf: CrfConfig | None
    resources: Resources

    @property
    def classes(self) -> tuple[str, ...]:
        return self.members[0].classes


# --- building and scoring ----------------------------------------------------------------------


def build_ensemble(
    models: Sequence[FoldModel],
    dataset: CocoDataset,
    folds: Folds,
    out: Path,
    crf: CrfConfig,
    metric: str,
    resources: Resources,
    test: CocoDataset | None = None,
    on_photo: OnPhoto = lambda: None,
) -> dict[str, Any]:
    """Score the ensemble out of fold (and on `test`), choose with or without CRF, write `out`.

    Each photo is voted on only by the models that had it in their validation fold. The CRF is kept
    only if it raises `metric` out of fold; the test folder plays no part in that choice. Returns
    what metrics.json holds.
    """
    with new_folder(out, replace=True) as partial, cpu_pool(resources.cpus) as pool:
        oof = Tally(dataset.classes)
        for photo, masks in _votes_out_of_fold(pool, models, dataset, folds, crf):
            oof.add(photo, masks)
            for kind in KINDS:
                write_mask(partial / kind, photo.file_name, getattr(masks, kind))
            on_photo()
        scores = oof.scores()
        helped = scores["soft_vote_crf"][metric] > scores["soft_vote"][metric]
        chosen = "soft_vote_crf" if helped else "soft_vote"
        for kind in KINDS:
            (partial / kind).rename(partial / ("masks" if kind == chosen else f"masks_{kind}"))
        tested = Tally(dataset.classes)
        if test is not None:
            members = [load_member(model.folder, resources.device) for model in models]
            for photo, masks in _votes(pool, members, test.photos, crf, resources):
                if test.labelled:
                    tested.add(photo, masks)
                write_mask(partial / "test_masks", photo.file_name, getattr(masks, chosen))
                on_photo()
        metrics = {
            "oof": scores,
            "test": tested.scores() if test is not None and test.labelled else None,
            "chosen": chosen,
            "members": {model.name: member_scores(model.folder, model.config) for model in models},
            "candidates": oof.candidate_scores(),
        }
        _write_confusion(partial / "confusion.csv", dataset.classes, oof.confusion(chosen))
        _write_manifest(partial / "manifest.yaml", models, dataset.classes, chosen, crf, out)
        write_json(partial / "metrics.json", metrics)
    return metrics


class Tally:
    """Scores of the vote with and without CRF, and of each candidate alone, photo by photo."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._kinds = {kind: SegmentationScores(classes) for kind in KINDS}
        self._candidates: dict[int, SegmentationScores] = {}

    def add(self, photo: Photo, masks: PhotoMasks) -> None:
        truth = torch.from_numpy(rasterize(photo))[None]
        for kind in KINDS:
            self._kinds[kind].update(torch.from_numpy(getattr(masks, kind))[None], truth)
        for candidate, mask in enumerate(masks.voters):
            alone = self._candidates.setdefault(candidate, SegmentationScores(self._classes))
            alone.update(torch.from_numpy(mask)[None], truth)

    def scores(self) -> dict[str, Scores]:
        return {kind: totals.scores() for kind, totals in self._kinds.items()}

    def candidate_scores(self) -> dict[str, Scores]:
        return {str(index): totals.scores() for index, totals in sorted(self._candidates.items())}

    def confusion(self, kind: str) -> torch.Tensor:
        return self._kinds[kind].confusion


def _votes_out_of_fold(
    pool: ProcessPoolExecutor,
    models: Sequence[FoldModel],
    dataset: CocoDataset,
    folds: Folds,
    crf: CrfConfig,
) -> Iterator[tuple[Photo, PhotoMasks]]:
    """Every photo that was in a model's validation fold, with the vote of just those models."""
    voters = defaultdict(list)
    for model in sorted(models, key=lambda model: (model.candidate, model.fold)):
        voters[model.fold].append(model)
    voted = [
        (p, voters[f]) for p, f in zip(dataset.photos, folds.fold_of, strict=True) if voters[f]
    ]

    def calls() -> Iterator[tuple[Any, ...]]:
        for photo, its_models in voted:
            votes = [read_oof(model.folder, photo) for model in its_models]
            yield _same_size(votes), photo.path, crf, True

    for (photo, _), masks in zip(voted, stream(pool, photo_masks, calls()), strict=True):
        yield photo, masks


def _votes(
    pool: ProcessPoolExecutor,
    members: Sequence[Member],
    photos: Sequence[Photo],
    crf: CrfConfig | None,
    resources: Resources,
) -> Iterator[tuple[Photo, PhotoMasks]]:
    """Photos that no member was trained on, with the vote of all members."""

    def calls() -> Iterator[tuple[Any, ...]]:
        for some in batched(photos, PHOTOS_AT_A_TIME):
            images = [read_photo(photo.path) for photo in some]
            votes = vote(members, images, resources)
            for photo, average in zip(some, votes, strict=True):
                yield average[None], photo.path, crf, False

    yield from zip(photos, stream(pool, photo_masks, calls()), strict=True)


@torch.inference_mode()
def vote(
    members: Sequence[Member], images: list[NDArray[np.uint8]], resources: Resources
) -> NDArray[np.float16]:
    """Photos to the members' average softmax (N, C, S, S); one member's output in memory at a time."""
    size = max(member.config.data.image_size for member in members)
    total: torch.Tensor | None = None
    for member in members:
        softmax = probabilities(member, images, resources.device)
        if softmax.shape[-1] != size:
            softmax = torch.nn.functional.interpolate(softmax, (size, size), mode="bilinear")
        total = softmax if total is None else total.add_(softmax)
    assert total is not None, "an ensemble has at least one member"
    return (total / len(members)).half().cpu().numpy()


def _same_size(votes: Sequence[NDArray[np.float16]]) -> NDArray[np.float16]:
    """(V, C, S, S), each vote enlarged to the largest."""
    size = max(vote.shape[-1] for vote in votes)
    return np.stack(
        [
            vote
            if vote.shape[-1] == size
            else resize_probabilities(vote.astype(np.float32), (size, size)).astype(np.float16)
            for vote in votes
        ]
    )


def write_mask(folder: Path, file_name: str, mask: NDArray[np.uint8]) -> None:
    """The class map as an 8-bit PNG, in the photo's own sub-folder."""
    write_image(folder / Path(file_name).with_suffix(".png"), mask)


def _write_confusion(path: Path, classes: Sequence[str], confusion: torch.Tensor) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["truth", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, confusion.tolist(), strict=True))
    write_text(path, table.getvalue())


# --- the manifest ------------------------------------------------------------------------------


def _write_manifest(
    path: Path,
    models: Sequence[FoldModel],
    classes: Sequence[str],
    chosen: str,
    crf: CrfConfig,
    out: Path,
) -> None:
    manifest = {
        "classes": list(classes),
        "members": [Path(os.path.relpath(model.folder, out)).as_posix() for model in models],
        "chosen": chosen,
        "crf": crf.model_dump(mode="json"),
    }
    write_yaml(path, manifest)


def load_ensemble(folder: Path, resources: Resources) -> Ensemble:
    """The ensemble of `folder`'s manifest, or the single fold that `folder` holds."""
    if not (folder / "manifest.yaml").is_file():
        if not (folder / "config.yaml").is_file():
            raise CheckpointError(
                f"{folder}: holds neither an ensemble nor a fold: "
                "give runs/NAME/ensemble or runs/NAME/folds/K/FOLD"
            )
        member = load_member(folder, resources.device)
        return Ensemble((member,), None, resources)
    manifest = read_yaml(folder / "manifest.yaml")
    members = tuple(load_member(folder / m, resources.device) for m in manifest["members"])
    refined = manifest["chosen"] == "soft_vote_crf"
    crf = validate(CrfConfig, manifest["crf"], where=str(folder / "manifest.yaml"))
    return Ensemble(members, crf if refined else None, resources)


def predict_photos(
    ensemble: Ensemble, photos: Sequence[Photo]
) -> Iterator[tuple[Photo, PhotoMasks]]:
    """Each photo with its masks, refined where the ensemble's choice was to refine."""
    with cpu_pool(ensemble.resources.cpus) as pool:
        yield from _votes(pool, ensemble.members, photos, ensemble.crf, ensemble.resources)


def evaluate_ensemble(
    ensemble: Ensemble, dataset: CocoDataset, on_photo: OnPhoto = lambda: None
) -> Scores:
    """Scores of the ensemble's final masks against the truth of `dataset`, at the photos' size."""
    if dataset.classes != ensemble.classes:
        raise DataError(
            f"{dataset.root}: its classes are {', '.join(dataset.classes)}; the ensemble was trained "
            f"for {', '.join(ensemble.classes)}: evaluate on data with the same classes"
        )
    totals = SegmentationScores(ensemble.classes)
    for photo, masks in predict_photos(ensemble, dataset.photos):
        truth = torch.from_numpy(rasterize(photo))[None]
        totals.update(torch.from_numpy(masks.final)[None], truth)
        on_photo()
    return totals.scores()
