"""A copy of the built-in scenes with every sort of defect in it, each with the ids to be found."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trashseg.data.sample import write_sample

SIZE = 64
CANVAS = 105  # an image of its own for objects that are wrong
Box = list[list[float]]


def box(x: float, y: float, side: float) -> Box:
    """A square whose corners are pixel corners: it covers side * side pixels."""
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


class Spoiled:
    """A folder of 20 scenes of 64 px, ids from 0, to which photos and objects are added."""

    def __init__(self, sample: Path, folder: Path) -> None:
        self.folder = Path(shutil.copytree(sample, folder))
        self.tree: dict[str, Any] = json.loads((folder / "train_all.json").read_text())
        self.expected: dict[str, tuple[str, ...]] = {}
        self._more = folder.with_name(folder.name + "_more")
        write_sample(self._more, images=8, size=SIZE, seed=99)

    def file(self, number: int) -> Path:
        return self.folder / f"photos/{number:06d}.jpg"

    def another_scene(self, number: int) -> Path:
        """A picture that is not in the folder yet."""
        return self._more / f"photos/{number:06d}.jpg"

    def expect(self, kind: str, *ids: object) -> None:
        self.expected[kind] = self.expected.get(kind, ()) + tuple(map(str, ids))

    def add_photo(self, id_: int, source: Path, name: str, *, side: int = SIZE) -> None:
        """A copy of `source`; as it is, or encoded again where it is not 64 px or no JPEG."""
        target = self.folder / name
        if side == SIZE and target.suffix == source.suffix:
            shutil.copy(source, target)
        else:
            cv2.imwrite(str(target), cv2.resize(cv2.imread(str(source)), (side, side)))
        entry = {"id": id_, "file_name": name, "width": side, "height": side}
        self.tree["images"].append(entry)

    def add_object(
        self, id_: int, segmentation: Any, image: int = CANVAS, category: int = 3
    ) -> None:
        entry = {"id": id_, "image_id": image, "category_id": category}
        self.tree["annotations"].append({**entry, "segmentation": segmentation})

    def write(self) -> None:
        (self.folder / "train_all.json").write_text(json.dumps(self.tree))


def spoil_with_warnings(data: Spoiled) -> None:
    """What training takes, but should not be so."""
    data.add_photo(CANVAS, data.another_scene(0), "photos/canvas.jpg")
    data.add_photo(100, data.file(4), "photos/copy.jpg")
    data.add_object(9100, box(0, 0, 20), image=100)
    data.expect("exact_duplicate", 4, 100)
    data.add_photo(101, data.file(5), "photos/larger.jpg", side=128)
    data.add_object(9101, box(0, 0, 20), image=101)
    data.expect("near_duplicate", 5, 101)
    data.add_photo(104, data.another_scene(1), "photos/empty.jpg")
    data.expect("photo_without_objects", 104)
    data.add_object(9003, box(2, 2, 10))
    data.add_object(9003, box(2, 14, 10))
    data.expect("repeated_object_id", 9003)
    data.add_object(9007, box(50, 2, 30))  # of a width of 64
    data.expect("out_of_bounds", 9007)
    data.add_object(9008, [[30, 50, 34, 54, 38, 58]])
    data.expect("zero_area", 9008)
    data.add_object(9009, [[14, 2, 34, 22, 34, 2, 14, 22]])  # an hourglass: its halves cancel
    data.expect("self_collapsing", 9009)
    data.add_object(9010, box(2, 40, 12))
    data.add_object(9011, box(2, 40, 12))  # of equal ones the higher id is on top
    data.expect("hidden_object", 9010)
    data.add_object(9012, box(60, 60, 1))  # a quarter of a pixel at half the size
    data.expect("below_resolution", 9012)
    data.tree["categories"].append({"id": 52, "name": "Ghost"})
    data.expect("unused_class", "Ghost")
    data.tree["categories"].append({"id": 53, "name": "Unicorn"})
    data.add_object(9013, box(40, 40, 12), category=53)
    data.expect("rare_class", "Unicorn")


def spoil_with_errors(data: Spoiled) -> None:
    """What training refuses. The canvas is there already."""
    data.file(1).unlink()
    data.expect("missing_photo", 1)
    data.file(2).write_text("this is no photo")
    whole = data.file(9).read_bytes()
    data.file(9).write_bytes(whole[: len(whole) // 2])
    data.expect("unreadable_photo", 2, 9)
    cv2.imwrite(str(data.file(3)), np.zeros((50, 64, 3), np.uint8))
    data.expect("size_mismatch", 3)
    data.add_photo(6, data.another_scene(2), "photos/second.jpg")
    data.expect("repeated_image_id", 6, 6)
    data.add_photo(102, data.file(7), "photos/000007_.jpg")
    data.tree["images"][-1]["file_name"] = "photos/000007.jpg"
    (data.folder / "photos/000007_.jpg").unlink()
    data.add_object(9102, box(0, 0, 20), image=102)
    data.expect("repeated_file_name", 7, 102)
    data.add_photo(103, data.another_scene(3), "photos/000008.png")
    data.add_object(9103, box(0, 0, 20), image=103)
    data.expect("repeated_mask_name", 8, 103)
    data.expect("malformed_entry", f"images[{len(data.tree['images'])}]")
    data.tree["images"].append({"id": 110, "file_name": "photos/000000.jpg", "width": 64})
    data.add_object(9014, box(0, 0, 9), image=110)  # its image is known, so that this is no error
    data.expect("malformed_entry", f"annotations[{len(data.tree['annotations'])}]")
    data.tree["annotations"].append(7)
    data.add_object(9001, box(0, 0, 9), image=999)
    data.expect("unknown_image", 9001)
    data.add_object(9002, box(0, 0, 9), category=77)
    data.expect("unknown_category", 9002)
    data.add_object(9004, [[1, 1, 5, 5]])
    data.expect("too_few_points", 9004)
    data.add_object(9005, [[1, 1, 5, 1, float("nan"), 5]])
    data.add_object(9006, {"size": [64, 64], "counts": "garbage"})
    data.expect("undecodable_segmentation", 9005, 9006)
    data.tree["categories"].append({"id": 50, "name": data.tree["categories"][2]["name"].upper()})
    data.expect("repeated_category", 50)
    data.tree["categories"].append({"id": 51, "name": "background"})
    data.add_object(9015, box(0, 0, 9), category=51)
    data.expect("background_category", 51)
