"""Epochs saved, importance against chance, machines and hours: against numbers worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from search.config import SearchConfig
from search.report.importance import FEWEST, best_share, importances
from search.report.times import (
    Span,
    Work,
    lanes,
    machines,
    read_events,
    read_times,
    seconds_by_trial,
    spans,
)
from search.report.trainings import Training
from search.report.trials import TrialFacts, common_epoch, epochs_saved


def trial(state: str, epochs: int, curve: dict[int, float] | None = None) -> TrialFacts:
    return TrialFacts("t", 0, state, False, epochs, None, None, {}, curve or {}, "")


def test_epochs_that_stopped_trials_did_not_train_are_saved() -> None:
    # of nine epochs: 9 and 3 + 3 and 6 of one that gave up; a failed and an open one save nothing
    trials = [
        *(trial("finished", 9), trial("pruned", 3), trial("pruned", 3), trial("finished", 6)),
        *(trial("failed", 2), trial("open", 4)),
    ]
    saved = epochs_saved(trials, epochs=9)
    assert saved.trained == 9 + 3 + 3 + 6 + 2 + 4
    assert saved.full == 4 * 9
    assert saved.saved_by_rungs == 6 + 6
    assert saved.saved_by_patience == 3
    assert saved.share == pytest.approx(15 / 36)


def test_before_any_trial_has_ended_nothing_is_saved() -> None:
    assert epochs_saved([trial("open", 4)], epochs=9).share == 0.0


@given(st.lists(st.tuples(st.sampled_from(["finished", "pruned"]), st.integers(1, 9))))
def test_what_was_trained_and_what_was_saved_is_all_of_it(ended: list[tuple[str, int]]) -> None:
    saved = epochs_saved([trial(state, epochs) for state, epochs in ended], epochs=9)
    assert saved.trained + saved.saved_by_rungs + saved.saved_by_patience == saved.full
    assert 0 <= saved.share < 1


def test_the_score_after_an_epoch_is_the_best_until_then() -> None:
    curve = {1: 0.1, 2: 0.3, 3: 0.3}
    assert trial("pruned", 3, curve).score_after(2) == 0.3
    assert trial("pruned", 3, curve).score_after(4) is None  # nobody knows
    assert trial("finished", 3, curve).score_after(4) == 0.3  # it gave up
    assert trial("open", 0).score_after(1) is None


def test_trials_are_compared_at_the_first_rung_or_at_the_end() -> None:
    def config(grace: int) -> SearchConfig:
        return SearchConfig.model_validate(
            {"epochs": 9, "search": {"grace_period": grace, "reduction_factor": 3}}
        )

    assert common_epoch(config(3)) == 3
    assert common_epoch(config(9)) == 9  # no rung below the last epoch


# --- importance --------------------------------------------------------------------------------


def point(number: int, x: float, y: float) -> FrozenTrial:
    unit = FloatDistribution(0.0, 1.0)
    return create_trial(
        value=0.0, params={"x": x, "y": y}, distributions={"x": unit, "y": unit},
        user_attrs={"trial_id": str(number)},
    )  # fmt: skip


def test_what_decides_the_score_is_important_and_what_does_not_is_no_more_than_chance() -> None:
    count = 40
    frozen = [point(n, n / count, (n * 7 % count) / count) for n in range(count)]
    facts = [
        TrialFacts(str(n), n, "pruned", False, 1, None, None, {}, {1: n / count}, "")
        for n in range(count)
    ]
    x, y = importances(frozen, facts, epoch=1).parameters
    assert (x.parameter, y.parameter) == ("x", "y")
    assert x.share + y.share == pytest.approx(1)
    assert x.share > x.chance
    assert y.share < y.chance


def test_few_trials_say_nothing_of_importance() -> None:
    frozen = [point(n, 0.1 * n, 0.5) for n in range(FEWEST - 1)]
    facts = [
        TrialFacts(str(n), n, "pruned", False, 1, None, None, {}, {1: 0.1}, "")
        for n in range(FEWEST - 1)
    ]
    found = importances(frozen, facts, epoch=1)
    assert found.parameters == ()
    assert found.trials == FEWEST - 1


@pytest.mark.parametrize(("trials", "share"), [(8, 0.5), (20, 0.25), (50, 0.1), (200, 0.1)])
def test_the_best_are_five_trials_a_tenth_or_half(trials: int, share: float) -> None:
    assert best_share(trials) == pytest.approx(share)


# --- times -------------------------------------------------------------------------------------


def say(kind: str, what: str, at: int, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "what": what, "at": at, **more}


EVENTS = [
    {"kind": "search", "search_id": "x"},
    say("start", "parent", 1000),
    say("start", "trial/trial_000", 2000),
    say("metrics", "trial/trial_000", 5000, step=1, metrics={"seconds": 2.5, "miou": 0.1}),
    say("start", "trial/trial_000", 60_000),  # taken up again
    say("metrics", "trial/trial_000", 61_000, step=1, metrics={"seconds": 2.5, "miou": 0.1}),
    say("metrics", "trial/trial_000", 63_000, step=2, metrics={"seconds": 1.5, "miou": 0.2}),
    say("end", "trial/trial_000", 64_000, status="KILLED", state="pruned at epoch 2"),
    say("start", "fold/trial_000/1", 70_000),
    say("start", "trial/trial_009", 71_000),  # of a search that was deleted
    say("files", "parent", 90_000, files="3"),
]


def test_seconds_of_an_epoch_that_was_told_twice_count_once() -> None:
    assert seconds_by_trial(EVENTS) == {"trial_000": 4.0}


def test_a_span_goes_from_the_first_beginning_to_the_last_word() -> None:
    assert spans(EVENTS, {"trial/trial_000"}) == [
        Span("trial_000", "trial", "pruned", 0.0, 62.0),
        Span("trial_000/1", "fold", "open", 68.0, 68.0),
    ]


def test_a_line_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(EVENTS[0]) + '\n{"kind": "sta')
    assert list(read_events(file)) == [EVENTS[0]]
    assert file.read_text().endswith('"sta')
    assert list(read_events(tmp_path / "none")) == []


def test_what_the_search_had_trained_counts_as_a_trial_alone(tmp_path: Path) -> None:
    """Two epochs of 3 s, one fold that the search left and one that was trained after it."""

    def fold(number: int, from_search: bool) -> Training:
        return Training(
            "trial_000", number, 0, {"miou": 0.5}, epochs=2, seconds=6.0, host="a", device="CPU",
            from_search=from_search,
        )  # fmt: skip

    def work(*trainings: Training) -> tuple[Work, ...]:
        return read_times(tmp_path / "none", [], [trial("finished", 2)], trainings).work

    searched, folds = work(fold(0, from_search=True), fold(1, from_search=False))
    assert (searched.stage, searched.trainings, searched.epochs) == ("search", 1, 2)
    assert folds == Work("folds", 1, 2, 6.0, ("a (CPU)",))
    assert [row.stage for row in work(fold(0, from_search=True))] == ["search"]


def test_machines_are_named_once_with_what_they_trained_on() -> None:
    places = [("b", "CPU"), ("a", "H100"), ("b", ""), ("b", "CPU"), ("", ""), ("c", "")]
    assert machines(places) == ("a (H100)", "b (CPU)", "c")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=30))
def test_no_two_spans_of_a_row_overlap(drawn: list[tuple[int, int]]) -> None:
    made = [Span("", "trial", "", float(at), float(at + long)) for at, long in sorted(drawn)]
    rows = lanes(made)
    for place, (span, row) in enumerate(zip(made, rows, strict=True)):
        for other, same in zip(made[:place], rows[:place], strict=True):
            assert row != same or other.end <= span.start
    assert sorted(set(rows)) == list(range(len(set(rows))))
