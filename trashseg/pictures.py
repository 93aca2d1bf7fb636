"""Class maps as colours: overlays, and photo | truth | prediction side by side."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.files import write_bytes

Image = NDArray[np.uint8]


def palette(classes: int) -> Image:
    """(classes, 3) uint8 RGB; the background is black, the others keep their colour for ever."""
    golden = 0.618033988749895  # successive hues as far apart as possible
    colours = [(0, 0, 0)] + [
        tuple(
            round(255 * channel)
            for channel in colorsys.hsv_to_rgb((index * golden) % 1, 0.85, 1 - 0.25 * (index % 2))
        )
        for index in range(1, classes)
    ]
    return np.array(colours, dtype=np.uint8)


def overlay(photo: Image, mask: Image, classes: int, opacity: float = 0.55) -> Image:
    """(H, W, 3) photo with the objects of (H, W) `mask` tinted; the background stays as it is."""
    tinted = (photo * (1 - opacity) + palette(classes)[mask] * opacity).astype(np.uint8)
    return np.where(mask[..., None] > 0, tinted, photo)


def comparison(photo: Image, truth: Image, predicted: Image, classes: Sequence[str]) -> Image:
    """Photo, truth and prediction side by side, with a legend of the classes that occur."""
    row = np.hstack(
        [photo, overlay(photo, truth, len(classes)), overlay(photo, predicted, len(classes))]
    )
    scale = max(1.0, 256 / len(truth))  # small network sizes would be unreadable
    row = cv2.resize(row, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    shown = sorted({*np.unique(truth).tolist(), *np.unique(predicted).tolist()} - {0})
    return np.vstack([_captions(row.shape[1]), row, _legend(row.shape[1], shown, classes)])


def _captions(width: int) -> Image:
    strip = np.full((20, width, 3), 255, dtype=np.uint8)
    for column, caption in enumerate(("photo", "truth", "prediction")):
        _write(strip, caption, (column * width // 3 + 6, 14))
    return strip


def _legend(width: int, shown: Sequence[int], classes: Sequence[str]) -> Image:
    colours = palette(len(classes))
    cell = width // 4
    strip = np.full((20 * max(1, -(-len(shown) // 4)), width, 3), 255, dtype=np.uint8)
    for place, index in enumerate(shown):
        x, y = (place % 4) * cell + 6, (place // 4) * 20 + 4
        strip[y : y + 12, x : x + 12] = colours[index]
        _write(strip, classes[index], (x + 18, y + 10))
    return strip


def _write(image: Image, text: str, at: tuple[int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)


def write_image(path: Path, image: Image) -> None:
    """PNG or JPEG by suffix, (H, W, 3) RGB or (H, W); atomic."""
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, encoded = cv2.imencode(path.suffix, ordered)
    write_bytes(path, encoded.tobytes())


def encode_mask(mask: Image) -> bytes:
    """The class map (H, W) as an 8-bit PNG."""
    _, encoded = cv2.imencode(".png", mask)
    return encoded.tobytes()


def write_mask(folder: Path, file_name: str, mask: bytes) -> None:
    """An encoded class map, in the photo's own sub-folder."""
    write_bytes(folder / Path(file_name).with_suffix(".png"), mask)
