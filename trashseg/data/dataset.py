"""Batches for training and validation, drawn from the cache.

Which photos make a batch and how each is augmented depend only on (seed, epoch, photo), never on the
number of workers or on what was drawn before: training that resumes at an epoch draws the same. A photo
that an epoch draws again is augmented anew.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from trashseg.augment import reseed
from trashseg.data.cache import Cache
from trashseg.data.copy_paste import CopyPaste
from trashseg.data.pseudo_labels import PseudoLabels
from trashseg.data.sampling import Weights, draw_weighted
from trashseg.device import Resources

Item = tuple[int, int] | tuple[int, int, int]  # epoch, position, times drawn before
Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (N, 3, H, W) uint8, which lie channels last, as OpenCV has them; masks (N, H, W) uint8."""


class SegmentationDataset(Dataset[Batch]):
    """`dataset[epoch, position]` is (image (3, H, W) uint8, mask (H, W) uint8), augmented.

    Positions are those of the cache, and go on with the pseudo-labelled photos where there are some.
    """

    def __init__(
        self,
        cache: Cache,
        augment: A.Compose | None = None,
        seed: int = 0,
        copy_paste: CopyPaste | None = None,
        pseudo: PseudoLabels | None = None,
    ) -> None:
        self._cache, self._augment, self._seed = cache, augment, seed
        self._copy_paste, self._pseudo = copy_paste, pseudo

    def __getitem__(self, item: Item) -> Batch:
        images, masks = self.__getitems__([item])
        return images[0], masks[0]

    def __getitems__(self, items: list[Item]) -> Batch:
        """A batch: each photo is written to its place there, and nowhere else on the way."""
        size = self._cache.images.shape[1]
        images = np.empty((len(items), size, size, 3), dtype=np.uint8)
        masks = np.empty((len(items), size, size), dtype=np.uint8)
        for place, item in enumerate(items):
            self._draw(item, images[place], masks[place])
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)

    def _draw(self, item: Item, image_out: NDArray[np.uint8], mask_out: NDArray[np.uint8]) -> None:
        """Into image (H, W, 3) and mask (H, W)."""
        position = item[1]
        draw = np.random.SeedSequence([self._seed, *item])
        image, mask = self._photo(position, draw)  # the cache's own memory
        if self._copy_paste is not None:
            image, mask = image.copy(), mask.copy()
            self._copy_paste(image, mask, position, np.random.default_rng(draw.spawn(1)[0]))
        if self._augment is not None:
            reseed(self._augment, draw)
            augmented = self._augment(image=image, mask=mask)
            image, mask = augmented["image"], augmented["mask"]
        image_out[:] = image
        mask_out[:] = mask

    def _photo(
        self, position: int, draw: np.random.SeedSequence
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        labelled = len(self._cache.images)
        if self._pseudo is None or position < labelled:
            return self._cache.images[position], self._cache.masks[position]
        generator = np.random.default_rng(draw.spawn(1)[0])
        return self._pseudo.draw(position - labelled, generator)


class EpochBatches(Sampler[list[Item]]):
    """Batches of one epoch after another: shuffled anew by (seed, epoch), or in order.

    When shuffled, a last batch that is not full is left out: batch normalisation fails on a batch
    of one photo (smp issue 778). With `weights` (N,), photos are drawn by their share instead: as many
    as there are, or `photos`.
    """

    def __init__(
        self,
        positions: NDArray[np.int64],
        batch_size: int,
        seed: int = 0,
        *,
        shuffle: bool,
        weights: Weights | None = None,
        photos: int | None = None,
    ) -> None:
        self._positions, self._batch_size = positions, batch_size
        self._photos = len(positions) if photos is None else photos
        self._seed, self._shuffle, self._weights = seed, shuffle, weights
        self.epoch = 0

    def __len__(self) -> int:
        full, rest = divmod(self._photos, self._batch_size)
        return full if self._shuffle else full + (rest > 0)

    def __iter__(self) -> Iterator[list[Item]]:
        order, times = self._order(), Counter[int]()
        for batch in range(len(self)):
            drawn = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            yield [self._item(int(position), times) for position in drawn]

    def _order(self) -> NDArray[np.int64]:
        if not self._shuffle:
            return self._positions
        generator = np.random.default_rng([self._seed, self.epoch])
        if self._weights is None:
            return generator.permutation(self._positions)
        count = len(self) * self._batch_size
        return draw_weighted(self._positions, self._weights, count, generator)

    def _item(self, position: int, times: "Counter[int]") -> Item:
        before = times[position]
        times[position] += 1
        return (self.epoch, position, before) if before else (self.epoch, position)


def make_loader(
    dataset: SegmentationDataset, batches: EpochBatches, workers: int, *, pin: bool
) -> "DataLoader[Batch]":
    """A loader over `batches`; set `batches.epoch` before each pass."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_collated,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_claim_one_cpu,
    )


def _collated(batch: Any) -> Any:
    """The dataset makes whole batches."""
    return batch


def _claim_one_cpu(_: int) -> None:
    """A worker is one CPU's worth: OpenCV's own threads would oversubscribe (ray issue 42135)."""
    Resources(cpus=1, device=torch.device("cpu")).claim()
