"""A COCO folder read and checked: photos, classes, and the (H, W) class map of each photo."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.data.segmentation import decode
from trashseg.errors import DataError

BACKGROUND = "Background"
IGNORED = 255  # in a class map: nobody knows the class, and no loss looks at the pixel
LABELLED_FILES = (("train_all.json",), ("train.json", "val.json"))
TEST_FILE = "test.json"
FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "segmentation"),
}
NUMBERS = ("id", "image_id", "category_id", "width", "height")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Annotation:
    """One object: its class (1..C) and its COCO segmentation (polygons or either form of RLE)."""

    id: int
    class_index: int
    segmentation: Any


@dataclass(frozen=True)
class Photo:
    """One photo; width and height in pixels as the json states them."""

    id: int
    file_name: str
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...] = ()


@dataclass(frozen=True)
class CocoDataset:
    """All photos of a folder; `classes[0]` is the background, then categories sorted by id."""

    root: Path
    json_files: tuple[Path, ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """COCO category of classes 1, 2, ...; the background has none."""
    photos: tuple[Photo, ...]

    @property
    def labelled(self) -> bool:
        return any(photo.annotations for photo in self.photos)


# --- the json ----------------------------------------------------------------------------------


def load_coco(folder: Path) -> CocoDataset:
    """Read the labelled photos of `folder`: train_all.json, or train.json and val.json together.

    Raises DataError for anything that would make the training wrong: no json, not COCO, a photo
    missing, an annotation for an unknown image or category, no photo at all, no annotation at all.
    """
    dataset = _load(folder, labelled_files(folder))
    if not dataset.labelled:
        raise DataError(f"{dataset.json_files[0]}: has no annotations: nothing to learn from")
    return dataset


def labelled_files(folder: Path) -> list[Path]:
    """train_all.json, or train.json and val.json; DataError where there are neither."""
    for names in LABELLED_FILES:
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: check --data")
    raise DataError(f"{folder}: has neither train_all.json nor train.json and val.json: add one")


def load_coco_test(folder: Path) -> CocoDataset:
    """Read a test folder: its test.json (annotations optional), or else its labelled photos."""
    if (folder / TEST_FILE).is_file():
        return _load(folder, [folder / TEST_FILE])
    return load_coco(folder)


def _load(folder: Path, files: list[Path]) -> CocoDataset:
    trees = [_read_json(file) for file in files]
    categories = _categories(files[0], trees[0])
    for file, tree in zip(files[1:], trees[1:], strict=True):
        if _categories(file, tree) != categories:
            raise DataError(
                f"{file}: its categories differ from {files[0].name}'s: make them equal"
            )
    class_of = {category: index for index, category in enumerate(sorted(categories), start=1)}
    photos: list[Photo] = []
    for file, tree in zip(files, trees, strict=True):
        # train.json and val.json each count their ids from 0
        first_id = 1 + max((photo.id for photo in photos), default=-1)
        overlap = {photo.id for photo in photos} & {image["id"] for image in tree["images"]}
        photos += _photos(folder, file, tree, class_of, offset=first_id if overlap else 0)
    if not photos:
        raise DataError(f"{files[0]}: lists no images: add photos")
    _refuse_repeats(files[0], photos)
    classes = (BACKGROUND, *(categories[category] for category in class_of))
    return CocoDataset(folder, tuple(files), classes, tuple(class_of), tuple(photos))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{file}: cannot be read as json ({error}): export it again") from None
    unlabelled = isinstance(tree, dict) and "annotations" not in tree
    for key, fields in FIELDS.items():
        if key == "annotations" and unlabelled:
            continue
        rows = tree.get(key) if isinstance(tree, dict) else None
        if not isinstance(rows, list):
            raise DataError(f"{file}: is not COCO: it has no list {key!r}: export it as COCO")
        for row, entry in enumerate(rows):
            missing = [
                field for field in fields if not isinstance(entry, dict) or field not in entry
            ]
            if missing:
                raise DataError(f"{file}: is not COCO: {key}[{row}] has no {missing[0]!r}: add it")
            wrong = [f for f in fields if f in NUMBERS and not isinstance(entry[f], int | float)]
            if wrong:
                what = f"{key}[{row}].{wrong[0]} is {entry[wrong[0]]!r}, not a number"
                raise DataError(f"{file}: is not COCO: {what}: mend it")
    return dict(tree)


def _categories(file: Path, tree: dict[str, Any]) -> dict[int, str]:
    categories = {category["id"]: str(category["name"]) for category in tree["categories"]}
    names = [name.casefold() for name in categories.values()]
    if len(names) != len(tree["categories"]) or len(set(names)) != len(names):
        raise DataError(f"{file}: two categories share an id or a name: make them unique")
    if BACKGROUND.casefold() in names:
        raise DataError(
            f"{file}: has a category {BACKGROUND!r}: remove it, unannotated pixels are background"
        )
    if not 1 <= len(categories) <= 254:
        raise DataError(f"{file}: has {len(categories)} categories: 1 to 254 fit an 8-bit mask")
    return categories


def _photos(
    folder: Path, file: Path, tree: dict[str, Any], class_of: dict[int, int], offset: int
) -> list[Photo]:
    annotations: dict[int, list[Annotation]] = {image["id"]: [] for image in tree["images"]}
    for entry in tree.get("annotations", []):
        where = f"{file}: annotation {entry['id']}"
        if entry["image_id"] not in annotations:
            raise DataError(f"{where} is for unknown image {entry['image_id']}: remove it")
        if entry["category_id"] not in class_of:
            raise DataError(
                f"{where} is of unknown category {entry['category_id']}: add or mend it"
            )
        annotations[entry["image_id"]].append(
            Annotation(entry["id"], class_of[entry["category_id"]], entry["segmentation"])
        )
    photos = [
        Photo(
            id=image["id"] + offset,
            file_name=image["file_name"],
            path=folder / image["file_name"],
            width=int(image["width"]),
            height=int(image["height"]),
            annotations=tuple(annotations[image["id"]]),
        )
        for image in tree["images"]
    ]
    missing = [photo.file_name for photo in photos if not photo.path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{folder}: photo {missing[0]}{more} of {file.name} is missing: add it or drop its entry"
        )
    return photos


def _refuse_repeats(file: Path, photos: Iterable[Photo]) -> None:
    ids: set[int] = set()
    names: set[str] = set()
    masks: set[Path] = set()
    for photo in photos:
        if photo.id in ids or photo.file_name in names:
            raise DataError(
                f"{file}: photo {photo.file_name} (id {photo.id}) is listed twice: keep one entry"
            )
        mask = Path(photo.file_name).with_suffix("")
        if mask in masks:
            raise DataError(
                f"{file}: photo {photo.file_name} differs from another only in its suffix, their "
                "masks would have one name: rename it"
            )
        ids.add(photo.id)
        names.add(photo.file_name)
        masks.add(mask)


# --- pixels ------------------------------------------------------------------------------------


def read_photo(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, turned upright by its EXIF tag; DataError if it cannot be decoded."""
    return decode_photo(path, cv2.IMREAD_COLOR_RGB)


def decode_photo(path: Path, mode: int) -> NDArray[np.uint8]:
    """The photo as one of OpenCV's `IMREAD_` modes reads it; DataError if it cannot be decoded."""
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the file") from None
    return decode_bytes(encoded, str(path), mode)


def decode_bytes(
    encoded: NDArray[np.uint8], name: str, mode: int = cv2.IMREAD_COLOR_RGB
) -> NDArray[np.uint8]:
    """A photo in memory, (bytes,), as `decode_photo` reads it, by default as `read_photo`; DataError,
    which calls it `name`, if it cannot be decoded."""
    image = cv2.imdecode(encoded, mode) if encoded.size else None
    if image is None:
        raise DataError(f"{name}: is not a readable photo: replace it")
    return np.asarray(image, dtype=np.uint8)


def read_dataset_photo(photo: Photo) -> NDArray[np.uint8]:
    """`read_photo`, and a DataError where its size is not what the polygons were drawn on."""
    image = read_photo(photo.path)
    height, width = image.shape[:2]
    if (width, height) != (photo.width, photo.height):
        raise DataError(
            f"{photo.path}: is {width}x{height}, its json entry says {photo.width}x{photo.height}: "
            "mend the entry or the photo"
        )
    return image


Drawn = tuple[NDArray[np.bool_], Annotation]  # (H, W) bool of one object, and the object


def rasterize(photo: Photo) -> NDArray[np.uint8]:
    """(H, W) uint8 class map; larger objects are drawn first, so that small ones stay visible."""
    mask = np.zeros((photo.height, photo.width), dtype=np.uint8)
    for pixels, annotation in in_drawing_order((_draw(photo, a), a) for a in photo.annotations):
        mask[pixels] = annotation.class_index
    return mask


def in_drawing_order(objects: Iterable[Drawn]) -> list[Drawn]:
    """Larger objects first, equally large ones by id."""
    return sorted(objects, key=lambda item: (-int(item[0].sum()), item[1].id))


def owners(photo: Photo, ordered: Sequence[Drawn]) -> NDArray[np.int32]:
    """(H, W) int32: whose each pixel is, 0 for the background, k for the k-th object drawn."""
    owner = np.zeros((photo.height, photo.width), dtype=np.int32)
    for place, (pixels, _) in enumerate(ordered, start=1):
        owner[pixels] = place
    return owner


def rasterize_object(photo: Photo, annotation: Annotation, size: int) -> NDArray[np.bool_]:
    """(size, size) bool of one object in the photo resized to that square: polygons are scaled, which
    is quick for large photos, RLE is decoded and resized."""
    if isinstance(annotation.segmentation, dict):
        pixels = _draw(photo, annotation).astype(np.uint8)
        return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT) > 0
    scale = np.array([size / photo.width, size / photo.height])
    rings = [
        (np.reshape(ring, (-1, 2)) * scale).ravel().tolist() for ring in annotation.segmentation
    ]
    small = dataclasses.replace(photo, width=size, height=size)
    return _draw(small, dataclasses.replace(annotation, segmentation=rings))


def _draw(photo: Photo, annotation: Annotation) -> NDArray[np.bool_]:
    try:
        return decode(annotation.segmentation, photo.height, photo.width)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{photo.file_name}: annotation {annotation.id} cannot be drawn ({error}): mend or remove it"
        ) from None
