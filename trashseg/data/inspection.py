"""One photo and its objects, looked at for the doctor; nothing here raises for broken data."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.data.coco import Annotation, Drawn, Photo, in_drawing_order, owners, read_photo
from trashseg.data.duplicates import Thumbnail, read_thumbnail
from trashseg.data.segmentation import check, decode, is_number
from trashseg.errors import DataError

Problem = tuple[str, str]  # kind (a key of KINDS) and detail

BEYOND = 1.0  # pixels that a corner may lie outside: annotators round
FLAT = 1e-3  # square pixels: the hull of a polygon on one line
FOLDED = 0.5  # of the pixels drawn, that a polygon's signed area is less than where sides cross


@dataclass(frozen=True)
class ObjectReport:
    """What is wrong with one object; `drawable` if training can use it."""

    annotation: Annotation
    problems: tuple[Problem, ...]
    drawable: bool


@dataclass(frozen=True)
class PhotoReport:
    """What is wrong with one photo and its objects. `content` and `thumbnail` where it is readable."""

    problems: tuple[Problem, ...]
    objects: tuple[ObjectReport, ...]
    class_pixels: NDArray[np.int64]  # (C+1,) at the photo's own size; all 0 where it is no use
    content: bytes | None = None  # hash of the file
    thumbnail: Thumbnail | None = None

    @property
    def usable(self) -> bool:
        return not self.problems


def inspect(photo: Photo, classes: int, image_size: int) -> PhotoReport:
    """Read the photo, draw its objects as training does, at its own size and at `image_size`."""
    unseen = np.zeros(classes, dtype=np.int64)
    try:
        if not photo.path.is_file():
            raise FileNotFoundError
        content = hashlib.blake2b(photo.path.read_bytes(), digest_size=16).digest()
        height, width = read_photo(photo.path).shape[:2]
        thumbnail = read_thumbnail(photo.path)
    except FileNotFoundError:
        problem = ("missing_photo", photo.file_name)
        return PhotoReport((problem,), _without_drawing(photo), unseen)
    except (DataError, OSError):
        problem = ("unreadable_photo", photo.file_name)
        return PhotoReport((problem,), _without_drawing(photo), unseen)
    if (width, height) != (photo.width, photo.height):
        detail = f"{photo.file_name} is {width}x{height}, not {photo.width}x{photo.height}"
        problems = (("size_mismatch", detail),)
        return PhotoReport(problems, _without_drawing(photo), unseen, content, thumbnail)
    objects, pixels = _draw(photo, classes, image_size)
    return PhotoReport((), objects, pixels, content, thumbnail)


# --- objects -----------------------------------------------------------------------------------


def _without_drawing(photo: Photo) -> tuple[ObjectReport, ...]:
    """The objects of a photo that is not there: whatever their numbers alone say."""
    reports = []
    for annotation in photo.annotations:
        problem = _refusal(annotation, photo) or _out_of_bounds(annotation, photo)
        reports.append(ObjectReport(annotation, (problem,) if problem else (), drawable=False))
    return tuple(reports)


def _draw(
    photo: Photo, classes: int, image_size: int
) -> tuple[tuple[ObjectReport, ...], NDArray[np.int64]]:
    refused = [(annotation, _refusal(annotation, photo)) for annotation in photo.annotations]
    reports = [ObjectReport(a, (problem,), drawable=False) for a, problem in refused if problem]
    drawn = in_drawing_order(
        (decode(a.segmentation, photo.height, photo.width), a)
        for a, problem in refused
        if not problem
    )
    visible, pixels = _visible(photo, drawn, classes)
    for (mask, annotation), seen in zip(drawn, visible, strict=True):
        problems = _problems(photo, annotation, mask, int(seen), image_size)
        reports.append(ObjectReport(annotation, problems, drawable=True))
    return tuple(reports), pixels


def _visible(
    photo: Photo, drawn: list[Drawn], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of each object that no later one covers, and pixels of each class (C+1,)."""
    seen = np.bincount(owners(photo, drawn).ravel(), minlength=len(drawn) + 1)
    pixels = np.zeros(classes, dtype=np.int64)
    np.add.at(pixels, [0, *(annotation.class_index for _, annotation in drawn)], seen)
    return seen[1:], pixels


def _problems(
    photo: Photo, annotation: Annotation, mask: NDArray[np.bool_], seen: int, image_size: int
) -> tuple[Problem, ...]:
    """Of an object that can be drawn, what is worth a look."""
    problems = [_out_of_bounds(annotation, photo), _degenerate(annotation, photo)]
    pixels = int(mask.sum())
    if not pixels and not any(problems):
        problems.append(("zero_area", "it covers no pixel"))
    if pixels and not seen:
        problems.append(("hidden_object", f"none of its {pixels} pixels is seen"))
    if pixels and seen:
        problems.append(_too_small(photo, mask, image_size))
    return tuple(problem for problem in problems if problem)


def _refusal(annotation: Annotation, photo: Photo) -> Problem | None:
    """Why training would refuse it."""
    segmentation = annotation.segmentation
    try:
        check(segmentation, photo.height, photo.width)
    except (ValueError, TypeError) as error:
        rings = segmentation if isinstance(segmentation, list) else []
        short = [ring for ring in rings if isinstance(ring, list) and len(ring) in (2, 4)]
        if short and all(map(is_number, short[0])):
            return "too_few_points", "only a dot" if len(short[0]) == 2 else "only a line"
        return "undecodable_segmentation", str(error)
    return None


def _rings(annotation: Annotation) -> list[NDArray[np.float64]]:
    """The corners (P, 2) of each polygon; none of RLE."""
    if isinstance(annotation.segmentation, dict):
        return []
    return [np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in annotation.segmentation]


def _out_of_bounds(annotation: Annotation, photo: Photo) -> Problem | None:
    corners = np.concatenate([np.zeros((1, 2)), *_rings(annotation)])
    beyond = max(float(-corners.min()), float((corners - (photo.width, photo.height)).max()))
    if beyond <= BEYOND:
        return None
    return "out_of_bounds", f"it reaches {beyond:.0f} px beyond the edge"


def _degenerate(annotation: Annotation, photo: Photo) -> Problem | None:
    """Polygons whose corners lie on one line, or whose sides cross so that the inside is lost."""
    for ring in _rings(annotation):
        hull = cv2.contourArea(cv2.convexHull(ring.astype(np.float32)))
        if hull < FLAT:
            return "zero_area", "its corners are on one line"
        area = cv2.contourArea(ring.astype(np.float32))
        if area >= FOLDED * hull:
            continue
        drawn = int(decode([ring.ravel().tolist()], photo.height, photo.width).sum())
        if area < FOLDED * drawn or area < FLAT:
            return (
                "self_collapsing",
                f"its sides enclose {area:.0f} of the {drawn} px that it draws",
            )
    return None


def _too_small(photo: Photo, mask: NDArray[np.bool_], image_size: int) -> Problem | None:
    size = (image_size, image_size)
    resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    area = float(mask.mean()) * image_size**2
    if resized.any() and area >= 1:
        return None
    left = "" if resized.any() else ", of which none is left"
    return "below_resolution", f"{area:.1f} px at data.image_size {image_size}{left}"
