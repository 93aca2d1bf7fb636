"""Copy-paste: what is cut out, where it lands, and that no validation photo is ever cut from."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trashseg.augment import build_augment
from trashseg.config import TrainConfig
from trashseg.config_augment import AugmentConfig, CopyPasteConfig
from trashseg.data.cache import Cache, open_cache
from trashseg.data.coco import Annotation, CocoDataset, Photo, load_coco, rasterize_object
from trashseg.data.copy_paste import (
    CopyPaste,
    SceneObject,
    build_copy_paste,
    check_classes,
    find_objects,
    pasted_classes,
)
from trashseg.data.dataset import SegmentationDataset
from trashseg.data.folds import stratify
from trashseg.data.sample import write_sample
from trashseg.device import Resources
from trashseg.errors import ConfigError
from trashseg.train import build_trainer

NAMES = ("Background", "paper", "metal", "battery")
SIZE = 8
ALWAYS: dict[str, Any] = {"p": 1.0, "objects": 1, "scale": 0.0, "flip": 0.0}


def make_cache(photos: int = 2) -> Cache:
    """Photo i has the colour 50 + i everywhere but in rows 1 to 2 and columns 4 to 6 of photo 0: there
    it is 201 to 206, row by row, of class 3 but for the last pixel."""
    images = np.repeat(np.arange(photos, dtype=np.uint8) + 50, SIZE * SIZE * 3)
    images = images.reshape(photos, SIZE, SIZE, 3)
    images[0, 1:3, 4:7] = np.arange(201, 207, dtype=np.uint8).reshape(2, 3, 1)
    masks = np.zeros((photos, SIZE, SIZE), dtype=np.uint8)
    masks[0, 1:3, 4:7] = 3
    masks[0, 2, 6] = 0
    return Cache("made", images, masks, np.zeros((photos, 4), dtype=np.int64))


PIXELS = np.array([[True, True, True], [True, True, False]])
BATTERY = SceneObject(position=0, class_index=3, top=1, left=4, pixels=PIXELS)


def paste(position: int = 1, seed: int = 0, **settings: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    cache = make_cache()
    config = CopyPasteConfig.model_validate({**ALWAYS, **settings})
    image, mask = np.array(cache.images[position]), np.array(cache.masks[position])
    generator = np.random.default_rng(seed)
    CopyPaste(config, cache, [BATTERY])(image, mask, position, generator)
    return image, mask


# --- pasting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_an_object_lands_whole_with_its_pixels_and_its_class(seed: int) -> None:
    image, mask = paste(seed=seed)
    rows, columns = np.nonzero(mask)
    top, left = rows.min(), columns.min()
    expected = np.zeros((SIZE, SIZE), dtype=np.uint8)
    expected[top, left : left + 3] = 3
    expected[top + 1, left : left + 2] = 3
    np.testing.assert_array_equal(mask, expected)
    look = np.full((SIZE, SIZE), 51)
    look[top, left : left + 3] = (201, 202, 203)
    look[top + 1, left : left + 2] = (204, 205)  # 206 is not of the object: what was there stays
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], look)


def test_an_object_lands_in_every_place_where_it_fits() -> None:
    corners = set()
    for seed in range(600):
        rows, columns = np.nonzero(paste(seed=seed)[1])
        corners.add((int(rows.min()), int(columns.min())))
    assert corners == {(top, left) for top in range(7) for left in range(6)}


def test_a_mirrored_object_is_mirrored_with_its_mask() -> None:
    image, mask = paste(flip=1.0)
    rows, columns = np.nonzero(mask)
    top, left = rows.min(), columns.min()
    assert image[top, left : left + 3, 0].tolist() == [203, 202, 201]
    assert mask[top, left : left + 3].tolist() == [3, 3, 3]
    assert image[top + 1, left : left + 3, 0].tolist() == [51, 205, 204]
    assert mask[top + 1, left : left + 3].tolist() == [0, 3, 3]


def test_sizes_change_by_up_to_the_scale_and_never_beyond_the_photo() -> None:
    widths = []
    for seed in range(60):
        _, columns = np.nonzero(paste(seed=seed, scale=0.6)[1])
        widths.append(int(np.ptp(columns)) + 1)
    # 3 pixels times 0.4 to 1.6, rounded
    assert set(widths) == {1, 2, 3, 4, 5}
    wide = SceneObject(0, 1, 0, 0, np.ones((2, SIZE), dtype=bool))  # as wide as the photo
    cache = make_cache()
    pasting = CopyPaste(CopyPasteConfig(p=1.0, objects=1, scale=0.9), cache, [wide])
    for seed in range(20):
        image, mask = np.array(cache.images[1]), np.array(cache.masks[1])
        pasting(image, mask, 1, np.random.default_rng(seed))
        assert mask.any()


def test_a_photo_is_never_given_its_own_object() -> None:
    for seed in range(10):
        np.testing.assert_array_equal(paste(position=0, seed=seed)[1], make_cache().masks[0])


def test_classes_come_equally_often_however_many_objects_they_have() -> None:
    cache = make_cache(photos=12)
    one = np.ones((1, 1), dtype=bool)
    common = [SceneObject(position, 1, 0, 0, one) for position in range(1, 11)]
    pasting = CopyPaste(
        CopyPasteConfig(p=1.0, objects=1), cache, [*common, SceneObject(0, 3, 0, 0, one)]
    )
    drawn = []
    for seed in range(200):
        mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
        pasting(np.array(cache.images[11]), mask, 11, np.random.default_rng(seed))
        drawn.append(int(mask.max()))
    assert 70 <= drawn.count(3) <= 130  # 100 expected, deviation 7
    assert drawn.count(1) + drawn.count(3) == 200


def test_every_object_of_other_photos_can_come_and_none_of_its_own() -> None:
    cache = make_cache(photos=5)
    for position in range(5):
        cache.images[position, 0, 0] = 100 + position
    one = np.ones((1, 1), dtype=bool)
    objects = [SceneObject(position, 1, 0, 0, one) for position in (3, 0, 1, 1, 4, 2)]
    pasting = CopyPaste(CopyPasteConfig(p=1.0, objects=1, scale=0.0), cache, objects)
    for own in range(5):
        seen = set()
        for seed in range(80):
            image, mask = np.array(cache.images[own]), np.zeros((SIZE, SIZE), dtype=np.uint8)
            pasting(image, mask, own, np.random.default_rng(seed))
            seen.add(int(image[mask > 0][0, 0]) - 100)
        assert seen == set(range(5)) - {own}


def test_the_share_of_photos_and_the_number_of_objects_are_those_set() -> None:
    changed = sum(paste(seed=seed, p=0.25)[1].any() for seed in range(200))
    assert 25 <= changed <= 75  # 50 expected, deviation 6
    cache = make_cache()
    dot = SceneObject(0, 2, 1, 4, np.ones((1, 1), dtype=bool))
    pasting = CopyPaste(CopyPasteConfig(p=1.0, objects=3), cache, [dot])
    counts = set()
    for seed in range(60):
        mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
        pasting(np.array(cache.images[1]), mask, 1, np.random.default_rng(seed))
        counts.add(int((mask > 0).sum()))
    assert counts == {1, 2, 3}


# --- which classes -----------------------------------------------------------------------------


def test_rare_classes_have_fewer_pixels_than_the_median_class() -> None:
    names = ("Background", "a", "b", "c", "d", "e")
    pixels = np.array([9000, 50, 10, 20, 0, 70])  # of 10, 20, 50 and 70 the median is 35
    assert pasted_classes("rare", names, pixels) == {2, 3}
    assert pasted_classes("all", names, pixels) == {1, 2, 3, 5}
    assert pasted_classes("a", names, pixels) == {1}
    assert pasted_classes(("a", "d"), names, pixels) == {1, 4}
    assert pasted_classes("rare", names, np.array([9000, 0, 0, 0, 0, 0])) == set()


@pytest.mark.parametrize("chosen", ["batery", ("paper", "batery")])
def test_an_unknown_class_is_refused_and_the_nearest_named(chosen: Any) -> None:
    message = r"augment.copy_paste.classes: unknown class 'batery', did you mean 'battery'\?"
    with pytest.raises(ConfigError, match=message):
        check_classes(chosen, NAMES)


def test_the_background_cannot_be_pasted() -> None:
    with pytest.raises(ConfigError, match="unknown class 'Background'"):
        check_classes("Background", NAMES)


def test_a_class_may_be_called_rare() -> None:
    names = ("Background", "rare", "common")
    assert pasted_classes(("rare",), names, np.array([9, 8, 7])) == {1}
    assert pasted_classes("rare", names, np.array([9, 8, 7])) == {2}


# --- cutting out -------------------------------------------------------------------------------


def test_an_object_at_the_networks_size_is_where_its_polygon_is() -> None:
    photo = Photo(1, "a.jpg", Path("a.jpg"), width=40, height=20)
    # columns 10 to 30 of 40 and rows 5 to 15 of 20 become 2 to 6 and 2 to 6 of 8
    square = [[10.0, 5.0, 30.0, 5.0, 30.0, 15.0, 10.0, 15.0]]
    expected = np.zeros((8, 8), dtype=bool)
    expected[2:6, 2:6] = True
    drawn = rasterize_object(photo, Annotation(1, 1, square), 8)
    assert drawn.dtype == np.bool_
    np.testing.assert_array_equal(drawn, expected)
    # the same as runs down the columns of 20 rows: ten columns and 5 rows off, then 10 on and 10 off
    whole = {"size": [20, 40], "counts": [10 * 20 + 5, *[10] * 39, 5 + 10 * 20]}
    np.testing.assert_array_equal(rasterize_object(photo, Annotation(1, 1, whole), 8), expected)


def test_one_object_is_one_annotation_without_what_lies_before_it() -> None:
    # a sheet of paper of 6 x 6 pixels and on it a can of 4 x 4, which hides its middle
    corners = [(1, 1, 7, 7), (2, 2, 6, 6)]
    rings = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in corners]
    annotations = (Annotation(1, 1, rings[0]), Annotation(2, 2, rings[1]))
    photo = Photo(1, "a.jpg", Path("a.jpg"), SIZE, SIZE, annotations)
    dataset = CocoDataset(Path(), (), NAMES, (1, 2, 3), (photo,))
    mask = np.zeros((1, SIZE, SIZE), dtype=np.uint8)
    mask[0, 1:7, 1:7], mask[0, 2:6, 2:6] = 1, 2
    cache = Cache("made", np.zeros((1, SIZE, SIZE, 3), np.uint8), mask, np.array([[28, 20, 16, 0]]))
    paper, can = find_objects(dataset, cache, np.array([0]), {1, 2, 3})
    assert (paper.class_index, paper.top, paper.left, paper.pixels.shape) == (1, 1, 1, (6, 6))
    assert paper.pixels.sum() == 36 - 16
    assert not paper.pixels[1:5, 1:5].any()
    assert (can.class_index, can.top, can.left) == (2, 2, 2)
    assert can.pixels.all()
    assert can.pixels.shape == (4, 4)
    assert [found.class_index for found in find_objects(dataset, cache, np.array([0]), {2})] == [2]
    mask[0, 2] = 0  # 12 pixels of the can are left: too few
    found = find_objects(dataset, cache, np.array([0]), {2})
    assert found == []


def test_objects_of_real_scenes_cover_what_their_class_map_shows(sample: Path) -> None:
    dataset = load_coco(sample)
    cache = open_cache(dataset, 64)
    objects = find_objects(dataset, cache, np.arange(20), set(range(1, len(dataset.classes))))
    covered = np.zeros_like(cache.masks)
    for item in objects:
        height, width = item.pixels.shape
        place = slice(item.top, item.top + height), slice(item.left, item.left + width)
        shown = cache.masks[item.position][place]
        assert (shown[item.pixels] == item.class_index).all()
        covered[item.position][place][item.pixels] = item.class_index
    assert (covered[covered > 0] == cache.masks[covered > 0]).all()
    assert (covered > 0).sum() > 0.95 * (cache.masks > 0).sum()


# --- in a training -----------------------------------------------------------------------------


def test_switched_off_there_is_none(sample: Path) -> None:
    dataset = load_coco(sample)
    cache = open_cache(dataset, 64)
    assert build_copy_paste(CopyPasteConfig(), dataset, cache, np.arange(20)) is None


def test_draws_depend_on_seed_epoch_and_photo_alone(sample: Path) -> None:
    dataset = load_coco(sample)
    cache = open_cache(dataset, 64)
    config = AugmentConfig.model_validate({"copy_paste": {"p": 1.0, "classes": "all"}}).copy_paste

    def photos(seed: int) -> SegmentationDataset:
        pasting = build_copy_paste(config, dataset, cache, np.arange(20))
        return SegmentationDataset(cache, None, seed, pasting)

    first = photos(0)
    one = first[1, 5]
    for other in ((1, 6), (2, 5), (1, 5, 1)):
        assert not torch.equal(first[other][0], one[0])
    again, elsewhere = first[1, 5], photos(0)[1, 5]
    for part in range(2):
        assert torch.equal(one[part], again[part])
        assert torch.equal(one[part], elsewhere[part])
    assert not torch.equal(photos(1)[1, 5][0], one[0])


def test_pasting_leaves_the_draws_of_other_augmentations_alone(sample: Path) -> None:
    """One photo, with an object or without: it is mirrored in the same epochs."""
    dataset = load_coco(sample)
    cache = open_cache(dataset, 64)
    off = {name: {"p": 0.0} for name in AugmentConfig.model_fields}
    config = AugmentConfig.model_validate({**off, "horizontal_flip": {"p": 0.5}})
    pasting = build_copy_paste(
        CopyPasteConfig(p=1.0, objects=1, classes="all"), dataset, cache, np.arange(20)
    )
    plain = SegmentationDataset(cache, build_augment(config, 64), 0)
    pasted = SegmentationDataset(cache, build_augment(config, 64), 0, pasting)
    for epoch in range(1, 9):
        kept = (plain[epoch, 3][0] == pasted[epoch, 3][0]).float().mean()
        assert kept > 0.5


def test_no_pixel_of_a_validation_photo_ever_reaches_a_training_batch(tmp_path: Path) -> None:
    """Validation photos are painted magenta, which no training photo holds."""
    write_sample(tmp_path, images=20, size=64, seed=0)
    dataset = load_coco(tmp_path)
    folds = stratify(dataset, count=5, seed=0)
    train, held_out = folds.split(0)
    magenta = np.full((64, 64, 3), (255, 0, 255), dtype=np.uint8)
    for position in held_out:
        cv2.imwrite(str(dataset.photos[position].path), magenta)

    def is_magenta(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return (images[..., 0] > 220) & (images[..., 1] < 40) & (images[..., 2] > 220)

    off = {name: {"p": 0.0} for name in AugmentConfig.model_fields}
    pasting = {"p": 1.0, "classes": "all", "objects": 5, "scale": 0.5}
    config = TrainConfig.model_validate(
        {
            "batch_size": 8,
            "data": {"image_size": 64},
            "model": {"weights": "none"},
            "augment": {**off, "copy_paste": pasting},
        }
    )
    dataset = load_coco(tmp_path)
    trainer = build_trainer(config, dataset, folds, 0, Resources(1, torch.device("cpu")))
    assert is_magenta(trainer.cache.images[held_out]).all()
    assert not is_magenta(trainer.cache.images[train]).any()
    pasted = 0
    for epoch in range(1, 31):
        trainer.train_batches.epoch = epoch
        for (images, masks), items in zip(trainer.train_loader, trainer.train_batches, strict=True):
            assert not is_magenta(images.permute(0, 2, 3, 1).numpy()).any()
            before = trainer.cache.masks[[item[1] for item in items]]
            pasted += int((masks.numpy() != before).any(axis=(1, 2)).sum())
    assert pasted > 400  # of 480 photos; some objects land on their own class
    everywhere = build_copy_paste(config.augment.copy_paste, dataset, trainer.cache, np.arange(20))
    leaking = SegmentationDataset(trainer.cache, None, 0, everywhere)
    draws = [leaking[epoch, int(train[0])][0] for epoch in range(1, 31)]
    assert any(is_magenta(image.permute(1, 2, 0).numpy()).any() for image in draws)  # it would show
