"""Colours, overlays and the comparison that every epoch draws."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trashseg.pictures import comparison, overlay, palette, write_image


@pytest.mark.parametrize("classes", [1, 2, 11, 61, 256])
def test_every_class_has_a_colour_of_its_own_and_the_background_is_black(classes: int) -> None:
    colours = palette(classes)
    assert colours.shape == (classes, 3)
    assert colours.dtype == np.uint8
    assert colours[0].tolist() == [0, 0, 0]
    assert len({tuple(colour) for colour in colours.tolist()}) == classes


@given(few=st.integers(1, 40), more=st.integers(0, 40))
def test_a_class_keeps_its_colour_when_classes_are_added(few: int, more: int) -> None:
    assert (palette(few + more)[:few] == palette(few)).all()


def test_an_overlay_leaves_the_background_untouched_and_tints_objects() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[2:4, 3:6] = 2
    before = photo.copy()
    tinted = overlay(photo, mask, classes=3, opacity=0.5)
    assert tinted.dtype == np.uint8
    assert (tinted[mask == 0] == photo[mask == 0]).all()
    half_way = (photo[mask == 2].astype(float) + palette(3)[2]) / 2
    assert np.abs(tinted[mask == 2] - half_way).max() <= 1
    assert (photo == before).all()


def test_a_comparison_shows_photo_truth_and_prediction_under_captions() -> None:
    photo = np.full((64, 64, 3), 100, dtype=np.uint8)
    truth, predicted = (np.zeros((64, 64), dtype=np.uint8) for _ in range(2))
    truth[:, :32], predicted[:, 32:] = 1, 2
    picture = comparison(photo, truth, predicted, ["Background", "Bottle", "Bag"])
    # three panels of 64 enlarged to 256; 20 rows of captions above, one legend row below
    assert picture.shape == (20 + 256 + 20, 3 * 256, 3)
    row = picture[20 + 128]
    grey = [100, 100, 100]
    bottle, bag = (overlay(photo, np.full_like(truth, c), 3)[0, 0].tolist() for c in (1, 2))
    middles = [row[x].tolist() for x in (64, 192, 320, 448, 576, 704)]  # of each half panel
    assert middles == [grey, grey, bottle, grey, grey, bag]


def test_a_legend_names_each_class_that_occurs_in_its_colour() -> None:
    photo = np.zeros((256, 256, 3), dtype=np.uint8)
    truth = (np.arange(256) % 6).astype(np.uint8)[None].repeat(256, axis=0)
    picture = comparison(photo, truth, np.zeros_like(truth), [f"class {n}" for n in range(7)])
    legend = picture[20 + 256 :]
    assert legend.shape[0] == 40  # five classes, four in a row
    for place, index in enumerate((1, 2, 3, 4, 5)):
        x, y = (place % 4) * (3 * 256 // 4) + 12, (place // 4) * 20 + 10
        assert legend[y, x].tolist() == palette(7)[index].tolist()
    assert not (legend == palette(7)[6]).all(axis=2).any()


def test_a_comparison_of_background_alone_has_an_empty_legend() -> None:
    nothing = np.zeros((256, 256), dtype=np.uint8)
    picture = comparison(np.zeros((256, 256, 3), dtype=np.uint8), nothing, nothing, ["Background"])
    assert (picture[-20:] == 255).all()


def test_a_written_image_is_rgb_and_comes_back(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_image(tmp_path / "new" / "a.png", image)
    bgr = cv2.imread(str(tmp_path / "new" / "a.png"))
    assert bgr is not None
    assert (bgr[..., ::-1] == image).all()


def test_a_mask_is_written_with_its_class_numbers(tmp_path: Path) -> None:
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_image(tmp_path / "mask.png", mask)
    assert (cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED) == mask).all()
