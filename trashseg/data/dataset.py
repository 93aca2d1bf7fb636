"""Batches for training and validation, drawn from the cache.

Which photos make a batch and how each is augmented depend only on (seed, epoch, photo), never on the
number of workers or on what was drawn before: training that resumes at an epoch draws the same.
"""

from collections.abc import Iterator

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from trashseg.data.cache import Cache

Item = tuple[int, int]  # (epoch, position in the cache)
Batch = tuple[torch.Tensor, torch.Tensor]  # images (N, 3, H, W) uint8, masks (N, H, W) uint8


class SegmentationDataset(Dataset[Batch]):
    """`dataset[epoch, position]` is (image (3, H, W) uint8, mask (H, W) uint8), augmented."""

    def __init__(self, cache: Cache, augment: A.Compose | None = None, seed: int = 0) -> None:
        self._cache, self._augment, self._seed = cache, augment, seed

    def __getitem__(self, item: Item) -> Batch:
        epoch, position = item
        image, mask = np.array(self._cache.images[position]), np.array(self._cache.masks[position])
        if self._augment is not None:
            draw = np.random.SeedSequence([self._seed, epoch, position]).generate_state(1)
            self._augment.set_random_seed(int(draw[0]))
            augmented = self._augment(image=image, mask=mask)
            image, mask = augmented["image"], augmented["mask"]
        channels_first = np.ascontiguousarray(image.transpose(2, 0, 1))  # (3, H, W)
        return torch.from_numpy(channels_first), torch.from_numpy(np.ascontiguousarray(mask))


class EpochBatches(Sampler[list[Item]]):
    """Batches of one epoch after another: shuffled anew by (seed, epoch), or in order.

    When shuffled, a last batch that is not full is left out: batch normalisation fails on a batch
    of one photo (smp issue 778).
    """

    def __init__(
        self, positions: NDArray[np.int64], batch_size: int, seed: int = 0, *, shuffle: bool
    ) -> None:
        self._positions, self._batch_size = positions, batch_size
        self._seed, self._shuffle = seed, shuffle
        self.epoch = 0

    def __len__(self) -> int:
        full, rest = divmod(len(self._positions), self._batch_size)
        return full if self._shuffle else full + (rest > 0)

    def __iter__(self) -> Iterator[list[Item]]:
        order = self._positions
        if self._shuffle:
            order = np.random.default_rng([self._seed, self.epoch]).permutation(order)
        for batch in range(len(self)):
            drawn = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            yield [(self.epoch, int(position)) for position in drawn]


def make_loader(
    dataset: SegmentationDataset, batches: EpochBatches, workers: int, *, pin: bool
) -> "DataLoader[Batch]":
    """A loader over `batches`; set `batches.epoch` before each pass."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
    )


def _one_thread(_: int) -> None:
    """A worker is one CPU's worth: OpenCV's own threads would oversubscribe (ray issue 42135)."""
    import cv2

    cv2.setNumThreads(0)
