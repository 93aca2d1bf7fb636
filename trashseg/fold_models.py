"""Trained folds of several configurations: who may vote on which photo."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trashseg.config import TrainConfig
from trashseg.data.coco import CocoDataset
from trashseg.data.folds import Folds
from trashseg.device import Resources
from trashseg.errors import CheckpointError, ResourceError
from trashseg.member import keep_views, load_member
from trashseg.oof import Ballot, oof_folder
from trashseg.views import View


@dataclass(frozen=True)
class FoldModel:
    """Where a trained fold lies: configuration `candidate` (its rank), trained without `fold`, with the
    seed of `config`."""

    candidate: int
    fold: int
    folder: Path
    config: TrainConfig

    @property
    def name(self) -> str:
        """CONFIGURATION/FOLD, as its folder is called."""
        return f"{self.folder.parent.name}/{self.fold}"


def by_candidate(models: Sequence[FoldModel]) -> list[list[FoldModel]]:
    """The folds of each candidate with each of its seeds, best candidate first. CheckpointError where
    they are not the same folds for all: their votes could not be compared."""
    _check_folds(models)
    ranks = sorted({model.candidate for model in models})
    return [
        sorted(
            (model for model in models if model.candidate == rank),
            key=lambda model: (model.config.seed, model.fold),
        )
        for rank in ranks
    ]


def _check_folds(models: Sequence[FoldModel]) -> None:
    trainings: dict[tuple[int, int], list[FoldModel]] = {}
    for model in sorted(models, key=lambda model: (model.candidate, model.config.seed)):
        trainings.setdefault((model.candidate, model.config.seed), []).append(model)
    first, *others = trainings.values()
    for other in others:
        if {model.fold for model in other} != {model.fold for model in first}:
            raise CheckpointError(
                f"{other[0].folder.parent}: is trained on other folds than "
                f"{first[0].folder.parent}: train both on the same with launch.py retrain"
            )


def ballots_of(
    candidates: Sequence[Sequence[FoldModel]], dataset: CocoDataset, folds: Folds
) -> list[Ballot]:
    """Each photo that was in the validation fold of a model of each candidate, with those models."""
    size = max(models[0].config.data.image_size for models in candidates)
    voters = {
        fold: tuple(
            tuple(model.folder for model in models if model.fold == fold) for models in candidates
        )
        for fold in {model.fold for model in candidates[0]}
    }
    return [
        Ballot(photo, fold, voters[fold], size)
        for photo, fold in zip(dataset.photos, folds.fold_of.tolist(), strict=True)
        if fold in voters
    ]


def keep_missing_views(
    models: Sequence[FoldModel],
    views: Sequence[View],
    dataset: CocoDataset,
    folds: Folds,
    resources: Resources,
    on_step: Callable[[str], None] = lambda text: None,
) -> None:
    """Ask the networks for what is not on disk yet, one network in memory at a time."""
    missing = [
        (model, [view for view in views if not oof_folder(model.folder, view.name).is_dir()])
        for model in models
    ]
    _check_room(missing)
    for model, unseen in missing:
        if unseen:
            views_left = f"{len(unseen)} more view{'s' * (len(unseen) > 1)}"
            on_step(f"fold {model.name} sees its photos in {views_left}")
            keep_views(
                load_member(model.folder, resources.device), unseen, dataset, folds, resources
            )


def _check_room(missing: Sequence[tuple[FoldModel, list[View]]]) -> None:
    """A view takes about as much as the plain one, which is there."""
    needed, where = 0, Path()
    for model, unseen in missing:
        if unseen:
            where = model.folder
            plain = sum(file.stat().st_size for file in oof_folder(model.folder).iterdir())
            needed += plain * len(unseen)
    if needed and needed > (free := shutil.disk_usage(where).free):
        raise ResourceError(
            f"{where}: votes in more views take {needed / 1e9:.1f} GB, the disk has "
            f"{free / 1e9:.1f} GB free: make room or try fewer views and scales"
        )
