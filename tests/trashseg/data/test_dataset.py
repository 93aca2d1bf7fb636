"""Batches: drawn by (seed, epoch, photo) alone, whole where shuffled, in order where not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trashseg.augment import build_augment
from trashseg.config_augment import Augmentation, AugmentConfig, ShiftScaleRotateConfig
from trashseg.data.cache import Cache, open_cache
from trashseg.data.coco import load_coco
from trashseg.data.dataset import EpochBatches, SegmentationDataset, make_loader

STRONG = AugmentConfig(
    horizontal_flip=Augmentation(p=0.5), shift_scale_rotate=ShiftScaleRotateConfig(p=1.0)
)


@pytest.fixture(scope="module")
def cache(sample: Path) -> Cache:
    return open_cache(load_coco(sample), 64)


def _augmented(cache: Cache, seed: int = 0) -> SegmentationDataset:
    return SegmentationDataset(cache, build_augment(STRONG, 64), seed)


def _epoch(cache: Cache, seed: int, epoch: int, workers: int = 0) -> list[tuple[Tensor, Tensor]]:
    batches = EpochBatches(np.arange(20), 6, seed, shuffle=True)
    loader = make_loader(_augmented(cache, seed), batches, workers, pin=False)
    batches.epoch = epoch
    return list(loader)


def _equal(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    assert len(first) == len(second) > 0
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def test_without_augmentation_an_item_is_the_cached_photo_channels_first(cache: Cache) -> None:
    image, mask = SegmentationDataset(cache)[1, 5]
    assert image.shape == (3, 64, 64)
    assert image.dtype == mask.dtype == torch.uint8
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), cache.images[5])
    np.testing.assert_array_equal(mask.numpy(), cache.masks[5])


def test_an_item_is_the_same_however_often_and_after_whatever_it_is_drawn(cache: Cache) -> None:
    dataset = _augmented(cache)
    first = dataset[3, 7]
    for other in ((1, 0), (3, 8), (4, 7)):
        _ = dataset[other]
    again, elsewhere = dataset[3, 7], _augmented(cache)[3, 7]
    assert _equal([first], [again])
    assert _equal([first], [elsewhere])


@pytest.mark.parametrize("other", [(0, 4, 7), (0, 3, 8), (1, 3, 7)], ids=["epoch", "photo", "seed"])
def test_epoch_photo_and_seed_each_change_the_draw(
    cache: Cache, other: tuple[int, int, int]
) -> None:
    seed, epoch, position = other
    same_photo = np.copy(cache.images)
    same_photo[:] = cache.images[7]  # so that only the augmentation can differ
    flat = Cache(cache.key, same_photo, cache.masks, cache.class_pixels)
    first, second = _augmented(flat)[3, 7][0], _augmented(flat, seed)[epoch, position][0]
    assert not torch.equal(first, second)


def test_an_epoch_is_the_same_again_and_unlike_other_epochs_and_seeds(cache: Cache) -> None:
    assert _equal(_epoch(cache, seed=2, epoch=5), _epoch(cache, seed=2, epoch=5))
    assert not _equal(_epoch(cache, seed=2, epoch=5), _epoch(cache, seed=2, epoch=6))
    assert not _equal(_epoch(cache, seed=2, epoch=5), _epoch(cache, seed=3, epoch=5))


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(cache: Cache) -> None:
    alone = _epoch(cache, seed=2, epoch=5)
    assert _equal(alone, _epoch(cache, seed=2, epoch=5, workers=2))
    assert _equal(alone, _epoch(cache, seed=2, epoch=5, workers=1))


@pytest.mark.slow
def test_workers_that_live_on_hear_of_the_next_epoch(cache: Cache) -> None:
    batches = EpochBatches(np.arange(20), 6, 2, shuffle=True)
    loader = make_loader(_augmented(cache, 2), batches, 2, pin=False)
    for epoch in (1, 2, 3):
        batches.epoch = epoch
        assert _equal(list(loader), _epoch(cache, seed=2, epoch=epoch))


def test_validation_is_in_order_and_complete(cache: Cache) -> None:
    positions = np.array([4, 2, 9, 11, 3])
    batches = EpochBatches(positions, 2, shuffle=False)
    drawn = list(make_loader(SegmentationDataset(cache), batches, 0, pin=False))
    assert [len(images) for images, _ in drawn] == [2, 2, 1]
    masks = torch.cat([masks for _, masks in drawn]).numpy()
    np.testing.assert_array_equal(masks, cache.masks[positions])


@given(count=st.integers(1, 40), size=st.integers(2, 9), seed=st.integers(0, 9))
def test_a_shuffled_epoch_has_only_whole_batches_of_different_photos(
    count: int, size: int, seed: int
) -> None:
    positions = np.arange(100, 100 + count)
    batches = EpochBatches(positions, size, seed, shuffle=True)
    batches.epoch = 3
    drawn = list(batches)
    assert len(drawn) == len(batches) == count // size
    assert all(len(batch) == size for batch in drawn)
    photos = [position for batch in drawn for epoch, position in batch if epoch == 3]
    assert len(photos) == len(set(photos)) == count // size * size
    assert set(photos) <= set(positions.tolist())


@given(count=st.integers(1, 40), size=st.integers(2, 9))
def test_an_epoch_in_order_has_every_photo_once(count: int, size: int) -> None:
    batches = EpochBatches(np.arange(count), size, shuffle=False)
    drawn = list(batches)
    assert len(drawn) == len(batches)
    assert [position for batch in drawn for _, position in batch] == list(range(count))


def test_what_is_left_out_of_one_epoch_is_in_another() -> None:
    batches = EpochBatches(np.arange(7), 3, shuffle=True)  # one of 7 is left out each time
    left_out = set()
    for epoch in range(1, 31):
        batches.epoch = epoch
        left_out |= set(range(7)) - {position for batch in batches for _, position in batch}
    assert left_out == set(range(7))
