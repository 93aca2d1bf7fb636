"""An upload to its materials: the masks are those of `launch.py predict` unless a setting says else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashseg.config import CrfConfig
from trashseg.data.coco import Photo
from trashseg.ensemble import Ensemble, vote
from trashseg.masks import PhotoMasks, confidence, decide_photo
from trashseg.predict import coco_results
from trashseg.sections import Probability, Section

Image = NDArray[np.uint8]
Vote = NDArray[np.float16]  # (C, S, S)


class Settings(Section):
    """What whoever sends a photo may choose."""

    threshold: Probability = 0.0
    """A pixel of an object whose class has a smaller probability becomes background, and is counted as
    not sure. Of an ensemble that decides by object it is that of litter; with the CRF it is the
    probability after it, which is nearer to 0 or 1 than the vote's."""
    crf: bool | None = None
    """Whether the masks are refined; as the ensemble chose, if left out."""


@dataclass(frozen=True)
class Share:
    """Of one class that was found."""

    value: int
    """In the mask."""
    pixels: int
    of_objects: float
    of_photo: float


@dataclass(frozen=True)
class Segmented:
    """One photo and what is in it."""

    image: Image
    """(H, W, 3) RGB, upright."""
    masks: PhotoMasks
    unsure: int
    """Pixels of objects that the threshold made background."""
    settings: Settings

    @property
    def mask(self) -> Image:
        """(H, W) class map."""
        return self.masks.final

    def shares(self) -> list[Share]:
        """Of the classes that are there, the largest first."""
        pixels = np.bincount(self.mask.ravel(), minlength=1).tolist()
        objects = max(1, self.mask.size - pixels[0])
        found = [
            Share(value, count, count / objects, count / self.mask.size)
            for value, count in enumerate(pixels)
            if value and count
        ]
        return sorted(found, key=lambda share: -share.pixels)


class Segmenter:
    """A loaded ensemble that looks at one photo, or at some together."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self._crf = ensemble.crf or CrfConfig()
        self.classes = ensemble.classes
        self.category_ids = ensemble.members[0].category_ids
        self.refines = ensemble.crf is not None
        """Whether masks are refined where nothing else is asked for."""

    def votes(self, images: list[Image]) -> list[Vote]:
        """Of each photo, the vote of all members; together they take less time than one by one."""
        return list(vote(self._ensemble, images))

    def decide(self, image: Image, voted: Vote, settings: Settings) -> Segmented:
        refines = self.refines if settings.crf is None else settings.crf
        crf = self._crf if refines else None
        decision = decide_photo(voted, image, crf, by_object=self._ensemble.by_object)
        unsure = (decision.mask > 0) & (decision.probability < settings.threshold)
        decision.mask[unsure] = 0
        return Segmented(
            image=image,
            masks=PhotoMasks(decision.mask, None, confidence(decision, len(self.classes))),
            unsure=int(unsure.sum()),
            settings=Settings(threshold=settings.threshold, crf=refines),
        )

    def segment(self, image: Image, settings: Settings) -> Segmented:
        return self.decide(image, self.votes([image])[0], settings)

    def coco(self, segmented: Segmented, name: str) -> list[dict[str, Any]]:
        """COCO results as in predictions.json; the photo's id is 0."""
        height, width = segmented.mask.shape
        photo = Photo(0, name, Path(name), width=width, height=height)
        return coco_results(photo, segmented.masks, self.category_ids)

    def warm_up(self) -> None:
        """Have the CRF compiled and the networks' memory laid out before somebody waits for it."""
        self.segment(np.zeros((64, 64, 3), dtype=np.uint8), Settings(crf=True))
