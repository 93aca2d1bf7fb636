"""Photos that the page offers to whoever has none at hand."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from trashseg.data.unlabelled import find_photos
from trashseg.demo.photos import decode_upload
from trashseg.demo.refusal import RefusedError

MOST = 6
THUMBNAIL = 160  # pixels of a side


@dataclass(frozen=True)
class Sample:
    path: Path
    thumbnail: bytes
    """A square from the middle, as JPEG."""


def load_samples(folder: Path, asked_by: str = "--samples") -> list[Sample]:
    """At most `MOST` of the folder's photos, from all over it; what an upload may not be is passed over.
    DataError where there is no photo."""
    paths = [photo.path for photo in find_photos(folder, asked_by)]
    places = np.linspace(0, len(paths) - 1, min(MOST, len(paths))).round().astype(int)
    samples = []
    for place in places.tolist():
        try:
            samples.append(Sample(paths[place], _thumbnail(paths[place].read_bytes())))
        except RefusedError:
            continue  # a format or size that a browser's user could not send either
    return samples


def _thumbnail(content: bytes) -> bytes:
    image = decode_upload(content)
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = cv2.resize(
        image[top : top + side, left : left + side],
        (THUMBNAIL, THUMBNAIL),
        interpolation=cv2.INTER_AREA,
    )
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(square, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()
