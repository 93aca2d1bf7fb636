"""Photos with what a network says of them, and the workers' part of the CRF's bench; no torch here, as
in the product's workers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from trashseg.config import CrfConfig
from trashseg.crf import Image, Probabilities, refine
from trashseg.crf.photo import refine_photo
from trashseg.data.coco import Photo, read_photo
from trashseg.oof import read_oof, resize_probabilities

IN_MEMORY = 16  # scenes of each worker: 13 MB each at 512x512 pixels
Refine = Callable[[Probabilities, Image], Probabilities]
WAYS: dict[str, Refine] = {
    "default": partial(refine, config=CrfConfig()),
    "all pixels": partial(refine_photo, config=CrfConfig(), hold_decided=False),
    "pydensecrf": partial(refine, config=CrfConfig(backend="pydensecrf")),
}


@dataclass(frozen=True)
class Scene:
    """A photo that the network in `member` was not trained on, and its softmax there."""

    photo: Photo
    member: Path


@lru_cache(maxsize=IN_MEMORY)
def read(scene: Scene) -> tuple[Probabilities, Image]:
    """Probabilities (C, H, W) at the photo's size, as they are before the CRF, and the photo."""
    image = read_photo(scene.photo.path)
    vote = read_oof(scene.member, scene.photo).astype(np.float32)
    return resize_probabilities(vote, image.shape[:2]), image


def background(scene: Scene) -> float:
    """The share of pixels where the network sees nothing."""
    return float((read_oof(scene.member, scene.photo).argmax(axis=0) == 0).mean())


def refine_scene(scene: Scene, way: str) -> None:
    """What is timed: nothing travels between processes."""
    WAYS[way](*read(scene))


def disagree(scene: Scene) -> tuple[float, float]:
    """The larger of both of our ways' `difference` from pydensecrf."""
    right = WAYS["pydensecrf"](*read(scene))
    ours = [difference(WAYS[way](*read(scene)), right) for way in ("default", "all pixels")]
    probability, labels = np.max(ours, axis=0)
    return float(probability), float(labels)


def difference(made: Probabilities, right: Probabilities) -> tuple[float, float]:
    """Of the probability that differs most, and the share of pixels with another label."""
    labels = made.argmax(axis=0) != right.argmax(axis=0)
    return float(np.abs(made - right).max()), float(labels.mean())
