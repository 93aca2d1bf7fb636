"""Photos without truth: which of them a fold's network may label, and their pixels at its size."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from trashseg.config_pseudo import PseudoConfig
from trashseg.data.cache import cache_root, content_key, resize_photo
from trashseg.data.coco import IMAGE_SUFFIXES, CocoDataset, Photo, read_photo
from trashseg.data.duplicates import group, near_pairs, read_thumbnails
from trashseg.data.folds import Folds
from trashseg.errors import DataError


@dataclass(frozen=True)
class Pool:
    """Photos that the networks of a fold may label; `photos` knows no json and no annotation."""

    photos: CocoDataset
    left_out: tuple[str, ...]
    """File names of those that show the same picture as a training photo of the fold."""


def find_photos(folder: Path, asked_by: str = "--images") -> list[Photo]:
    """All photos under `folder`, by name; ids count from 0. DataError where there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: check {asked_by}")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: has no photos ({', '.join(IMAGE_SUFFIXES)}): check {asked_by}")
    stems: set[Path] = set()
    for path in paths:
        if (stem := path.with_suffix("")) in stems:
            raise DataError(f"{path}: another photo differs only in its suffix: rename one of them")
        stems.add(stem)
    return [
        Photo(index, path.relative_to(folder).as_posix(), path, width=0, height=0)
        for index, path in enumerate(paths)
    ]


def open_pool(
    config: PseudoConfig, dataset: CocoDataset, folds: Folds, fold: int, root: Path | None = None
) -> Pool:
    """The photos that `config` names, but for those of which the networks of `fold` see the truth: what
    shows the same picture as a training photo is left out, whichever file it is in.

    Copies of the validation photos stay: their truth is hidden from the networks of the fold. Raises
    DataError where no photo is left, or one cannot be read.
    """
    training, _ = folds.split(fold)
    found = SOURCES[config.name](config, dataset, folds, fold)
    pool = replace(dataset, json_files=(), photos=tuple(found))
    known = same_picture_as(pool, dataset, training, root or cache_root())
    if known.all():
        raise DataError(
            f"pseudo.name: {config.name}: all {len(found)} photos show what fold {fold} is trained on: "
            "add others"
        )
    unknown = replace(pool, photos=tuple(p for p, out in zip(found, known, strict=True) if not out))
    return Pool(unknown, tuple(p.file_name for p, out in zip(found, known, strict=True) if out))


def same_picture_as(
    pool: CocoDataset, dataset: CocoDataset, positions: NDArray[np.int64], root: Path
) -> NDArray[np.bool_]:
    """(N,): whether each photo of `pool` is in one group of near duplicates with a photo of `dataset` at
    `positions`, over any photos of both."""
    every = [*read_thumbnails(dataset, root), *read_thumbnails(pool, root)]
    groups = group(len(every), near_pairs(every))
    return np.isin(groups[len(dataset.photos) :], groups[positions])


def _validation_photos(config: Any, dataset: CocoDataset, folds: Folds, fold: int) -> list[Photo]:
    _, held_out = folds.split(fold)
    return [replace(dataset.photos[position], annotations=()) for position in held_out]


SOURCES: dict[str, Callable[[Any, CocoDataset, Folds, int], list[Photo]]] = {
    "folder": lambda config, dataset, folds, fold: find_photos(
        Path(config.folder), "pseudo.folder"
    ),
    "validation": _validation_photos,
}


def open_images(photos: CocoDataset, size: int, root: Path | None = None) -> NDArray[np.uint8]:
    """(N, size, size, 3) uint8 RGB, decoded once per node and mapped, as the labelled photos are
    (trashseg/data/cache.py). Raises DataError for a photo that cannot be read."""
    root = root or cache_root()
    root.mkdir(parents=True, exist_ok=True)
    file = root / f"{content_key(photos, root)}-{size}-photos.npy"
    with FileLock(file.with_suffix(".lock")):
        if not file.is_file():
            partial = file.with_suffix(".partial")
            _decode(photos, size, partial)
            partial.rename(file)
    return np.asanyarray(np.load(file, mmap_mode="r"))


def _decode(photos: CocoDataset, size: int, file: Path) -> None:
    shape = (len(photos.photos), size, size, 3)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    try:
        for row, photo in enumerate(photos.photos):
            images[row] = resize_photo(read_photo(photo.path), size)
        images.flush()
    except BaseException:
        file.unlink()
        raise
