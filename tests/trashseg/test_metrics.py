"""Segmentation scores against hand-counted confusion matrices and a naive loop."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from trashseg.counts import count_pixels
from trashseg.metrics import SegmentationScores, class_iou, count_on_device, mean_iou

# photo A: truth 0 0 1 1, predicted 0 1 1 1;  photo B: truth 0 0 0 0, predicted 0 0 0 2
TRUTH = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 0]]])  # (2, 1, 4)
PREDICTED = torch.tensor([[[0, 1, 1, 1]], [[0, 0, 0, 2]]])


def _scores(classes: str) -> dict[str, Any]:
    scores = SegmentationScores(classes)
    scores.update(PREDICTED, TRUTH)
    return scores.scores()


def test_the_confusion_matrix_has_truth_in_rows_and_prediction_in_columns() -> None:
    scores = SegmentationScores("abc")
    scores.update(PREDICTED, TRUTH)
    assert scores.confusion.tolist() == [[4, 1, 1], [0, 2, 0], [0, 0, 0]]
    assert scores.confusion.dtype == torch.int64


def test_miou_is_the_mean_over_classes_of_one_matrix_over_the_whole_set() -> None:
    # a: 4 hits of 6 true and 4 predicted: 4/6;  b: 2 hits, 2 true, 3 predicted: 2/3
    # c: predicted once, never true: 0/1
    scores = _scores("abc")
    assert scores["iou"] == pytest.approx({"a": 2 / 3, "b": 2 / 3, "c": 0.0})
    assert scores["miou"] == pytest.approx(4 / 9)


def test_miou_image_is_the_mean_over_photos_of_the_mean_over_their_classes() -> None:
    # A: a 1/2, b 2/3: 7/12;  B: a 3/4, c 0/1: 3/8;  (14/24 + 9/24) / 2
    assert _scores("abc")["miou_image"] == pytest.approx(23 / 48)


def test_pixel_accuracy_is_the_share_of_right_pixels() -> None:
    assert _scores("abc")["pixel_accuracy"] == pytest.approx(6 / 8)
    assert _scores("abc")["images"] == 2


def test_a_class_in_neither_truth_nor_prediction_is_none_and_left_out_of_the_means() -> None:
    with_d, without = _scores("abcd"), _scores("abc")
    assert with_d["iou"]["d"] is None
    assert with_d["miou"] == without["miou"]
    assert with_d["miou_image"] == without["miou_image"]


def test_a_class_that_is_only_in_the_truth_counts_as_zero() -> None:
    scores = SegmentationScores("ab")
    scores.update(torch.zeros(1, 1, 2, dtype=torch.uint8), torch.tensor([[[0, 1]]]))
    assert scores.scores()["iou"] == {"a": 0.5, "b": 0.0}
    assert scores.scores()["miou"] == 0.25


def test_before_any_photo_there_are_no_scores() -> None:
    assert SegmentationScores("ab").scores() == {
        "miou": None,
        "miou_image": None,
        "pixel_accuracy": None,
        "iou": {"a": None, "b": None},
        "images": 0,
    }


def test_a_perfect_prediction_scores_one() -> None:
    scores = SegmentationScores("abc")
    scores.update(TRUTH, TRUTH)
    result = scores.scores()
    assert (result["miou"], result["miou_image"], result["pixel_accuracy"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_class_indices_may_have_any_integer_type(dtype: torch.dtype) -> None:
    scores = SegmentationScores([str(index) for index in range(200)])
    truth = torch.full((1, 2, 2), 99)  # cell 99 * 200 + 98 overflows int8 and uint8
    scores.update((truth - 1).to(dtype), truth.to(dtype))
    assert scores.confusion[99, 98] == 4
    assert scores.confusion.sum() == 4


def test_counts_that_a_32_bit_float_cannot_hold_stay_exact() -> None:
    confusion = torch.tensor([[2**25 + 1, 1], [0, 1]])
    assert class_iou(confusion).tolist() == [(2**25 + 1) / (2**25 + 2), 0.5]
    assert mean_iou(confusion).dtype == torch.float64


# --- against a loop ----------------------------------------------------------------------------

CLASSES = 4
pairs = hnp.arrays(
    np.uint8,
    st.tuples(st.just(2), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    elements=st.integers(0, CLASSES - 1),
)  # (truth and prediction, photos, H, W)


def _naive_miou(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
    ious = []
    for index in range(CLASSES):
        union = int(((predicted == index) | (truth == index)).sum())
        if union:
            ious.append(int(((predicted == index) & (truth == index)).sum()) / union)
    return sum(ious) / len(ious)


@given(pair=pairs)
@settings(deadline=None)
def test_scores_equal_those_of_a_naive_loop(pair: NDArray[np.uint8]) -> None:
    truth, predicted = pair
    scores = SegmentationScores("abcd")
    scores.update(torch.from_numpy(predicted), torch.from_numpy(truth))
    result = scores.scores()
    per_photo = [_naive_miou(p, t) for p, t in zip(predicted, truth, strict=True)]
    assert result["miou"] == pytest.approx(_naive_miou(predicted, truth))
    assert result["miou_image"] == pytest.approx(sum(per_photo) / len(per_photo))
    assert result["pixel_accuracy"] == pytest.approx(float((predicted == truth).mean()))


@given(pair=pairs)
@settings(deadline=None)
def test_pixels_are_counted_alike_on_every_device(pair: NDArray[np.uint8]) -> None:
    truth, predicted = pair
    counted = count_pixels(truth, predicted, CLASSES)
    tensors = torch.from_numpy(predicted).long(), torch.from_numpy(truth)
    assert torch.equal(count_on_device(*tensors, CLASSES), torch.from_numpy(counted))


@pytest.mark.parametrize("shape", [(2, 256, 256), (2, 257, 257), (1, 300, 257)])
@pytest.mark.parametrize("classes", [2, 16, 17])
def test_large_photos_are_counted_as_small_ones_are(shape: tuple[int, ...], classes: int) -> None:
    """From 2^16 pixels on two are counted at once, where their number is even and cells fit 8 bits."""
    truth, predicted = np.random.default_rng(0).integers(0, classes, (2, *shape))
    truth[0, 0, :7] = classes - 1
    expected = np.zeros((shape[0], classes, classes), dtype=np.int64)
    for photo, (true, said) in enumerate(zip(truth, predicted, strict=True)):
        np.add.at(expected[photo], (true.ravel(), said.ravel()), 1)
    assert np.array_equal(count_pixels(truth.astype(np.uint8), predicted, classes), expected)


@given(pair=pairs, cut=st.integers(0, 5))
@settings(deadline=None)
def test_adding_batches_gives_what_one_batch_gives(pair: NDArray[np.uint8], cut: int) -> None:
    truth, predicted = torch.from_numpy(pair)
    whole, parts = SegmentationScores("abcd"), SegmentationScores("abcd")
    whole.update(predicted, truth)
    for part in (slice(None, cut), slice(cut, None)):
        parts.update(predicted[part], truth[part])
    assert torch.equal(whole.confusion, parts.confusion)
    one, other = whole.scores(), parts.scores()
    assert one.pop("miou_image") == pytest.approx(other.pop("miou_image"))  # a sum of floats
    assert one == other
