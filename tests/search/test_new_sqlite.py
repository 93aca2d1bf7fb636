"""A database that is made without waiting for the disk, and what that changes for nobody else."""

from pathlib import Path

import sqlalchemy

from search.new_sqlite import new_sqlite

OFF, FULL = 0, 2  # sqlite's numbers; full is its default


def synchronous(address: str) -> int:
    """How the next connection to the database waits for the disk."""
    engine = sqlalchemy.create_engine(address)
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar_one()
    engine.dispose()
    return int(found)


def test_what_is_made_does_not_wait_for_the_disk_and_whoever_opens_it_later_does(
    tmp_path: Path,
) -> None:
    file = tmp_path / "study.db"
    with new_sqlite(file) as address:
        assert synchronous(address) == OFF
    assert synchronous(address) == FULL


def test_other_databases_wait_for_the_disk_meanwhile(tmp_path: Path) -> None:
    with new_sqlite(tmp_path / "new.db") as address:
        assert synchronous(address) == OFF
        assert synchronous(f"sqlite:///{tmp_path}/other.db") == FULL
        assert synchronous("sqlite://") == FULL


def test_what_was_made_is_there(tmp_path: Path) -> None:
    with new_sqlite(tmp_path / "new.db") as address:
        engine = sqlalchemy.create_engine(address)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE trials (number INTEGER)"))
            connection.execute(sqlalchemy.text("INSERT INTO trials VALUES (7)"))
        engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]
    with sqlalchemy.create_engine(address).connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT number FROM trials")).scalar_one() == 7
