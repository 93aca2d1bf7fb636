"""Answers on encoded photos in memory are those of predict on the same photos in files."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.trashseg.untrained_folds import write_untrained
from trashseg.config import CrfConfig, TtaConfig
from trashseg.data.coco import load_coco
from trashseg.data.sample import sample_photo
from trashseg.device import local_resources
from trashseg.ensemble import Ensemble
from trashseg.errors import DataError
from trashseg.in_memory import answer, shares_of
from trashseg.member import load_member
from trashseg.predict import predict


@pytest.fixture
def ensemble(sample: Path, tmp_path: Path) -> Ensemble:
    """Two networks of two sizes, mirrored views, a CRF on a smaller copy."""
    dataset, resources = load_coco(sample), local_resources(1)
    for size in (32, 64):
        write_untrained(tmp_path / str(size), dataset, image_size=size, seed=size)
    members = tuple(load_member(tmp_path / str(size), resources.device) for size in (32, 64))
    crf = CrfConfig(iterations=2, max_side=60)
    views = TtaConfig(views=("identity", "horizontal_flip"))
    return Ensemble(members, (0.25, 0.75), views, False, crf, resources)


def write_photos(folder: Path) -> list[Path]:
    """Seven, so that the second group is not full: JPEG, PNG, one turned by EXIF, of several sizes."""
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(sample_photo(number, 40 + 20 * number))
    scene = Image.open(folder / "3.jpg")
    scene.resize((90, 50)).save(folder / "5.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # turn by 90 degrees
    scene.resize((70, 30)).save(folder / "6.jpg", exif=turned)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("by_object", [False, True])
def test_masks_are_those_that_predict_writes_to_the_byte(
    ensemble: Ensemble, tmp_path: Path, by_object: bool
) -> None:
    ensemble = replace(ensemble, by_object=by_object)
    photos = write_photos(tmp_path / "photos")
    answers = list(answer(ensemble, [photo.read_bytes() for photo in photos]))
    predict(ensemble, tmp_path / "photos", tmp_path / "out")
    written = sorted((tmp_path / "out" / "masks").iterdir())
    assert len(answers) == len(written) == 7
    assert [each.mask for each in answers] == [file.read_bytes() for file in written]
    sizes = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED).shape for file in written[4:]]
    assert sizes == [(120, 120), (50, 90), (70, 30)]  # the last one is upright
    found = [sum(share > 0 for share in each.shares.values()) for each in answers]
    assert max(found) == 1 if by_object else max(found) > 2


def test_shares_are_of_the_photos_pixels_class_by_class() -> None:
    mask = np.array([[0, 0], [0, 2]], dtype=np.uint8)
    assert shares_of(mask, ("Background", "Glass", "Paper")) == {
        "Background": 0.75, "Glass": 0.0, "Paper": 0.25
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"hello", sample_photo(0)[:10]])
def test_what_is_no_photo_is_named_by_its_place(ensemble: Ensemble, content: bytes) -> None:
    with pytest.raises(DataError, match="photo 1: is not a readable photo: replace it"):
        list(answer(ensemble, [sample_photo(0), content]))
