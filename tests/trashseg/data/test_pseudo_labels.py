"""Pseudo labels: how much a pixel counts, by hand; what a draw ignores; what is kept and what is not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trashseg.config_augment import CopyPasteConfig
from trashseg.config_pseudo import FolderPseudoConfig
from trashseg.data.cache import Cache, open_cache
from trashseg.data.coco import IGNORED, load_coco
from trashseg.data.copy_paste import build_copy_paste
from trashseg.data.dataset import SegmentationDataset
from trashseg.data.pseudo_labels import (
    PseudoLabels,
    drop_pseudo_labels,
    open_pseudo_labels,
    pixel_weights,
    write_pseudo_labels,
)
from trashseg.data.unlabelled import Pool
from trashseg.errors import DataError

CONFIG = FolderPseudoConfig(folder="photos", threshold=0.75, band=0.5, least_sure=0.5)
SIDE = 64


def _weights(confidence: list[float], **changes: float) -> list[int]:
    config = CONFIG.model_copy(update=changes)
    return pixel_weights(np.array(confidence, dtype=np.float32), config).tolist()


def test_a_pixel_counts_fully_from_the_threshold_on_and_less_below_it() -> None:
    # 0.75 is the threshold and 0.25 the end of the band; 0.5 is half way: 127.5, to the even 128;
    # 0.3 is a tenth of the way up: 25.5, which float32 puts a little above
    assert _weights([1.0, 0.75, 0.5, 0.3, 0.25, 0.1]) == [255, 255, 128, 26, 0, 0]


def test_without_a_band_the_threshold_is_hard() -> None:
    assert _weights([0.75, 0.7499, 1.0, 0.0], band=0.0) == [255, 0, 255, 0]


def test_a_band_that_reaches_below_zero_leaves_every_pixel_something() -> None:
    # from 0.5 down to -0.5: at 0 it is half way
    assert _weights([0.5, 0.0], threshold=0.5, band=1.0) == [255, 128]


# --- draws -------------------------------------------------------------------------------------


def _labels(weights: NDArray[np.uint8]) -> PseudoLabels:
    """Photos whose pixels are their number; labelled 1 all over; the second of three takes no part."""
    count, side, _ = weights.shape
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(side, 1).repeat(side, 2)
    return PseudoLabels(
        "0" * 16,
        np.array([0, 2]),
        images.repeat(3, 3),
        np.ones((count, side, side), dtype=np.uint8),
        weights,
    )


def test_a_pixel_is_seen_in_as_many_draws_as_it_counts() -> None:
    counts = np.array([0, 51, 128, 255], dtype=np.uint8)  # 0, 0.2, 0.502 and 1
    labels = _labels(counts.reshape(1, 2, 2).repeat(3, 0))
    generator = np.random.default_rng(0)
    masks = np.stack([labels.draw(0, generator)[1].ravel() for _ in range(4000)])
    assert set(np.unique(masks)) == {1, IGNORED}
    seen = (masks == 1).mean(axis=0)
    assert seen[0] == 0
    assert seen[3] == 1
    np.testing.assert_allclose(seen[1:3], counts[1:3] / 255, atol=0.03)  # 4 deviations of 0.008


def test_a_draw_that_keeps_a_pixel_keeps_all_that_count_more() -> None:
    counts = np.linspace(0, 255, 16, dtype=np.uint8).reshape(1, 4, 4)
    labels, generator = _labels(counts.repeat(3, 0)), np.random.default_rng(0)
    kept = {int((labels.draw(0, generator)[1] == 1).sum()) for _ in range(200)}
    assert len(kept) > 5
    for _ in range(20):
        seen = (labels.draw(0, generator)[1] == 1).ravel()
        assert seen.tolist() == sorted(seen.tolist())


def test_a_photo_that_takes_no_part_is_passed_over() -> None:
    labels = _labels(np.full((3, 2, 2), 255, dtype=np.uint8))
    generator = np.random.default_rng(0)
    assert len(labels) == 2
    assert [int(labels.draw(index, generator)[0][0, 0, 0]) for index in (0, 1)] == [0, 2]


# --- in a training set -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(sample: Path) -> Cache:
    return open_cache(load_coco(sample), SIDE)


def test_positions_after_the_labelled_photos_are_pseudo_labelled(cache: Cache) -> None:
    weights = np.zeros((3, SIDE, SIDE), dtype=np.uint8)
    weights[:, :, :32] = 255
    plain, mixed = (SegmentationDataset(cache, pseudo=p) for p in (None, _labels(weights)))
    for position in (0, 19):
        assert all(
            np.array_equal(one, other)
            for one, other in zip(plain[1, position], mixed[1, position], strict=True)
        )
    image, mask = mixed[1, 21]
    assert np.unique(image).tolist() == [2]
    assert np.unique(mask[:, :32]).tolist() == [1]
    assert np.unique(mask[:, 32:]).tolist() == [IGNORED]


def test_another_epoch_and_another_draw_in_one_epoch_see_other_pixels(cache: Cache) -> None:
    counts = np.linspace(0, 255, SIDE * SIDE).astype(np.uint8).reshape(1, SIDE, SIDE)
    dataset = SegmentationDataset(cache, seed=3, pseudo=_labels(counts.repeat(3, 0)))
    seen = [int((dataset[item][1] == 1).sum()) for item in [(1, 20), (2, 20), (1, 20, 1), (1, 21)]]
    assert len(set(seen)) == 4
    again = SegmentationDataset(cache, seed=3, pseudo=_labels(counts.repeat(3, 0)))
    assert int((again[1, 20][1] == 1).sum()) == seen[0]


def test_objects_with_truth_are_pasted_over_pixels_to_ignore(cache: Cache, sample: Path) -> None:
    config = CopyPasteConfig(p=1.0, classes="all")
    paste = build_copy_paste(config, load_coco(sample), cache, np.arange(20))
    nothing = _labels(np.zeros((3, SIDE, SIDE), dtype=np.uint8))
    dataset = SegmentationDataset(cache, copy_paste=paste, pseudo=nothing)
    classes = {int(value) for epoch in range(5) for value in np.unique(dataset[epoch, 20][1])}
    assert IGNORED in classes
    assert classes - {IGNORED}
    assert 0 not in classes


# --- on disk -----------------------------------------------------------------------------------


@pytest.fixture
def pool(sample: Path) -> Pool:
    dataset = load_coco(sample)
    return Pool(replace(dataset, json_files=(), photos=dataset.photos[:3]), ("copy.jpg",))


def _answers(
    *confidences: float,
) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Photo k is of class k all over, its left half as sure as said, its right half of nothing."""
    answers = []
    for index, value in enumerate(confidences):
        confidence = np.zeros((4, 4), dtype=np.float32)
        confidence[:, :2] = value
        answers.append((np.full((4, 4), index, dtype=np.uint8), confidence))
    return answers


def test_photos_take_part_whose_pixels_count_enough_on_average(pool: Pool, tmp_path: Path) -> None:
    # half of the pixels count 1, 0.5 and 0.9 (0.7 is 0.9 of the way from 0.25 to 0.75)
    config = CONFIG.model_copy(update={"least_sure": 0.4})
    write_pseudo_labels(tmp_path / "p", pool, _answers(0.9, 0.5, 0.7), 4, config, "mine")
    about = json.loads((tmp_path / "p" / "photos.json").read_text())
    assert [photo["sure"] for photo in about["photos"]] == pytest.approx(
        [0.5, 0.25, 0.45], abs=2e-3
    )
    assert [photo["takes_part"] for photo in about["photos"]] == [True, False, True]
    assert about["photos"][1]["file_name"] == pool.photos.photos[1].file_name
    assert about["show_training_photos"] == ["copy.jpg"]
    images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    labels = open_pseudo_labels(tmp_path / "p", images, "mine")
    assert labels is not None
    assert labels.positions.tolist() == [0, 2]
    assert labels.key == about["key"]
    _, mask = labels.draw(0, np.random.default_rng(0))
    assert mask.tolist() == [[0, 0, IGNORED, IGNORED]] * 4


def test_answers_of_another_network_are_not_taken(pool: Pool, tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    assert open_pseudo_labels(tmp_path / "p", images, "mine") is None
    write_pseudo_labels(tmp_path / "p", pool, _answers(1, 1, 1), 4, CONFIG, "theirs")
    assert open_pseudo_labels(tmp_path / "p", images, "mine") is None
    write_pseudo_labels(tmp_path / "p", pool, _answers(1, 1, 1), 4, CONFIG, "mine")
    assert open_pseudo_labels(tmp_path / "p", images, "mine") is not None
    drop_pseudo_labels(tmp_path / "p")
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["photos.json"]
    assert open_pseudo_labels(tmp_path / "p", images, "mine") is None


def test_other_answers_have_another_key(pool: Pool, tmp_path: Path) -> None:
    keys = []
    for number, config in enumerate((CONFIG, CONFIG, CONFIG.model_copy(update={"band": 0.3}))):
        write_pseudo_labels(tmp_path / str(number), pool, _answers(1, 0.7, 1), 4, config, "mine")
        keys.append(json.loads((tmp_path / str(number) / "photos.json").read_text())["key"])
    assert keys[0] == keys[1] != keys[2]


def test_a_network_that_is_sure_of_nothing_is_an_error_and_leaves_nothing(
    pool: Pool, tmp_path: Path
) -> None:
    # half of the pixels count 128 of 255
    message = (
        r"^pseudo\.least_sure: the network is sure of 0\.251 of the surest photo's pixels, less than "
        r"0\.5: lower it, or pseudo\.threshold$"
    )
    with pytest.raises(DataError, match=message):
        write_pseudo_labels(tmp_path / "p", pool, _answers(0.5, 0.3, 0.2), 4, CONFIG, "mine")
    assert list(tmp_path.iterdir()) == []
