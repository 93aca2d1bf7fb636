"""What the page says: all of it in both languages, with advice on every class of the sample."""

import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from trashseg.data.coco import load_coco
from trashseg.demo.guide import Text, read_guide
from trashseg.demo.refusal import STATUS, RefusedError
from trashseg.errors import TrashSegError

HANGUL = re.compile("[가-힣]")


def _texts() -> Iterator[tuple[str, Text]]:
    guide = read_guide()
    for group in ("page", "progress", "result", "refusals"):
        for name, text in getattr(guide, group).items():
            yield f"{group}.{name}", text
    for name, advice in guide.classes.items():
        yield f"{name}.name", advice.name
        yield f"{name}.how", advice.how
    yield "unknown_class", guide.unknown_class


@pytest.mark.parametrize(("name", "text"), list(_texts()), ids=lambda value: str(value)[:30])
def test_every_text_is_there_in_both_languages_with_the_same_placeholders(
    name: str, text: Text
) -> None:
    assert text.en.strip()
    assert not HANGUL.search(text.en)
    assert HANGUL.search(text.ko) or name == "result.coco", "the name of a file format"
    asked = [
        {field for _, field, _, _ in Formatter().parse(said) if field}
        for said in (text.en, text.ko)
    ]
    english, korean = (fields - {"megapixels", "man"} for fields in asked)
    assert english == korean
    assert ("megapixels" in asked[0]) == (
        "man" in asked[1]
    )  # the unit that each language counts in


def test_there_is_advice_on_every_class_of_the_sample(sample: Path) -> None:
    guide = read_guide()
    classes = load_coco(sample).classes[1:]
    assert len(classes) == 11
    for name in classes:
        assert guide.advice(name).how != guide.unknown_class, name


def test_a_class_is_found_in_upper_and_lower_case() -> None:
    guide = read_guide()
    assert guide.advice("plastic BAG") == guide.advice("Plastic bag")
    assert guide.advice("Plastic bag").name == Text(en="Plastic bag", ko="비닐")


def test_a_class_without_advice_keeps_its_name_and_refers_to_the_municipality() -> None:
    advice = read_guide().advice("Fishing net")
    assert advice.name == Text(en="Fishing net", ko="Fishing net")
    assert "municipality" in advice.how.en
    assert "주민센터" in advice.how.ko


def test_every_reason_to_refuse_has_a_status_and_a_text() -> None:
    assert set(read_guide().refusals) == set(STATUS)


def test_a_refusal_is_a_users_error_of_one_english_line() -> None:
    refused = RefusedError("too_large", megabytes=25)
    assert isinstance(refused, TrashSegError)
    assert str(refused) == "The photo has more than 25 MB. Please send a smaller one."
    assert refused.text.ko == "사진이 25MB보다 큽니다. 더 작은 사진을 올려 주세요."
    assert refused.status == 413
