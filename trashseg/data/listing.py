"""A COCO folder read leniently, for the doctor: every defect is a case, whatever can be used is kept.

`load_coco` refuses at the first defect; where it refuses, this finds at least one error.
"""

import json
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trashseg.data.coco import (
    BACKGROUND,
    FIELDS,
    NUMBERS,
    Annotation,
    CocoDataset,
    Photo,
    labelled_files,
)
from trashseg.data.findings import Case
from trashseg.data.segmentation import is_number

Row = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """What the json lists. Photos may be missing or listed twice, their objects impossible to draw."""

    dataset: CocoDataset
    """Ids are those that `load_coco` would give."""
    names: tuple[str, ...]
    """Of each photo: its id in its json file."""
    part_of: tuple[int, ...]
    """Of each photo: the position of its json file."""
    prefixes: tuple[str, ...]
    """Of each json file: what goes before its ids, where there are several files."""
    cases: tuple[Case, ...]

    def object_name(self, position: int, annotation: Annotation) -> str:
        """The id of an object of the photo at `position`, as its json file has it."""
        return f"{self.prefixes[self.part_of[position]]}{annotation.id}"


def read_listing(folder: Path) -> Listing:
    """Read train_all.json, or train.json and val.json. DataError only where there are neither."""
    files = labelled_files(folder)
    parts = [_Part(file, f"{file.name}:" if len(files) > 1 else "") for file in files]
    categories = parts[0].categories()
    for part in parts[1:]:
        part.compare_categories(parts[0])
    class_of = {category: index for index, category in enumerate(sorted(categories), start=1)}
    photos: list[Photo] = []
    for part in parts:
        ids = {photo.id for photo in photos}
        # as load_coco does: train.json and val.json each count their ids from 0
        offset = 1 + max(ids, default=-1) if ids & part.image_ids else 0
        photos += part.photos(class_of, offset)
    names = tuple(name for part in parts for name in part.photo_names)
    cases = [case for part in parts for case in part.cases]
    cases += _repeats(photos, names)
    if not any(part.rows["images"] for part in parts):
        cases.append(Case("no_photos", (files[0].name,)))
    elif not any(part.rows["annotations"] for part in parts):
        cases.append(Case("no_objects", (files[0].name,)))
    return Listing(
        CocoDataset(
            folder,
            tuple(files),
            (BACKGROUND, *(categories[category] for category in class_of)),
            tuple(class_of),
            tuple(photos),
        ),
        names,
        tuple(place for place, part in enumerate(parts) for _ in part.photo_names),
        tuple(part.prefix for part in parts),
        tuple(cases),
    )


class _Part:
    """One json file: the rows that can be used, and a case for everything that cannot."""

    def __init__(self, file: Path, prefix: str) -> None:
        self.prefix = prefix
        self.cases: list[Case] = []
        self.photo_names: list[str] = []
        self._file = file
        tree = self._read()
        rows = {key: self._list(tree, key) for key in FIELDS} if tree is not None else {}
        self._known = {  # ids of the rows that cannot be used too: that they exist is known
            key: {row["id"] for row in rows.get(key, []) if _has_number(row, "id")}
            for key in ("images", "categories")
        }
        self.rows = {key: list(self._usable(key, rows.get(key, []))) for key in FIELDS}

    @property
    def image_ids(self) -> set[int]:
        return {row["id"] for row in self.rows["images"]}

    def _add(self, kind: str, name: object, detail: str = "", photo: int | None = None) -> None:
        photos = () if photo is None else (photo,)
        self.cases.append(Case(kind, (f"{self.prefix}{name}",), detail, photos))

    def _read(self) -> Any:
        try:
            return json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            self.cases.append(Case("unreadable_json", (self._file.name,), str(error)))
            return None

    def _list(self, tree: Any, key: str) -> list[Any]:
        rows = tree.get(key) if isinstance(tree, dict) else None
        if isinstance(rows, list):
            return rows
        self.cases.append(Case("missing_list", (self._file.name,), f"it has no list {key!r}"))
        return []

    def _usable(self, key: str, rows: list[Any]) -> Iterator[Row]:
        for place, row in enumerate(rows):
            problem = _problem(row, FIELDS[key])
            if problem is None:
                yield row
            else:
                self._add("malformed_entry", f"{key}[{place}]", problem)

    def categories(self) -> dict[int, str]:
        """Names by id, of all that can be classes."""
        categories: dict[int, str] = {}
        for row in self.rows["categories"]:
            category, name = row["id"], str(row["name"])
            if name.casefold() == BACKGROUND.casefold():
                self._add("background_category", category, name)
            elif category in categories or name.casefold() in map(
                str.casefold, categories.values()
            ):
                self._add("repeated_category", category, name)
            else:
                categories[category] = name
        if not 1 <= len(categories) <= 254:
            self.cases.append(Case("category_count", (self._file.name,), f"{len(categories)}"))
        return categories

    def compare_categories(self, first: "_Part") -> None:
        ours, theirs = (
            {(row["id"], str(row["name"])) for row in part.rows["categories"]}
            for part in (self, first)
        )
        if ours != theirs:
            differ = ", ".join(sorted({name for _, name in ours ^ theirs}))
            self.cases.append(Case("categories_differ", (self._file.name,), differ))

    def photos(self, class_of: dict[int, int], offset: int) -> list[Photo]:
        """Every photo with its objects; of photos that share an id the first gets them all."""
        photos: list[Photo] = []
        objects: dict[int, list[Annotation]] = {}
        for row in self.rows["images"]:
            photos.append(
                Photo(
                    row["id"] + offset,
                    row["file_name"],
                    self._file.parent / row["file_name"],
                    int(row["width"]),
                    int(row["height"]),
                )
            )
            self.photo_names.append(f"{self.prefix}{row['id']}")
        self._sort_objects(class_of, objects)
        return [
            replace(photo, annotations=tuple(objects.pop(photo.id - offset, ())))
            for photo in photos
        ]

    def _sort_objects(self, class_of: dict[int, int], objects: dict[int, list[Annotation]]) -> None:
        seen: set[int] = set()
        for row in self.rows["annotations"]:
            image, category = row["image_id"], row["category_id"]
            if row["id"] in seen:
                self._add("repeated_object_id", row["id"])
            seen.add(row["id"])
            if image not in self._known["images"]:
                self._add("unknown_image", row["id"], f"image {image}")
            elif category not in self._known["categories"]:
                self._add("unknown_category", row["id"], f"category {category}")
            elif category in class_of:
                annotation = Annotation(row["id"], class_of[category], row["segmentation"])
                objects.setdefault(image, []).append(annotation)


def _problem(row: Any, fields: tuple[str, ...]) -> str | None:
    """What is wrong with a row of a list, if anything."""
    if not isinstance(row, dict):
        return f"it is {reprlib.repr(row)}"
    for field in fields:
        if field not in row:
            return f"it has no {field!r}"
        if field in NUMBERS and not _has_number(row, field):
            return f"{field} is {reprlib.repr(row[field])}, not a number"
        if field in ("width", "height") and row[field] < 1:
            return f"{field} is {row[field]}"
        if field == "file_name" and not isinstance(row[field], str):
            return f"{field} is {reprlib.repr(row[field])}, not a name"
        if field in ("file_name", "name") and not _is_name(str(row[field])):
            return f"{field} is {reprlib.repr(row[field])}, which cannot be written"
    return None


def _is_name(text: str) -> bool:
    """Whether it is text with something in it; json can escape halves of characters."""
    return bool(text) and not any("\ud800" <= character <= "\udfff" for character in text)


def _has_number(row: Any, field: str) -> bool:
    return isinstance(row, dict) and is_number(row.get(field))


def _repeats(photos: list[Photo], names: tuple[str, ...]) -> Iterator[Case]:
    """Photos of one id, of one file, or whose masks would have one name."""
    keys: dict[str, Callable[[Photo], Any]] = {
        "repeated_image_id": lambda photo: photo.id,
        "repeated_file_name": lambda photo: photo.file_name,
        "repeated_mask_name": lambda photo: Path(photo.file_name).with_suffix(""),
    }
    first_of: dict[tuple[str, Any], int] = {}
    for position, photo in enumerate(photos):
        for kind, key in keys.items():
            first = first_of.setdefault((kind, key(photo)), position)
            same_file = photos[first].file_name == photo.file_name
            if first == position or (kind == "repeated_mask_name" and same_file):
                continue
            detail = f"{photos[first].file_name} and {photo.file_name}"
            yield Case(kind, (names[first], names[position]), detail, (first, position))
