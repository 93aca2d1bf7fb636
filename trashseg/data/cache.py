"""Photos and masks decoded once per node into memory-mapped uint8 files that all trials share."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from trashseg.data.coco import CocoDataset, rasterize, read_dataset_photo
from trashseg.files import write_text

LAYOUT = "1"  # part of every key: change it when the files below change their meaning


@dataclass(frozen=True)
class Cache:
    """Read-only maps over all photos of a dataset, in its order, at the network's size S."""

    key: str
    images: NDArray[np.uint8]  # (N, S, S, 3) RGB
    masks: NDArray[np.uint8]  # (N, S, S) class of each pixel
    class_pixels: NDArray[np.int64]  # (N, C+1) pixels of each class in each mask


def cache_root() -> Path:
    """$TRASHSEG_CACHE, or ~/.cache/trashseg."""
    return Path(os.environ.get("TRASHSEG_CACHE") or Path.home() / ".cache" / "trashseg")


def open_cache(dataset: CocoDataset, image_size: int, root: Path | None = None) -> Cache:
    """Map the cache of this dataset at this size, building it first where it is missing.

    Safe when several processes ask at once: one builds under a lock, the others wait; the folder
    appears by a rename, so a build that was killed leaves nothing that could be read.
    """
    root = root or cache_root()
    root.mkdir(parents=True, exist_ok=True)
    key = cache_key(dataset, image_size, root)
    folder = root / key
    if not folder.is_dir():
        with FileLock(root / f"{key}.lock"):
            if not folder.is_dir():
                _build(dataset, image_size, folder)
    return Cache(
        key=key,
        # plain arrays: a memmap is slow to index
        images=np.asarray(np.load(folder / "images.npy", mmap_mode="r")),
        masks=np.asarray(np.load(folder / "masks.npy", mmap_mode="r")),
        class_pixels=np.load(folder / "class_pixels.npy"),
    )


def cache_key(dataset: CocoDataset, image_size: int, root: Path) -> str:
    """Name of the cache's folder under `root`."""
    return f"{content_key(dataset, root)}-{image_size}"


def cache_bytes(photos: int, image_size: int) -> int:
    """Size on disk: three bytes of photo and one of mask a pixel."""
    return photos * image_size * image_size * 4


def listing_key(dataset: CocoDataset) -> str:
    """16 hex digits of every json, byte for byte, and of every photo's name and size in bytes.

    Reads no photo: quick enough to ask whether another machine sees the same folder.
    """
    digest = hashlib.blake2b(LAYOUT.encode(), digest_size=8)
    for file in dataset.json_files:
        digest.update(hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
    sizes = [(photo.file_name, photo.path.stat().st_size) for photo in dataset.photos]
    digest.update(json.dumps(sizes).encode())
    return digest.hexdigest()


def dataset_key(dataset: CocoDataset) -> str:
    """16 hex digits of the content: every json and every photo, byte for byte."""
    digest = hashlib.blake2b(LAYOUT.encode(), digest_size=8)
    for file in (*dataset.json_files, *(photo.path for photo in dataset.photos)):
        digest.update(hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
    return digest.hexdigest()


def content_key(dataset: CocoDataset, root: Path) -> str:
    """`dataset_key`, remembered under the files' sizes and times, so that it is read once."""
    files = (*dataset.json_files, *(photo.path for photo in dataset.photos))
    stats = [(str(file.resolve()), (s := file.stat()).st_size, s.st_mtime_ns) for file in files]
    signature = hashlib.blake2b(json.dumps([LAYOUT, stats]).encode(), digest_size=16).hexdigest()
    remembered = root / "keys" / signature
    if remembered.is_file():
        return remembered.read_text()
    key = dataset_key(dataset)
    write_text(remembered, key)
    return key


def _build(dataset: CocoDataset, size: int, folder: Path) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed build left
    partial.mkdir()
    count = len(dataset.photos)
    images = np.lib.format.open_memmap(
        partial / "images.npy", mode="w+", dtype=np.uint8, shape=(count, size, size, 3)
    )
    masks = np.lib.format.open_memmap(
        partial / "masks.npy", mode="w+", dtype=np.uint8, shape=(count, size, size)
    )
    class_pixels = np.zeros((count, len(dataset.classes)), dtype=np.int64)
    try:
        for row, photo in enumerate(dataset.photos):
            images[row] = resize_photo(read_dataset_photo(photo), size)
            masks[row] = cv2.resize(
                rasterize(photo), (size, size), interpolation=cv2.INTER_NEAREST_EXACT
            )
            class_pixels[row] = np.bincount(masks[row].ravel(), minlength=len(dataset.classes))
        images.flush()
        masks.flush()
        np.save(partial / "class_pixels.npy", class_pixels)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def resize_photo(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) to (size, size, 3): area averaging down, bilinear up; for training and prediction."""
    shrinks = max(image.shape[:2]) > size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=interpolation), dtype=np.uint8)
