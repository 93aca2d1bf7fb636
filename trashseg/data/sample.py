"""The built-in sample: rendered trash scenes with COCO annotations, to try a search with.

What an object of each class looks like is in sample_objects.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from trashseg.data import textures as tex
from trashseg.data.sample_objects import KINDS, Item
from trashseg.errors import DataError
from trashseg.files import new_folder

LEAST_SIZE = 32
JPEG_QUALITY = 92
LEAST_AREA = 0.002  # of the frame: smaller objects cannot be recognised
LEAST_VISIBLE = 0.4  # of an object, after all others are painted
PLACING_TRIES = 40
OBJECT_COUNT_ODDS = (0.10, 0.20, 0.25, 0.25, 0.20)  # 1 to 5 objects


# Each block of ten images deals these out, one place to an image, so that every class is in six
# of 60 images: enough for five folds.
PROMISED = [[name] for name in KINDS if name != "Battery"]
PROMISED[-1].append("Battery")


@dataclass
class Placed(tex.Layer):
    """An object in the frame, with its class and its pixels as a reader of the json gets them."""

    name: str
    mask: NDArray[np.bool_]


def write_sample(out: Path, images: int = 60, size: int = 128, seed: int = 0) -> None:
    """Write `out`/train_all.json and `out`/photos/000000.jpg on: rendered, annotated trash scenes.

    The photos are `size` pixels square. The same arguments give the same bytes, and image i is
    the same whatever `images` is. `out` appears whole or not at all.
    Raises DataError for an `out` that holds something, and for numbers too small to draw.
    """
    numbers = (("images", images, 1), ("size", size, LEAST_SIZE), ("seed", seed, 0))
    for name, value, least in numbers:
        if value < least:
            raise DataError(f"{name} is {value}: the least allowed is {least}")
    with new_folder(out) as partial:
        try:
            (partial / "photos").mkdir()
            _write_scenes(partial, images, size, seed)
        except OSError as error:
            raise DataError(
                f"{out}: cannot be written ({error.strerror}): check the folder"
            ) from None


def _write_scenes(folder: Path, images: int, size: int, seed: int) -> None:
    photos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(images):
        encoded, placed = _render(index, size, seed)
        name = f"photos/{index:06d}.jpg"
        (folder / name).write_bytes(encoded)
        photos.append({"id": index, "width": size, "height": size, "file_name": name})
        for thing in placed:
            annotations.append({"id": len(annotations), "image_id": index, **_annotation(thing)})
    tree = {
        "info": {"description": "trashseg built-in sample: rendered scenes", "version": "1"},
        "licenses": [],
        "images": photos,
        "categories": [
            {"id": index, "name": name, "supercategory": "trash"}
            for index, name in enumerate(KINDS)
        ],
        "annotations": annotations,
    }
    (folder / "train_all.json").write_text(json.dumps(tree) + "\n", encoding="utf-8")


def sample_photo(index: int, size: int = 128, seed: int = 0) -> bytes:
    """Photo `index` of `write_sample`, a JPEG, without its objects."""
    return _render(index, size, seed)[0]


def _render(index: int, size: int, seed: int) -> tuple[bytes, list[Placed]]:
    rng = np.random.default_rng([seed, index])
    placed = _arrange(rng, _choose_classes(rng, index, seed), size)
    photo = tex.photograph(rng, placed, size)
    _, encoded = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes(), placed


def _annotation(placed: Placed) -> dict[str, Any]:
    corners = np.concatenate(placed.polygons)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return {
        "category_id": list(KINDS).index(placed.name),
        "segmentation": [polygon.ravel().tolist() for polygon in placed.polygons],
        "area": float(placed.mask.sum()),
        "bbox": np.round([*low, *(high - low)], 2).tolist(),
        "iscrowd": 0,
    }


def _choose_classes(rng: Generator, index: int, seed: int) -> list[str]:
    block, place = divmod(index, len(PROMISED))
    # Shuffled by block: in a fixed cycle, every fifth image would hold the same few classes.
    deal = np.random.default_rng([seed, block, 1]).permutation(len(PROMISED))
    promised = PROMISED[deal[place]]
    count = 1 + int(rng.choice(len(OBJECT_COUNT_ODDS), p=OBJECT_COUNT_ODDS))
    odds = np.array([kind.share for kind in KINDS.values()])
    others = rng.choice(list(KINDS), max(0, count - len(promised)), p=odds / odds.sum())
    return [*promised, *map(str, others)]


def _arrange(rng: Generator, names: Sequence[str], size: int) -> list[Placed]:
    """Place the objects, in the order in which they are painted: larger first, ties by id."""
    placed: list[Placed] = []
    for name in names:
        kind = KINDS[name]
        span = rng.uniform(*kind.span) * size
        item = kind.draw(rng, max(16, round(span * tex.SUPERSAMPLING)))
        for _ in range(PLACING_TRIES):
            thing = _place(rng, name, item, span, size)
            # sorted is stable, so ties keep the order in which ids are then given
            scene = sorted([*placed, thing], key=lambda each: -int(each.mask.sum()))
            if thing.mask.mean() >= LEAST_AREA and _all_visible(scene):
                placed = scene
                break
    return placed


def _all_visible(scene: Sequence[Placed]) -> bool:
    covered = np.zeros_like(scene[0].mask)
    for thing in reversed(scene):
        if (thing.mask & ~covered).sum() < LEAST_VISIBLE * thing.mask.sum():
            return False
        covered |= thing.mask
    return True


def _place(rng: Generator, name: str, item: Item, span: float, size: int) -> Placed:
    to_frame = tex.random_view(rng, span, size)
    moved = [cv2.perspectiveTransform(part[None], to_frame)[0] for part in item.parts]
    polygons = [clipped for part in moved if len(clipped := tex.clip_to_frame(part, size)) >= 3]
    mask = np.zeros((size, size), dtype=bool)
    if polygons:
        rings = [polygon.ravel().tolist() for polygon in polygons]
        mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, size, size))) > 0
    return Placed(item.surface, to_frame, polygons, name, mask)
