"""Which photos the page offers."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.trashseg.demo.uploads import huge_png, photo
from trashseg.demo.samples import THUMBNAIL, load_samples
from trashseg.errors import DataError


def _folder(folder: Path, count: int) -> Path:
    for index in range(count):
        (folder / f"{index:02}.jpg").write_bytes(photo(seed=index))
    return folder


def test_six_photos_from_all_over_the_folder_are_offered(tmp_path: Path) -> None:
    samples = load_samples(_folder(tmp_path, 11))
    assert [sample.path.stem for sample in samples] == ["00", "02", "04", "06", "08", "10"]
    for sample in samples:
        assert Image.open(BytesIO(sample.thumbnail)).size == (THUMBNAIL, THUMBNAIL)


def test_fewer_photos_are_all_offered(tmp_path: Path) -> None:
    assert len(load_samples(_folder(tmp_path, 2))) == 2


def test_what_may_not_be_sent_is_not_offered(tmp_path: Path) -> None:
    _folder(tmp_path, 1)
    (tmp_path / "huge.png").write_bytes(huge_png())
    (tmp_path / "text.jpg").write_text("I am a text")
    assert [sample.path.name for sample in load_samples(tmp_path)] == ["00.jpg"]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no photos .*: check --samples"):
        load_samples(tmp_path)
