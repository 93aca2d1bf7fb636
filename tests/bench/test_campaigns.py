"""What a long campaign has measured is in the next table, unless that was measured anew."""

from pathlib import Path

import pytest

from bench import campaigns, machine
from bench.comparison import Bar, Comparison

SLOW = Comparison("search, 64 workers", "epochs", Bar("<=", 0.15), 520.0, 5200.0, "17 data sets")
SHORT = Comparison("search, 1 worker", "share", Bar(">=", 0.97), 0.5)
STATED = Comparison("memory", "MB", None, 1800.0)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(campaigns, "FILE", tmp_path / "campaigns.json")
    monkeypatch.setattr(machine, "describe", lambda: "some CPU")
    return tmp_path / "campaigns.json"


def test_nothing_was_measured_before_the_first_campaign() -> None:
    assert campaigns.kept([SHORT]) == []


def test_what_was_measured_is_kept_with_its_verdict_and_where_it_is_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    campaigns.keep("make slow", [SLOW, SHORT, STATED])
    monkeypatch.setattr(machine, "describe", lambda: "another CPU")
    slow, short, stated = campaigns.kept([])
    assert (slow.name, slow.unit, slow.ours, slow.peer) == (
        "search, 64 workers", "epochs", 520, 5200
    )  # fmt: skip
    assert (slow.ratio, slow.met, short.met) == (pytest.approx(0.1), True, False)
    assert (stated.bar, stated.met) == (None, None)
    assert slow.note.startswith("`make slow`, 20")
    assert slow.note.endswith(", some CPU: 17 data sets")
    assert stated.note.endswith(", some CPU")


def test_a_machine_like_the_tables_is_not_described_again() -> None:
    campaigns.keep("make slow", [SLOW, STATED])
    slow, stated = campaigns.kept([])
    assert slow.note.endswith(", such a machine: 17 data sets")
    assert stated.note.endswith(", such a machine")


def test_what_is_measured_anew_is_not_shown_twice() -> None:
    campaigns.keep("make slow", [SLOW, SHORT])
    assert [one.name for one in campaigns.kept([SHORT])] == [SLOW.name]


def test_a_campaign_replaces_its_own_figures_and_no_others() -> None:
    campaigns.keep("make slow", [SLOW])
    campaigns.keep("make long", [STATED])
    campaigns.keep("make slow", [SHORT])
    assert [one.name for one in campaigns.kept([])] == [SHORT.name, STATED.name]
