"""The photos that the networks of a fold may label: never one of which they saw the truth."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from trashseg.config import TrainConfig
from trashseg.config_file import sections_of
from trashseg.config_pseudo import FolderPseudoConfig, ValidationPseudoConfig
from trashseg.data.cache import open_cache
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, stratify
from trashseg.data.sample import write_sample
from trashseg.data.unlabelled import SOURCES, Pool, open_images, open_pool
from trashseg.errors import DataError

COPIED = (2, 7, 11)  # of the labelled photos


@pytest.fixture(scope="module")
def dataset(sample: Path) -> CocoDataset:
    return load_coco(sample)


@pytest.fixture(scope="module")
def folds(dataset: CocoDataset) -> Folds:
    return stratify(dataset, 5, seed=0)


@pytest.fixture(scope="module")
def unlabelled(dataset: CocoDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four other scenes; labelled ones under other names, as they are, smaller, darker."""
    folder = tmp_path_factory.mktemp("unlabelled") / "photos"
    write_sample(folder, images=4, size=64, seed=9)
    photos = [cv2.imread(str(dataset.photos[position].path)) for position in COPIED]
    shutil.copy(dataset.photos[COPIED[0]].path, folder / "copy.jpg")
    cv2.imwrite(
        str(folder / "smaller.png"), cv2.resize(photos[1], (48, 48), interpolation=cv2.INTER_AREA)
    )
    cv2.imwrite(str(folder / "darker.png"), (photos[2] * 0.8).astype(np.uint8))
    return folder


def _names(pool: Pool) -> set[str]:
    return {photo.file_name for photo in pool.photos.photos}


def test_every_source_that_a_configuration_can_name_exists() -> None:
    named = sections_of(TrainConfig.model_fields["pseudo"].annotation)
    assert set(SOURCES) | {"none"} == set(named)


@pytest.mark.parametrize("fold", range(5))
def test_a_copy_of_a_labelled_photo_is_left_out_unless_its_truth_is_hidden_from_the_fold(
    dataset: CocoDataset, folds: Folds, unlabelled: Path, fold: int
) -> None:
    pool = open_pool(FolderPseudoConfig(folder=str(unlabelled)), dataset, folds, fold)
    copies = dict(zip(("copy.jpg", "smaller.png", "darker.png"), COPIED, strict=True))
    seen = {name for name, position in copies.items() if folds.fold_of[position] != fold}
    assert set(pool.left_out) == seen
    assert _names(pool) == {f"photos/{number:06d}.jpg" for number in range(4)} | (
        set(copies) - seen
    )


def test_the_labelled_folder_itself_offers_each_fold_its_validation_photos(
    dataset: CocoDataset, folds: Folds
) -> None:
    for fold in range(5):
        held_out = {dataset.photos[p].file_name for p in folds.split(fold)[1]}
        pool = open_pool(FolderPseudoConfig(folder=str(dataset.root)), dataset, folds, fold)
        assert _names(pool) == held_out
        assert len(pool.left_out) == 20 - len(held_out)


def test_a_photo_that_another_one_links_to_a_training_photo_is_left_out(
    dataset: CocoDataset, unlabelled: Path, tmp_path: Path
) -> None:
    # photos 2 and 7 show the same picture, in different folds by a file of the user's
    data = Path(shutil.copytree(dataset.root, tmp_path / "data"))
    shutil.copy(data / dataset.photos[2].file_name, data / dataset.photos[7].file_name)
    fold_of = np.arange(20) % 5  # photo 2 is in fold 2, photo 7 too
    fold_of[7] = 3
    config = FolderPseudoConfig(folder=str(unlabelled))
    for fold in (2, 3):
        pool = open_pool(config, load_coco(data), Folds(fold_of, 5), fold)
        assert "copy.jpg" in pool.left_out
    fold_of[7] = 2
    assert "copy.jpg" in _names(open_pool(config, load_coco(data), Folds(fold_of, 5), 2))


def test_validation_photos_come_without_their_truth(dataset: CocoDataset, folds: Folds) -> None:
    pool = open_pool(ValidationPseudoConfig(), dataset, folds, fold=1)
    held_out = [dataset.photos[p] for p in folds.split(1)[1]]
    assert [photo.path for photo in pool.photos.photos] == [photo.path for photo in held_out]
    assert any(photo.annotations for photo in held_out)
    assert not pool.photos.labelled
    assert pool.photos.json_files == ()


def test_a_validation_photo_that_is_a_training_photo_too_is_left_out(
    dataset: CocoDataset, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(dataset.root, tmp_path / "data"))
    shutil.copy(data / dataset.photos[2].file_name, data / dataset.photos[3].file_name)
    fold_of = np.arange(20) % 5
    pool = open_pool(ValidationPseudoConfig(), load_coco(data), Folds(fold_of, 5), fold=3)
    assert pool.left_out == (dataset.photos[3].file_name,)


def test_a_folder_of_training_photos_alone_is_refused(
    dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    train, _ = folds.split(0)
    for position in train[:2]:
        shutil.copy(dataset.photos[position].path, tmp_path)
    with pytest.raises(DataError, match="all 2 photos show what fold 0 is trained on: add others"):
        open_pool(FolderPseudoConfig(folder=str(tmp_path)), dataset, folds, 0)


def test_a_missing_or_empty_folder_is_refused_by_the_name_of_its_setting(
    dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"has no photos .*: check pseudo\.folder"):
        open_pool(FolderPseudoConfig(folder=str(tmp_path)), dataset, folds, 0)
    with pytest.raises(DataError, match=r"none: no such folder: check pseudo\.folder"):
        open_pool(FolderPseudoConfig(folder=str(tmp_path / "none")), dataset, folds, 0)


# --- pixels ------------------------------------------------------------------------------------


def test_the_pixels_are_those_that_training_and_prediction_see(
    dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    pool = open_pool(ValidationPseudoConfig(), dataset, folds, fold=1)
    images = open_images(pool.photos, 32, tmp_path)
    assert images.shape == (len(pool.photos.photos), 32, 32, 3)
    np.testing.assert_array_equal(images, open_cache(dataset, 32).images[folds.split(1)[1]])


def test_photos_are_decoded_once_and_again_when_one_changes(
    unlabelled: Path, dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unlabelled, tmp_path / "photos"))
    root, config = tmp_path / "cache", FolderPseudoConfig(folder=str(folder))
    first = np.array(open_images(open_pool(config, dataset, folds, 0).photos, 32, root))
    [file] = root.glob("*.npy")
    before = file.stat().st_mtime_ns
    open_images(open_pool(config, dataset, folds, 0).photos, 32, root)
    assert file.stat().st_mtime_ns == before
    shutil.copy(folder / "photos/000001.jpg", folder / "photos/000000.jpg")
    changed = open_images(open_pool(config, dataset, folds, 0).photos, 32, root)
    assert len(list(root.glob("*.npy"))) == 2
    assert not np.array_equal(changed, first)


def test_a_photo_that_cannot_be_decoded_is_named_and_leaves_nothing(
    dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    pool = open_pool(ValidationPseudoConfig(), dataset, folds, fold=1)
    broken = pool.photos.photos[1]
    (tmp_path / "broken.jpg").write_text(json.dumps("no photo"))
    photos = (*pool.photos.photos[:1], type(broken)(9, "broken.jpg", tmp_path / "broken.jpg", 0, 0))
    with pytest.raises(DataError, match=r"broken\.jpg: is not a readable photo: replace it"):
        open_images(type(pool.photos)(tmp_path, (), (), (), photos), 32, tmp_path / "cache")
    assert not [*(tmp_path / "cache").glob("*.npy"), *(tmp_path / "cache").glob("*.partial")]
