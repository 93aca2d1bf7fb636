"""What the data doctor can find: every kind of defect, how bad it is, and what to do about it.

An error is what training refuses, or what makes it or its scores wrong. A warning is worth a look.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from trashseg.data.coco import Annotation

Severity = Literal["error", "warning"]
Subject = Literal["file", "entry", "category", "photo", "object", "class"]


@dataclass(frozen=True)
class Kind:
    """One sort of defect; `about` says what the ids of its cases are ids of."""

    severity: Severity
    about: Subject
    title: str
    advice: str


KINDS: dict[str, Kind] = {
    # --- the json
    "unreadable_json": Kind("error", "file", "json that cannot be read", "export it again"),
    "missing_list": Kind("error", "file", "json without one of COCO's lists", "export it as COCO"),
    "malformed_entry": Kind(
        "error", "entry", "entries without a field, or with a wrong value", "mend the entry"
    ),
    "category_count": Kind(
        "error", "file", "no category, or more than an 8-bit mask holds", "have 1 to 254"
    ),
    "repeated_category": Kind(
        "error", "category", "categories that share an id or a name", "make them unique"
    ),
    "background_category": Kind(
        "error",
        "category",
        "a category for the background",
        "remove it and its objects: unannotated pixels are background",
    ),
    "categories_differ": Kind(
        "error", "file", "json files with different categories", "make them equal"
    ),
    "no_photos": Kind("error", "file", "no photo at all", "add photos"),
    "no_objects": Kind("error", "file", "no object at all", "annotate: there is nothing to learn"),
    "repeated_image_id": Kind("error", "photo", "photos that share an id", "give each its own"),
    "repeated_file_name": Kind("error", "photo", "photos listed twice", "keep one entry"),
    "repeated_mask_name": Kind(
        "error",
        "photo",
        "photos that differ only in their suffix",
        "rename one: their masks would have one name",
    ),
    "unknown_image": Kind(
        "error", "object", "objects on an image that is not listed", "remove or mend them"
    ),
    "unknown_category": Kind(
        "error",
        "object",
        "objects of a category that is not listed",
        "add the category or mend them",
    ),
    # --- photos
    "missing_photo": Kind(
        "error", "photo", "photos that are not there", "add the file or drop the entry"
    ),
    "unreadable_photo": Kind(
        "error", "photo", "files that are not (whole) photos", "replace the file"
    ),
    "size_mismatch": Kind(
        "error",
        "photo",
        "photos of another size than the json says",
        "mend the entry or the photo: the polygons were drawn on another one",
    ),
    # --- objects
    "too_few_points": Kind(
        "error", "object", "polygons of fewer than three points", "redraw or remove the object"
    ),
    "undecodable_segmentation": Kind(
        "error", "object", "segmentations that cannot be drawn", "redraw or remove the object"
    ),
    # --- folds
    "unusable_folds": Kind("error", "file", "folds that cannot be made or read", "see the detail"),
    "fold_leak": Kind(
        "error",
        "photo",
        "one picture in several folds",
        "keep copies in one fold or remove them: validation sees what was trained on, scores are "
        "too good",
    ),
    # --- worth a look
    "likely_wrong_class": Kind(
        "warning",
        "object",
        "objects that models not trained on them hold for another class",
        "look whether the label is right",
    ),
    "exact_duplicate": Kind("warning", "photo", "photos with the same content", "keep one of each"),
    "near_duplicate": Kind(
        "warning",
        "photo",
        "photos that show the same picture",
        "keep one of each, or data.keep_duplicates_together on",
    ),
    "split_leak": Kind(
        "warning",
        "photo",
        "one picture in train.json and in val.json",
        "remove it from one of them; folds are made of both together",
    ),
    "repeated_object_id": Kind(
        "warning", "object", "objects that share an id", "give each its own, or drop the copy"
    ),
    "photo_without_objects": Kind(
        "warning", "photo", "photos without objects", "fine if there is only background on them"
    ),
    "out_of_bounds": Kind(
        "warning", "object", "polygons that leave the photo", "redraw; what is outside is cut off"
    ),
    "zero_area": Kind("warning", "object", "objects that cover nothing", "redraw or remove them"),
    "self_collapsing": Kind(
        "warning", "object", "polygons that fold over themselves", "redraw with corners in order"
    ),
    "hidden_object": Kind(
        "warning",
        "object",
        "objects wholly covered by smaller ones",
        "remove the object or mend the others: it may be there twice",
    ),
    "below_resolution": Kind(
        "warning",
        "object",
        "objects too small for the network",
        "raise data.image_size, or accept that they are background",
    ),
    "unused_class": Kind(
        "warning", "class", "classes without objects", "annotate some, or drop the category"
    ),
    "rare_class": Kind(
        "warning",
        "class",
        "classes that some folds have no photo of",
        "add photos, lower data.folds, or merge the class into another",
    ),
}


@dataclass(frozen=True)
class Case:
    """One place with a defect."""

    kind: str
    ids: tuple[str, ...]
    """As the json has them, with the file's name before where there are two; a class's by name."""
    detail: str = ""
    photos: tuple[int, ...] = ()
    """Positions of the photos to show."""
    annotation: Annotation | None = None
    """The object to outline."""


@dataclass(frozen=True)
class Finding:
    """All cases of one kind."""

    name: str
    cases: tuple[Case, ...]

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(name for case in self.cases for name in case.ids)


def collect(cases: Iterable[Case]) -> tuple[Finding, ...]:
    """One finding for each kind that occurs, in the order of KINDS: errors first."""
    by_kind: dict[str, list[Case]] = {name: [] for name in KINDS}
    for case in cases:
        by_kind[case.kind].append(case)
    return tuple(Finding(name, tuple(found)) for name, found in by_kind.items() if found)
