"""The dense CRF on images so small that what it should do is plain."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trashseg.config import CrfConfig
from trashseg.crf import refine

HEIGHT, WIDTH, EDGE = 12, 20, 10


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """Dark on the left, bright from column EDGE on."""
    image = np.full((HEIGHT, WIDTH, 3), 30, dtype=np.uint8)
    image[:, EDGE:] = 220
    return image


@pytest.fixture
def unsure() -> NDArray[np.float32]:
    """Class 1 is right of the edge with probability 0.7; in two columns beside it the vote errs."""
    right = np.full((HEIGHT, WIDTH), 0.3, dtype=np.float32)
    right[:, EDGE - 2 :] = 0.7  # two columns too far to the left
    return np.stack([1 - right, right])


def test_refined_probabilities_sum_to_one(
    unsure: NDArray[np.float32], image: NDArray[np.uint8]
) -> None:
    three = np.concatenate([unsure * 0.8, np.full((1, HEIGHT, WIDTH), 0.2, dtype=np.float32)])
    refined = refine(three, image, CrfConfig())
    assert refined.shape == (3, HEIGHT, WIDTH)
    assert refined.dtype == np.float32
    assert (refined >= 0).all()
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-4)


def test_the_border_moves_to_the_edge_of_the_colours(
    unsure: NDArray[np.float32], image: NDArray[np.uint8]
) -> None:
    refined = refine(unsure, image, CrfConfig())
    assert (unsure.argmax(axis=0)[:, EDGE - 2 : EDGE] == 1).all()
    assert (refined.argmax(axis=0) == (image[..., 0] > 100)).all()
    assert refined.max(axis=0).mean() > unsure.max(axis=0).mean()  # and it is surer


def test_without_an_edge_in_the_photo_nothing_pulls_the_border_there(
    unsure: NDArray[np.float32], image: NDArray[np.uint8]
) -> None:
    flat = np.full_like(image, 128)
    crf = CrfConfig(gaussian_weight=0.0)  # only colours count, and they are all the same
    labels = refine(unsure, flat, crf).argmax(axis=0)
    assert len(np.unique(labels)) == 1  # the majority takes everything
    assert labels[0, 0] == 1  # 12 of 20 columns


def test_kernels_of_weight_zero_change_nothing(
    unsure: NDArray[np.float32], image: NDArray[np.uint8]
) -> None:
    refined = refine(unsure, image, CrfConfig(gaussian_weight=0.0, bilateral_weight=0.0))
    np.testing.assert_allclose(refined, unsure, atol=1e-4)


def test_the_arguments_stay_as_they_were(
    unsure: NDArray[np.float32], image: NDArray[np.uint8]
) -> None:
    before = unsure.copy(), image.copy()
    refine(unsure, image, CrfConfig())
    assert (unsure == before[0]).all()
    assert (image == before[1]).all()


def test_probabilities_of_exactly_zero_and_one_are_taken(image: NDArray[np.uint8]) -> None:
    right = (image[..., 0] > 100).astype(np.float32)
    refined = refine(np.stack([1 - right, right]), image, CrfConfig())
    assert np.isfinite(refined).all()
    assert (refined.argmax(axis=0) == right).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((WIDTH, HEIGHT, 3), dtype=np.uint8),  # sides the wrong way round
        np.zeros((3, HEIGHT, WIDTH), dtype=np.uint8),  # channels first
        np.zeros((HEIGHT, WIDTH), dtype=np.uint8),  # grey
        np.zeros((HEIGHT, WIDTH, 3), dtype=np.float32),  # normalised
    ],
)
def test_an_image_of_another_shape_or_type_is_refused(
    wrong: NDArray[np.uint8], unsure: NDArray[np.float32]
) -> None:
    with pytest.raises(ValueError, match=r"expected \(12, 20, 3\) uint8"):
        refine(unsure, wrong, CrfConfig())
