"""Epochs and regret of simulated searches, by hand."""

import pytest

from bench import search_outcomes
from bench.lcbench import Task
from bench.search_efficiency import check_equal
from bench.search_outcomes import BUDGETS, Outcome, closest, comparisons, epochs_ratio, regrets
from tests.bench.surrogate import needs_surrogate


def outcome(policy: str, worth: float, seed: int = 0, reached: int | None = None) -> Outcome:
    """The incumbent is worth `worth` at every budget."""
    return Outcome("task", policy, 1, seed, dict.fromkeys(BUDGETS, worth), reached)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """A random configuration has 0.5; the best that was found 0.9."""
    monkeypatch.setattr(search_outcomes, "Task", str)
    monkeypatch.setattr(search_outcomes, "typical", lambda task: 0.5)
    ours = [outcome("ours", 0.9, 0, 520), outcome("ours", 0.85, 1, 780), outcome("ours", 0.8, 2)]
    return [*ours, *(outcome("random", 0.7, seed) for seed in range(3)), outcome("TPE", 0.8)]


def test_regret_is_nought_for_the_best_found_and_one_for_a_usual_configuration(
    outcomes: list[Outcome],
) -> None:
    """Ours: (0 + 0.05 + 0.1) / 3 / 0.4; random: 0.2 / 0.4; TPE: 0.1 / 0.4."""
    found = regrets(outcomes)
    assert found["ours", 1] == pytest.approx(dict.fromkeys(BUDGETS, 0.125))
    assert found["random", 1] == pytest.approx(dict.fromkeys(BUDGETS, 0.5))
    assert found["TPE", 1] == pytest.approx(dict.fromkeys(BUDGETS, 0.25))


def test_a_search_that_never_gets_there_counts_as_the_slowest(outcomes: list[Outcome]) -> None:
    """520, 780, never: the median is 780; two of three got there."""
    assert epochs_ratio(outcomes, workers=1) == (780, pytest.approx(2 / 3))


def test_we_are_compared_with_the_best_other_where_it_is_closest(outcomes: list[Outcome]) -> None:
    found = regrets(outcomes)
    found["TPE", 1][30] = 0.1
    assert closest(found, workers=1) == (pytest.approx(0.125), 0.1, 30, "TPE")


def test_bars_are_those_of_epochs_of_reliability_and_of_regret(outcomes: list[Outcome]) -> None:
    """780 / 5200 = 0.15, just within; 2 of 3 are too few; 0.125 / 0.25 is ahead."""
    epochs, reliable, regret = comparisons(outcomes, "search", "a part")
    assert (epochs.ratio, epochs.met) == (pytest.approx(0.15), True)
    assert (reliable.ratio, reliable.met) == (pytest.approx(2 / 3), False)
    assert (regret.ratio, regret.met) == (pytest.approx(0.5), True)


@needs_surrogate
def test_the_simulations_ledger_proposes_what_one_on_disk_does() -> None:
    check_equal()  # raises where it does not


@needs_surrogate
def test_a_usual_configuration_is_neither_the_best_nor_chance() -> None:
    assert 0.5 < search_outcomes.typical(Task("3945"), count=50) < 0.95
