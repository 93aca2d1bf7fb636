"""What a search shows while it runs: a table in a terminal, plain lines elsewhere."""

from collections.abc import Mapping
from typing import Any, Self

from rich.live import Live
from rich.markup import escape

from search.config import SearchConfig
from search.display import COLOURS, Lines
from search.gpus import read_gpus
from search.progress import Status
from search.status_table import status_table


class SearchDisplay(Lines):
    """Lines for what happens, above a table of how it stands. Use as a context manager.

    Nothing here draws by itself: the table is as old as the last `show`.
    """

    def __init__(self, config: SearchConfig) -> None:
        super().__init__()
        self._config = config
        self._live = Live(console=self._console, auto_refresh=False)
        self._in_terminal = self._console.is_interactive

    def __enter__(self) -> Self:
        if self._in_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_terminal:
            self._live.stop()

    def show(self, status: Status) -> None:
        """Draw the table anew."""
        if self._in_terminal:
            self._live.update(status_table(self._config, status, read_gpus()), refresh=True)

    def trial_started(self, name: str, point: Mapping[str, Any]) -> None:
        """The table has a row for it; elsewhere it is a line."""
        if not self._in_terminal:
            loss = point.get("loss.name", "")
            self.line(f"{name} started {loss}".rstrip())

    def trial_ended(self, name: str, state: str, detail: str, score: float | None) -> None:
        colour = COLOURS[state]
        reached = f", {score:.4f}" if score is not None else ""
        detail = escape(f" {detail}") if detail else ""
        self.line(f"{name} [{colour}]{state}[/{colour}]{detail}{reached}")
