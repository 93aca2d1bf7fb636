"""Who becomes champion: the better nested score, where two can be compared at all."""

import pytest

from search.champion import Score, contest

PHOTOS = "3975af173bbfd017"


def score(value: float, metric: str = "miou", dataset: str = PHOTOS) -> Score:
    return Score(value, metric, dataset)


def test_the_first_version_is_champion() -> None:
    verdict = contest(score(0.0), None, None)
    assert (verdict.wins, verdict.why) == (True, "it is the first")


def test_a_better_version_becomes_champion() -> None:
    verdict = contest(score(0.5001), "4", score(0.5))
    assert verdict.wins
    assert verdict.why == "nested miou 0.5001, version 4's is 0.5000"


@pytest.mark.parametrize("value", [0.5, 0.4999])
def test_an_equal_or_worse_version_does_not(value: float) -> None:
    verdict = contest(score(value), "4", score(0.5))
    assert not verdict.wins
    assert verdict.why.startswith("version 4 stays it: this one has a nested miou")


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (
            score(0.1, dataset="other"),
            "it was scored on other photos, which cannot be compared: set",
        ),
        (score(0.1, metric="miou_image"), "it was scored by miou_image, this one by miou: set the"),
        (None, "it has no score to compare with: set the alias by hand if this one is to be it"),
    ],
)
def test_a_champion_whose_score_says_nothing_stays(champion: Score | None, reason: str) -> None:
    verdict = contest(score(0.9), "4", champion)
    assert not verdict.wins
    assert verdict.why.startswith(f"version 4 stays it: {reason}")


def test_a_score_is_kept_in_tags_to_its_last_digit() -> None:
    third = score(1 / 3)
    assert Score.of_tags({"other": "tag", **third.tags}) == third
    assert Score.of_tags({"score": "0.5"}) is None
