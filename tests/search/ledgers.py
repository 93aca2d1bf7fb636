"""A ledger without the run around it."""

from pathlib import Path

from search.config import SearchConfig
from search.ledger import Ledger, create_ledger
from search.space import Space


def open_ledger(path: Path, config: SearchConfig, space: Space) -> Ledger:
    """The one at `path`, made on first use."""
    if not path.is_file():
        create_ledger(path, config.search.name)
    return Ledger(path, config, space)
