"""The page's HTML: both languages, shares, downloads that need no file on the server."""

import base64
import json
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.trashseg.demo.uploads import photo
from trashseg.demo import markup
from trashseg.demo.guide import Text, read_guide
from trashseg.demo.photos import decode_upload
from trashseg.demo.segment import Segmented, Segmenter, Settings


@pytest.fixture(scope="module")
def segmented(segmenter: Segmenter) -> Segmented:
    return segmenter.segment(decode_upload(photo()), Settings())


def _linked(html: str, name: str) -> bytes:
    found = re.search(
        rf'(?:download|class)="{name}"[^>]*?(?:href|src)="data:[^;]+;base64,([^"]+)"', html
    )
    assert found, name
    return base64.b64decode(found[1])


def test_every_text_is_there_twice_and_escaped() -> None:
    spans = markup.both(Text(en="a < b & c", ko="가"))
    assert spans == '<span lang="en">a &lt; b &amp; c</span><span lang="ko">가</span>'


def test_a_result_names_each_class_in_both_languages_with_its_share(
    segmenter: Segmenter, segmented: Segmented
) -> None:
    html = markup.result(read_guide(), segmenter, segmented, "ko")
    shares = segmented.shares()
    assert html.count("<li>") == len(shares) >= 2
    for share in shares:
        advice = read_guide().advice(segmenter.classes[share.value])
        assert markup.both(advice.name) in html
        assert markup.both(advice.how) in html
        assert f"<b>{share.of_objects:.1%}</b> of the trash" in html
        assert f"쓰레기의 <b>{share.of_objects:.1%}</b>" in html
    assert 'alt="찾은 재질을 색으로 칠한 사진"' in html
    assert "{percent}" not in html


def test_the_downloads_are_the_mask_and_the_coco_results(
    segmenter: Segmenter, segmented: Segmented
) -> None:
    html = markup.result(read_guide(), segmenter, segmented, "en")
    mask = np.asarray(Image.open(BytesIO(_linked(html, "mask.png"))))
    np.testing.assert_array_equal(mask, segmented.mask)
    assert json.loads(_linked(html, "coco.json")) == segmenter.coco(segmented, "photo")


@pytest.mark.parametrize(
    ("width", "height", "shown"),
    [(90, 60, (90, 60)), (3200, 800, (1600, 400)), (20, 3200, (10, 1600))],
)
def test_the_picture_keeps_the_photos_proportions_and_is_no_larger_than_needed(
    segmenter: Segmenter, width: int, height: int, shown: tuple[int, int]
) -> None:
    segmented = segmenter.segment(decode_upload(photo(width, height)), Settings())
    html = markup.result(read_guide(), segmenter, segmented, "en")
    assert f'width="{width}" height="{height}"' in html
    assert Image.open(BytesIO(_linked(html, "overlay"))).size == shown


def test_the_unsure_share_is_told_where_there_is_a_threshold(
    segmenter: Segmenter, segmented: Segmented
) -> None:
    sure = segmenter.segment(segmented.image, Settings(threshold=1))
    html = markup.result(read_guide(), segmenter, sure, "en")
    assert "No trash found in this photo." in html
    assert "the model is not sure" in html
    assert "the model is not sure" not in markup.result(read_guide(), segmenter, segmented, "en")


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0.0%"), (0.0004, "&lt;0.1%"), (0.1234, "12.3%"), (1, "100.0%")]
)
def test_small_shares_are_not_said_to_be_nothing(share: float, said: str) -> None:
    assert markup.percent(share) == said


def test_the_guide_lists_every_class_and_an_unknown_one_too() -> None:
    html = markup.all_classes(read_guide(), ["Background", "Paper", "Fishing <net>"])
    assert html.count("<li>") == 2
    assert "Fishing &lt;net&gt;" in html
    assert markup.both(read_guide().unknown_class) in html
