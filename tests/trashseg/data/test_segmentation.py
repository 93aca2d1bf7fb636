"""Segmentations: what pycocotools would crash on, or read beyond its end, is refused before."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from trashseg.data.segmentation import check, decode, run_lengths


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_both_forms_of_rle_give_back_the_pixels_that_they_were_made_of(
    pixels: np.ndarray[Any, np.dtype[np.bool_]],
) -> None:
    height, width = pixels.shape
    rle = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    np.testing.assert_array_equal(decode(rle, height, width), pixels)
    as_text = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    np.testing.assert_array_equal(decode(as_text, height, width), pixels)
    runs = run_lengths(rle["counts"])
    np.testing.assert_array_equal(
        decode({"size": [height, width], "counts": runs}, height, width), pixels
    )


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ([[1, 1, 5, 1, float("nan"), 5]], "list of finite numbers"),
        ([[1, 1, 5, 1, float("inf"), 5]], "list of finite numbers"),
        ([[1, 1, 5, 1, None, 5]], "list of finite numbers"),
        ([[1, 1, 5, 1, 1e12, 5]], r"its coordinate 1e\+12 is far from the photo"),
        ([1, 1, 5, 1, 5, 5], "list of finite numbers"),
        ("polygon", "'polygon' is neither polygons nor RLE"),
        ({"size": [8, 8], "counts": ""}, "does not cover the photo"),
        ({"size": [8, 8], "counts": "0"}, "does not cover the photo"),
        ({"size": [8, 8], "counts": "zzz"}, "holds characters that COCO's do not"),
        ({"size": [8, 8], "counts": "é"}, "holds characters that COCO's do not"),
        ({"size": [8, 8], "counts": "P"}, "ends within a number"),  # 32: more would follow
        ({"size": [8, 8], "counts": [-5, 69]}, "does not cover the photo"),
        ({"size": [8, 8], "counts": [1.5, 62.5]}, "not whole numbers"),
        ({"size": [8, 8], "counts": ["a", 63]}, "not whole numbers"),
        ({"size": [8, 8]}, "has no counts"),
        ({"size": [4, 16], "counts": [0, 64]}, r"its RLE is for \[4, 16\], the photo is \[8, 8\]"),
        ({"counts": [0, 64]}, r"its RLE is for None, the photo is \[8, 8\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_before_pycocotools_sees_it(
    segmentation: Any, problem: str
) -> None:
    for refuse in (check, decode):
        with pytest.raises(ValueError, match=problem):
            refuse(segmentation, 8, 8)


@given(st.binary(max_size=30))
def test_no_text_is_read_beyond_its_end(text: bytes) -> None:
    """Garbage is refused, or it happens to cover the photo exactly."""
    rle = {"size": [6, 5], "counts": text}
    try:
        pixels = decode(rle, 6, 5)
    except ValueError:
        return
    assert sum(run_lengths(text)) == 30
    assert pixels.sum() == sum(run_lengths(text)[1::2])


def test_polygons_that_leave_the_photo_are_drawn_as_far_as_it_goes() -> None:
    beyond = [[-20, -20, 20, -20, 20, 20, -20, 20]]
    assert decode(beyond, 8, 8).all()
