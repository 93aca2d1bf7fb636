"""What predict writes for a folder of photos, and that evaluate scores just those masks."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from tests.trashseg.trained_folds import Trained
from trashseg.assemble import build_ensemble
from trashseg.choice import Proposals
from trashseg.config import CrfConfig
from trashseg.data.coco import load_coco, rasterize
from trashseg.data.unlabelled import find_photos
from trashseg.ensemble import Ensemble, evaluate_ensemble, load_ensemble
from trashseg.errors import DataError, TrashSegError
from trashseg.pictures import overlay, palette
from trashseg.predict import predict, prediction_string

SIZES = {"a.jpg": (90, 50), "b c.png": (30, 70), "deep/er/d.JPEG": (64, 64)}  # width, height


def _mask(out: Path, name: str) -> NDArray[np.uint8]:
    path = out / "masks" / Path(name).with_suffix(".png")
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask is not None, path
    return np.asarray(mask, dtype=np.uint8)


def _photos(folder: Path) -> Path:
    rng = np.random.default_rng(4)
    for name, (width, height) in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((width, height)).save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def ensemble(trained: Trained) -> Ensemble:
    """What was chosen of four members, with the CRF, whatever it does to the scores."""
    out = trained.run / "predictor"
    build_ensemble(
        trained.models,
        trained.dataset,
        trained.folds,
        out,
        Proposals(crf=(CrfConfig(iterations=2),)),
        "miou",
        trained.resources,
    )
    manifest = (out / "manifest.yaml").read_text()
    (out / "manifest.yaml").write_text(
        manifest.replace("chosen: soft_vote\n", "chosen: soft_vote_crf\n")
    )
    return load_ensemble(out, trained.resources)


@pytest.fixture(scope="module")
def predicted(ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicted")
    seen: list[int] = []
    count = predict(
        ensemble, _photos(folder / "photos"), folder / "out", on_photo=lambda: seen.append(1)
    )
    assert count == len(seen) == 3
    return folder / "out"


# --- what is written ---------------------------------------------------------------------------


@pytest.mark.slow
def test_each_photo_gets_a_mask_and_an_overlay_of_its_own_size(predicted: Path) -> None:
    for name, (width, height) in SIZES.items():
        mask = _mask(predicted, name)
        assert mask.shape == (height, width)
        assert mask.max() < 12
        picture = cv2.imread(str(predicted / "overlays" / Path(name).with_suffix(".jpg")))
        assert picture is not None
        assert picture.shape == (height, width, 3)
    assert sorted(path.name for path in predicted.iterdir()) == [
        *("classes.json", "masks", "overlays", "predictions.json", "submission.csv")
    ]
    assert len([p for p in predicted.rglob("*") if p.suffix in (".png", ".jpg")]) == 6


@pytest.mark.slow
def test_predictions_json_decodes_to_the_masks_under_the_category_ids_of_the_training_json(
    predicted: Path, ensemble: Ensemble
) -> None:
    results = json.loads((predicted / "predictions.json").read_text())
    ids = {name: index for index, name in enumerate(sorted(SIZES))}
    for name, (width, height) in SIZES.items():
        decoded = np.zeros((height, width), dtype=np.uint8)
        entries = [entry for entry in results if entry["file_name"] == name]
        for entry in entries:
            assert entry["image_id"] == ids[name]
            assert entry["segmentation"]["size"] == [height, width]
            assert 1 / 12 < entry["score"] <= 1
            pixels = coco_mask.decode(entry["segmentation"]) == 1
            assert pixels.any()
            decoded[pixels] = entry["category_id"] + 1  # the sample's categories are 0 to 10
        np.testing.assert_array_equal(decoded, _mask(predicted, name))
        assert len(entries) == len(set(np.unique(decoded)) - {0})
    assert len({entry["category_id"] for entry in results}) >= 2
    assert ensemble.members[0].category_ids == tuple(range(11))


@pytest.mark.slow
def test_submission_csv_has_256x256_numbers_for_each_photo(predicted: Path) -> None:
    csv.field_size_limit(1 << 20)
    with (predicted / "submission.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["image_id", "PredictionString"]
    assert [name for name, _ in rows] == sorted(SIZES)
    for name, text in rows:
        numbers = np.array(text.split(" "), dtype=int).reshape(256, 256)
        mask = _mask(predicted, name)
        # Nearest: output pixel i shows input pixel floor(i * size / 256).
        height, width = mask.shape
        row, column = np.arange(256) * height // 256, np.arange(256) * width // 256
        np.testing.assert_array_equal(numbers, mask[row][:, column])


@pytest.mark.slow
def test_submission_csv_is_what_pandas_writes_without_an_index(predicted: Path) -> None:
    """As the 2021 team's: two columns under their names, one line a photo, nothing quoted."""
    text = (predicted / "submission.csv").read_text()
    first, *lines = text.split("\n")
    assert first == "image_id,PredictionString"
    assert lines.pop() == ""
    for line, name in zip(lines, sorted(SIZES), strict=True):
        assert re.fullmatch(rf"{name},(\d+ ){{65535}}\d+", line)
    table = pd.read_csv(predicted / "submission.csv")
    assert table.to_csv(index=False) == text


@pytest.mark.slow
def test_classes_json_says_what_the_numbers_mean(predicted: Path, trained: Trained) -> None:
    classes = json.loads((predicted / "classes.json").read_text())
    assert [entry["value"] for entry in classes] == list(range(12))
    assert [entry["name"] for entry in classes] == list(trained.dataset.classes)
    assert classes[0]["rgb"] == [0, 0, 0]
    assert len({tuple(entry["rgb"]) for entry in classes}) == 12


@pytest.mark.slow
def test_evaluate_gives_the_scores_of_the_masks_that_predict_writes(
    trained: Trained, ensemble: Ensemble, tmp_path: Path
) -> None:
    dataset = load_coco(trained.dataset.root)
    scores = evaluate_ensemble(ensemble, dataset)
    predict(ensemble, trained.dataset.root, tmp_path / "out")
    truth = np.stack([rasterize(photo) for photo in dataset.photos])
    masks = np.stack([_mask(tmp_path / "out", photo.file_name) for photo in dataset.photos])
    assert scores["images"] == 20
    assert scores["pixel_accuracy"] == pytest.approx((truth == masks).mean())
    by_class: dict[str, float | None] = {}
    for index, name in enumerate(dataset.classes):
        union = ((truth == index) | (masks == index)).sum()
        hits = ((truth == index) & (masks == index)).sum()
        by_class[name] = pytest.approx(hits / union) if union else None
    assert scores["iou"] == by_class
    in_either = [float(value) for value in scores["iou"].values() if value is not None]
    assert scores["miou"] == pytest.approx(np.mean(in_either))


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.slow
def test_an_unreadable_photo_leaves_nothing_behind(ensemble: Ensemble, tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos")
    (photos / "z.jpg").write_text("this is no photo")
    with pytest.raises(DataError, match=r"z.jpg: is not a readable photo: replace it"):
        predict(ensemble, photos, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.slow
def test_a_folder_that_holds_something_is_refused_and_left_alone(
    ensemble: Ensemble, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(TrashSegError, match="exists and is not empty: choose another folder"):
        predict(ensemble, _photos(tmp_path / "photos"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_photos_are_found_in_sub_folders_by_name(tmp_path: Path) -> None:
    photos = find_photos(_photos(tmp_path))
    assert [(photo.id, photo.file_name) for photo in photos] == list(enumerate(sorted(SIZES)))


def test_a_folder_without_photos_or_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(DataError, match=r"has no photos .*: check --images"):
        find_photos(tmp_path)
    with pytest.raises(DataError, match="none: no such folder: check --images"):
        find_photos(tmp_path / "none")


@pytest.mark.parametrize("between", [[], ["a.b.jpg"], ["a.jpg.bmp"]])
def test_two_photos_that_would_share_a_mask_are_refused(tmp_path: Path, between: list[str]) -> None:
    for name in ("a.jpg", "a.png", *between):
        shutil.copy(__file__, tmp_path / name)
    with pytest.raises(DataError, match=r"a.png: another photo differs only in its suffix"):
        find_photos(tmp_path)


# --- parts -------------------------------------------------------------------------------------


def test_a_prediction_string_is_the_map_at_256_pixels_row_by_row() -> None:
    mask = np.array([[1, 2], [3, 4]], dtype=np.uint8)  # each pixel becomes 128x128
    numbers = prediction_string(mask).split(" ")
    assert len(numbers) == 256 * 256
    top, bottom = ["1"] * 128 + ["2"] * 128, ["3"] * 128 + ["4"] * 128
    assert numbers == top * 128 + bottom * 128


def test_a_photo_of_512_pixels_gives_every_second_of_its_pixels() -> None:
    # The competition's photos; pixel (r, c) holds 2 r + c modulo 7, so (2 i, 2 j) holds 4 i + 2 j.
    row, column = np.mgrid[0:512, 0:512]
    numbers = prediction_string(((2 * row + column) % 7).astype(np.uint8)).split(" ")
    assert numbers == [str((4 * i + 2 * j) % 7) for i in range(256) for j in range(256)]


@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 400), (57, 100), (3, 1000)])
def test_the_map_is_resized_as_the_2021_teams_albumentations_did(height: int, width: int) -> None:
    """Their inference.py: Compose([Resize(256, 256)]) on the mask, whose default is nearest."""
    mask = np.random.default_rng(1).integers(0, 12, (height, width), dtype=np.uint8)
    theirs = A.Resize(256, 256)(image=np.zeros((height, width, 3), np.uint8), mask=mask)["mask"]
    assert prediction_string(mask) == " ".join(str(value) for value in theirs.flatten())


def test_an_image_id_is_the_path_from_the_folder_as_in_the_competitions_json(
    tmp_path: Path,
) -> None:
    for name in ("batch_02_vt/0002.jpg", "batch_01_vt/0001.jpg", "batch_01_vt/0010.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [photo.file_name for photo in find_photos(tmp_path)] == [
        "batch_01_vt/0001.jpg",
        "batch_01_vt/0010.jpg",
        "batch_02_vt/0002.jpg",
    ]


def test_an_overlay_tints_objects_and_leaves_the_background() -> None:
    photo = np.full((2, 2, 3), 100, dtype=np.uint8)
    mask = np.array([[0, 1], [2, 0]], dtype=np.uint8)
    picture = overlay(photo, mask, classes=3)
    assert picture[0, 0].tolist() == picture[1, 1].tolist() == [100, 100, 100]
    for row, column, value in ((0, 1, 1), (1, 0, 2)):
        expected: Any = 100 * 0.45 + palette(3)[value].astype(float) * 0.55
        np.testing.assert_allclose(picture[row, column], expected, atol=1)


@pytest.mark.parametrize("classes", [2, 12, 60, 255])
def test_every_class_has_a_colour_of_its_own_that_does_not_depend_on_their_number(
    classes: int,
) -> None:
    colours = palette(classes)
    assert len({tuple(colour) for colour in colours.tolist()}) == classes
    np.testing.assert_array_equal(colours[:2], palette(2))
