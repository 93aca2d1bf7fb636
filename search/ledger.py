"""The search's memory: every proposal, epoch, arrival at a rung and end is on disk before it counts.

It is an Optuna study in sqlite, runs/NAME/study.db, and nothing beside it: the rungs of ASHA, what the
sampler knows, the counts and the leaderboard are all read from there. Whatever is killed, and whenever,
the next process reads the state that the last one acted on. Two things make that exact:

- A proposal is one transaction (search/study_storage.py): it is there with its name, the user attribute
  `trial_id`, or not at all. A trial without a name is marked FAIL and is proposed again.
- Proposal n is drawn by a sampler seeded with (search.seed, n), not by one stream of random numbers
  that a restart would begin anew (optuna issue 3255): it depends on n and on the trials before it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.config import SearchConfig
from search.new_sqlite import new_sqlite
from search.progress import Pace, Progress, new_pace
from search.rungs import rung_epochs
from search.sampler import StandingSampler
from search.space import Point, Space
from search.standings import Standings
from search.study_storage import StudyInMemory, StudyStorage

NAME = "trial_id"
ARRIVALS = "rungs"
optuna.logging.set_verbosity(optuna.logging.WARNING)  # no line for every trial
HAND_TUNED = "trial_000"  # the file's own configuration is always the first proposal
State = Literal["finished", "pruned", "failed"]
STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
OPTUNA_STATES = {state: theirs for theirs, state in STATES.items()}


def create_ledger(path: Path, name: str) -> None:
    """An empty one; before anybody can read it, because Optuna makes its tables one by one."""
    with new_sqlite(path) as address:
        storage = optuna.storages.RDBStorage(address)
        optuna.create_study(study_name=name, storage=storage, direction="maximize")
        storage.engine.dispose()


@dataclass
class OpenTrial:
    """A trial that was proposed and has not ended."""

    id: int  # in the storage
    number: int  # in the study, where cut-off proposals have numbers too
    row: int  # among the whole proposals
    scores: dict[int, float]  # best so far, by epoch
    arrivals: dict[int, int]  # rung's epoch -> how many trials had arrived there before


class Ledger:
    """The study of one search, open for writing: at most one process at a time does that."""

    def __init__(self, path: Path, config: SearchConfig, space: Space) -> None:
        self._config, self._space = config, space
        self._storage = self.open_storage(path, config.search.name)
        self._study = optuna.load_study(study_name=config.search.name, storage=self._storage)
        self.open: dict[str, OpenTrial] = {}
        self.points: dict[str, Point] = {}  # of all trials
        self.proposed = 0
        self._waiting = False  # whether one of the first points is already queued
        self._standings = standings_of([], space, config)
        for trial in self._storage.every_trial():
            self._take_in(trial)
        self.progress = progress_of(self.trials, config, new_pace())

    @staticmethod
    def open_storage(path: Path, study_name: str) -> StudyInMemory:
        return StudyStorage(path, study_name)

    def _take_in(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.WAITING:
            self._waiting = True
        elif NAME in trial.user_attrs:
            name, row = trial.user_attrs[NAME], self.proposed
            self.proposed += 1
            self.points[name] = trial.params
            self._standings.take_in(trial)
            if trial.state == TrialState.RUNNING:
                self.open[name] = OpenTrial(
                    trial._trial_id,
                    trial.number,
                    row,
                    dict(trial.intermediate_values),
                    arrivals_of(trial),
                )
        elif trial.state == TrialState.RUNNING:
            self._study.tell(trial.number, state=TrialState.FAIL)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All whole proposals, oldest first."""
        return named(self._storage.every_trial())

    def propose(self) -> str:
        """A new trial; returns its name."""
        number = self.proposed
        if number <= len(self._space.first) and not self._waiting:
            self._queue_first(number)
        self._study.sampler = make_sampler(self._config, number, self._standings)
        trial = self._study.ask()
        self._waiting = False
        point = self._space.sample(trial)
        name = f"trial_{number:03d}"
        trial.set_user_attr(NAME, name)
        self._storage.keep(trial._trial_id)
        self.open[name] = OpenTrial(trial._trial_id, trial.number, number, {}, {})
        self._standings.proposed(self._storage.get_trial(trial._trial_id))
        self.points[name] = point
        self.proposed += 1
        self.progress.proposed(name)
        return name

    def _queue_first(self, number: int) -> None:
        points = self._space.first_points(self._config.train)
        if number < len(points):  # fewer than the space says where the configuration is one of them
            attrs = {"hand_tuned": True} if number == 0 else None
            self._study.enqueue_trial(points[number], user_attrs=attrs)

    def record_epoch(self, name: str, epoch: int, score: float) -> None:
        """The trial's best score after `epoch`; a second time is no news."""
        trial = self.open[name]
        if epoch not in trial.scores:
            self._storage.set_trial_intermediate_value(trial.id, epoch, score)
            trial.scores[epoch] = score
            self._standings.reported(trial.row, epoch, score)
            self.progress.reported(name, epoch, score)

    def record_arrival(self, name: str, milestone: int, before: int) -> None:
        """The trial is the rung's arrival number `before`, counted from 0."""
        trial = self.open[name]
        trial.arrivals[milestone] = before
        self._annotate(trial, {ARRIVALS: {str(at): place for at, place in trial.arrivals.items()}})
        self.progress.arrived(name, milestone, trial.scores[milestone])

    def end(self, name: str, state: State, facts: dict[str, Any]) -> None:
        """The trial has ended; `facts` are kept with it: its epochs and best scores, or its error."""
        trial = self.open[name]
        with self.together():
            self._annotate(trial, facts)
            if state == "finished":
                self._study.tell(trial.number, trial.scores[max(trial.scores)])
            else:
                self._study.tell(trial.number, state=OPTUNA_STATES[state])
        self._standings.ended(trial.row, OPTUNA_STATES[state])
        del self.open[name]
        self.progress.ended(name, state)

    def together(self) -> AbstractContextManager[None]:
        """What is recorded in the block is one transaction, on the disk when the block ends."""
        return self._storage.together()

    def rungs(self) -> dict[int, dict[str, float]]:
        """Of each rung that a trial has arrived at, by epoch: its trials' scores in that order."""
        return read_rungs(self.trials)

    def _annotate(self, trial: OpenTrial, facts: dict[str, Any]) -> None:
        for key, value in facts.items():
            self._storage.set_trial_user_attr(trial.id, key, value)


def standings_of(trials: Sequence[FrozenTrial], space: Space, config: SearchConfig) -> Standings:
    """Of `trials`, all of a search, oldest first."""
    parameters, factor = list(space.parameters), config.search.reduction_factor
    standings = Standings(parameters, rung_epochs(config), factor)
    for trial in trials:
        standings.take_in(trial)
    return standings


def make_sampler(
    config: SearchConfig, number: int, standings: Standings
) -> optuna.samplers.BaseSampler:
    """For proposal `number`, after the trials in `standings`."""
    seed = np.random.SeedSequence([config.search.seed, number]).generate_state(1)[0]
    return StandingSampler(standings, config.search.startup_trials, int(seed))


# --- reading, also from another process while the search runs --------------------------------------


def read_trials(path: Path, study_name: str) -> list[FrozenTrial]:
    """All whole proposals of the study at `path`, oldest first."""
    study = optuna.load_study(study_name=study_name, storage=f"sqlite:///{path}")
    return named(study.get_trials(deepcopy=False))


def named(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if NAME in trial.user_attrs]


def arrivals_of(trial: FrozenTrial) -> dict[int, int]:
    return {int(at): place for at, place in trial.user_attrs.get(ARRIVALS, {}).items()}


def read_rungs(trials: Sequence[FrozenTrial]) -> dict[int, dict[str, float]]:
    """{rung's epoch: {trial: its score there}}, each rung in the order of arrival."""
    rungs: dict[int, list[tuple[int, str, float]]] = {}
    for trial in trials:
        for milestone, place in arrivals_of(trial).items():
            score = trial.intermediate_values[milestone]
            rungs.setdefault(milestone, []).append((place, trial.user_attrs[NAME], score))
    return {
        milestone: {name: score for _, name, score in sorted(arrived)}
        for milestone, arrived in sorted(rungs.items())
    }


def progress_of(trials: Sequence[FrozenTrial], config: SearchConfig, pace: Pace) -> Progress:
    """What `trials`, all of a search, oldest first, have come to."""
    progress = Progress(config, pace)
    for trial in trials:
        name = trial.user_attrs[NAME]
        progress.proposed(name)
        for epoch, score in sorted(trial.intermediate_values.items()):
            progress.reported(name, epoch, score)
        if trial.state in STATES:
            progress.ended(name, STATES[trial.state])
    for milestone, rung in read_rungs(trials).items():
        for name, score in rung.items():
            progress.arrived(name, milestone, score)
    return progress
