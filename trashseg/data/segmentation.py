"""A COCO segmentation, polygons or either form of RLE, checked and drawn as pixels.

pycocotools is the reference for what a polygon covers, but it believes what it is given: coordinates
that are not finite, or far away, take all of the machine's memory, and run lengths that end too soon
read beyond their own. What goes into it is checked first.
"""

import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

LARGEST = 2**53  # up to there a float counts in ones
FAR = 100  # times the photo's longer side; memory grows with the length of an edge


def decode(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """(height, width) bool of the pixels that it covers; ValueError as `check` raises."""
    check(segmentation, height, width)
    if not isinstance(segmentation, dict):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], str | bytes):
        rle = segmentation
    else:
        rle = coco_mask.frPyObjects(segmentation, height, width)
    return np.asarray(coco_mask.decode(rle), dtype=bool)


def check(segmentation: Any, height: int, width: int) -> None:
    """ValueError, saying what is wrong, where it cannot be drawn on a photo of that size."""
    if isinstance(segmentation, dict):
        _check_rle(segmentation, height, width)
        return
    if not segmentation:
        raise ValueError("a polygon needs at least three x, y pairs")
    if not isinstance(segmentation, list | tuple):
        raise ValueError(f"{reprlib.repr(segmentation)} is neither polygons nor RLE")
    for ring in segmentation:
        _check_ring(ring, FAR * max(height, width))


def _check_ring(ring: Any, far: float) -> None:
    if not isinstance(ring, list | tuple) or not all(map(is_number, ring)):
        raise ValueError("a polygon is a list of finite numbers x, y, x, y, ...")
    if len(ring) < 6 or len(ring) % 2:
        raise ValueError("a polygon needs at least three x, y pairs")
    if max(map(abs, ring)) > far:
        raise ValueError(f"its coordinate {max(ring, key=abs):g} is far from the photo")


def is_number(value: Any) -> bool:
    """Whether it is a number that can be counted with; json knows true, NaN and 400 digits too."""
    counts = isinstance(value, int | float) and not isinstance(value, bool)
    return counts and -LARGEST <= value <= LARGEST  # which NaN is not


def _check_rle(rle: dict[str, Any], height: int, width: int) -> None:
    counts, size = rle.get("counts"), rle.get("size")
    if size != [height, width]:
        raise ValueError(f"its RLE is for {reprlib.repr(size)}, the photo is {[height, width]}")
    if isinstance(counts, str | bytes):
        counts = run_lengths(counts.encode() if isinstance(counts, str) else counts)
    if not isinstance(counts, list) or not all(
        is_number(run) and run == int(run) for run in counts
    ):
        raise ValueError("its RLE has no counts, or some that are not whole numbers")
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError("its RLE does not cover the photo")


def run_lengths(text: bytes) -> list[int]:
    """Run lengths of a compressed RLE: base-32 digits from '0' on, lowest first, 32 for "more follow";
    from the fourth run on, the difference to the last but one (pycocotools, maskApi.c, rleFrString)."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        digit = character - ord("0")
        if not 0 <= digit < 64:
            raise ValueError("its RLE holds characters that COCO's do not")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:  # negative
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its RLE ends within a number")
    return runs
