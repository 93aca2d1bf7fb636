"""Cross-validation folds: stratified by the classes that a photo holds, or given by the user.

Photos that show the same picture stay in one fold: a network would be validated on what it was
trained on, and its score would be too good.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trashseg.config import DataConfig
from trashseg.data.coco import CocoDataset
from trashseg.data.duplicates import near_duplicate_groups
from trashseg.errors import DataError
from trashseg.files import write_json


@dataclass(frozen=True)
class Folds:
    """`fold_of[i]` is the fold in which photo i (a position in dataset.photos) is validated."""

    fold_of: NDArray[np.int64]
    count: int

    def split(self, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the training and of the validation photos of `fold`."""
        if not 0 <= fold < self.count:
            raise DataError(
                f"fold {fold}: there are folds 0 to {self.count - 1}: choose one of them"
            )
        held_out = self.fold_of == fold
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def make_folds(dataset: CocoDataset, config: DataConfig) -> Folds:
    """The folds that `config` asks for: read from its file, or stratified with its seed."""
    if config.folds_file:
        folds = read_folds(Path(config.folds_file), dataset)
        if folds.count != config.folds:
            raise DataError(
                f"{config.folds_file}: has {folds.count} folds, data.folds is {config.folds}: "
                "make them equal"
            )
        return folds
    groups = near_duplicate_groups(dataset) if config.keep_duplicates_together else None
    return stratify(dataset, config.folds, config.folds_seed, groups)


def stratify(
    dataset: CocoDataset, count: int, seed: int, groups: NDArray[np.int64] | None = None
) -> Folds:
    """Multi-label stratification (Sechidis et al. 2011) on which classes each photo holds.

    Photos with one number in `groups` (N,) count as one photo that holds the classes of all, and
    get one fold; None leaves each photo for itself.
    """
    # here: the import takes a second, and trials only read folds
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    _, group_of = np.unique(
        np.arange(len(dataset.photos)) if groups is None else groups, return_inverse=True
    )  # in order of first appearance, as groups are numbered by their first photo
    total = int(group_of.max(initial=-1)) + 1
    if total < count:
        copies = "" if total == len(group_of) else f" but {total} that show different pictures"
        raise DataError(
            f"{dataset.root}: has {len(group_of)} photos{copies}, fewer than {count} folds: "
            "add photos or lower data.folds"
        )
    holds = np.zeros((total, len(dataset.classes)), dtype=np.int64)  # (groups, classes)
    for row, photo in zip(group_of, dataset.photos, strict=True):
        holds[row, [annotation.class_index for annotation in photo.annotations]] = 1
    holds[:, 0] = holds.sum(axis=1) == 0  # photos without objects are a stratum of their own
    splitter = MultilabelStratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
    fold_of = np.empty(total, dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(total), holds)):
        fold_of[held_out] = fold
    empty = sorted(set(range(count)) - set(fold_of.tolist()))
    if empty:
        raise DataError(f"{dataset.root}: fold {empty[0]} got no photo: lower data.folds")
    return Folds(fold_of[group_of], count)


def write_folds(path: Path, dataset: CocoDataset, folds: Folds) -> None:
    """`{"folds": [[file names of fold 0], ...]}`, which `read_folds` takes back."""
    names = [
        [dataset.photos[position].file_name for position in folds.split(fold)[1]]
        for fold in range(folds.count)
    ]
    write_json(path, {"folds": names})


def read_folds(path: Path, dataset: CocoDataset) -> Folds:
    """Folds from a file: a list of folds, each the file names or image ids of its photos.

    Raises DataError unless every photo of the dataset is in exactly one fold.
    """
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))["folds"]
        entries = [(entry, fold) for fold, names in enumerate(lists) for entry in names]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file: check data.folds_file") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{path}: is not {{"folds": [[file names], ...]}} ({error}): mend it'
        ) from None
    position_of: dict[str | int, int] = {}
    for position, photo in enumerate(dataset.photos):
        position_of[photo.file_name] = position_of[photo.id] = position
    fold_of = np.full(len(dataset.photos), -1, dtype=np.int64)
    for entry, fold in entries:
        if not isinstance(entry, str | int) or entry not in position_of:
            raise DataError(f"{path}: photo {entry!r} is not in {dataset.root}: remove it")
        position = position_of[entry]
        if fold_of[position] >= 0:
            raise DataError(f"{path}: photo {entry!r} is in two folds: keep it in one")
        fold_of[position] = fold
    if (fold_of < 0).any():
        left_out = dataset.photos[int(np.argmin(fold_of))].file_name
        raise DataError(f"{path}: photo {left_out} is in no fold: add it to one")
    empty = sorted(set(range(len(lists))) - set(fold_of.tolist()))
    if empty:
        raise DataError(f"{path}: fold {empty[0]} has no photo: move some to it")
    return Folds(fold_of, len(lists))
