"""What is printed where the output is no terminal: a plain line per event."""

import re

import pytest

from search.config import SearchConfig
from search.display import number, print_scores
from search.live import SearchDisplay


def lines(text: str) -> list[str]:
    """Without the time in front."""
    return [re.sub(r"^ *\d+:\d\d  ", "", line) for line in text.splitlines()]


def test_events_are_plain_lines_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchDisplay(SearchConfig()) as display:
        display.trial_started("trial_000", {"loss.name": "dice", "clip_norm": 1.0})
        display.trial_started("trial_001", {"clip_norm": 1.0})
        display.trial_ended("trial_000", "finished", "", 0.25)
        display.trial_ended("trial_001", "pruned", "at epoch 3", 0.125)
        display.trial_ended("trial_002", "failed", "NonFiniteError: epoch 1", None)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert all(re.match(r" +\d+:\d\d  trial_00\d ", line) for line in out.splitlines())
    assert lines(out) == [
        "trial_000 started dice",
        "trial_001 started",
        "trial_000 finished, 0.2500",
        "trial_001 pruned at epoch 3, 0.1250",
        "trial_002 failed NonFiniteError: epoch 1",
    ]


@pytest.mark.parametrize(
    "error",
    [
        "ValueError: expected a shape of [n, 3]",
        "OSError: [/mnt/photos/1.jpg] cannot be read",  # rich would take it for a closing tag
        "KeyError: '[red]'",
    ],
)
def test_an_error_with_brackets_is_printed_as_it_is(
    capsys: pytest.CaptureFixture[str], error: str
) -> None:
    with SearchDisplay(SearchConfig()) as display:
        display.trial_ended("trial_000", "failed", error, None)
    assert lines(capsys.readouterr().out) == [f"trial_000 failed {error}"]


def test_a_long_line_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchDisplay(SearchConfig()) as display:
        display.line("x" * 500)
    assert lines(capsys.readouterr().out) == ["x" * 500]


def test_scores_are_a_table_with_a_dash_for_classes_that_are_absent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = {"miou": 0.51239, "miou_image": 0.25, "pixel_accuracy": 1.0, "images": 20}
    print_scores({"fold 0": {**scores, "iou": {"Background": 0.75, "Glass": None}}})
    text = re.sub(r"[^\w.\n-]+", " ", capsys.readouterr().out)  # without the table's lines
    rows = {line.strip() for line in text.splitlines()}
    assert {"miou 0.5124", "miou_image 0.25", "pixel_accuracy 1", "photos 20"} <= rows
    assert {"Background 0.75", "Glass -"} <= rows


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0.0, "0"), (0.123456, "0.1235"), (3, "3"), ("adam", "adam")]
)
def test_numbers_are_short(value: object, shown: str) -> None:
    assert number(value) == shown
