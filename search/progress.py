"""How a search is doing, kept up to date event by event: none of them looks at all trials again.

The ledger tells of each event when it has entered it. So the terminal of a search, Ray's metrics and
`launch.py status`, which reads the ledger's file, all show the same.
"""

import time
from bisect import insort
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from search.config import SearchConfig
from search.rungs import goes_on
from trashseg.files import write_json

ENDS = ("finished", "pruned", "failed")


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
class Curve:
    """A trial's best score so far after each of its epochs."""

    name: str
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        return max(self.scores)


@dataclass(frozen=True)
class Status:
    """All of it; scores are the search's metric."""

    active: bool  # whether a command works on the run now
    counts: dict[str, int]  # by state, "open" and "to come"
    open: list[Open]
    rungs: list[Rung]
    best: Curve | None
    hand_tuned: Curve | None
    pace: Pace
    epochs_left: float

    @property
    def hours_left(self) -> float | None:
        """None while no epoch has told how long one takes."""
        return self.epochs_left / self.pace.per_hour if self.pace.epochs else None

    @property
    def ended(self) -> int:
        return sum(self.counts[state] for state in ENDS)


@dataclass
class SeenTrial:
    """What is kept of a trial while it is open, the best or the hand-tuned one."""

    name: str
    number: int
    scores: dict[int, float] = field(default_factory=dict)  # best so far, by epoch

    @property
    def best(self) -> float:
        return max(self.scores.values())

    @property
    def curve(self) -> Curve | None:
        return Curve(self.name, tuple(self.scores.values())) if self.scores else None


@dataclass
class SeenRung:
    """Scores of those that arrived, lowest first, and how many of them went on."""

    scores: list[float] = field(default_factory=list)
    went_on: int = 0


class Progress:
    """The tally of one search; `pace` is the last command's."""

    def __init__(self, config: SearchConfig, pace: Pace) -> None:
        self.pace = pace
        self._trials, self._epochs = config.search.trials, config.epochs
        self._reduction_factor = config.search.reduction_factor
        self._proposed = 0
        self._open: dict[str, SeenTrial] = {}
        self._hand_tuned: SeenTrial | None = None  # the first proposal
        self._best: SeenTrial | None = None
        self._ended: Counter[str] = Counter()
        self._epochs_of_ended = 0
        self._rungs: dict[int, SeenRung] = {}

    def proposed(self, name: str) -> None:
        trial = SeenTrial(name, self._proposed)
        self._open[name] = trial
        self._proposed += 1
        self._hand_tuned = self._hand_tuned or trial

    def reported(self, name: str, epoch: int, score: float) -> None:
        """An open trial's best score after `epoch`."""
        trial = self._open[name]
        trial.scores[epoch] = score
        best = self._best
        if best is None or (score, -trial.number) > (best.best, -best.number):
            self._best = trial

    def arrived(self, name: str, milestone: int, score: float) -> None:
        """The trial is the next that arrives at the rung of that epoch; hand tuning always goes on."""
        rung = self._rungs.setdefault(milestone, SeenRung())
        insort(rung.scores, score)
        spared = self._hand_tuned is not None and name == self._hand_tuned.name
        rung.went_on += spared or goes_on(score, rung.scores, self._reduction_factor)

    def ended(self, name: str, state: str) -> None:
        self._epochs_of_ended += len(self._open.pop(name).scores)
        self._ended[state] += 1

    def status(self, active: bool) -> Status:
        """As of now; takes as long as there are open trials and rungs."""
        return Status(
            active=active,
            counts={
                "open": len(self._open),
                **{state: self._ended[state] for state in ENDS},
                "to come": self._trials - self._proposed,
            },
            open=[
                Open(name, max(trial.scores, default=0), trial.best if trial.scores else None)
                for name, trial in self._open.items()
            ],
            rungs=[
                Rung(epoch, len(rung.scores), rung.went_on, rung.scores[-1])
                for epoch, rung in sorted(self._rungs.items())
            ],
            best=self._best.curve if self._best else None,
            hand_tuned=self._hand_tuned.curve if self._hand_tuned else None,
            pace=self.pace,
            epochs_left=self._epochs_left(),
        )

    def _epochs_left(self) -> float:
        """Of all trials to come and under way, if they last as long as those that ended did."""
        ended = self._ended.total()
        typical = self._epochs_of_ended / ended if ended else float(self._epochs)
        under_way = sum(max(typical - len(trial.scores), 1.0) for trial in self._open.values())
        return under_way + typical * (self._trials - self._proposed)
