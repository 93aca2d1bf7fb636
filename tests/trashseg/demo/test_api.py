"""The interface through a real client, on the app that `launch.py demo` serves, page and all."""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as coco_mask

from tests.trashseg.demo.uploads import huge_png, photo
from trashseg.demo.api import wants_mask
from trashseg.demo.doors import MAX_BODY
from trashseg.demo.photos import MAX_BYTES, decode_upload
from trashseg.demo.refusal import RefusedError
from trashseg.demo.samples import load_samples
from trashseg.demo.segment import Segmenter, Settings

SEGMENT = "/api/v1/segment"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Gradio would keep files."""
    return tmp_path_factory.mktemp("gradio")


@pytest.fixture(scope="module")
def client(segmenter: Segmenter, sample: Path, folder: Path) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        from trashseg.demo.server import make_app

        with TestClient(make_app(segmenter, load_samples(sample))) as client:
            yield client


def _send(client: TestClient, content: bytes, query: str = "", **headers: str) -> Any:
    return client.post(SEGMENT + query, files={"photo": ("my photo.jpg", content)}, headers=headers)


def _refused(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    line = response.json()["error"]
    assert "\n" not in line
    return str(line)


# --- what is answered --------------------------------------------------------------------------


def test_a_photo_gets_its_shares_and_coco_results(client: TestClient, segmenter: Segmenter) -> None:
    content = photo()
    segmented = segmenter.segment(decode_upload(content), Settings())
    answer = _send(client, content).json()
    assert (answer["width"], answer["height"]) == (90, 60)
    assert (answer["threshold"], answer["crf"]) == (0.0, False)
    assert answer["unsure_of_photo"] == 0
    assert sum(entry["of_objects"] for entry in answer["classes"]) == pytest.approx(1, abs=1e-5)
    for entry in answer["classes"]:
        pixels = int((segmented.mask == entry["value"]).sum())
        assert entry["pixels"] == pixels
        assert entry["of_photo"] == pytest.approx(pixels / 5400, abs=1e-6)
        assert entry["name"] == segmenter.classes[entry["value"]]
    for result in answer["results"]:
        assert result["file_name"] == "my photo.jpg"
        here = segmented.mask == result["category_id"] + 1
        np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]) == 1, here)
    assert len(answer["results"]) == len(answer["classes"]) >= 2


def test_who_accepts_png_gets_the_mask(client: TestClient, segmenter: Segmenter) -> None:
    content = photo()
    response = _send(client, content, accept="image/png")
    assert response.headers["content-type"] == "image/png"
    mask = np.asarray(Image.open(BytesIO(response.content)))
    expected = segmenter.segment(decode_upload(content), Settings()).mask
    np.testing.assert_array_equal(mask, expected)


def test_threshold_and_crf_are_followed_and_told(client: TestClient, segmenter: Segmenter) -> None:
    content, settings = photo(48, 32), Settings(threshold=0.6, crf=True)
    answer = _send(client, content, "?threshold=0.6&crf=true").json()
    assert (answer["threshold"], answer["crf"]) == (0.6, True)
    segmented = segmenter.segment(decode_upload(content), settings)
    assert answer["unsure_of_photo"] == pytest.approx(segmented.unsure / (48 * 32), abs=1e-6)


def test_health_says_that_nothing_waits(client: TestClient) -> None:
    assert client.get("/api/v1/health").json() == {"status": "ok", "waiting": 0}


def test_classes_tell_value_colour_category_and_advice(client: TestClient) -> None:
    classes = client.get("/api/v1/classes").json()
    assert [entry["value"] for entry in classes] == list(range(12))
    assert classes[0] == {"value": 0, "name": "Background", "rgb": [0, 0, 0]}
    assert classes[7]["category_id"] == 6
    assert classes[7]["names"] == {"en": "Plastic", "ko": "플라스틱"}
    assert "PET" in classes[7]["how"]["en"]


@pytest.mark.parametrize(
    ("accept", "mask"),
    [
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("image/png", True),
        ("image/webp, image/png;q=0.9, */*", True),
        ("text/html, */*;q=0.1", False),
    ],
)
def test_the_first_form_that_is_accepted_and_offered_is_taken(accept: str, mask: bool) -> None:
    assert wants_mask(accept) is mask


def test_another_form_is_not_offered(client: TestClient) -> None:
    with pytest.raises(RefusedError):
        wants_mask("text/html")
    assert _refused(_send(client, photo(), accept="text/html"), 406).startswith("Only application")


# --- what is refused ---------------------------------------------------------------------------


def test_a_text_called_jpg_is_415(client: TestClient) -> None:
    assert "not a JPEG, PNG or WebP" in _refused(_send(client, b"I am a text\n"), 415)


def test_a_huge_photo_is_413_by_its_pixels(client: TestClient) -> None:
    assert "20000 x 20000 pixels" in _refused(_send(client, huge_png()), 413)


def test_a_large_file_is_413_by_its_bytes(client: TestClient) -> None:
    content = photo() + bytes(MAX_BYTES)
    assert _refused(_send(client, content), 413) == (
        "The photo has more than 25 MB. Please send a smaller one."
    )


def test_a_body_that_says_it_is_too_large_is_413_unread(client: TestClient) -> None:
    headers = {"content-length": str(MAX_BODY + 1)}
    assert "25 MB" in _refused(client.post(SEGMENT, content=b"x", headers=headers), 413)


def test_a_body_that_turns_out_to_be_too_large_is_413(client: TestClient) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
    pieces = (piece for piece in [head, *[bytes(2**20)] * (MAX_BODY // 2**20 + 1)])
    headers = {"content-type": "multipart/form-data; boundary=b"}  # no length: it comes in chunks
    assert "25 MB" in _refused(client.post(SEGMENT, content=pieces, headers=headers), 413)


def test_a_damaged_photo_is_422(client: TestClient) -> None:
    content = huge_png(8)[:41] + bytes(20)
    assert "damaged" in _refused(_send(client, content), 422)


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("?threshold=1.5", "threshold: input should be less than or equal to 1"),
        ("?threshold=nan", "threshold: input should be a finite number"),
        ("?crf=perhaps", "crf: input should be a valid boolean, unable to interpret input"),
        ("?treshold=0.5", "treshold: extra inputs are not permitted"),
    ],
)
def test_a_setting_that_does_not_work_is_422(client: TestClient, query: str, line: str) -> None:
    assert _refused(_send(client, photo(), query), 422) == line


def test_a_form_without_a_photo_is_422(client: TestClient) -> None:
    assert _refused(client.post(SEGMENT), 422) == "photo: field required"


def test_after_all_that_the_server_answers(client: TestClient) -> None:
    assert _send(client, photo()).status_code == 200


# --- what else is there ------------------------------------------------------------------------


def test_the_description_of_the_interface_names_its_routes_and_no_page_of_it(
    client: TestClient,
) -> None:
    described = client.get("/api/v1/openapi.json").json()
    assert set(described["paths"]) == {"/api/v1/health", "/api/v1/classes", SEGMENT}
    # FastAPI's pages would fetch their scripts from the internet
    assert "swagger" not in client.get("/docs").text.lower()


def test_the_page_is_at_the_root_and_names_no_other_machine(client: TestClient) -> None:
    page = client.get("/").text
    assert "이 쓰레기, 어떻게 버릴까요?" in page
    fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', page)
    assert not [url for url in fetched if re.match(r"(https?:)?//", url)]
    config = json.loads(re.search(r"window.gradio_config = (.*?);</script>", page)[1])  # type: ignore[index]
    assert config["analytics_enabled"] is False


def test_gradios_own_ways_to_leave_and_fetch_files_are_closed(
    client: TestClient, untrained: Path, folder: Path
) -> None:
    sent = client.post("/gradio_api/upload", files={"files": ("a.jpg", photo())})
    assert "no such route" in _refused(sent, 404)
    for route in (f"file={untrained / 'config.yaml'}", "proxy=https://example.org", "deep_link"):
        _refused(client.get(f"/gradio_api/{route}"), 404)
    assert not [path for path in folder.rglob("*") if path.is_file()]
