"""The dataset that a competitor writes: every access decodes the photo, rasterises its polygons with
pycocotools, augments, and normalises to float on the CPU."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from torch.utils.data import Dataset

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class UsualDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """`dataset[i]` is (image (3, S, S) float32, mask (S, S) uint8) of the i-th photo of a COCO file.

    Photos are resized by area averaging, or bilinearly where they grow, masks by the nearest pixel;
    larger objects are drawn first.
    """

    def __init__(self, json_file: Path, size: int, augment: Any = None) -> None:
        self._folder, self._size, self._augment = json_file.parent, size, augment
        self._coco = COCO(str(json_file))
        self._ids = [image["id"] for image in self._coco.dataset["images"]]
        self._classes = {id: number for number, id in enumerate(sorted(self._coco.cats), start=1)}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = self._read(self._ids[index])
        if self._augment is not None:
            augmented = self._augment(image=image, mask=mask)
            image, mask = augmented["image"], augmented["mask"]
        normalised = (image.astype(np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(normalised.transpose(2, 0, 1).copy()), torch.from_numpy(mask)

    def _read(self, id: int) -> tuple[Any, Any]:
        photo = self._coco.imgs[id]
        image: Any = cv2.imread(str(self._folder / photo["file_name"]))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        mask = self._mask(id, *image.shape[:2])
        side = (self._size, self._size)
        shrinks = max(image.shape[:2]) > self._size
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, side, interpolation=interpolation)
        return image, cv2.resize(mask, side, interpolation=cv2.INTER_NEAREST_EXACT)

    def _mask(self, id: int, height: int, width: int) -> Any:
        annotations = self._coco.loadAnns(self._coco.getAnnIds(imgIds=id))
        objects = [(self._coco.annToMask(one), one) for one in annotations]
        mask = np.zeros((height, width), dtype=np.uint8)
        for pixels, one in sorted(
            objects, key=lambda drawn: (-int(drawn[0].sum()), drawn[1]["id"])
        ):
            mask[pixels == 1] = self._classes[one["category_id"]]
        return mask
