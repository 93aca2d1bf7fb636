"""An ensemble on encoded photos, one process and no files: what a model server answers with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trashseg.data.coco import decode_bytes
from trashseg.ensemble import PHOTOS_AT_A_TIME, Ensemble, vote
from trashseg.masks import decide_photo
from trashseg.member import batched
from trashseg.pictures import encode_mask


@dataclass(frozen=True)
class Answer:
    """What is in a photo."""

    mask: bytes
    """The class of each pixel as an 8-bit PNG, at the photo's own size, upright."""
    shares: dict[str, float]
    """Of each class in the photo's pixels; they sum to 1."""


def answer(ensemble: Ensemble, encoded: Sequence[bytes]) -> Iterator[Answer]:
    """Photos, JPEG or any other form that OpenCV reads, to what is in them, in order.

    Photos go through the networks in the same groups as in trashseg/predict.py: the masks are, to the
    byte, those that it writes for the same photos in the same order. Raises DataError, with its place
    counted from 0, for what is no photo.
    """
    for group in batched(enumerate(encoded), PHOTOS_AT_A_TIME):
        images = [
            decode_bytes(np.frombuffer(content, np.uint8), f"photo {place}")
            for place, content in group
        ]
        for image, average in zip(images, vote(ensemble, images), strict=True):
            decided = decide_photo(average, image, ensemble.crf, by_object=ensemble.by_object)
            mask = decided.mask
            yield Answer(encode_mask(mask), shares_of(mask, ensemble.classes))


def shares_of(mask: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, float]:
    """Of each class in a class map (H, W)."""
    pixels = np.bincount(mask.ravel(), minlength=len(classes))
    return dict(zip(classes, (pixels / mask.size).tolist(), strict=True))
