"""How a search is doing, drawn: the same in its own terminal and by `launch.py status`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.config import SearchConfig
from search.display import COLOURS, number
from search.gpus import Gpu
from search.progress import Status

SHOWN_TRIALS = 8  # of those that are open
BAR_WIDTH = 30
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-~=+*#"


def status_table(config: SearchConfig, status: Status, gpus: Sequence[Gpu]) -> RenderableType:
    """Whether it runs, trials by state, rungs, open trials, the best so far, how fast and how long."""
    tables = [rung_table(config, status), open_table(config, status)]
    parts: list[RenderableType] = [
        Text(f"{config.search.name}: {activity(status)}"),
        counts(status),
        ended_bar(config, status),
    ]
    if shown := [table for table in tables if table.row_count]:
        parts += ["", Columns(shown, padding=(0, 3))]
    if status.best:
        parts += ["", curves(status)]
    if gpus:
        parts += ["", *(Text(gpu_line(index, gpu)) for index, gpu in enumerate(gpus))]
    return Group(*parts)


def activity(status: Status) -> str:
    """Running or not, how fast, how long to go."""
    pace, hours = status.pace, status.hours_left
    speed = f", {pace.per_hour:.0f} epochs an hour" if pace.epochs else ""
    if status.active:
        return f"running{speed}" + (f", about {duration(hours)} to go" if hours else "")
    if status.counts["open"] or status.counts["to come"]:
        return "not running; add --resume to its command and it goes on"
    return f"ended{speed}"


def duration(hours: float) -> str:
    minutes = math.ceil(hours * 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def counts(status: Status) -> Text:
    """Trials by state; open ones are running while a command works on them."""
    text = Text()
    for state, count in status.counts.items():
        shown = "running" if state == "open" and status.active else state
        style = COLOURS.get(state, "") if count else "dim"
        text.append(", " if text else "").append(f"{count} {shown}", style)
    return text


def ended_bar(config: SearchConfig, status: Status) -> Table:
    grid = Table.grid(padding=(0, 2))
    trials = config.search.trials
    bar = ProgressBar(trials, status.ended, width=BAR_WIDTH, complete_style="green")
    grid.add_row(bar, f"{status.ended}/{trials} trials ended")
    return grid


def rung_table(config: SearchConfig, status: Status) -> Table:
    table = small_table("rung (epoch)", "arrived", "went on", f"best {config.metric}")
    for rung in status.rungs:
        table.add_row(*map(number, (rung.epoch, rung.arrived, rung.went_on, rung.best)))
    return table


def open_table(config: SearchConfig, status: Status) -> Table:
    """The oldest of them, and how many more there are."""
    table = small_table("running" if status.active else "open", "epoch", f"best {config.metric}")
    for trial in status.open[:SHOWN_TRIALS]:
        table.add_row(trial.name, f"{trial.epoch}/{config.epochs}", number(trial.score))
    if len(status.open) > SHOWN_TRIALS:
        table.add_row(f"and {len(status.open) - SHOWN_TRIALS} more", "", "")
    return table


def small_table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def curves(status: Status) -> Table:
    """The best trial so far and the hand-tuned one, epoch by epoch, on the same axes."""
    shown = {"best so far": status.best, "hand-tuned": status.hand_tuned}
    both = [curve for curve in shown.values() if curve]
    scores = [score for curve in both for score in curve.scores]
    epochs = max(len(curve.scores) for curve in both)
    grid = Table.grid(padding=(0, 2))
    for _ in ("what", "trial", "score"):
        grid.add_column(no_wrap=True)
    for what, curve in shown.items():
        if curve:
            line = Sparkline(curve.scores, min(scores), max(scores), epochs)
            grid.add_row(what, curve.name, number(curve.score), line)
    return grid


@dataclass(frozen=True)
class Sparkline:
    """Scores, one an epoch, as bars from `low` to `high`, in the width in which `epochs` of them fit."""

    scores: Sequence[float]
    low: float
    high: float
    epochs: int

    def bars(self, width: int, levels: str = BARS) -> str:
        """A bar for each epoch, or for the last one of several where there are more than `width`."""
        width = min(width, self.epochs)
        ends = [math.ceil((column + 1) * self.epochs / width) for column in range(width)]
        starts = [0, *ends[:-1]]
        return "".join(
            self._bar(self.scores[min(end, len(self.scores)) - 1], levels)
            for start, end in zip(starts, ends, strict=True)
            if start < len(self.scores)
        )

    def _bar(self, score: float, levels: str) -> str:
        span = self.high - self.low
        return levels[round((score - self.low) / span * (len(levels) - 1)) if span else 0]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        levels = ASCII_BARS if options.ascii_only else BARS
        yield Text(self.bars(options.max_width, levels), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, min(self.epochs, options.max_width)))


def gpu_line(index: int, gpu: Gpu) -> str:
    busy = "-" if gpu.busy is None else f"{gpu.busy} % busy"
    memory = "-" if gpu.used is None or gpu.total is None else (
        f"{gpu.used / 1e9:.1f} of {gpu.total / 1e9:.1f} GB"
    )  # fmt: skip
    return f"GPU {index}: {busy}, {memory}, {gpu.name}"
