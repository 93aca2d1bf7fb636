"""What counts as a crash of a trial, and what does not."""

from pathlib import Path

from search.attempts import DIED, Attempts


def alive(node: str) -> bool:
    return node != "lost"


def test_an_exception_counts(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts.json")
    attempts.begin("monday", "node", alive)
    attempts.crashed("ValueError: one")
    again = Attempts(tmp_path / "attempts.json")
    again.begin("monday", "node", alive)
    assert again.crashes == ["ValueError: one"]


def test_a_worker_that_died_without_a_word_counts_once(tmp_path: Path) -> None:
    for crashes in ([], [DIED], [DIED, DIED]):
        attempts = Attempts(tmp_path / "attempts.json")
        attempts.begin("monday", "node", alive)
        assert attempts.crashes == crashes


def test_a_worker_that_died_with_its_node_does_not(tmp_path: Path) -> None:
    Attempts(tmp_path / "attempts.json").begin("monday", "lost", alive)
    attempts = Attempts(tmp_path / "attempts.json")
    attempts.begin("monday", "node", alive)
    assert attempts.crashes == []


def test_a_worker_that_died_with_its_search_does_not(tmp_path: Path) -> None:
    Attempts(tmp_path / "attempts.json").begin("monday", "node", alive)
    attempts = Attempts(tmp_path / "attempts.json")
    attempts.begin("tuesday", "node", alive)
    assert attempts.crashes == []
    third = Attempts(tmp_path / "attempts.json")
    third.begin("tuesday", "node", alive)
    assert third.crashes == [DIED]
