"""What the terminal shows: a bar and a line per event while things run, tables of scores after."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from trashseg.data.doctor import Report

SHOWN_IDS = 8
COLOURS = {"open": "cyan", "finished": "green", "pruned": "yellow", "failed": "red"}


class Lines:
    """A line for each thing that happens, with the minutes and seconds since the start."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._started = time.monotonic()

    def line(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self._console.print(f"[dim]{minutes:3d}:{seconds:02d}[/dim]  {text}", soft_wrap=True)


class Display(Lines):
    """A progress bar in a terminal, plain lines elsewhere. Use as a context manager."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        super().__init__()
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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        self._progress.advance(self._task)

    def epoch(self, name: str, epoch: int, score: float) -> None:
        if self._best is None or score > self._best:
            self._best = score
        self._progress.update(
            self._task, note=f"{name} epoch {epoch}, best so far {self._best:.4f}"
        )


def print_scores(columns: Mapping[str, Mapping[str, Any]]) -> None:
    """One column of scores each: miou, miou_image, pixel accuracy, IoU by class, photos."""
    table = Table("", *columns)
    for key in ("miou", "miou_image", "pixel_accuracy"):
        table.add_row(key, *(number(scores[key]) for scores in columns.values()))
    table.add_section()
    for name in next(iter(columns.values()))["iou"]:
        table.add_row(name, *(number(scores["iou"][name]) for scores in columns.values()))
    table.add_section()
    table.add_row("photos", *(str(scores["images"]) for scores in columns.values()))
    wide_console().print(table)


def print_findings(report: "Report", page: Path) -> None:
    """What the data doctor found: one row a kind, with how many there are and the first of them."""
    table = Table("", "what", "count", "ids", "what to do")
    for finding in report.findings:
        kind, ids = finding.kind, finding.ids
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        colour = {"error": "red", "warning": "yellow"}[kind.severity]
        table.add_row(
            f"[{colour}]{kind.severity}[/{colour}]",
            f"{kind.title} [dim]({finding.name})[/dim]",
            str(len(finding.cases)),
            escape(f"{kind.about} {', '.join(ids[:SHOWN_IDS])}{more}"),
            kind.advice,
        )
    console = wide_console()
    if table.row_count:
        console.print(table)
    photos = len(report.listing.dataset.photos)
    console.print(f"{photos} photos: {report.errors} errors, {report.warnings} warnings")
    console.print(f"with pictures and classes: {page}", soft_wrap=True)


def wide_console() -> Console:
    """The terminal, or 140 columns where the output goes to a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def number(value: Any) -> str:
    """Four digits of a float; - for what there is none of."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
