"""What every backend of the dense CRF must do, on images so small that what it should do is plain."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trashseg.interpreted_kernels import (
    is_interpreted,
    with_few_iterations,
)
from trashseg.config import CrfBackend, CrfConfig
from trashseg.crf import BACKENDS, refine

pytestmark = pytest.mark.usefixtures("large_programs")

HEIGHT, WIDTH, EDGE = 12, 20, 10


@pytest.fixture(params=BACKENDS)
def crf(request: pytest.FixtureRequest) -> CrfConfig:
    backend: CrfBackend = request.param
    return with_few_iterations(CrfConfig(backend=backend))


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


def _drawn(classes: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(classes), (height, width)).transpose(2, 0, 1)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return probabilities.astype(np.float32), image


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 8, 9, 12, 16, 17, 20])
def test_refined_probabilities_sum_to_one_for_any_number_of_classes(
    classes: int, crf: CrfConfig
) -> None:
    refined = refine(*_drawn(classes, 9, 7), crf)
    assert refined.shape == (classes, 9, 7)
    assert refined.dtype == np.float32
    assert (refined >= 0).all()
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (65, 5), (5, 131)])
@pytest.mark.parametrize("iterations", [1, 2, 3, 10])
def test_images_of_any_size_and_any_number_of_iterations_are_refined(
    size: tuple[int, int], iterations: int, crf: CrfConfig
) -> None:
    probabilities, image = _drawn(3, *size)
    refined = refine(probabilities, image, crf.model_copy(update={"iterations": iterations}))
    assert refined.shape == probabilities.shape
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-4)


def test_the_border_moves_to_the_edge_of_the_colours(
    unsure: NDArray[np.float32], image: NDArray[np.uint8], crf: CrfConfig
) -> None:
    refined = refine(unsure, image, crf)
    assert (unsure.argmax(axis=0)[:, EDGE - 2 : EDGE] == 1).all()
    assert (refined.argmax(axis=0) == (image[..., 0] > 100)).all()
    assert refined.max(axis=0).mean() > unsure.max(axis=0).mean()  # and it is surer


def test_without_an_edge_in_the_photo_nothing_pulls_the_border_there(
    unsure: NDArray[np.float32], image: NDArray[np.uint8], crf: CrfConfig
) -> None:
    flat = np.full_like(image, 128)
    only_colours = crf.model_copy(update={"gaussian_weight": 0.0})  # and they are all the same
    labels = refine(unsure, flat, only_colours).argmax(axis=0)
    assert len(np.unique(labels)) == 1  # the majority takes everything
    assert labels[0, 0] == 1  # 12 of 20 columns


def test_kernels_of_weight_zero_change_nothing(
    unsure: NDArray[np.float32], image: NDArray[np.uint8], crf: CrfConfig
) -> None:
    off = crf.model_copy(update={"gaussian_weight": 0.0, "bilateral_weight": 0.0})
    np.testing.assert_allclose(refine(unsure, image, off), unsure, atol=1e-4)


def test_the_arguments_stay_as_they_were(
    unsure: NDArray[np.float32], image: NDArray[np.uint8], crf: CrfConfig
) -> None:
    before = unsure.copy(), image.copy()
    refine(unsure, image, crf)
    assert (unsure == before[0]).all()
    assert (image == before[1]).all()


def test_arguments_that_are_views_or_cannot_be_written_are_taken(
    unsure: NDArray[np.float32], image: NDArray[np.uint8], crf: CrfConfig
) -> None:
    refined = refine(unsure[::-1], image[..., ::-1], crf)  # the image is grey
    constant = unsure.copy()
    constant.flags.writeable = image.flags.writeable = False
    np.testing.assert_allclose(refine(constant, image, crf), refined[::-1], atol=1e-5)


def test_the_same_is_returned_every_time(crf: CrfConfig) -> None:
    drawn = _drawn(5, 30, 40)
    in_any_order = crf.backend == "gpu" and not is_interpreted(crf)
    off = np.abs(refine(*drawn, crf) - refine(*drawn, crf)).max()
    assert off <= (1e-5 if in_any_order else 0)


def test_probabilities_of_exactly_zero_and_one_are_taken(
    image: NDArray[np.uint8], crf: CrfConfig
) -> None:
    right = (image[..., 0] > 100).astype(np.float32)
    refined = refine(np.stack([1 - right, right, np.zeros_like(right)]), image, crf)
    assert np.isfinite(refined).all()
    assert (refined.argmax(axis=0) == right).all()
    assert refined[2].max() < 1e-4


def test_a_class_that_is_sure_everywhere_stays_so(image: NDArray[np.uint8], crf: CrfConfig) -> None:
    sure = np.full((4, HEIGHT, WIDTH), 0.001, dtype=np.float32)
    sure[2] = 0.997
    assert (refine(sure, image, crf)[2] > 0.9999).all()  # neighbours only agree


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
    wrong: NDArray[np.uint8], unsure: NDArray[np.float32], crf: CrfConfig
) -> None:
    with pytest.raises(ValueError, match=r"expected \(12, 20, 3\) uint8"):
        refine(unsure, wrong, crf)
