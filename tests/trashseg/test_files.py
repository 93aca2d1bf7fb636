"""Files and folders that appear whole or not at all."""

import json
from pathlib import Path

import pytest

from trashseg.errors import TrashSegError
from trashseg.files import json_list, new_folder, write_bytes, write_json, write_text


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_written_with_its_folders_and_nothing_beside_it(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "c.bin", b"\x00\xff")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\x00\xff"
    assert _names(tmp_path) == ["a", "a/b", "a/b/c.bin"]


def test_a_file_that_was_there_is_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "a longer first text")
    write_text(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "größer"
    assert _names(tmp_path) == ["a.txt"]


def test_json_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ß": [1, None]})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ß": [1, None]}
    assert _names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("entries", [[], [{"ß": 1}], [1, [2], None]])
def test_a_json_list_holds_what_was_added(entries: list[object], tmp_path: Path) -> None:
    with json_list(tmp_path / "a.json") as add:
        for entry in entries:
            add(entry)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == entries


def test_a_new_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "out"
    with new_folder(final) as folder:
        (folder / "a.txt").write_text("a")
        assert not final.exists()
    assert _names(final) == ["a.txt"]
    assert _names(tmp_path / "deep") == ["out", "out/a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    def fill_and_fail() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "a.txt").write_text("a")
            raise error

    with pytest.raises(error):
        fill_and_fail()
    assert _names(tmp_path) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with (
        pytest.raises(TrashSegError, match=r"out: exists and is not empty: choose another folder"),
        new_folder(tmp_path / "out"),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("keep")
    with pytest.raises(TrashSegError, match="exists"), new_folder(tmp_path / "out"):
        pytest.fail("the block must not run")


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
    assert _names(tmp_path) == ["out", "out/a.txt"]


def test_a_folder_to_be_replaced_stays_until_the_block_ends_well(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    with pytest.raises(ValueError, match="half way"), new_folder(tmp_path / "out", replace=True):
        raise ValueError("half way")
    assert _names(tmp_path) == ["out", "out/old.txt"]
    with new_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new.txt").write_text("new")
    assert _names(tmp_path) == ["out", "out/new.txt"]


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "half.txt").write_text("half")
    with new_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
    assert _names(tmp_path) == ["out", "out/a.txt"]
