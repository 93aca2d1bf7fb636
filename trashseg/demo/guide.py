"""All that the page says, in both languages: `guide.yaml`, read once and checked."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from trashseg.config_file import read_yaml, validate
from trashseg.sections import Section

FILE = Path(__file__).with_name("guide.yaml")
Language = Literal["en", "ko"]


class Text(Section):
    """One text in both languages."""

    en: str
    ko: str

    def fill(self, **values: Any) -> "Text":
        """With its {placeholders} replaced."""
        return Text(en=self.en.format(**values), ko=self.ko.format(**values))

    def say(self, language: Language) -> str:
        return self.ko if language == "ko" else self.en


class Advice(Section):
    """What a class is called, and how it is disposed of."""

    name: Text
    how: Text


class Guide(Section):
    page: Mapping[str, Text]
    progress: Mapping[str, Text]
    result: Mapping[str, Text]
    refusals: Mapping[str, Text]
    unknown_class: Text
    """Advice on a class that is not in `classes`."""
    classes: Mapping[str, Advice]
    """By the category's name in the COCO json."""

    def advice(self, name: str) -> Advice:
        """On the class of that name, in upper or lower case; where there is none it keeps its name."""
        by_name = {known.casefold(): advice for known, advice in self.classes.items()}
        unknown = Advice(name=Text(en=name, ko=name), how=self.unknown_class)
        return by_name.get(name.casefold(), unknown)


@cache
def read_guide() -> Guide:
    return validate(Guide, read_yaml(FILE), where=str(FILE))
