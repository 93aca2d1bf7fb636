"""Making a database that nobody reads before it is whole.

MLflow and Optuna make their tables in hundreds of statements. Each waits for the disk by default, which
is seconds in all, for states that nobody goes on from.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from search.config import SQLITE
from trashseg.files import sync


@contextmanager
def new_sqlite(file: Path) -> Iterator[str]:
    """SQLAlchemy's address of a file to make; what it then holds is on the disk when the block ends.

    A kill in the block may leave half of it: make it where nobody looks, and rename it afterwards.
    """

    def do_not_wait(connection: sqlite3.Connection, _: Any) -> None:
        opened = connection.execute("PRAGMA database_list").fetchone()[2]
        if file.exists() and file.samefile(opened):
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = MEMORY")

    event.listen(Engine, "connect", do_not_wait)
    try:
        yield f"{SQLITE}{file}"
    finally:
        event.remove(Engine, "connect", do_not_wait)
    sync(file)
