"""Cross-validation folds: complete, seeded, stratified, and read from the user's own file."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trashseg.config import DataConfig
from trashseg.data.coco import Annotation, CocoDataset, Photo, load_coco
from trashseg.data.folds import Folds, make_folds, read_folds, stratify, write_folds
from trashseg.errors import DataError


def _dataset(holds: list[list[int]], classes: int = 3) -> CocoDataset:
    """Photos 10.jpg, 11.jpg, ... (ids from 10), each with an object of each of its classes."""
    photos = tuple(
        Photo(i, f"{i}.jpg", Path(f"{i}.jpg"), 8, 8, tuple(Annotation(0, c, []) for c in held))
        for i, held in enumerate(holds, start=10)
    )
    names = tuple(f"class {index}" for index in range(classes + 1))
    return CocoDataset(Path("photos"), (), names, tuple(range(1, classes + 1)), photos)


def _folds_file(folder: Path, tree: Any) -> Path:
    path = folder / "folds.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return path


# --- stratified --------------------------------------------------------------------------------


_labels = st.lists(st.sets(st.integers(1, 3)).map(sorted), min_size=4, max_size=40)


@given(holds=_labels, count=st.integers(2, 6), seed=st.integers(0, 99))
def test_every_photo_is_validated_in_exactly_one_fold(
    holds: list[list[int]], count: int, seed: int
) -> None:
    dataset = _dataset(holds)
    if len(holds) < 2 * count:  # photos may be too few for every fold to get one
        with suppress(DataError):
            stratify(dataset, count, seed)
        return
    folds = stratify(dataset, count, seed)
    everything = np.arange(len(holds))
    held_out = []
    for fold in range(count):
        train, validation = folds.split(fold)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), everything)
        assert len(validation) > 0
        held_out.append(validation)
    np.testing.assert_array_equal(np.sort(np.concatenate(held_out)), everything)


def test_one_seed_gives_one_split_and_another_seed_another(sample: Path) -> None:
    dataset = load_coco(sample)
    first, again, other = (stratify(dataset, 4, seed).fold_of for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_frequent_classes_are_spread_over_the_folds_of_the_sample(sample: Path, seed: int) -> None:
    dataset = load_coco(sample)
    folds = stratify(dataset, 4, seed)
    assert np.bincount(folds.fold_of).tolist() == pytest.approx([5, 5, 5, 5], abs=2)
    frequent = 0
    for index in range(1, len(dataset.classes)):
        holds = [any(a.class_index == index for a in p.annotations) for p in dataset.photos]
        if sum(holds) < 4:
            continue  # rarer than a photo a fold: cannot be in all of them
        frequent += 1
        in_fold = np.bincount(folds.fold_of, weights=holds, minlength=4)
        assert np.abs(in_fold - sum(holds) / 4).max() <= 2, dataset.classes[index]
        assert in_fold.min() >= 1 or sum(holds) < 8, dataset.classes[index]
    assert frequent >= 5


def test_classes_of_equal_numbers_are_divided_evenly() -> None:
    # 8 photos of each of 3 classes and 8 without objects, over 4 folds: 2 of each in every fold
    dataset = _dataset([[1]] * 8 + [[2]] * 8 + [[3]] * 8 + [[]] * 8)
    folds = stratify(dataset, 4, seed=0)
    for start in (0, 8, 16, 24):
        assert np.bincount(folds.fold_of[start : start + 8]).tolist() == [2, 2, 2, 2]


def test_rare_classes_of_real_photos_are_spread_too(taco: Path) -> None:
    dataset = load_coco(taco)
    folds = stratify(dataset, 5, seed=0)
    for index in range(1, len(dataset.classes)):
        holds = [any(a.class_index == index for a in p.annotations) for p in dataset.photos]
        in_fold = np.bincount(folds.fold_of, weights=holds, minlength=5)
        assert np.abs(in_fold - sum(holds) / 5).max() <= 2, dataset.classes[index]


# --- photos that show the same picture ---------------------------------------------------------


def test_a_group_stays_in_one_fold_and_counts_as_one_photo_with_the_classes_of_all() -> None:
    # 12 photos of class 1, of which three are one picture: 10 groups in 2 folds, 5 and 5
    groups = np.arange(12)
    groups[[4, 9]] = 2
    folds = stratify(_dataset([[1]] * 12), 2, seed=0, groups=groups)
    assert len(set(folds.fold_of[[2, 4, 9]].tolist())) == 1
    first_of_each = np.unique(groups)
    assert np.bincount(folds.fold_of[first_of_each]).tolist() == [5, 5]
    # and a copy's class counts for the group: class 2 is in photos 1 and 3 only, which are copies
    # of 0 and 2; as groups {0, 1} and {2, 3} are the only ones with it, each fold gets one
    holds = [[1], [2], [1], [2], *[[1]] * 8]
    paired = stratify(_dataset(holds), 2, seed=0, groups=np.array([0, 0, 2, 2, *range(4, 12)]))
    assert sorted(paired.fold_of[[1, 3]].tolist()) == [0, 1]


@given(holds=_labels, seed=st.integers(0, 9))
def test_without_copies_the_folds_are_those_of_single_photos(
    holds: list[list[int]], seed: int
) -> None:
    alone = stratify(_dataset(holds), 2, seed).fold_of
    grouped = stratify(_dataset(holds), 2, seed, groups=np.arange(len(holds))).fold_of
    np.testing.assert_array_equal(alone, grouped)


def test_copies_in_a_folder_of_photos_get_one_fold_unless_that_is_switched_off(
    sample: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sample, tmp_path / "photos"))
    tree = json.loads((folder / "train_all.json").read_text())
    for image in tree["images"][:6]:  # as photos 20 to 25, at another size and quality
        photo = cv2.imread(str(folder / image["file_name"]))
        larger = cv2.resize(photo, (96, 96), interpolation=cv2.INTER_LINEAR)
        name = f"photos/{20 + image['id']:06d}.jpg"
        cv2.imwrite(str(folder / name), larger, [cv2.IMWRITE_JPEG_QUALITY, 60])
        copy = {"id": 20 + image["id"], "file_name": name, "width": 96, "height": 96}
        tree["images"].append(copy)
    (folder / "train_all.json").write_text(json.dumps(tree))
    dataset = load_coco(folder)
    together = make_folds(dataset, DataConfig(folds=4))
    np.testing.assert_array_equal(together.fold_of[20:], together.fold_of[:6])
    np.testing.assert_array_equal(  # the others are dealt as if there were no copies
        together.fold_of[:20], make_folds(load_coco(sample), DataConfig(folds=4)).fold_of
    )
    apart = make_folds(dataset, DataConfig(folds=4, keep_duplicates_together=False))
    np.testing.assert_array_equal(apart.fold_of, stratify(dataset, 4, seed=0).fold_of)
    assert (apart.fold_of[20:] != apart.fold_of[:6]).any()


def test_folds_of_real_photos_are_those_without_looking_for_copies(taco: Path) -> None:
    dataset = load_coco(taco)
    together = make_folds(dataset, DataConfig())
    np.testing.assert_array_equal(together.fold_of, stratify(dataset, 5, seed=0).fold_of)


def test_fewer_pictures_than_folds_are_refused_however_many_copies_there_are() -> None:
    message = "has 6 photos but 2 that show different pictures, fewer than 3 folds"
    with pytest.raises(DataError, match=message):
        stratify(_dataset([[1]] * 6), 3, seed=0, groups=np.array([0, 0, 0, 3, 3, 3]))


def test_fewer_photos_than_folds_is_refused() -> None:
    with pytest.raises(DataError, match="has 3 photos, fewer than 4 folds: add photos or lower"):
        stratify(_dataset([[1], [2], [3]]), 4, seed=0)


@pytest.mark.parametrize("fold", [-1, 2])
def test_a_fold_that_does_not_exist_is_refused(fold: int) -> None:
    folds = Folds(np.array([0, 1, 0]), count=2)
    with pytest.raises(DataError, match=f"fold {fold}: there are folds 0 to 1"):
        folds.split(fold)


def test_a_split_lists_training_and_validation_positions() -> None:
    train, validation = Folds(np.array([0, 1, 1, 0, 2]), count=3).split(1)
    assert train.tolist() == [0, 3, 4]
    assert validation.tolist() == [1, 2]


# --- from a file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lists",
    [
        [["12.jpg", "10.jpg"], ["11.jpg", "13.jpg"]],
        [[12, 10], [11, 13]],
        [["12.jpg", 10], [11, "13.jpg"]],
    ],
    ids=["names", "ids", "both"],
)
def test_a_file_names_the_photos_of_each_fold(tmp_path: Path, lists: Any) -> None:
    folds = read_folds(_folds_file(tmp_path, {"folds": lists}), _dataset([[1]] * 4))
    assert folds.fold_of.tolist() == [0, 1, 0, 1]
    assert folds.count == 2


def test_written_folds_are_read_back_as_they_were(tmp_path: Path, sample: Path) -> None:
    dataset = load_coco(sample)
    folds = stratify(dataset, 3, seed=5)
    write_folds(tmp_path / "folds.json", dataset, folds)
    again = read_folds(tmp_path / "folds.json", dataset)
    np.testing.assert_array_equal(again.fold_of, folds.fold_of)
    assert again.count == 3


def test_make_folds_takes_the_file_where_one_is_given(tmp_path: Path) -> None:
    dataset = _dataset([[1]] * 4)
    file = _folds_file(tmp_path, {"folds": [[10, 11, 12], [13]]})
    given = make_folds(dataset, DataConfig(folds=2, folds_file=str(file)))
    assert given.fold_of.tolist() == [0, 0, 0, 1]
    drawn = make_folds(dataset, DataConfig(folds=2, folds_seed=4, keep_duplicates_together=False))
    np.testing.assert_array_equal(drawn.fold_of, stratify(dataset, 2, seed=4).fold_of)
    with pytest.raises(DataError, match=r"has 2 folds, data.folds is 3: make them equal"):
        make_folds(dataset, DataConfig(folds=3, folds_file=str(file)))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"folds": [[10, 11], [12, 99]]}, "photo 99 is not in photos: remove it"),
        ({"folds": [["10.jpg", 11], [12, "no.jpg"]]}, "photo 'no.jpg' is not in photos: remove it"),
        ({"folds": [[10, 11], [12, 10, 13]]}, "photo 10 is in two folds: keep it in one"),
        ({"folds": [[10, "10.jpg", 11], [12, 13]]}, "photo '10.jpg' is in two folds"),
        ({"folds": [[10, 11], [13]]}, "photo 12.jpg is in no fold: add it to one"),
        ({"parts": []}, "'folds'"),
        ({"folds": 3}, "mend it"),
        ([[10, 11], [12, 13]], "mend it"),
        ("{", "mend it"),
        ({"folds": [[10, 11], [12, [13]]]}, r"photo \[13\] is not in photos: remove it"),
    ],
)
def test_a_file_that_does_not_fit_the_photos_is_refused(
    tmp_path: Path, tree: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_folds(_folds_file(tmp_path, tree), _dataset([[1]] * 4))
    assert str(tmp_path / "folds.json") in str(caught.value)


def test_an_empty_fold_in_a_file_is_refused(tmp_path: Path) -> None:
    file = _folds_file(tmp_path, {"folds": [[10, 11, 12, 13], []]})
    with pytest.raises(DataError, match="fold 1 has no photo: move some to it"):
        read_folds(file, _dataset([[1]] * 4))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json: no such file: check data.folds_file"):
        read_folds(tmp_path / "none.json", _dataset([[1]]))
