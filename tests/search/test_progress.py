"""The tally of a search: what it says after each event, and that it counts as ASHA judges."""

import random

import pytest

from search.config import SearchConfig
from search.progress import Curve, Pace, Progress, Rung

CONFIG = SearchConfig.model_validate({"epochs": 9, "search": {"trials": 4, "reduction_factor": 3}})


@pytest.fixture
def progress() -> Progress:
    return Progress(CONFIG, Pace(started=0.0, last=0.0))


def test_before_the_first_proposal_all_trials_are_to_come(progress: Progress) -> None:
    status = progress.status(active=True)
    assert status.counts == {"open": 0, "finished": 0, "pruned": 0, "failed": 0, "to come": 4}
    assert (status.open, status.rungs, status.best, status.hand_tuned) == ([], [], None, None)
    assert status.epochs_left == 4 * 9


def test_the_first_of_equally_good_trials_is_the_best(progress: Progress) -> None:
    for name in ("trial_000", "trial_001", "trial_002"):
        progress.proposed(name)
    progress.reported("trial_002", 1, 0.5)
    progress.reported("trial_001", 1, 0.5)
    progress.reported("trial_002", 2, 0.5)
    assert progress.status(active=True).best == Curve("trial_001", (0.5,))


def test_the_best_trial_keeps_its_curve_when_it_has_ended(progress: Progress) -> None:
    progress.proposed("trial_000")
    progress.proposed("trial_001")
    for epoch, score in ((1, 0.25), (2, 0.5)):
        progress.reported("trial_001", epoch, score)
    progress.reported("trial_000", 1, 0.125)
    progress.ended("trial_001", "finished")
    status = progress.status(active=True)
    assert status.best == Curve("trial_001", (0.25, 0.5))
    assert status.hand_tuned == Curve("trial_000", (0.125,))
    assert [trial.name for trial in status.open] == ["trial_000"]
    # the one that ended had 2 epochs; one of 1 epoch is open, two are to come
    assert status.epochs_left == 1 + 2 * 2


def test_hand_tuning_goes_on_from_a_rung_that_it_is_the_last_of(progress: Progress) -> None:
    for number in range(4):
        progress.proposed(f"trial_{number:03d}")
    for name, score in (("trial_001", 0.5), ("trial_002", 0.25), ("trial_003", 0.375)):
        progress.arrived(name, 3, score)  # two pass unjudged; the third is not the best of three
    progress.arrived("trial_000", 3, 0.125)
    assert progress.status(active=True).rungs == [Rung(epoch=3, arrived=4, went_on=3, best=0.5)]


@pytest.mark.parametrize("levels", [5, 1000], ids=["many equal scores", "few equal scores"])
def test_those_that_went_on_are_those_that_successive_halving_lets_go_on(
    progress: Progress, levels: int
) -> None:
    """The best third of those that have arrived, at least one; all until there are three."""
    draw = random.Random(0)
    progress.proposed("trial_000")
    scores: list[float] = []
    went_on = 0
    for number in range(1, 100):
        name = f"trial_{number:03d}"
        progress.proposed(name)
        scores.append(draw.randrange(levels) / levels)
        better = sum(score > scores[-1] for score in scores)
        went_on += number < 3 or better < max(1, number // 3)
        progress.arrived(name, 3, scores[-1])
        [seen] = progress.status(active=True).rungs
        assert (seen.arrived, seen.went_on, seen.best) == (number, went_on, max(scores))
