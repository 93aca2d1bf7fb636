"""The search on the page: its trials, ASHA's rungs, the epochs that it saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from optuna.trial import FrozenTrial

from search.config import SearchConfig
from search.ledger import NAME, STATES, progress_of
from search.progress import new_pace
from search.results import Row, Standing, leaderboard
from search.rungs import rung_epochs
from search.space import Point, by_key

OPEN = "open"


@dataclass(frozen=True)
class TrialFacts:
    """One trial. Scores are of its best epoch on the search's folds, None where it has reported none."""

    name: str
    rank: int | None
    """In the leaderboard; None while it is open."""
    state: str
    """finished, pruned, failed or open."""
    hand_tuned: bool
    epochs: int
    miou: float | None
    miou_image: float | None
    point: Point
    curve: dict[int, float]
    """The best score so far of the search's metric, by epoch."""
    error: str

    def score_after(self, epoch: int) -> float | None:
        """The best score after so many epochs; None where it did not get as far. One that finished
        earlier, for want of progress, keeps its score."""
        if not self.curve or (max(self.curve) < epoch and self.state != "finished"):
            return None
        return self.curve[max(e for e in self.curve if e <= epoch)]

    @property
    def best(self) -> float | None:
        """Of the search's metric."""
        return max(self.curve.values(), default=None)


@dataclass(frozen=True)
class RungFacts:
    """One of ASHA's: how many trials arrived at this epoch, who of them was stopped there or before the
    next one."""

    epoch: int
    arrived: int
    went_on: int
    best: float
    cut: tuple[str, ...]


@dataclass(frozen=True)
class Epochs:
    """What stopping early saved, against training every trial to its end."""

    trained: int
    """By all trials, also by those that failed or are open."""
    full: int
    """What the finished and the stopped trials would have trained, had all run to the last epoch."""
    saved_by_rungs: int
    """Epochs that stopped trials did not train."""
    saved_by_patience: int
    """Epochs that finished trials did not train, because they no longer got better."""

    @property
    def share(self) -> float:
        """Saved by both, of `full`; 0 before any trial has ended."""
        return (self.saved_by_rungs + self.saved_by_patience) / self.full if self.full else 0.0


def trial_facts(
    trials: Sequence[FrozenTrial], metric: str, standings: Sequence[Standing]
) -> tuple[TrialFacts, ...]:
    """Oldest first."""
    rows = {
        row.trial_id: (rank, row) for rank, row in enumerate(leaderboard(trials, metric, standings))
    }
    return tuple(_trial(trial, *rows.get(trial.user_attrs[NAME], (None, None))) for trial in trials)


def by_rank(trials: Sequence[TrialFacts]) -> list[TrialFacts]:
    """The leaderboard: without those that are open."""
    return sorted((t for t in trials if t.rank is not None), key=lambda t: t.rank or 0)


def _trial(trial: FrozenTrial, rank: int | None, row: Row | None) -> TrialFacts:
    return TrialFacts(
        name=trial.user_attrs[NAME],
        rank=rank,
        state=STATES.get(trial.state, OPEN),
        hand_tuned=bool(trial.user_attrs.get("hand_tuned")),
        epochs=row.epochs if row else max(trial.intermediate_values, default=0),
        miou=row.miou if row else None,
        miou_image=row.miou_image if row else None,
        point=by_key(trial.params),
        curve=dict(sorted(trial.intermediate_values.items())),
        error=str(trial.user_attrs.get("error", "")),
    )


def rung_facts(
    frozen: Sequence[FrozenTrial], trials: Sequence[TrialFacts], config: SearchConfig
) -> tuple[RungFacts, ...]:
    """Those at which a trial has arrived."""
    rungs = progress_of(frozen, config, new_pace()).status(active=False).rungs
    spans = pairwise([*(rung.epoch for rung in rungs), config.epochs])
    pruned = [trial for trial in trials if trial.state == "pruned"]
    return tuple(
        RungFacts(
            rung.epoch,
            rung.arrived,
            rung.went_on,
            rung.best,
            tuple(trial.name for trial in pruned if begin <= trial.epochs < end),
        )
        for rung, (begin, end) in zip(rungs, spans, strict=True)
    )


def epochs_saved(trials: Sequence[TrialFacts], epochs: int) -> Epochs:
    """`epochs` are those of a trial that is not stopped."""
    left = {
        state: [epochs - trial.epochs for trial in trials if trial.state == state]
        for state in ("finished", "pruned")
    }
    return Epochs(
        trained=sum(trial.epochs for trial in trials),
        full=epochs * sum(map(len, left.values())),
        saved_by_rungs=sum(left["pruned"]),
        saved_by_patience=sum(left["finished"]),
    )


def common_epoch(config: SearchConfig) -> int:
    """After which all trials are compared: the first rung, or the last epoch where there is none."""
    return min(rung_epochs(config), default=config.epochs)
