"""Every number on the page, as the run's files have it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.config import SearchConfig
from search.ledger import read_trials
from search.report.effects import Family, families
from search.report.ensembles import EnsembleFacts, read_ensemble
from search.report.importance import Importances, importances
from search.report.times import Times, read_times
from search.report.trainings import Outcome, Training, outcome, read_trainings
from search.report.trials import (
    Epochs,
    RungFacts,
    TrialFacts,
    common_epoch,
    epochs_saved,
    rung_facts,
    trial_facts,
)
from search.results import read_standings
from search.run_folder import RunFolder
from trashseg.errors import ConfigError


@dataclass(frozen=True)
class Facts:
    """Of one run, as it is now."""

    name: str
    active: bool
    """Whether a command works on the run now."""
    metric: str
    planned: int
    """Trials that were asked for."""
    epochs: int
    """Of a trial that is not stopped."""
    config: Mapping[str, Any]
    """search.yaml."""
    trials: tuple[TrialFacts, ...]
    """Oldest first."""
    rungs: tuple[RungFacts, ...]
    saved: Epochs
    families: tuple[Family, ...]
    importances: Importances
    trainings: tuple[Training, ...]
    outcome: Outcome
    ensemble: EnsembleFacts | None
    additions: Mapping[str, Any] | None
    """results.json of `launch.py results`."""
    times: Times

    @property
    def hand_tuned(self) -> TrialFacts | None:
        return next((trial for trial in self.trials if trial.hand_tuned), None)

    def trial(self, name: str | None) -> TrialFacts | None:
        return next((trial for trial in self.trials if trial.name == name), None)

    def count(self, state: str) -> int:
        return sum(trial.state == state for trial in self.trials)


def read_facts(run: RunFolder) -> Facts:
    """ConfigError where no trial has begun: there is nothing to report."""
    config = run.config
    frozen = read_trials(run.study_db, config.search.name) if run.study_db.is_file() else []
    if not frozen:
        raise ConfigError(f"{run.path}: has no trials: report on a run of launch.py search")
    standings = read_standings(run)
    trials = trial_facts(frozen, config.metric, standings)
    trainings = read_trainings(run)
    epoch = common_epoch(config)
    return Facts(
        name=config.search.name,
        active=run.is_locked(),
        metric=config.metric,
        planned=config.search.trials,
        epochs=config.epochs,
        config=described(config),
        trials=trials,
        rungs=rung_facts(frozen, trials, config),
        saved=epochs_saved(trials, config.epochs),
        families=tuple(families(trials, run.space, epoch)),
        importances=importances(frozen, trials, epoch),
        trainings=trainings,
        outcome=outcome(trainings, trials, standings, config),
        ensemble=read_ensemble(run, trainings, config),
        additions=json.loads(run.results_json.read_text()) if run.results_json.is_file() else None,
        times=read_times(run.mlflow / "events.jsonl", frozen, trials, trainings),
    )


def described(config: SearchConfig) -> dict[str, Any]:
    """Without where the run lies: the page may be sent to somebody else."""
    tree = config.model_dump(mode="json")
    for key in ("data_dir", "storage", "checkpoint_uri", "tracking_uri", "address"):
        del tree["search"][key]
    return tree
