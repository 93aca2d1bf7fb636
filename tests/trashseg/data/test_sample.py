"""The built-in sample: what is written, what it promises, and that colour gives nothing away."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from trashseg.data.sample import KINDS, LEAST_AREA, write_sample
from trashseg.errors import DataError, TrashSegError


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _tree(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "train_all.json").read_text()))


def _mask(annotation: dict[str, Any], size: int) -> NDArray[np.bool_]:
    rle = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], size, size))
    return np.asarray(coco_mask.decode(rle), dtype=bool)


def _visible(tree: dict[str, Any], size: int) -> dict[int, list[tuple[int, NDArray[np.bool_]]]]:
    """For each image: class and visible pixels of each object, smaller ones on top."""
    objects = defaultdict(list)
    for annotation in tree["annotations"]:
        objects[annotation["image_id"]].append((annotation, _mask(annotation, size)))
    visible: dict[int, list[tuple[int, NDArray[np.bool_]]]] = {}
    for image, things in objects.items():
        things.sort(key=lambda thing: (-thing[1].sum(), thing[0]["id"]))
        covered = np.zeros((size, size), dtype=bool)
        visible[image] = []
        for annotation, mask in reversed(things):
            visible[image].append((annotation["category_id"], mask & ~covered))
            covered |= mask
    return visible


def _photo(folder: Path, image: int) -> NDArray[np.uint8]:
    bgr = cv2.imread(str(folder / f"photos/{image:06d}.jpg"))
    assert bgr is not None
    return np.asarray(bgr, dtype=np.uint8)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "scenes"
    write_sample(folder, images=120, size=96, seed=3)
    return folder


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_sample(tmp_path / name, images=4, size=48, seed=seed)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert _files(tmp_path / "a") != _files(tmp_path / "c")


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    write_sample(tmp_path / "few", images=3, size=48)
    write_sample(tmp_path / "more", images=8, size=48)
    few, more = _tree(tmp_path / "few"), _tree(tmp_path / "more")
    assert few["annotations"] == more["annotations"][: len(few["annotations"])]
    photos = {name: data for name, data in _files(tmp_path / "few").items() if "photos" in name}
    assert len(photos) == 3
    assert photos.items() <= _files(tmp_path / "more").items()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_is_in_at_least_six_of_sixty_images(tmp_path: Path, seed: int) -> None:
    write_sample(tmp_path / "out", images=60, size=48, seed=seed)
    images = defaultdict(set)
    for annotation in _tree(tmp_path / "out")["annotations"]:
        images[annotation["category_id"]].add(annotation["image_id"])
    assert set(images) == set(range(len(KINDS)))
    assert min(map(len, images.values())) >= 6


def test_the_json_names_the_classes_in_order_and_every_photo_has_its_size(sample: Path) -> None:
    tree = _tree(sample)
    assert [category["name"] for category in tree["categories"]] == [
        *("UNKNOWN", "General trash", "Paper", "Paper pack", "Metal", "Glass", "Plastic"),
        *("Styrofoam", "Plastic bag", "Battery", "Clothing"),
    ]
    assert [category["id"] for category in tree["categories"]] == list(range(11))
    ids = [annotation["id"] for annotation in tree["annotations"]]
    assert ids == list(range(len(ids)))
    for image in tree["images"]:
        assert image["file_name"] == f"photos/{image['id']:06d}.jpg"
        assert _photo(sample, image["id"]).shape == (96, 96, 3)


def test_polygons_lie_in_the_frame_and_cover_what_area_and_bbox_say(sample: Path) -> None:
    for annotation in _tree(sample)["annotations"]:
        corners = np.concatenate(annotation["segmentation"]).reshape(-1, 2)
        assert corners.min() >= 0
        assert corners.max() <= 96
        assert all(len(polygon) >= 6 for polygon in annotation["segmentation"])
        assert annotation["area"] == _mask(annotation, 96).sum() >= LEAST_AREA * 96**2
        low, high = corners.min(axis=0), corners.max(axis=0)
        assert annotation["bbox"] == pytest.approx([*low, *(high - low)], abs=0.011)


def test_every_object_stays_mostly_visible_and_images_hold_one_to_five(sample: Path) -> None:
    visible = _visible(_tree(sample), 96)
    assert len(visible) == 120
    assert {len(things) for things in visible.values()} == {1, 2, 3, 4, 5}
    assert all(mask.any() for things in visible.values() for _, mask in things)


def test_the_picture_changes_at_the_edges_of_the_masks(sample: Path) -> None:
    # Were picture and polygons shifted apart, the strongest edges would lie beside the outlines.
    strength = defaultdict(list)
    for image, things in _visible(_tree(sample), 96).items():
        grey = cv2.cvtColor(_photo(sample, image), cv2.COLOR_BGR2GRAY)
        edges = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
        for _, mask in things:
            outline = cv2.morphologyEx(
                mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)
            )
            for shift in (-3, 0, 3):
                for axis in (0, 1):
                    moved = np.roll(outline, shift, axis=axis).astype(bool)
                    strength[shift, axis].append(edges[moved].mean())
    mean = {key: np.mean(values) for key, values in strength.items()}
    for axis in (0, 1):
        assert mean[0, axis] > 1.25 * max(mean[-3, axis], mean[3, axis])


def test_colour_alone_does_not_tell_the_class(sample: Path) -> None:
    features, classes = [], []
    for image, things in _visible(_tree(sample), 96).items():
        bgr = _photo(sample, image)
        lab = cv2.cvtColor(bgr, cv2.COLOR_BGR2LAB).astype(float)
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV).astype(float)
        hue = hsv[..., 0] * np.pi / 90
        colours = np.dstack([lab, hsv[..., 1:], np.cos(hue) * 50, np.sin(hue) * 50])
        for category, mask in things:
            features.append(colours[mask].mean(axis=0))
            classes.append(category)
    x, y = np.array(features), np.array(classes)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    known = np.arange(len(x)) % 2 == 0
    centroids = np.stack([x[known & (y == category)].mean(axis=0) for category in range(11)])
    distance = ((x[~known, None] - centroids) ** 2).sum(axis=2)
    accuracy = (distance.argmin(axis=1) == y[~known]).mean()
    assert accuracy < 0.35


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(TrashSegError) as caught:
        write_sample(tmp_path, images=1, size=32)
    assert str(caught.value) == (
        f"{tmp_path}: exists and is not empty: choose another folder or delete it"
    )
    assert _files(tmp_path) == {"mine.txt": b"keep"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_sample(tmp_path / "out", images=1, size=32)
    assert set(_files(tmp_path / "out")) == {"train_all.json", "photos/000000.jpg"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "images is 0: the least allowed is 1"),
        ({"size": 31}, "size is 31: the least allowed is 32"),
        ({"seed": -1}, "seed is -1: the least allowed is 0"),
    ],
)
def test_numbers_too_small_are_refused(
    tmp_path: Path, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_sample(tmp_path / "out", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_failure_midway_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(DataError, match="No space left on device"):
        write_sample(tmp_path / "out", images=2, size=32)
    assert not list(tmp_path.iterdir())
