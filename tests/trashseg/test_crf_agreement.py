"""The dense CRF's own backends against pydensecrf, and the fast one without its shortcut."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trashseg.interpreted_kernels import (
    Scene,
    with_few_iterations,
    with_few_pixels,
)
from trashseg.config import CrfBackend, CrfConfig
from trashseg.crf import mean_field, refine, simd
from trashseg.crf.photo import refine_photo
from trashseg.data.coco import Photo, load_coco, rasterize, read_photo
from trashseg.masks import cpu_pool, stream

pytestmark = pytest.mark.usefixtures("large_programs")

LATTICE = CrfConfig()
OURS: list[CrfBackend] = ["lattice", "gpu"]
MAY_BE_OFF = mean_field.DRIFT  # of a probability


def _vote(truth: NDArray[np.uint8], classes: int, seed: int) -> NDArray[np.float32]:
    """(C, H, W) soft and partly wrong, but sure far from borders, as networks are: the truth blurred
    by a twentieth of the photo's side, a fifth of it noise in patches, to the power of 4; at a quarter
    of the size, and enlarged."""
    height, width = truth.shape
    small = (max(1, width // 4), max(1, height // 4))
    rng = np.random.default_rng(seed)
    planes = []
    for label in range(classes):
        sure = cv2.resize((truth == label).astype(np.float32), small)
        sure = cv2.GaussianBlur(sure, (0, 0), small[0] / 20)
        noise = cv2.resize(rng.random((6, 6), dtype=np.float32) ** 4, small)
        planes.append(cv2.resize(0.8 * sure + 0.2 * noise + 1e-6, (width, height)))
    votes = np.stack(planes) ** 4
    return np.asarray(votes / votes.sum(axis=0), dtype=np.float32)


def _scene(photo: Photo, classes: int) -> Scene:
    return _vote(rasterize(photo), classes, seed=photo.id), read_photo(photo.path)


def _off(scene: Scene, crf: CrfConfig) -> tuple[float, float]:
    """The largest difference of a probability, and the share of pixels with another label."""
    made = refine(*scene, crf)
    right = refine(*scene, crf.model_copy(update={"backend": "pydensecrf"}))
    return float(np.abs(made - right).max()), float((made.argmax(0) != right.argmax(0)).mean())


# --- the same as pydensecrf --------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(sample: Path) -> list[Scene]:
    dataset = load_coco(sample)
    return [_scene(photo, len(dataset.classes)) for photo in dataset.photos[:6]]


@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"iterations": 1},
        {"iterations": 2},
        {"iterations": 3},
        {"iterations": 50},
        {"gaussian_sxy": 1.0, "gaussian_weight": 10.0},
        {"gaussian_sxy": 10.0, "bilateral_sxy": 10.0, "bilateral_srgb": 20.0},
        {"bilateral_weight": 15.0, "bilateral_srgb": 2.0, "bilateral_sxy": 120.0},
        {"gaussian_weight": 0.0},
        {"bilateral_weight": 0.0},
    ],
    ids=str,
)
def test_on_built_in_scenes_all_backends_agree(
    changed: dict[str, float], backend: CrfBackend, scenes: list[Scene]
) -> None:
    crf = with_few_iterations(CrfConfig(backend=backend).model_copy(update=changed))
    for scene in with_few_pixels(scenes, crf):
        probability, labels = _off(scene, crf)
        assert probability < MAY_BE_OFF
        assert labels < 1e-3


@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize("classes", [2, 4, 5, 9, 17, 20])
@pytest.mark.parametrize("size", [(24, 24), (1, 40), (33, 7)])
def test_for_any_number_of_classes_and_any_size_all_backends_agree(
    classes: int, size: tuple[int, int], backend: CrfBackend
) -> None:
    rng = np.random.default_rng(classes)
    truth = cv2.resize(
        rng.integers(0, classes, (3, 3), dtype=np.uint8),
        size[::-1],
        interpolation=cv2.INTER_NEAREST,
    )
    # Bright: where the number of pixels is no multiple of 4, pydensecrf's lattice also has the vertices
    # of a black pixel in the corner.
    image = np.stack([100 + truth * 3, 120 + truth * 2, 250 - truth], axis=-1).astype(np.uint8)
    scene = _vote(truth, classes, seed=0), image
    probability, labels = _off(scene, with_few_iterations(CrfConfig(backend=backend)))
    assert probability < MAY_BE_OFF
    assert labels == 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", OURS)
def test_on_real_photos_all_backends_agree(backend: CrfBackend, taco: Path) -> None:
    dataset = load_coco(taco)
    scenes = [_scene(photo, len(dataset.classes)) for photo in dataset.photos[::70]]
    crf = with_few_iterations(CrfConfig(backend=backend))
    for scene in with_few_pixels(scenes, crf):
        probability, labels = _off(scene, crf)
        assert probability < MAY_BE_OFF
        assert labels < 1e-3


# --- pixels that are held ----------------------------------------------------------------------


def _with_none_held(scene: Scene) -> NDArray[np.float32]:
    return refine_photo(*scene, LATTICE, hold_decided=False)


def _undecided(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many pixels go on while the others are held."""
    sizes = []
    plain = mean_field.MeanField.iterate_others

    def count(field: mean_field.MeanField, iterations: int) -> None:
        sizes.append(int((~field.held).sum()))
        plain(field, iterations)

    monkeypatch.setattr(mean_field.MeanField, "iterate_others", count)
    refine(*scene, LATTICE)
    return sizes[0]


def test_pixels_that_are_decided_are_held(
    scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = scenes[0][1].shape[0] * scenes[0][1].shape[1]
    assert 0 < _undecided(scenes[0], monkeypatch) < pixels


def test_with_none_held_it_is_pydensecrf_to_four_digits(scenes: list[Scene]) -> None:
    for scene in scenes:
        right = refine(*scene, CrfConfig(backend="pydensecrf"))
        np.testing.assert_allclose(_with_none_held(scene), right, atol=1e-4)


def test_holding_pixels_changes_less_than_it_may(scenes: list[Scene]) -> None:
    for scene in scenes:
        held = refine(*scene, LATTICE)
        np.testing.assert_allclose(held, _with_none_held(scene), atol=mean_field.DRIFT)


def test_when_a_held_pixel_would_have_moved_all_is_done_again_without(
    scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mean_field, "DECIDED", 0.5)  # most of them will move
    assert (refine(*scenes[0], LATTICE) == _with_none_held(scenes[0])).all()


# --- processes, and what numba keeps -----------------------------------------------------------


@pytest.mark.slow
def test_the_result_is_the_same_in_one_process_and_in_several(scenes: list[Scene]) -> None:
    here = [refine(*scene, LATTICE) for scene in scenes]
    with cpu_pool(2) as pool:
        there = list(stream(pool, refine, ((*scene, LATTICE) for scene in scenes)))
    for mine, theirs in zip(here, there, strict=True):
        assert (mine == theirs).all()


def test_the_mean_field_is_compiled_anew_when_its_rows_change() -> None:
    code = Path(simd.__file__).read_bytes()
    assert hashlib.sha256(code).hexdigest()[:12] == mean_field.SIMD_VERSION
