"""The data doctor: what is planted is found, by kind and id, and nothing else is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_bad_input import BAD_DATA
from tests.trashseg.data.defects import Spoiled, spoil_with_errors, spoil_with_warnings
from trashseg.config import DataConfig
from trashseg.data.cache import open_cache
from trashseg.data.coco import load_coco
from trashseg.data.doctor import Report, examine
from trashseg.data.doctor_page import write_page
from trashseg.data.findings import KINDS
from trashseg.data.folds import make_folds, stratify, write_folds
from trashseg.data.listing import read_listing

Tree = dict[str, Any]
CONFIG = DataConfig(image_size=32)


def _check(folder: Path, config: DataConfig = CONFIG) -> Report:
    return examine(read_listing(folder), config)


def _ids(report: Report) -> dict[str, tuple[str, ...]]:
    return {finding.name: finding.ids for finding in report.findings}


# --- what is found -----------------------------------------------------------------------------


def test_every_planted_defect_is_found_by_kind_and_id_and_nothing_else(
    sample: Path, tmp_path: Path
) -> None:
    data = Spoiled(sample, tmp_path / "data")
    spoil_with_warnings(data)
    spoil_with_errors(data)
    data.write()
    assert len(data.expected) == 24
    report = _check(data.folder)
    found = _ids(report)
    rare = found.pop("rare_class")  # 20 scenes are too few for some of the sample's classes too
    assert set(data.expected.pop("rare_class")) <= set(rare)
    assert {kind: sorted(ids) for kind, ids in found.items()} == {
        kind: sorted(ids) for kind, ids in data.expected.items()
    }
    # cases that are errors: one of each kind above but for a pair of objects, photos and rows
    assert report.errors == 16


def test_what_is_only_warned_of_is_what_training_takes(sample: Path, tmp_path: Path) -> None:
    data = Spoiled(sample, tmp_path / "data")
    spoil_with_warnings(data)
    data.write()
    report = _check(data.folder)
    assert {kind: ids for kind, ids in _ids(report).items() if kind != "rare_class"} == {
        kind: ids for kind, ids in data.expected.items() if kind != "rare_class"
    }
    assert report.errors == 0
    dataset = load_coco(data.folder)
    make_folds(dataset, CONFIG)
    assert len(open_cache(dataset, 32, tmp_path / "cache").images) == 24


def test_a_clean_sample_has_no_errors_and_its_counts_are_those_of_the_cache(
    sample: Path, tmp_path: Path
) -> None:
    report = _check(sample, DataConfig(image_size=64))
    assert report.errors == 0
    assert set(_ids(report)) <= {"rare_class", "unused_class"}
    dataset = load_coco(sample)
    cache = open_cache(dataset, 64, tmp_path)
    np.testing.assert_array_equal(report.balance.pixels.sum(axis=0), cache.class_pixels.sum(axis=0))
    folds = make_folds(dataset, DataConfig())
    for fold in range(5):
        held_out = [dataset.photos[position] for position in folds.split(fold)[1]]
        labels = [annotation.class_index for photo in held_out for annotation in photo.annotations]
        counted = np.bincount(labels, minlength=len(dataset.classes))
        np.testing.assert_array_equal(report.balance.objects[fold], counted)
        for index in range(1, len(dataset.classes)):
            having = sum(any(a.class_index == index for a in p.annotations) for p in held_out)
            assert report.balance.photos[fold, index] == having


@pytest.mark.parametrize(
    "case", [case for case in BAD_DATA if case not in ("no folder", "no json")]
)
def test_where_training_refuses_the_doctor_finds_an_error(
    sample: Path, tmp_path: Path, case: str
) -> None:
    data = Path(shutil.copytree(sample, tmp_path / "data"))
    BAD_DATA[case][0](data)
    assert _check(data).errors > 0


@pytest.mark.slow
def test_real_photos_have_no_errors_and_few_warnings(taco: Path) -> None:
    report = _check(taco, DataConfig(image_size=256))
    assert report.errors == 0
    found = _ids(report)
    assert set(found) == {"rare_class", "below_resolution", "self_collapsing"}
    assert found["rare_class"] == ("Battery", "Clothing")
    assert found["self_collapsing"] == ("66",)  # an outline that was drawn as two loops
    assert int(report.balance.photos.sum()) > 209


# --- json that cannot be used ------------------------------------------------------------------


def _rows(count: int, **fields: Any) -> list[Tree]:
    return [{"id": index, "name": f"class {index}", **fields} for index in range(count)]


JSON: dict[str, tuple[Callable[[Tree], Any], str, tuple[str, ...]]] = {
    "not a mapping": (lambda tree: [tree], "missing_list", ("train_all.json",) * 3),
    "no annotations": (
        lambda tree: {k: v for k, v in tree.items() if k != "annotations"},
        "missing_list",
        ("train_all.json",),
    ),
    "images are a mapping": (lambda tree: {**tree, "images": {}}, "missing_list", ("train_all.json",)),
    "no categories": (lambda tree: {**tree, "categories": []}, "category_count", ("train_all.json",)),
    "255 categories": (
        lambda tree: {**tree, "categories": _rows(255)},
        "category_count",
        ("train_all.json",),
    ),
    "no image": (
        lambda tree: {**tree, "images": [], "annotations": []},
        "no_photos",
        ("train_all.json",),
    ),
    "no object": (lambda tree: {**tree, "annotations": []}, "no_objects", ("train_all.json",)),
    "few photos": (
        lambda tree: {**tree, "images": tree["images"][:4]},
        "unusable_folds",
        ("data.folds=5",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", JSON)
def test_json_that_is_not_a_datasets_is_named(sample: Path, tmp_path: Path, case: str) -> None:
    change, kind, ids = JSON[case]
    data = Path(shutil.copytree(sample, tmp_path / "data"))
    tree = json.loads((data / "train_all.json").read_text())
    (data / "train_all.json").write_text(json.dumps(change(tree)))
    assert _ids(_check(data))[kind] == ids


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000, '{"images": ' + "9" * 5000 + "}"])
def test_json_that_cannot_be_read_is_named(sample: Path, tmp_path: Path, text: str) -> None:
    data = Path(shutil.copytree(sample, tmp_path / "data"))
    (data / "train_all.json").write_text(text)
    assert _ids(_check(data))["unreadable_json"] == ("train_all.json",)


VALUES = [None, True, "text", "", "\ud800", -1, 0, 1e300, 10**400, float("nan"), [], {}, [[]],
          [[1]], {"counts": 1}]  # fmt: skip
FIELDS = [("images", "id"), ("images", "file_name"), ("images", "width"), ("categories", "id"),
          ("categories", "name"), ("annotations", "id"), ("annotations", "image_id"),
          ("annotations", "category_id"), ("annotations", "segmentation")]  # fmt: skip


@pytest.mark.parametrize(("key", "field"), FIELDS)
def test_no_value_of_a_field_ends_the_doctor_and_training_takes_what_it_passes(
    sample: Path, tmp_path: Path, key: str, field: str
) -> None:
    data, config = tmp_path / "data", DataConfig(image_size=32, folds=2)
    shutil.copytree(sample, data)
    whole = json.loads((data / "train_all.json").read_text())
    whole["images"] = whole["images"][:6]
    whole["annotations"] = [a for a in whole["annotations"] if a["image_id"] < 6]
    passed = 0
    for value in VALUES:
        tree = json.loads(json.dumps(whole))
        tree[key][3][field] = value
        (data / "train_all.json").write_text(json.dumps(tree))
        report = _check(data, config)
        write_page(tmp_path / "page.html", report)
        if not report.errors:
            dataset = load_coco(data)
            make_folds(dataset, config)
            open_cache(dataset, 32, tmp_path / "cache")
            passed += 1
    assert passed < len(VALUES) - 1 or field == "name"


# --- several json files and folds --------------------------------------------------------------


def _in_two(sample: Path, folder: Path) -> Path:
    """train.json with scenes 0 to 14 and val.json with the others, each counting its ids from 0."""
    data = Path(shutil.copytree(sample, folder))
    tree = json.loads((data / "train_all.json").read_text())
    (data / "train_all.json").unlink()
    for name, first, last in (("train.json", 0, 15), ("val.json", 15, 20)):
        images = [{**image, "id": image["id"] - first} for image in tree["images"][first:last]]
        objects = [a for a in tree["annotations"] if first <= a["image_id"] < last]
        part = {
            "images": images,
            "categories": tree["categories"],
            "annotations": [{**a, "image_id": a["image_id"] - first} for a in objects],
        }
        (data / name).write_text(json.dumps(part))
    return data


def test_a_picture_in_train_and_val_is_found_with_both_of_its_ids(
    sample: Path, tmp_path: Path
) -> None:
    data = _in_two(sample, tmp_path / "data")
    assert set(_ids(_check(data))) <= {"rare_class", "unused_class"}
    shutil.copy(data / "photos/000002.jpg", data / "photos/000018.jpg")
    found = _ids(_check(data))
    assert found["exact_duplicate"] == found["split_leak"] == ("train.json:2", "val.json:3")
    assert "fold_leak" not in found  # folds are made of both together


def test_categories_that_differ_between_two_files_are_named(sample: Path, tmp_path: Path) -> None:
    data = _in_two(sample, tmp_path / "data")
    tree = json.loads((data / "val.json").read_text())
    tree["categories"][4]["name"] = "Tin"
    (data / "val.json").write_text(json.dumps(tree))
    assert _ids(_check(data))["categories_differ"] == ("val.json",)


def test_a_picture_in_two_folds_is_an_error_unless_folds_keep_it_together(
    sample: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(sample, tmp_path / "data"))
    dataset = load_coco(data)
    folds = stratify(dataset, 5, 0)
    write_folds(tmp_path / "folds.json", dataset, folds)
    there, elsewhere = 0, int(np.flatnonzero(folds.fold_of != folds.fold_of[0])[0])
    shutil.copy(dataset.photos[there].path, dataset.photos[elsewhere].path)
    given = DataConfig(image_size=32, folds_file=str(tmp_path / "folds.json"))
    apart = DataConfig(image_size=32, keep_duplicates_together=False)
    assert _ids(_check(data, given))["fold_leak"] == (str(there), str(elsewhere))
    assert "fold_leak" in _ids(_check(data, apart))
    assert "fold_leak" not in _ids(_check(data))


def test_folds_of_other_photos_are_an_error(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text('{"folds": [["photos/000000.jpg"], ["other.jpg"]]}')
    given = DataConfig(image_size=32, folds_file=str(tmp_path / "folds.json"))
    assert _ids(_check(sample, given))["unusable_folds"] == (str(tmp_path / "folds.json"),)


def test_every_kind_of_defect_is_planted_in_some_test() -> None:
    """A kind that no test can find might as well not be there."""
    here = Path(__file__)
    sources = [here, here.with_name("defects.py"), here.parent.with_name("test_label_errors.py")]
    text = "".join(path.read_text() for path in sources)
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []
