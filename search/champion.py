"""Which version of a registered model is its champion: the one with the best score out of fold.

The score is the nested one of the run's metric: each fold's photos under choices made on the other
folds. It does not rise by trying more (search/post.py), as the score of the final choice does. Scores of
other photos, or by another metric, say nothing about which is better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

ALIAS = "champion"


@dataclass(frozen=True)
class Score:
    """What versions are compared by; each keeps its own as tags."""

    value: float
    metric: str
    dataset: str
    """`dataset_key` of the photos."""

    @property
    def tags(self) -> dict[str, str]:
        return {"score": repr(self.value), "metric": self.metric, "dataset": self.dataset}

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """None of a version that somebody else registered."""
        if not {"score", "metric", "dataset"} <= set(tags):
            return None
        return cls(float(tags["score"]), tags["metric"], tags["dataset"])


@dataclass(frozen=True)
class Verdict:
    """Whether a version becomes champion, and why or why not, for people."""

    wins: bool
    why: str


def contest(score: Score, champion: str | None, of_champion: Score | None) -> Verdict:
    """A version with `score` against the version `champion`, None where there is none yet."""
    if champion is None:
        return Verdict(True, "it is the first")
    stays = f"version {champion} stays it"
    by_hand = "set the alias by hand if this one is to be it, or register it under another name"
    if of_champion is None:
        return Verdict(False, f"{stays}: it has no score to compare with: {by_hand}")
    if of_champion.dataset != score.dataset:
        return Verdict(
            False, f"{stays}: it was scored on other photos, which cannot be compared: {by_hand}"
        )
    if of_champion.metric != score.metric:
        return Verdict(
            False,
            f"{stays}: it was scored by {of_champion.metric}, this one by {score.metric}: {by_hand}",
        )
    scores = f"{score.metric} {score.value:.4f}, version {champion}'s is {of_champion.value:.4f}"
    if score.value > of_champion.value:
        return Verdict(True, f"nested {scores}")
    return Verdict(False, f"{stays}: this one has a nested {scores}")
