"""A measured comparison, and what is written of it."""

import json

import numpy as np
import pytest

from bench.comparison import Bar, Comparison, notes, table


@pytest.mark.parametrize(
    ("relation", "ratio", "met"),
    [
        ("<=", 1.0, True),
        ("<=", 1.01, False),
        ("<", 1.0, False),
        (">=", 1.0, True),
        (">=", 0.9, False),
    ],
)
def test_a_bar_says_what_the_ratio_has_to_be(relation: str, ratio: float, met: bool) -> None:
    assert Bar(relation, 1.0).met(ratio) is met


def test_numbers_of_numpy_can_be_written() -> None:
    measured = np.array([6.0, 2.0])
    one = Comparison("crf: throughput", "photos/s", Bar(">=", 3), measured[0], measured[1], "note")
    assert json.loads(json.dumps(one.as_json())) == {
        "name": "crf: throughput", "ours": 6.0, "peer": 2.0, "unit": "photos/s", "ratio": 3.0,
        "bar": ">= 3", "met": True, "note": "note",
    }  # fmt: skip


def test_the_table_tells_what_was_missed_and_what_was_not_measured() -> None:
    rows = table(
        [
            Comparison("slow", "s", Bar("<", 0.3), 0.5),
            Comparison("gpu", "ms", Bar("<=", 5), note="there is no GPU"),
            Comparison("stated", "MB", None, 1119.4),
        ]
    ).splitlines()[2:]
    assert rows == [
        "| slow | 0.5 |  | s | 0.5 | < 0.3 | **no** |",
        "| gpu | not measured |  | ms | not measured | <= 5 | not measured |",
        "| stated | 1,119 |  | MB | 1,119 |  |  |",
    ]


def test_rows_after_each_other_that_say_the_same_share_a_note() -> None:
    written = notes(
        [
            Comparison("ladder: fp32", "images/s", None, note="there is no GPU"),
            Comparison("ladder: bf16", "images/s", None, note="there is no GPU"),
            Comparison("ladder: all", "images/s", None, note="there is no GPU"),
            Comparison("start", "s", None, 0.1),
            Comparison("crf", "ms", None, note="there is no GPU"),
        ]
    )
    assert written == (
        "- ladder: fp32, and the 2 after it: there is no GPU\n- crf: there is no GPU\n"
    )
