"""Pseudo labels: class maps that a network gave to photos, and how much each pixel counts.

How much a pixel counts is how often it is seen: each time that a photo is drawn, those pixels are
ignored that count less than a number from 0 to 1, drawn anew. So every loss takes them, also such as
know no weights, and the pixels that one draw keeps hang together.

FOLDER/labels.npy    (P, S, S) uint8 likeliest class, for all photos of the pool
FOLDER/weights.npy   (P, S, S) uint8, 255 where a pixel counts fully
FOLDER/photos.json   which photos take part, which were left out; whose labels they are; written last
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashseg.config_pseudo import PseudoSettings
from trashseg.data.coco import IGNORED
from trashseg.data.unlabelled import Pool
from trashseg.errors import DataError
from trashseg.files import new_folder, write_json

FULL = 255  # weight of a pixel that counts fully


@dataclass(frozen=True)
class PseudoLabels:
    """Those photos of a pool that take part, at `positions` (M,) of the rest, which is mapped."""

    key: str
    """16 hex digits of the labels and weights."""
    positions: NDArray[np.int64]
    images: NDArray[np.uint8]  # (P, S, S, 3) RGB
    labels: NDArray[np.uint8]  # (P, S, S)
    weights: NDArray[np.uint8]  # (P, S, S)

    def __len__(self) -> int:
        return len(self.positions)

    def draw(
        self, index: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (S, S, 3) and class map (S, S) of the photo at `positions[index]`; pixels that count too
        little this time are IGNORED."""
        position = self.positions[index]
        counts = self.weights[position] > FULL * generator.random()
        return np.array(self.images[position]), np.where(counts, self.labels[position], IGNORED)


def pixel_weights(confidence: NDArray[np.float32], config: PseudoSettings) -> NDArray[np.uint8]:
    """Confidence 0 to 1 to weight 0 to 255, of any one shape: 255 from the threshold on, 0 from the
    lower end of the band down, rising evenly between."""
    below = config.threshold - confidence
    if config.band == 0:
        return np.where(below <= 0, FULL, 0).astype(np.uint8)
    share = (1 - below / config.band).clip(0, 1)
    return np.asarray(np.rint(FULL * share), dtype=np.uint8)


def write_pseudo_labels(
    folder: Path,
    pool: Pool,
    answers: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    size: int,
    config: PseudoSettings,
    made_from: str,
) -> None:
    """Keep class map and confidence (S, S), `answers` has them photo by photo; `made_from` tells whose
    answers they are. DataError where the network is sure enough of no photo."""
    with new_folder(folder, replace=True) as partial:
        shape = (len(pool.photos.photos), size, size)
        labels, weights = (
            np.lib.format.open_memmap(partial / name, mode="w+", dtype=np.uint8, shape=shape)
            for name in ("labels.npy", "weights.npy")
        )
        digest = hashlib.blake2b(digest_size=8)
        photos: list[dict[str, Any]] = []
        for row, (answer, confidence) in enumerate(answers):
            labels[row], weights[row] = answer, pixel_weights(confidence, config)
            digest.update(labels[row].tobytes() + weights[row].tobytes())
            sure = float(weights[row].mean()) / FULL
            name, takes_part = pool.photos.photos[row].file_name, sure >= config.least_sure
            photos.append({"file_name": name, "sure": round(sure, 4), "takes_part": takes_part})
        if not any(photo["takes_part"] for photo in photos):
            surest = max(photo["sure"] for photo in photos)
            raise DataError(
                f"pseudo.least_sure: the network is sure of {surest:.3f} of the surest photo's pixels, "
                f"less than {config.least_sure:g}: lower it, or pseudo.threshold"
            )
        labels.flush()
        weights.flush()
        seen = {"show_training_photos": list(pool.left_out)}
        key = {"key": digest.hexdigest(), "made_from": made_from}
        write_json(partial / "photos.json", {**key, "photos": photos, **seen})


def open_pseudo_labels(
    folder: Path, images: NDArray[np.uint8], made_from: str
) -> PseudoLabels | None:
    """What `write_pseudo_labels` kept; None where there is nothing, or answers of another network."""
    if not (folder / "labels.npy").is_file():
        return None
    about = json.loads((folder / "photos.json").read_text())
    if about["made_from"] != made_from:
        return None
    taking_part = [photo["takes_part"] for photo in about["photos"]]
    return PseudoLabels(
        about["key"],
        np.flatnonzero(taking_part),
        images,
        np.load(folder / "labels.npy", mmap_mode="r"),
        np.load(folder / "weights.npy", mmap_mode="r"),
    )


def drop_pseudo_labels(folder: Path) -> None:
    """The pixels go, once a network is trained with them; photos.json stays to tell of them."""
    for name in ("labels.npy", "weights.npy"):
        (folder / name).unlink(missing_ok=True)
