"""What the terminal shows while things run: a bar with the best score, and a line per event."""

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Display:
    """A progress bar in a terminal, plain lines elsewhere. Use as a context manager."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._console = Console(highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} " + unit),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=total, note="")
        self._best: float | None = None
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self._console.print(f"[dim]{minutes:3d}:{seconds:02d}[/dim]  {text}", soft_wrap=True)

    def advance(self) -> None:
        self._progress.advance(self._task)

    def trial_started(self, name: str, point: Mapping[str, Any]) -> None:
        loss = point.get("loss.name", "")
        self.line(f"{name} started {loss}".rstrip())

    def epoch(self, name: str, epoch: int, score: float) -> None:
        if self._best is None or score > self._best:
            self._best = score
        self._progress.update(
            self._task, note=f"{name} epoch {epoch}, best so far {self._best:.4f}"
        )

    def trial_ended(self, name: str, state: str, detail: str, score: float | None) -> None:
        colour = {"finished": "green", "pruned": "yellow", "failed": "red"}[state]
        reached = f", {score:.4f}" if score is not None else ""
        self.line(f"{name} [{colour}]{state}[/{colour}] {detail}{reached}".rstrip())
        self.advance()
