"""Near duplicates: copies are found however they were stored, other photos are not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from trashseg.data import duplicates as duplicates_module
from trashseg.data.coco import load_coco, read_photo
from trashseg.data.duplicates import (
    difference_hash,
    group,
    near_duplicate_groups,
    near_pairs,
    read_thumbnail,
    same_picture,
)
from trashseg.data.sample import write_sample
from trashseg.errors import DataError

Image = NDArray[np.uint8]


def _resized(width: int, height: int) -> Callable[[Image], Image]:
    return lambda image: np.asarray(cv2.resize(image, (width, height)), dtype=np.uint8)


def _lit(gain: float, gamma: float = 1.0) -> Callable[[Image], Image]:
    return lambda image: np.asarray(255 * gain * (image / 255) ** gamma, dtype=np.uint8)


def _noisy(image: Image) -> Image:
    noise = np.random.default_rng(0).normal(0, 10, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), dtype=np.uint8)


def _as_it_is(image: Image) -> Image:
    return image


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes") / "photos"
    write_sample(folder, images=12, size=256)
    return [photo.path for photo in load_coco(folder).photos]


COPIES: dict[str, tuple[str, Callable[[Image], Image]]] = {
    "JPEG of low quality": (".jpg", _as_it_is),
    "PNG": (".png", _as_it_is),
    "half the size": (".jpg", _resized(128, 128)),
    "larger": (".png", _resized(300, 300)),
    "another aspect": (".png", _resized(256, 192)),
    "darker": (".png", _lit(0.6)),
    "gamma of 0.7": (".png", _lit(1.0, 0.7)),
    "gamma of 1.4": (".png", _lit(1.0, 1.4)),
    "noise": (".png", _noisy),
}  # fmt: skip


def _write(path: Path, image: Image) -> Path:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 30] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), bgr, quality)
    return path


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_and_belongs_to_its_original_alone(
    scenes: list[Path], tmp_path: Path, kind: str
) -> None:
    suffix, change = COPIES[kind]
    copies = [
        _write(tmp_path / f"{position}{suffix}", change(read_photo(path)))
        for position, path in enumerate(scenes)
    ]
    pairs = near_pairs([read_thumbnail(path) for path in (*scenes, *copies)])
    assert pairs == [(position, 12 + position) for position in range(12)]


def test_other_objects_on_the_same_ground_are_another_photo() -> None:
    """As a camera above a belt sees them: the ground is most of the thumbnail."""
    rng = np.random.default_rng(3)
    ground = np.tile(np.linspace(40, 200, 32), (32, 1)) + rng.normal(0, 6, (32, 32))
    one, other = ground.copy(), ground.copy()
    one[4:12, 4:12] = rng.uniform(0, 255, (8, 8))
    other[20:28, 16:24] = rng.uniform(0, 255, (8, 8))
    one, other = one.astype(np.uint8), other.astype(np.uint8)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8
    assert not same_picture(one, other)
    assert same_picture(one, (one * 0.7 + 20).astype(np.uint8))


def test_photos_of_one_colour_are_copies_only_where_they_are_equal() -> None:
    black, grey = (np.full((32, 32), value, dtype=np.uint8) for value in (0, 90))
    assert near_pairs([black, grey, black]) == [(0, 2)]


def test_the_hash_is_of_64_bits_of_which_each_says_where_it_gets_lighter() -> None:
    rising = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    assert difference_hash(rising) == 2**64 - 1  # lighter to the right in every row and step
    assert difference_hash(rising[:, ::-1].copy()) == 0
    half = rising.copy()
    half[16:] = half[16:, ::-1]
    assert difference_hash(half) == (2**32 - 1) << 32  # the upper four rows come first


def test_groups_join_over_others_and_are_numbered_by_their_first() -> None:
    assert group(7, [(1, 4), (4, 6), (2, 5)]).tolist() == [0, 1, 2, 3, 1, 2, 1]
    assert group(4, [(2, 3), (1, 3), (0, 1)]).tolist() == [0, 0, 0, 0]
    assert group(2, []).tolist() == [0, 1]


def test_built_in_scenes_have_no_copies(sample: Path) -> None:
    assert near_duplicate_groups(load_coco(sample)).tolist() == list(range(20))


def test_real_photos_have_no_copies(taco: Path) -> None:
    assert near_duplicate_groups(load_coco(taco)).tolist() == list(range(209))


def test_photos_are_read_once_and_again_when_one_changes(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, root = Path(shutil.copytree(sample, tmp_path / "photos")), tmp_path / "cache"
    read = []

    def counted(path: Path) -> duplicates_module.Thumbnail:
        read.append(path.name)
        return read_thumbnail(path)

    monkeypatch.setattr(duplicates_module, "read_thumbnail", counted)
    first = near_duplicate_groups(load_coco(folder), root)
    np.testing.assert_array_equal(near_duplicate_groups(load_coco(folder), root), first)
    assert len(read) == 20
    shutil.copy(folder / "photos/000003.jpg", folder / "photos/000011.jpg")
    changed = near_duplicate_groups(load_coco(folder), root)
    assert len(read) == 40
    assert np.flatnonzero(changed != first).tolist() == [11]
    assert changed[11] == 3


def test_a_photo_that_cannot_be_decoded_is_named(sample: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sample, tmp_path / "photos"))
    (folder / "photos/000004.jpg").write_text("this is no photo")
    with pytest.raises(DataError, match=r"000004\.jpg: is not a readable photo: replace it"):
        near_duplicate_groups(load_coco(folder), tmp_path / "cache")
