"""An ensemble at work: the softmax of all members, averaged pixel by pixel as a stream."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trashseg.config import CrfConfig, TtaConfig
from trashseg.data.coco import CocoDataset, Photo, rasterize, read_photo
from trashseg.device import Resources, return_freed_memory
from trashseg.errors import CheckpointError, DataError
from trashseg.manifest import FILE, read_manifest
from trashseg.masks import PhotoMasks, cpu_pool, photo_masks, stream
from trashseg.member import Member, batched, load_member, view_softmax
from trashseg.metrics import Scores, SegmentationScores
from trashseg.tta import add_upright
from trashseg.views import views_of
from trashseg.weighting import Weights, factors, is_by_class, to_probabilities

PHOTOS_AT_A_TIME = 4
OnPhoto = Callable[[], None]


@dataclass(frozen=True)
class Ensemble:
    """What `predict` and `evaluate` load: members ready to vote, and what is done with their votes."""

    members: tuple[Member, ...]
    weights: Weights
    """Of each member's vote; they sum to 1."""
    tta: TtaConfig
    by_object: bool
    """Whether each object is of one class."""
    crf: CrfConfig | None
    resources: Resources

    @property
    def classes(self) -> tuple[str, ...]:
        return self.members[0].classes


def load_ensemble(folder: Path, resources: Resources) -> Ensemble:
    """The ensemble of `folder`'s manifest, or the single fold that `folder` holds."""
    if not (folder / FILE).is_file():
        if not (folder / "config.yaml").is_file():
            raise CheckpointError(
                f"{folder}: holds neither an ensemble nor a fold: "
                "give runs/NAME/ensemble or runs/NAME/folds/K/FOLD"
            )
        member = load_member(folder, resources.device)
        return Ensemble((member,), (1.0,), TtaConfig(), False, None, resources)
    manifest = read_manifest(folder)
    return Ensemble(
        members=tuple(load_member(folder / m.folder, resources.device) for m in manifest.members),
        weights=tuple(member.weight for member in manifest.members),
        tta=manifest.tta,
        by_object=manifest.by_object,
        crf=manifest.crf if manifest.chosen == "soft_vote_crf" else None,
        resources=resources,
    )


@torch.inference_mode()
def vote(ensemble: Ensemble, images: list[NDArray[np.uint8]]) -> NDArray[np.float16]:
    """Photos to the weighted mean of the members' softmax, each the mean of its views, as `read_vote`:
    (N, C, S, S), S the largest member's; one output of a network in memory at a time."""
    size = max(member.config.data.image_size for member in ensemble.members)
    views, device = views_of(ensemble.tta), ensemble.resources.device
    total = torch.zeros(len(images), len(ensemble.classes), size, size, device=device)
    for member, weight in zip(ensemble.members, ensemble.weights, strict=True):
        own = torch.from_numpy(factors(weight, len(views))).to(device)[:, None, None]
        for view in views:
            add_upright(  # what was seen has no name that would hold it while the next is made
                total,
                _at_size(view_softmax(member, images, device, view), size).mul_(own),
                view.transform,
            )
    if is_by_class(ensemble.weights):
        return to_probabilities(total.cpu().numpy()).astype(np.float16)
    return total.half().cpu().numpy()


def _at_size(softmax: torch.Tensor, size: int) -> torch.Tensor:
    if softmax.shape[-1] == size:
        return softmax
    return torch.nn.functional.interpolate(softmax, (size, size), mode="bilinear")


def votes(
    pool: ProcessPoolExecutor, ensemble: Ensemble, photos: Sequence[Photo]
) -> Iterator[tuple[Photo, PhotoMasks]]:
    """Photos that no member was trained on, with the vote of all members and what is made of it."""

    def calls() -> Iterator[tuple[Any, ...]]:
        for some in batched(photos, PHOTOS_AT_A_TIME):
            paths = [photo.path for photo in some]
            averages = vote(ensemble, [read_photo(path) for path in paths])
            yield from (
                (average, path, ensemble.crf) for average, path in zip(averages, paths, strict=True)
            )
            del averages  # or it is there while the next are made
            return_freed_memory()  # photos are of many sizes

    decide = partial(photo_masks, by_object=ensemble.by_object)
    yield from zip(photos, stream(pool, decide, calls()), strict=True)


def predict_photos(
    ensemble: Ensemble, photos: Sequence[Photo]
) -> Iterator[tuple[Photo, PhotoMasks]]:
    """Each photo with its masks, refined where the ensemble's choice was to refine."""
    with cpu_pool(ensemble.resources.cpus) as pool:
        yield from votes(pool, ensemble, photos)


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
