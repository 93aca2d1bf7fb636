"""Segmentation scores, all from confusion matrices: counts are added up, divided once.

`miou`: one matrix over the whole set; a class that is in neither truth nor prediction has no IoU and
is left out of the mean. `miou_image`: per photo over the classes in its truth or prediction, then the
mean over photos (the competition's wording: "the mIoU of every image, averaged").
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trashseg.counts import count_pixels

Scores = dict[str, Any]


class SegmentationScores:
    """Adds up predictions on their own device; `scores` divides and brings the result home."""

    def __init__(self, classes: Sequence[str], device: torch.device | str = "cpu") -> None:
        self._classes = tuple(classes)
        count = len(self._classes)
        self.confusion = torch.zeros(
            count, count, dtype=torch.int64, device=device
        )  # truth, predicted
        self._image_iou_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._images = 0

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add photos: class indices (N, H, W), any integer dtype, both on this object's device."""
        if predicted.device.type == "cpu":
            counts = count_pixels(target.numpy(), predicted.numpy(), len(self._classes))
            self.add(torch.from_numpy(counts))
        else:
            self.add(count_on_device(predicted, target, len(self._classes)))

    def add(self, per_image: Tensor) -> None:
        """Add photos by their confusion matrices (N, C, C) int64."""
        self.confusion += per_image.sum(0)
        self._image_iou_sum += mean_iou(per_image).sum()
        self._images += len(per_image)

    def scores(self) -> Scores:
        """`miou`, `miou_image`, `pixel_accuracy` (null before any photo), `iou` by class, `images`."""
        confusion = self.confusion.cpu()
        if not self._images:
            nothing = dict.fromkeys(("miou", "miou_image", "pixel_accuracy"))
            return {**nothing, "iou": dict.fromkeys(self._classes), "images": 0}
        iou = class_iou(confusion).tolist()
        return {
            "miou": float(mean_iou(confusion)),
            "miou_image": float(self._image_iou_sum) / self._images,
            "pixel_accuracy": float(confusion.diagonal().sum() / confusion.sum()),
            "iou": {
                name: None if value != value else value  # NaN: in neither truth nor prediction
                for name, value in zip(self._classes, iou, strict=True)
            },
            "images": self._images,
        }


def count_on_device(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Class indices (N, H, W), any integer dtype, to (N, C, C) int64, without waiting for the device,
    as `bincount` would. On CPUs numpy's `bincount` takes an eighth of the time (trashseg/counts.py)."""
    images = predicted.shape[0]
    cell = target.long() * classes + predicted.long()  # (N, H, W)
    cell += torch.arange(images, device=cell.device).view(-1, 1, 1) * classes**2
    flat = cell.flatten()
    counts = torch.zeros(images * classes**2, dtype=torch.int64, device=cell.device)
    counts.scatter_add_(0, flat, torch.ones_like(flat))
    return counts.view(images, classes, classes)


def scores_of(per_image: Tensor, classes: Sequence[str]) -> Scores:
    """Scores of photos by their confusion matrices (N, C, C) int64."""
    totals = SegmentationScores(classes)
    totals.add(per_image)
    return totals.scores()


def class_iou(confusion: Tensor) -> Tensor:
    """(..., C, C) counts to (..., C) float64; NaN for a class in neither truth nor prediction."""
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - hits
    return hits.double() / union.double()  # 0 / 0 is NaN


def mean_iou(confusion: Tensor) -> Tensor:
    """(..., C, C) counts to (...) float64: the mean over the classes that have an IoU."""
    return class_iou(confusion).nanmean(-1)


def resampled_score(per_image: Tensor, metric: str, times: Tensor) -> Tensor:
    """The metric (...) float64 of photos (N, C, C) of which photo n is there `times` (..., N) times."""
    if metric == "miou_image":
        return (times @ mean_iou(per_image)) / times.sum(-1)
    flat = per_image.flatten(1).double()  # (N, C * C)
    return mean_iou((times @ flat).view(*times.shape[:-1], *per_image.shape[1:]))
