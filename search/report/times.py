"""Where and how long: what the run's files know of machines and hours.

Beginnings and ends are those that MLflow was told (runs/NAME/mlflow/events.jsonl), seconds of training
those that each epoch reported. A training that was cut off and taken up again counts once, its pause
as part of its span; a trial that went on as a fold counts as a trial.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from search.ledger import NAME
from search.report.trainings import Training
from search.report.trials import TrialFacts

KINDS = ("trial", "fold", "ensemble", "results")


@dataclass(frozen=True)
class Span:
    """When something ran, in seconds since the first of all began."""

    what: str
    kind: str
    """Of `KINDS`."""
    state: str
    """How it ended; open where it has not."""
    start: float
    end: float


@dataclass(frozen=True)
class Work:
    """One row of the table: a stage of the run."""

    stage: str
    trainings: int
    epochs: int
    seconds: float | None
    """Of training, added up over all workers; None where the run does not know."""
    machines: tuple[str, ...]
    """Names with their devices; none where the run does not know them."""


@dataclass(frozen=True)
class Times:
    work: tuple[Work, ...]
    spans: tuple[Span, ...]
    seconds_by_trial: dict[str, float]

    @property
    def hours(self) -> float:
        """From the first beginning to the last end, pauses too."""
        return max((span.end for span in self.spans), default=0.0) / 3600


def read_times(
    events_file: Path,
    frozen: Sequence[FrozenTrial],
    trials: Sequence[TrialFacts],
    trainings: Sequence[Training],
) -> Times:
    events = list(read_events(events_file))
    seconds = seconds_by_trial(events)
    known = [seconds[trial.name] for trial in trials if trial.name in seconds]
    places = {
        (attributes.get("hostname", ""), attributes.get("device", ""))
        for attributes in (trial.user_attrs for trial in frozen)
    }
    work = [
        Work(
            "search",
            len(trials),
            sum(trial.epochs for trial in trials),
            sum(known) if known else None,
            machines(places),
        )
    ]
    own = [training for training in trainings if not training.from_search]
    if own:
        work.append(
            Work(
                "folds",
                len(own),
                sum(training.epochs for training in own),
                sum(training.seconds for training in own),
                machines({(training.host, training.device) for training in own}),
            )
        )
    named = {f"trial/{trial.user_attrs[NAME]}" for trial in frozen}
    return Times(tuple(work), tuple(spans(events, named)), seconds)


def machines(places: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Each host with its devices, once. A trial that failed tells its host alone."""
    devices: dict[str, set[str]] = {}
    for host, device in places:
        devices.setdefault(host, set()).update([device] if device else [])
    return tuple(
        f"{host} ({', '.join(sorted(found))})" if found else host
        for host, found in sorted(devices.items())
        if host
    )


def read_events(file: Path) -> Iterator[dict[str, Any]]:
    """Whole lines alone: a search may be writing to it."""
    if file.is_file():
        whole, _, _ = file.read_text().rpartition("\n")
        yield from map(json.loads, whole.splitlines())


def seconds_by_trial(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Sum over the epochs, each counted once."""
    found: dict[str, dict[int, float]] = {}
    for event in events:
        kind, _, name = event.get("what", "").partition("/")
        if event["kind"] == "metrics" and kind == "trial" and "seconds" in event["metrics"]:
            found.setdefault(name, {})[event["step"]] = event["metrics"]["seconds"]
    return {name: sum(epochs.values()) for name, epochs in found.items()}


def spans(events: Iterable[dict[str, Any]], trials: set[str]) -> list[Span]:
    """In order of their beginnings. Of trials, only the named ones."""
    started: dict[str, int] = {}
    ended: dict[str, tuple[int, str]] = {}
    for event in events:
        what = event.get("what", "")
        kind = what.partition("/")[0]
        if kind not in KINDS or (kind == "trial" and what not in trials):
            continue
        started.setdefault(what, event["at"])
        state = event["state"].partition(" ")[0] if event["kind"] == "end" else "open"
        ended[what] = event["at"], state
    first = min(started.values(), default=0)
    return [
        Span(
            what=what.partition("/")[2] or what,
            kind=what.partition("/")[0],
            state=ended[what][1],
            start=(at - first) / 1000,
            end=(ended[what][0] - first) / 1000,
        )
        for what, at in sorted(started.items(), key=lambda item: item[1])
    ]


def lanes(all_spans: Sequence[Span]) -> list[int]:
    """For each span, in order of their beginnings, the lowest row in which it overlaps with none."""
    free_at: list[float] = []
    rows = []
    for span in all_spans:
        row = next((r for r, at in enumerate(free_at) if at <= span.start), len(free_at))
        free_at[row : row + 1] = [span.end]
        rows.append(row)
    return rows
