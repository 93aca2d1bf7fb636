"""When a search waits and when it ends early."""

import threading
import time
from pathlib import Path

import pytest

from search import patience
from search.patience import TimeBudget, TooManyFailures, wait_for_room


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is set by hand."""
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    return now


# --- time --------------------------------------------------------------------------------------


def test_without_a_budget_there_is_always_time(clock: list[float]) -> None:
    budget = TimeBudget(None, epochs=10)
    clock[0] += 1e9
    assert budget.allows_a_trial()
    assert not budget.spent


def test_a_trial_is_allowed_while_a_whole_one_would_still_end_in_time(clock: list[float]) -> None:
    budget = TimeBudget(100.0, epochs=10)
    assert budget.allows_a_trial()  # nothing is known yet
    for seconds in (5.0, 3.0, 90.0):  # median 5: a trial takes 50
        budget.saw_epoch(seconds)
    clock[0] += 50.0
    assert budget.allows_a_trial()
    assert not budget.spent
    clock[0] += 1.0
    assert not budget.allows_a_trial()
    assert budget.spent


# --- failures ----------------------------------------------------------------------------------


def outcome(*states: str) -> TooManyFailures:
    failures = TooManyFailures()
    for number, state in enumerate(states):
        error = f"NonFiniteError: epoch {number}, step 2: the loss is nan"
        failures.trial_ended(f"trial_{number:03d}", state, {"error": error})
    return failures


@pytest.mark.parametrize(
    ("states", "ends"),
    [
        (["failed"] * 3, False),  # too few to tell
        (["failed"] * 4, True),
        (["failed", "failed", "finished", "pruned"], False),  # half is not more than half
        (["failed", "failed", "finished", "failed"], True),
        (["finished"] * 9, False),
    ],
)
def test_more_than_half_failing_ends_the_search(states: list[str], ends: bool) -> None:
    assert outcome(*states).stop_all() == ends


def test_the_verdict_names_the_common_cause_whatever_its_numbers() -> None:
    failures = outcome("failed", "failed", "failed", "finished")
    failures.trial_ended("trial_009", "failed", {"error": "MemoryShortError: 512 px do not fit"})
    assert failures.verdict == (
        "4 of 5 trials failed, 3 of them like: NonFiniteError: epoch 0, step 2: the loss is nan"
    )


def test_no_single_trial_is_stopped_for_the_others_failures() -> None:
    assert not outcome(*["failed"] * 4)("trial_007", {"epoch": 1})


# --- the disk ----------------------------------------------------------------------------------


def test_it_does_not_wait_where_there_is_room(tmp_path: Path) -> None:
    said: list[str] = []
    wait_for_room(tmp_path, 0.0, said.append)
    assert said == []


def test_it_waits_for_room_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [0.25]
    monkeypatch.setattr(patience, "_free_gb", lambda folder: free[0])
    monkeypatch.setattr(patience, "POLL_SECONDS", 0.01)
    said: list[str] = []
    waiter = threading.Thread(target=wait_for_room, args=(tmp_path, 0.5, said.append))
    waiter.start()
    while not said:
        time.sleep(0.01)
    assert said == [
        f"paused: the disk of {tmp_path} has 0.25 GB free, search.min_free_gb is 0.5: free some "
        "space and the search goes on; nothing is lost"
    ]
    assert waiter.is_alive()
    free[0] = 0.75
    waiter.join(timeout=60)
    assert said[1:] == ["going on: 0.75 GB are free"]
