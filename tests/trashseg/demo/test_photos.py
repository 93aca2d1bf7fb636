"""Which uploads are let in, by their first bytes."""

import contextlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.trashseg.demo.uploads import TURNED_LEFT, encode, huge_png, photo
from trashseg.demo.photos import MAX_BYTES, check_upload, decode_upload, read_size
from trashseg.demo.refusal import RefusedError

FORMS = {
    "jpeg": {"form": "JPEG"},
    "progressive jpeg": {"form": "JPEG", "progressive": True},
    "png": {"form": "PNG"},
    "lossy webp": {"form": "WEBP"},
    "lossless webp": {"form": "WEBP", "lossless": True},
}


def _reason(content: bytes) -> str:
    with pytest.raises(RefusedError) as refused:
        check_upload(content)
    return refused.value.reason


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("width", "height"), [(90, 60), (1, 700), (300, 257)])
def test_the_header_tells_the_size_that_is_decoded(
    options: dict[str, object], width: int, height: int
) -> None:
    content = photo(width, height, **options)  # type: ignore[arg-type]
    assert read_size(content) == (width, height)
    assert decode_upload(content).shape == (height, width, 3)


def test_webp_without_metadata_tells_its_size_in_its_first_frame() -> None:
    for lossless, kind in ((False, b"VP8 "), (True, b"VP8L")):
        content = BytesIO()
        Image.new("RGB", (37, 91)).save(content, "WEBP", lossless=lossless)
        assert content.getvalue()[12:16] == kind
        assert read_size(content.getvalue()) == (37, 91)


def test_the_size_of_a_thumbnail_is_not_taken_for_the_photos() -> None:
    thumbnail = photo(16, 12)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    content = photo(90, 60)
    assert read_size(content[:2] + segment + content[2:]) == (90, 60)


def test_a_photo_is_turned_upright_as_predict_turns_it() -> None:
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, :40] = 255  # bright on the left; turned right, the left is above
    image = decode_upload(encode(Image.fromarray(pixels), "JPEG", TURNED_LEFT))
    assert image.shape == (80, 40, 3)
    assert image[:36].min() > 200
    assert image[44:].max() < 50


def test_colours_are_rgb() -> None:
    image = decode_upload(encode(Image.new("RGB", (8, 8), (255, 0, 0)), "PNG"))
    assert image[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, I am a text\n" * 50,
        b"\xff\xd8",
        b"GIF89a" + bytes(99),
        b"%PDF-1.7" + bytes(99),
    ],
    ids=["nothing", "text", "two bytes", "gif", "pdf"],
)
def test_what_is_no_photo_is_refused_whatever_it_is_called(content: bytes) -> None:
    assert _reason(content) == "not_a_photo"


def test_a_photo_of_an_iphone_gets_advice_of_its_own() -> None:
    assert _reason(b"\x00\x00\x00\x18ftypheic" + bytes(99)) == "heic"


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    content = huge_png()
    assert len(content) < 1_000_000
    with pytest.raises(RefusedError, match=r"has 20000 x 20000 pixels, more than 50 megapixels"):
        decode_upload(content)
    # the header alone is enough: nothing after it was looked at
    assert _reason(content[:33]) == "too_many_pixels"


def test_fifty_megapixels_are_let_in_and_one_row_more_is_not() -> None:
    header = huge_png(1)[:16]
    check_upload(header + (10_000).to_bytes(4, "big") + (5_000).to_bytes(4, "big"))
    assert _reason(header + (10_000).to_bytes(4, "big") + (5_001).to_bytes(4, "big")) == (
        "too_many_pixels"
    )


def test_too_many_bytes_are_refused_and_one_byte_less_is_not() -> None:
    content = photo()
    padded = content + bytes(MAX_BYTES - len(content))
    check_upload(padded)
    assert _reason(padded + b"\0") == "too_large"


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_a_photo_cut_off_anywhere_is_refused_or_decoded_and_nothing_else(
    options: dict[str, object],
) -> None:
    content = photo(**options)  # type: ignore[arg-type]
    for length in [*range(64), *range(64, len(content), 97)]:
        shape = None
        with contextlib.suppress(RefusedError):  # any other exception fails
            shape = decode_upload(content[:length]).shape
        assert shape in (None, (60, 90, 3))


def test_a_jpeg_of_fill_bytes_or_endless_segments_is_refused() -> None:
    assert _reason(b"\xff\xd8" + b"\xff" * 100_000) == "damaged"
    assert _reason(b"\xff\xd8" + b"\xff\xe1\x00\x02" * 100_000) == "damaged"


def test_what_opencv_cannot_decode_is_called_damaged() -> None:
    content = huge_png(8)[:41] + bytes(20)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is None
    with pytest.raises(RefusedError, match="damaged"):
        decode_upload(content)
