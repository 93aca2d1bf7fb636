"""How a search is doing, read from its files by another terminal while it runs, or after."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

from search.config import SearchConfig
from search.ledger import HAND_TUNED, NAME, STATES, read_rungs, read_trials
from search.run_folder import RunFolder
from search.rungs import goes_on
from trashseg.files import write_json


@dataclass
class Pace:
    """How many epochs the last command trained, and in which time (seconds since 1970)."""

    started: float
    last: float
    epochs: int = 0

    def epoch(self, file: Path) -> None:
        """One more, now; kept for other terminals."""
        self.epochs, self.last = self.epochs + 1, time.time()
        write_json(file, asdict(self))

    @property
    def per_hour(self) -> float:
        return self.epochs / max(self.last - self.started, 1e-9) * 3600


def new_pace() -> Pace:
    return Pace(time.time(), time.time())


@dataclass(frozen=True)
class Rung:
    """One of ASHA's: how many trials arrived at this epoch, how many of them went on."""

    epoch: int
    arrived: int
    went_on: int
    best: float


@dataclass(frozen=True)
class Open:
    """A trial under way, or cut off: its last whole epoch, its best score, None before the first."""

    name: str
    epoch: int
    score: float | None


@dataclass(frozen=True)
class Status:
    """All of it; scores are the search's metric."""

    active: bool  # whether a command works on the run now
    counts: dict[str, int]  # by state, "open" and "to come"
    open: list[Open]
    rungs: list[Rung]
    best: tuple[str, float] | None
    hand_tuned: float | None
    pace: Pace | None
    epochs_left: float

    @property
    def hours_left(self) -> float | None:
        """None while no epoch has told how long one takes."""
        if self.pace is None or not self.pace.epochs:
            return None
        return self.epochs_left / self.pace.per_hour


def read_status(run: RunFolder) -> Status:
    config = run.config
    trials = read_trials(run.study_db, config.search.name)
    scores = {
        trial.user_attrs[NAME]: max(trial.intermediate_values.values())
        for trial in trials
        if trial.intermediate_values
    }
    counts = Counter(STATES.get(trial.state, "open") for trial in trials)
    return Status(
        active=run.is_locked(),
        counts={
            **{state: counts[state] for state in ("open", *STATES.values())},
            "to come": config.search.trials - len(trials),
        },
        open=[
            Open(name := trial.user_attrs[NAME], trial.last_step or 0, scores.get(name))
            for trial in trials
            if trial.state == TrialState.RUNNING
        ],
        rungs=read_rung_table(trials, config.search.reduction_factor),
        best=max(scores.items(), key=lambda entry: entry[1], default=None),
        hand_tuned=scores.get(HAND_TUNED),
        pace=Pace(**json.loads(run.pace_json.read_text())) if run.pace_json.is_file() else None,
        epochs_left=epochs_left(trials, config),
    )


def read_rung_table(trials: Sequence[FrozenTrial], reduction_factor: float) -> list[Rung]:
    table = []
    for epoch, rung in read_rungs(trials).items():
        arrived: dict[str, float] = {}
        went_on = 0
        for name, score in rung.items():
            arrived[name] = score
            went_on += name == HAND_TUNED or goes_on(score, arrived, reduction_factor)
        table.append(Rung(epoch, len(rung), went_on, max(rung.values())))
    return table


def epochs_left(trials: Sequence[FrozenTrial], config: SearchConfig) -> float:
    """Of all trials to come and under way, if they last as long as those that ended did."""
    lengths = [len(t.intermediate_values) for t in trials if t.state in STATES]
    typical = fmean(lengths) if lengths else float(config.epochs)
    open_trials = [t for t in trials if t.state == TrialState.RUNNING]
    under_way = sum(max(typical - len(t.intermediate_values), 1.0) for t in open_trials)
    return under_way + typical * (config.search.trials - len(trials))
