"""COCO folders: which classes and photos are read, and what each annotation covers, pixel by pixel."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from trashseg.data.coco import (
    Annotation,
    Photo,
    load_coco,
    load_coco_test,
    rasterize,
    read_dataset_photo,
    read_photo,
)
from trashseg.errors import DataError

CATEGORIES = [{"id": 7, "name": "Can"}, {"id": 3, "name": "Bottle"}]
TRIANGLE = [1.0, 1.0, 5.0, 1.0, 1.0, 5.0]


def _photo(*annotations: Annotation, width: int = 6, height: int = 6) -> Photo:
    return Photo(0, "a.png", Path("a.png"), width, height, annotations)


def _box(x: int, y: int, width: int, height: int) -> list[float]:
    """A rectangle whose corners are pixel corners: it covers width * height whole pixels."""
    return [float(v) for v in (x, y, x + width, y, x + width, y + height, x, y + height)]


def _map(*rows: str) -> NDArray[np.uint8]:
    return np.array([[int(cell) for cell in row] for row in rows], dtype=np.uint8)


def _tree(names: list[str], **changes: Any) -> dict[str, Any]:
    """Images 0, 1, ... of 6x6, each with one triangle of category 3; annotation ids count from 0."""
    images = [{"id": i, "file_name": n, "width": 6, "height": 6} for i, n in enumerate(names)]
    annotations = [
        {"id": i, "image_id": i, "category_id": 3, "segmentation": [TRIANGLE]}
        for i in range(len(names))
    ]
    return {"images": images, "categories": CATEGORIES, "annotations": annotations, **changes}


def _write(folder: Path, trees: dict[str, dict[str, Any]]) -> Path:
    for name, tree in trees.items():
        (folder / name).write_text(json.dumps(tree))
        for image in tree["images"]:
            Image.new("RGB", (6, 6)).save(folder / image["file_name"])
    return folder


# --- classes and photos ------------------------------------------------------------------------


def test_background_is_0_and_categories_sorted_by_id_follow(tmp_path: Path) -> None:
    dataset = load_coco(_write(tmp_path, {"train_all.json": _tree(["a.png"])}))
    assert dataset.classes == ("Background", "Bottle", "Can")
    assert dataset.category_ids == (3, 7)
    assert dataset.photos[0].annotations[0].class_index == 1
    assert dataset.labelled


@pytest.mark.parametrize("count", [1, 2, 11, 60, 254])
def test_any_number_of_classes_up_to_254_is_read(tmp_path: Path, count: int) -> None:
    categories = [{"id": 3 + i, "name": f"class {i}"} for i in range(count)]
    tree = _tree(["a.png"], categories=categories)
    tree["annotations"][0]["category_id"] = 3 + count - 1
    dataset = load_coco(_write(tmp_path, {"train_all.json": tree}))
    assert len(dataset.classes) == count + 1
    assert rasterize(dataset.photos[0]).max() == count


def test_train_and_val_json_are_joined_though_their_ids_clash(tmp_path: Path) -> None:
    train, val = _tree(["a.png", "b.png"]), _tree(["c.png", "d.png"])
    val["annotations"] = [
        {"id": 0, "image_id": 1, "category_id": 7, "segmentation": [_box(0, 0, 2, 2)]}
    ]
    dataset = load_coco(_write(tmp_path, {"train.json": train, "val.json": val}))
    assert [photo.file_name for photo in dataset.photos] == ["a.png", "b.png", "c.png", "d.png"]
    assert [photo.id for photo in dataset.photos] == [0, 1, 2, 3]  # val's 0 and 1 moved by 2
    assert [len(photo.annotations) for photo in dataset.photos] == [1, 1, 0, 1]
    assert [file.name for file in dataset.json_files] == ["train.json", "val.json"]
    assert rasterize(dataset.photos[3]).sum() == 4 * 2  # d.png: 2x2 pixels of Can, class 2


def test_ids_that_do_not_clash_stay_as_they_are(tmp_path: Path) -> None:
    train, val = _tree(["a.png"]), _tree(["b.png"])
    val["images"][0]["id"] = val["annotations"][0]["image_id"] = 40
    dataset = load_coco(_write(tmp_path, {"train.json": train, "val.json": val}))
    assert [photo.id for photo in dataset.photos] == [0, 40]


def test_train_all_json_goes_before_train_and_val(tmp_path: Path) -> None:
    trees = {"train_all.json": ["a.png"], "train.json": ["b.png"], "val.json": ["c.png"]}
    dataset = load_coco(_write(tmp_path, {name: _tree(photo) for name, photo in trees.items()}))
    assert [photo.file_name for photo in dataset.photos] == ["a.png"]


def test_a_test_folder_may_lack_annotations_and_then_is_not_labelled(tmp_path: Path) -> None:
    tree = _tree(["a.png"])
    del tree["annotations"]
    dataset = load_coco_test(_write(tmp_path, {"test.json": tree}))
    assert not dataset.labelled
    assert not rasterize(dataset.photos[0]).any()


def test_a_test_folder_without_test_json_is_read_as_labelled_photos(tmp_path: Path) -> None:
    _write(tmp_path, {"train_all.json": _tree(["a.png"])})
    assert load_coco_test(tmp_path).photos == load_coco(tmp_path).photos


# --- rasterising -------------------------------------------------------------------------------


def test_a_rectangle_between_pixel_corners_covers_exactly_its_pixels() -> None:
    mask = rasterize(_photo(Annotation(0, 2, [_box(1, 1, 3, 2)])))
    assert mask.dtype == np.uint8
    expected = _map("000000", "022200", "022200", "000000", "000000", "000000")
    np.testing.assert_array_equal(mask, expected)


def test_every_part_of_a_polygon_is_drawn_and_overlap_makes_no_hole() -> None:
    parts = [_box(0, 0, 2, 2), _box(1, 1, 2, 2), _box(4, 4, 2, 1)]
    expected = _map("110000", "111000", "011000", "000000", "000011", "000000")
    np.testing.assert_array_equal(rasterize(_photo(Annotation(0, 1, parts))), expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [3, 3], "counts": [2, 3, 4]},
        {"size": [3, 3], "counts": "234"},  # counts below 16 are written as chr(48 + count)
    ],
    ids=["uncompressed", "compressed"],
)
def test_rle_runs_down_the_columns(segmentation: dict[str, Any]) -> None:
    # 2 off, 3 on, 4 off, down the columns: (0 0 1), (1 1 0), (0 0 0)
    mask = rasterize(_photo(Annotation(0, 5, segmentation), width=3, height=3))
    np.testing.assert_array_equal(mask, _map("050", "050", "500"))


@given(data=st.data(), width=st.integers(1, 9), height=st.integers(1, 9))
def test_both_forms_of_rle_give_back_any_mask(data: st.DataObject, width: int, height: int) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height))
    mask = np.array(bits, dtype=np.uint8).reshape(height, width)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F")])))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    compressed = coco_mask.encode(np.asfortranarray(mask))
    for rle in ({"size": [height, width], "counts": counts}, compressed):
        drawn = rasterize(_photo(Annotation(0, 1, rle), width=width, height=height))
        np.testing.assert_array_equal(drawn, mask)


def test_the_larger_object_is_drawn_first_whatever_the_order_in_the_json() -> None:
    large, small = Annotation(9, 1, [_box(0, 0, 5, 5)]), Annotation(1, 2, [_box(1, 1, 2, 2)])
    expected = _map("111110", "122110", "122110", "111110", "111110", "000000")
    np.testing.assert_array_equal(rasterize(_photo(large, small)), expected)
    np.testing.assert_array_equal(rasterize(_photo(small, large)), expected)


def test_of_two_objects_of_one_size_the_higher_id_is_on_top() -> None:
    first, second = Annotation(1, 1, [_box(0, 0, 3, 2)]), Annotation(2, 2, [_box(1, 1, 3, 2)])
    expected = _map("111000", "122200", "022200", "000000", "000000", "000000")
    np.testing.assert_array_equal(rasterize(_photo(first, second)), expected)
    np.testing.assert_array_equal(rasterize(_photo(second, first)), expected)


_corner, _side = st.integers(0, 5), st.integers(1, 6)


@given(boxes=st.lists(st.tuples(_corner, _corner, _side, _side), min_size=1, max_size=6))
def test_each_pixel_belongs_to_the_smallest_object_over_it(
    boxes: list[tuple[int, int, int, int]],
) -> None:
    objects = [Annotation(i, i + 1, [_box(*box)]) for i, box in enumerate(boxes)]
    mask = rasterize(_photo(*objects))
    for y, x in np.ndindex(6, 6):
        over = [
            # the frame cuts objects off, and counts for their size
            (min(bx + w, 6) * min(by + h, 6) - bx * min(by + h, 6) - by * min(bx + w, 6) + bx * by,
             -index, index + 1)
            for index, (bx, by, w, h) in enumerate(boxes)
            if bx <= x < bx + w and by <= y < by + h
        ]  # fmt: skip
        assert mask[y, x] == (min(over)[2] if over else 0)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ([], "at least three x, y pairs"),
        ([[0, 0, 1, 1]], "at least three x, y pairs"),
        ([[0, 0, 1, 1, 2, 2, 3]], "at least three x, y pairs"),
        (None, "at least three x, y pairs"),
        (5, "cannot be drawn"),
        ([["a", "b", "c", "d", "e", "f"]], "cannot be drawn"),
        ({"size": [6, 6]}, "counts"),
        ({"size": [6, 5], "counts": "234"}, "its RLE is for [6, 5], the photo is [6, 6]"),
        ({"size": [6, 6], "counts": [2, 3, 4]}, "its RLE does not cover the photo"),
    ],
)
def test_what_cannot_be_drawn_is_named_with_photo_and_annotation(
    segmentation: Any, problem: str
) -> None:
    with pytest.raises(DataError) as caught:
        rasterize(_photo(Annotation(17, 1, segmentation)))
    assert str(caught.value).startswith("a.png: annotation 17 cannot be drawn (")
    assert problem in str(caught.value)
    assert str(caught.value).endswith(": mend or remove it")


# --- photos ------------------------------------------------------------------------------------


def test_a_photo_is_turned_upright_by_its_exif_tag(tmp_path: Path) -> None:
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:, :16, 0] = stored[:, 16:, 2] = 255  # left half red, right half blue
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: what is left comes to the top
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = read_photo(tmp_path / "a.jpg").astype(int)
    assert upright.shape == (32, 16, 3)
    np.testing.assert_allclose(upright[2:14, 2:14].mean(axis=(0, 1)), [255, 0, 0], atol=6)
    np.testing.assert_allclose(upright[18:30, 2:14].mean(axis=(0, 1)), [0, 0, 255], atol=6)
    entry = Photo(0, "a.jpg", tmp_path / "a.jpg", width=16, height=32)
    np.testing.assert_array_equal(read_dataset_photo(entry), upright)


def test_a_grey_or_transparent_photo_is_read_as_rgb(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 90).save(tmp_path / "grey.png")
    Image.new("RGBA", (3, 2), (10, 20, 30, 128)).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "grey.png"), np.full((2, 3, 3), 90))
    assert read_photo(tmp_path / "clear.png")[0, 0].tolist() == [10, 20, 30]


def test_the_names_of_photos_may_have_spaces_and_other_letters(tmp_path: Path) -> None:
    _write(tmp_path, {"train_all.json": _tree(["쓰레기 봉투 ü.png"])})
    assert read_dataset_photo(load_coco(tmp_path).photos[0]).shape == (6, 6, 3)


def test_a_photo_of_another_size_than_its_entry_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="is 6x4, its json entry says 6x6: mend the entry"):
        read_dataset_photo(Photo(0, "a.png", tmp_path / "a.png", 6, 6))


# --- json that would train the wrong thing -----------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": CATEGORIES * 2}, "two categories share an id or a name: make them unique"),
        (
            {"categories": [*CATEGORIES, {"id": 4, "name": "can"}]},
            "two categories share an id or a name: make them unique",
        ),
        (
            {"categories": [*CATEGORIES, {"id": 4, "name": "background"}]},
            "has a category 'Background': remove it",
        ),
        (
            {"categories": [{"id": i, "name": f"class {i}"} for i in range(255)]},
            "has 255 categories: 1 to 254 fit an 8-bit mask",
        ),
        ({"categories": []}, "has 0 categories: 1 to 254"),
        ({"annotations": [{"id": 0}]}, r"annotations\[0\] has no 'image_id': add it"),
        ({"annotations": [3]}, r"annotations\[0\] has no 'id': add it"),
        ({"annotations": {}}, "is not COCO: it has no list 'annotations'"),
    ],
)
def test_a_json_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_coco(_write(tmp_path, {"train_all.json": _tree(["a.png"], **changes)}))


@pytest.mark.parametrize(
    ("field", "value"), [("id", "abc"), ("id", [1]), ("width", "wide"), ("height", None)]
)
def test_an_image_whose_id_or_size_is_no_number_is_a_data_error(
    tmp_path: Path, field: str, value: Any
) -> None:
    tree = _tree(["a.png"])
    tree["images"][0][field] = value
    with pytest.raises(DataError, match=r"images\[0\]"):
        load_coco(_write(tmp_path, {"train_all.json": tree}))


def test_val_json_with_other_categories_is_refused(tmp_path: Path) -> None:
    val = _tree(["b.png"], categories=[{"id": 3, "name": "Glass"}, {"id": 7, "name": "Can"}])
    with pytest.raises(DataError, match=r"val.json: its categories differ from train.json's"):
        load_coco(_write(tmp_path, {"train.json": _tree(["a.png"]), "val.json": val}))


# --- real photos -------------------------------------------------------------------------------


def test_taco_has_209_photos_631_annotations_and_11_classes_beside_the_background(
    taco: Path,
) -> None:
    dataset = load_coco(taco)
    assert len(dataset.photos) == 209
    assert sum(len(photo.annotations) for photo in dataset.photos) == 631
    assert dataset.classes[:2] == ("Background", "UNKNOWN")
    assert dataset.classes[-2:] == ("Battery", "Clothing")
    assert dataset.category_ids == tuple(range(11))


def test_masks_of_real_photos_equal_pycocotools_own_bit_by_bit(taco: Path) -> None:
    dataset, reference = load_coco(taco), COCO(str(taco / "train_all.json"))
    crowded = sorted(dataset.photos, key=lambda photo: -len(photo.annotations))
    for photo in (*crowded[:5], *dataset.photos[:5]):
        expected = np.zeros((photo.height, photo.width), dtype=np.uint8)
        annotations = reference.loadAnns(reference.getAnnIds(imgIds=photo.id))
        masks = [(reference.annToMask(entry), entry) for entry in annotations]
        for mask, entry in sorted(masks, key=lambda pair: (-int(pair[0].sum()), pair[1]["id"])):
            expected[mask == 1] = entry["category_id"] + 1
        np.testing.assert_array_equal(rasterize(photo), expected)
        bgr = cv2.imread(str(photo.path))
        np.testing.assert_array_equal(read_dataset_photo(photo), bgr[..., ::-1])
