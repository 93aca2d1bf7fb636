"""Copy-paste (Ghiasi et al. 2021): objects cut from other training photos, one annotation each.

Objects come from the training photos of the fold alone, at the network's size. Of an annotation those
pixels are taken that the class map shows, so nothing that lay in front of it comes along.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.config_augment import CopyPasteConfig
from trashseg.config_file import nearest
from trashseg.data.cache import Cache
from trashseg.data.coco import CocoDataset, rasterize_object
from trashseg.errors import ConfigError

Image = NDArray[np.uint8]
LEAST_PIXELS = 16  # an object with fewer shows nothing of its class


@dataclass(frozen=True)
class SceneObject:
    """One object of the photo at `position` of the cache: `pixels` (h, w) from (top, left) on."""

    position: int
    class_index: int
    top: int
    left: int
    pixels: NDArray[np.bool_]


class CopyPaste:
    """Pastes objects into photos in place; the draws come from the caller's generator alone."""

    def __init__(self, config: CopyPasteConfig, cache: Cache, objects: list[SceneObject]) -> None:
        self._config, self._images = config, cache.images
        ordered = sorted(objects, key=lambda item: (item.class_index, item.position))
        classes = [list(items) for _, items in groupby(ordered, key=lambda item: item.class_index)]
        self._classes = [(items, [item.position for item in items]) for items in classes]

    def __call__(
        self, image: Image, mask: Image, position: int, generator: np.random.Generator
    ) -> None:
        """Into the photo at `position`: image (S, S, 3) and its class map (S, S)."""
        if generator.random() >= self._config.p:
            return
        for _ in range(generator.integers(1, self._config.objects, endpoint=True)):
            item = self._choose(position, generator)
            if item is not None:
                self._paste(item, image, mask, generator)

    def _choose(self, position: int, generator: np.random.Generator) -> SceneObject | None:
        """A class first, then one of its objects, of other photos only; None if there is none."""
        choices = []
        for items, positions in self._classes:
            first, last = bisect_left(positions, position), bisect_right(positions, position)
            if len(items) > last - first:
                choices.append((items, first, last))  # items[first:last] are this photo's own
        if not choices:
            return None
        items, first, last = choices[generator.integers(len(choices))]
        drawn = int(generator.integers(len(items) - (last - first)))
        return items[drawn] if drawn < first else items[drawn + last - first]

    def _paste(
        self, item: SceneObject, image: Image, mask: Image, generator: np.random.Generator
    ) -> None:
        height, width = item.pixels.shape
        rows, columns = slice(item.top, item.top + height), slice(item.left, item.left + width)
        look, pixels = self._images[item.position, rows, columns], item.pixels
        if generator.random() < self._config.flip:
            look, pixels = look[:, ::-1], pixels[:, ::-1]
        factor = 1 + self._config.scale * generator.uniform(-1, 1)
        look, pixels = _resize(look, pixels, factor, most=len(image))
        top, left = (generator.integers(len(image) - side + 1) for side in pixels.shape)
        place = slice(top, top + len(pixels)), slice(left, left + pixels.shape[1])
        image[place][pixels] = look[pixels]
        mask[place][pixels] = item.class_index


def _resize(
    look: Image, pixels: NDArray[np.bool_], factor: float, most: int
) -> tuple[Image, NDArray[np.bool_]]:
    """By `factor`, or less where a side would be longer than `most`."""
    height, width = pixels.shape
    factor = min(factor, most / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if size == (width, height):
        return look, pixels
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(look), size, interpolation=interpolation)
    shape = cv2.resize(pixels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.uint8), shape > 0


# --- where the objects come from ---------------------------------------------------------------


def build_copy_paste(
    config: CopyPasteConfig, dataset: CocoDataset, cache: Cache, positions: NDArray[np.int64]
) -> CopyPaste | None:
    """For the training photos at `positions`; None where the configuration leaves it out.

    A class of which they hold no object is left out. Raises ConfigError for an unknown class.
    """
    if config.p == 0:
        return None
    pixels = cache.class_pixels[positions].sum(axis=0)
    classes = pasted_classes(config.classes, dataset.classes, pixels)
    return CopyPaste(config, cache, find_objects(dataset, cache, positions, classes))


def pasted_classes(
    chosen: str | tuple[str, ...], names: tuple[str, ...], class_pixels: NDArray[np.int64]
) -> set[int]:
    """Indices of the `chosen` classes, given all names and the training pixels of each."""
    check_classes(chosen, names)
    occurring = [index for index in range(1, len(names)) if class_pixels[index] > 0]
    if chosen == "all":
        return set(occurring)
    if chosen == "rare":
        middle = np.median(class_pixels[occurring]) if occurring else 0
        return {index for index in occurring if class_pixels[index] < middle}
    return {names.index(name) for name in _listed(chosen)}


def check_classes(chosen: str | tuple[str, ...], names: tuple[str, ...]) -> None:
    """ConfigError unless `chosen` is `rare`, `all`, or made of class names other than background."""
    for name in () if chosen in ("rare", "all") else _listed(chosen):
        if name not in names[1:]:
            options = nearest(name, [*names[1:], "rare", "all"])
            raise ConfigError(f"augment.copy_paste.classes: unknown class {name!r}{options}")


def _listed(chosen: str | tuple[str, ...]) -> tuple[str, ...]:
    return (chosen,) if isinstance(chosen, str) else chosen


def find_objects(
    dataset: CocoDataset, cache: Cache, positions: NDArray[np.int64], classes: Collection[int]
) -> list[SceneObject]:
    """The objects of `classes` in the photos at `positions`, without those of a few pixels."""
    found: list[SceneObject] = []
    for position in positions.tolist():
        photo, mask = dataset.photos[position], cache.masks[position]
        for annotation in photo.annotations:
            if annotation.class_index not in classes:
                continue
            pixels = rasterize_object(photo, annotation, len(mask))
            pixels &= mask == annotation.class_index
            if pixels.sum() < LEAST_PIXELS:
                continue
            rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            found.append(
                SceneObject(
                    position,
                    annotation.class_index,
                    int(rows[0]),
                    int(columns[0]),
                    pixels[box].copy(),
                )
            )
    return found
