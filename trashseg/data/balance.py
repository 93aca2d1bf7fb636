"""How many objects, photos and pixels each class has, over all and in each fold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trashseg.data.findings import Case


@dataclass(frozen=True)
class Balance:
    """Counts by fold and class, (F, C+1) each; one row for all where there are no folds."""

    classes: tuple[str, ...]
    objects: NDArray[np.int64]
    photos: NDArray[np.int64]
    """Photos with an object of the class; of the background: photos without objects."""
    pixels: NDArray[np.int64]
    """At the photos' own size, where objects overlap of the one that is seen."""


def count_balance(
    classes: tuple[str, ...],
    holds: Sequence[Sequence[int]],
    pixels: Sequence[NDArray[np.int64]],
    fold_of: NDArray[np.int64],
    folds: int,
) -> Balance:
    """From the class of each object of each photo, and the pixels (C+1,) of each photo."""
    objects, photos, areas = np.zeros((3, folds, len(classes)), dtype=np.int64)
    for fold, held, seen in zip(fold_of, holds, pixels, strict=True):
        np.add.at(objects[fold], list(held), 1)
        photos[fold, sorted(set(held)) or 0] += 1
        areas[fold] += seen
    return Balance(classes, objects, photos, areas)


def balance_cases(balance: Balance) -> Iterator[Case]:
    """Classes that have no object, or no photo in some of several folds."""
    folds = len(balance.photos)
    for index, name in enumerate(balance.classes[1:], start=1):
        in_folds = balance.photos[:, index]
        total, without = int(in_folds.sum()), np.flatnonzero(in_folds == 0).tolist()
        if total == 0:
            yield Case("unused_class", (name,))
        elif without and folds > 1:
            number = f"{total} photo{'s' if total > 1 else ''}"
            plural = "s" if len(without) > 1 else ""
            detail = f"{number}, none in fold{plural} {', '.join(map(str, without))}"
            yield Case("rare_class", (name,), detail)
