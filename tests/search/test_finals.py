"""Who meets whom for the final choice, who is put out, and when it ends."""

from collections.abc import Mapping, Sequence
from itertools import islice

import pytest

from search.finals import Pair, clearly_worse, meet, rounds
from search.results import Standing
from search.significance import standard_error

DIVERGED = -1.0
OVERLAP = 0.25  # five folds: one to validate on, four to train on
FOLDS = [(fold, 0) for fold in range(5)]


class Table:
    """Scores by trial, one a fold; and which pairs were asked of whom."""

    def __init__(self, **scores: Sequence[float]) -> None:
        self.scores = scores
        self.played: list[tuple[Pair, list[str]]] = []

    def play(self, names: Sequence[str], pair: Pair) -> Mapping[str, float]:
        self.played.append((pair, sorted(names)))
        scores = {name: self.scores[name][pair[0]] for name in names}
        return {name: score for name, score in scores.items() if score != DIVERGED}


def names_of(standings: Sequence[Standing]) -> list[str]:
    return [standing.trial_id for standing in standings]


def test_folds_come_first_then_seeds() -> None:
    assert list(islice(rounds(seed=7, folds=2), 5)) == [(0, 7), (1, 7), (0, 8), (1, 8), (0, 9)]


def test_it_ends_as_soon_as_the_difference_is_clear() -> None:
    """Always 0.1 apart: after two rounds the differences have no variance, so p is 0."""
    table = Table(a=[0.5, 0.3, 0.4, 0.5, 0.6], b=[0.4, 0.2, 0.3, 0.4, 0.5])
    standings = meet(["b", "a"], FOLDS, top_k=1, overlap=OVERLAP, play=table.play)
    assert table.played == [((0, 0), ["a", "b"]), ((1, 0), ["a", "b"])]
    assert names_of(standings) == ["a", "b"]
    assert [standing.mean for standing in standings] == pytest.approx([0.4, 0.3])
    assert [standing.runs for standing in standings] == [2, 2]


def test_who_is_clearly_worse_trains_no_more_and_near_equals_go_on() -> None:
    """c is 0.2 below a in every round; b is above and below a in turn."""
    table = Table(
        a=[0.5, 0.5, 0.5, 0.5, 0.5], b=[0.55, 0.44, 0.55, 0.44, 0.55], c=[0.3, 0.3, 0.3, 0.3, 0.3]
    )
    standings = meet(["a", "b", "c"], FOLDS, top_k=1, overlap=OVERLAP, play=table.play)
    assert [names for _, names in table.played] == [["a", "b", "c"]] * 2 + [["a", "b"]] * 3
    assert names_of(standings) == ["b", "a", "c"]
    assert standings[0].mean == pytest.approx((3 * 0.55 + 2 * 0.44) / 5)
    assert standings[2] == Standing("c", pytest.approx(0.3), 0.0, 2)


def test_a_single_round_decides_nothing() -> None:
    table = Table(a=[0.9], b=[0.1])
    standings = meet(["b", "a"], [(0, 0)], top_k=1, overlap=OVERLAP, play=table.play)
    assert names_of(standings) == ["a", "b"], "ranked by what there is"
    assert [standing.standard_error for standing in standings] == [None, None]


def test_as_many_as_are_asked_for_stay_however_far_they_are_behind() -> None:
    table = Table(a=[0.9] * 5, b=[0.5] * 5, c=[0.1] * 5)
    standings = meet(["a", "b", "c"], FOLDS, top_k=2, overlap=OVERLAP, play=table.play)
    assert len(table.played) == 2
    assert names_of(standings) == ["a", "b", "c"]


def test_a_training_that_diverges_puts_its_trial_out_without_a_standing() -> None:
    """c diverges on the second fold; a and b are too close to be told apart."""
    table = Table(a=[0.5] * 5, b=[0.55, 0.44, 0.55, 0.44, 0.55], c=[0.9, DIVERGED])
    standings = meet(["a", "b", "c"], FOLDS, top_k=1, overlap=OVERLAP, play=table.play)
    assert [names for _, names in table.played] == [["a", "b", "c"]] * 2 + [["a", "b"]] * 3
    assert names_of(standings) == ["b", "a"]


def test_it_ends_where_only_those_are_left_who_do_not_diverge() -> None:
    table = Table(a=[0.5] * 5, b=[DIVERGED] * 5, c=[DIVERGED] * 5)
    assert names_of(meet(["a", "b", "c"], FOLDS, 2, OVERLAP, table.play)) == ["a"]
    assert len(table.played) == 1


def test_those_who_were_put_out_rank_by_how_long_they_stayed() -> None:
    """b is out after two rounds; c, thanks to a good second one, later, with a lower mean than b."""
    table = Table(a=[0.9] * 5, b=[0.5] * 5, c=[0.1, 0.95, 0.1, 0.1, 0.1])
    standings = meet(["a", "b", "c"], FOLDS, top_k=1, overlap=OVERLAP, play=table.play)
    assert names_of(standings) == ["a", "c", "b"]
    assert standings[1].mean < standings[2].mean


def test_all_are_compared_with_the_last_one_that_is_in() -> None:
    """Of the top 2, the second is the bar: c is as good as b, d is always 0.2 worse."""
    scores = {
        "a": {(0, 0): 0.9, (1, 0): 0.9},
        "b": {(0, 0): 0.5, (1, 0): 0.4},
        "c": {(0, 0): 0.4, (1, 0): 0.5},
        "d": {(0, 0): 0.3, (1, 0): 0.2},
    }
    assert clearly_worse(scores, top_k=2, overlap=OVERLAP) == {"d"}


def test_the_standard_error_counts_what_the_folds_share() -> None:
    """0.4, 0.5, 0.6: deviation 0.1, error 0.1 * sqrt(1/3 + 1/4) = 0.076376."""
    table = Table(a=[0.4, 0.5, 0.6], b=[0.4, 0.6, 0.5])
    standings = meet(["a", "b"], FOLDS[:3], top_k=1, overlap=OVERLAP, play=table.play)
    assert standings[0].standard_error == pytest.approx(0.076376, abs=1e-6)
    assert standard_error([0.4, 0.5, 0.6], OVERLAP) == standings[0].standard_error
