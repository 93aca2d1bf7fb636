"""The data doctor: everything that is wrong with a folder of photos, listed at once.

`load_coco` and training refuse the first thing that they cannot use; the doctor goes on, and finds
what they would not notice: copies, leaks between folds, objects that vanish, classes that are too
rare. Where it finds no error, training takes the folder.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trashseg.config import DataConfig
from trashseg.data.balance import Balance, balance_cases, count_balance
from trashseg.data.coco import Annotation, CocoDataset
from trashseg.data.duplicates import group, near_pairs
from trashseg.data.findings import Case, Finding, collect
from trashseg.data.folds import Folds, read_folds, stratify
from trashseg.data.inspection import PhotoReport, inspect
from trashseg.data.listing import Listing
from trashseg.errors import DataError

Pairs = list[tuple[int, int]]  # of positions of photos


@dataclass(frozen=True)
class Report:
    """What the doctor says."""

    listing: Listing
    findings: tuple[Finding, ...]
    balance: Balance
    drawable: tuple[tuple[Annotation, ...], ...]
    """Of each photo: the objects that training can use."""

    @property
    def errors(self) -> int:
        """Cases that are errors."""
        return self._count("error")

    @property
    def warnings(self) -> int:
        return self._count("warning")

    def _count(self, severity: str) -> int:
        return sum(len(f.cases) for f in self.findings if f.kind.severity == severity)

    def with_cases(self, cases: Iterable[Case]) -> "Report":
        """The report with further cases, of label errors for instance."""
        known = [case for finding in self.findings for case in finding.cases]
        return replace(self, findings=collect([*known, *cases]))


def examine(
    listing: Listing, config: DataConfig, on_photo: Callable[[], None] = lambda: None
) -> Report:
    """Look at every photo and object of `listing`, and at how `config` would use them.

    Raises nothing for broken data: each defect is a finding.
    """
    dataset = listing.dataset
    photos = inspect_all(dataset, config.image_size, on_photo)
    equal = equal_pairs(dataset, photos)
    copies = group(len(photos), equal)
    alike = group(len(photos), [*equal, *similar_pairs(dataset, photos)])
    folds, fold_cases = find_folds(dataset, config, alike)
    balance = count_balance(
        dataset.classes,
        [[annotation.class_index for annotation in photo.annotations] for photo in dataset.photos],
        [photo.class_pixels for photo in photos],
        folds.fold_of,
        folds.count,
    )
    cases = [
        *listing.cases,
        *photo_cases(listing, photos),
        *object_cases(listing, photos),
        *copy_cases(listing, photos, copies, alike),
        *leak_cases(listing, alike, folds),
        *fold_cases,
        *balance_cases(balance),
    ]
    drawable = tuple(
        tuple(report.annotation for report in photo.objects if report.drawable) for photo in photos
    )
    return Report(listing, collect(cases), balance, drawable)


def inspect_all(
    dataset: CocoDataset, image_size: int, on_photo: Callable[[], None]
) -> list[PhotoReport]:
    """Threads: decoding lets go of the interpreter's lock."""
    reports = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for report in pool.map(
            lambda photo: inspect(photo, len(dataset.classes), image_size), dataset.photos
        ):
            reports.append(report)
            on_photo()
    return reports


# --- photos and objects ------------------------------------------------------------------------


def photo_cases(listing: Listing, photos: Sequence[PhotoReport]) -> Iterator[Case]:
    """What is wrong with single photos."""
    for position, report in enumerate(photos):
        for kind, detail in report.problems:
            yield Case(kind, (listing.names[position],), detail, (position,))
    if not listing.dataset.labelled:
        return  # that is a finding of its own
    times = Counter(listing.names)
    for position, (photo, name) in enumerate(
        zip(listing.dataset.photos, listing.names, strict=True)
    ):
        if not photo.annotations and times[name] == 1:
            yield Case("photo_without_objects", (name,), photo.file_name, (position,))


def object_cases(listing: Listing, photos: Sequence[PhotoReport]) -> Iterator[Case]:
    """What is wrong with single objects."""
    classes = listing.dataset.classes
    for position, report in enumerate(photos):
        for each in report.objects:
            name = listing.object_name(position, each.annotation)
            where = f"{classes[each.annotation.class_index]} on image {listing.names[position]}"
            for kind, detail in each.problems:
                yield Case(kind, (name,), f"{where}: {detail}", (position,), each.annotation)


# --- copies ------------------------------------------------------------------------------------


def equal_pairs(dataset: CocoDataset, photos: Sequence[PhotoReport]) -> Pairs:
    """Files with the same bytes, each with the first of them."""
    first_of: dict[bytes, int] = {}
    pairs = []
    for position in _once_each(dataset, photos):
        content = photos[position].content
        assert content is not None
        if (first := first_of.setdefault(content, position)) != position:
            pairs.append((first, position))
    return pairs


def similar_pairs(dataset: CocoDataset, photos: Sequence[PhotoReport]) -> Pairs:
    positions, thumbnails = [], []
    for position in _once_each(dataset, photos):
        thumbnail = photos[position].thumbnail
        assert thumbnail is not None
        positions.append(position)
        thumbnails.append(thumbnail)
    return [(positions[first], positions[second]) for first, second in near_pairs(thumbnails)]


def _once_each(dataset: CocoDataset, photos: Sequence[PhotoReport]) -> Iterator[int]:
    """Positions of readable files; one that is listed twice is no copy of itself."""
    seen: set[Path] = set()
    for position, (photo, report) in enumerate(zip(dataset.photos, photos, strict=True)):
        if report.thumbnail is not None and photo.path not in seen:
            seen.add(photo.path)
            yield position


def copy_cases(
    listing: Listing,
    photos: Sequence[PhotoReport],
    copies: NDArray[np.int64],
    alike: NDArray[np.int64],
) -> Iterator[Case]:
    """Groups of equal files, and groups of pictures that are alike though the files differ."""
    for members in _groups(copies):
        yield _case_of_group("exact_duplicate", listing, members)
    for members in _groups(alike):
        if len({photos[position].content for position in members}) > 1:
            yield _case_of_group("near_duplicate", listing, members)


def leak_cases(listing: Listing, alike: NDArray[np.int64], folds: Folds) -> Iterator[Case]:
    """Groups that are in several folds, or in train.json and val.json."""
    for members in _groups(alike):
        in_folds = sorted({int(folds.fold_of[position]) for position in members})
        if len(in_folds) > 1:
            where = "folds " + ", ".join(map(str, in_folds))
            yield _case_of_group("fold_leak", listing, members, where)
        if len({listing.part_of[position] for position in members}) > 1:
            yield _case_of_group("split_leak", listing, members)


def _groups(groups: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """The positions of each group of two or more."""
    members = defaultdict(list)
    for position, number in enumerate(groups.tolist()):
        members[number].append(position)
    return [tuple(positions) for positions in members.values() if len(positions) > 1]


def _case_of_group(
    kind: str, listing: Listing, positions: tuple[int, ...], where: str = ""
) -> Case:
    names = tuple(listing.names[position] for position in positions)
    files = ", ".join(listing.dataset.photos[position].file_name for position in positions)
    return Case(kind, names, f"{where}: {files}" if where else files, positions)


# --- folds -------------------------------------------------------------------------------------


def find_folds(
    dataset: CocoDataset, config: DataConfig, alike: NDArray[np.int64]
) -> tuple[Folds, list[Case]]:
    """The folds that training would use; all photos in one, and a case, where there can be none."""
    together = Folds(np.zeros(len(dataset.photos), dtype=np.int64), 1)
    if len(dataset.classes) == 1:
        return together, []  # that there is no category is a finding of its own
    try:
        if config.folds_file:
            return read_folds(Path(config.folds_file), dataset), []
        groups = alike if config.keep_duplicates_together else None
        return stratify(dataset, config.folds, config.folds_seed, groups), []
    except DataError as error:
        source = config.folds_file or f"data.folds={config.folds}"
        return together, [Case("unusable_folds", (source,), str(error))]
