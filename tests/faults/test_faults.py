"""A short fault campaign; `make faults` is the long one."""

from pathlib import Path

import pytest

from tests.faults.campaign import TARGETS, Campaign, Search, check

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_search_killed_at_random_moments_gives_the_leaderboard_of_one_left_alone(
    tmp_path: Path,
) -> None:
    campaign = Campaign(tmp_path, seed=1)
    expected = campaign.leaderboard_left_alone(trials=4)
    search = Search(tmp_path, "killed", trials=4)
    for target in TARGETS:
        campaign.strike(search, kills=1, targets=(target,))
    assert search.kills.total() >= 3
    search.finish()
    check(search)
    assert search.run.leaderboard.read_text() == expected


def test_two_trials_at_a_time_are_neither_lost_nor_repeated_when_everything_is_killed(
    tmp_path: Path,
) -> None:
    campaign = Campaign(tmp_path, seed=2)
    search = Search(tmp_path, "pair", trials=4, at_a_time=2)
    campaign.strike(search, kills=2, targets=("everything",))
    assert search.kills.total() >= 1
    search.finish()
    check(search)
