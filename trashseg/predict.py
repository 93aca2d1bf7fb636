"""An ensemble on a folder of photos: masks, overlays, COCO results, and the competition's csv.

OUT/masks/NAME.png       class of each pixel, 8 bit, at the photo's size
OUT/overlays/NAME.jpg    the photo with its objects tinted
OUT/predictions.json     COCO results: one compressed RLE a photo and class
OUT/submission.csv       image_id, PredictionString: the 256x256 class map, space separated
OUT/classes.json         what the numbers in the masks mean, and their colours in the overlays
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from trashseg.data.coco import Photo, read_photo
from trashseg.data.unlabelled import find_photos
from trashseg.ensemble import Ensemble, predict_photos
from trashseg.files import json_list, new_folder, write_json
from trashseg.masks import PhotoMasks
from trashseg.pictures import encode_mask, overlay, palette, write_image, write_mask

SUBMISSION_SIZE = 256


def predict(
    ensemble: Ensemble, images: Path, out: Path, on_photo: Callable[[], None] = lambda: None
) -> int:
    """Write the files above into `out`, which must be new; returns the number of photos."""
    photos, classes = find_photos(images), len(ensemble.classes)
    with (
        new_folder(out) as partial,
        json_list(partial / "predictions.json") as write_result,
        (partial / "submission.csv").open("w", encoding="utf-8") as submission,
    ):
        writer = csv.writer(submission, lineterminator="\n")
        writer.writerow(["image_id", "PredictionString"])
        for photo, masks in predict_photos(ensemble, photos):
            write_mask(partial / "masks", photo.file_name, encode_mask(masks.final))
            picture = overlay(read_photo(photo.path), masks.final, classes)
            write_image(partial / "overlays" / Path(photo.file_name).with_suffix(".jpg"), picture)
            for result in coco_results(photo, masks, ensemble.members[0].category_ids):
                write_result(result)
            writer.writerow([photo.file_name, prediction_string(masks.final)])
            on_photo()
        write_json(partial / "classes.json", describe_classes(ensemble.classes))
    return len(photos)


def describe_classes(classes: Sequence[str]) -> list[dict[str, Any]]:
    colours = palette(len(classes)).tolist()
    return [
        {"value": value, "name": name, "rgb": colour}
        for value, (name, colour) in enumerate(zip(classes, colours, strict=True))
    ]


def coco_results(
    photo: Photo, masks: PhotoMasks, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """One entry for each class but the background, under the category id that it had in the training
    json; `score` is the mean probability over its pixels."""
    entries = []
    for value in np.unique(masks.final).tolist():
        if value == 0:
            continue
        rle = coco_mask.encode(np.asfortranarray(masks.final == value))
        entries.append(
            {
                "image_id": photo.id,
                "file_name": photo.file_name,
                "category_id": category_ids[value - 1],
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                "score": round(float(masks.confidence[value]), 4),
            }
        )
    return entries


def prediction_string(mask: NDArray[np.uint8]) -> str:
    """(H, W) class map to 256x256 numbers, nearest resized, row by row."""
    size = (SUBMISSION_SIZE, SUBMISSION_SIZE)
    small = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    return " ".join(map(str, small.ravel().tolist()))
