"""Proposals: Optuna's TPE behind Ray Tune's searcher interface, with the study on disk.

Ray's own OptunaSearch tells Optuna that a trial which ASHA stopped is complete, so TPE compares its 3
epochs with another's 60, and it ignores the first points of conditional spaces (ray issue 35319).
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from search.config import SearchConfig
from search.space import Point, Space


def open_study(path: Path, config: SearchConfig) -> optuna.Study:
    """The study at `path`, made on first use; `optuna-dashboard sqlite:///PATH` opens it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=config.search.startup_trials, group=True, seed=config.search.seed
        )
    return optuna.create_study(
        study_name=config.search.name,
        storage=f"sqlite:///{path}",
        sampler=sampler,
        direction="maximize",
        load_if_exists=True,
    )


class OptunaSearcher(Searcher):
    """Asks the study for a point per trial; tells it each epoch's score and how the trial ended."""

    def __init__(self, study: optuna.Study, space: Space, first: Point, score_key: str) -> None:
        super().__init__(metric=score_key, mode="max")
        self._study, self._space, self._score_key = study, space, score_key
        self._trials: dict[str, optuna.Trial] = {}
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(first, user_attrs={"hand_tuned": True})
        self.hand_tuned = "trial_000"

    def suggest(self, trial_id: str) -> Point:
        trial = self._study.ask()
        self._trials[trial_id] = trial
        trial.set_user_attr("trial_id", f"trial_{trial.number:03d}")
        return self._space.sample(trial)

    def trial_name(self, trial: Trial) -> str:
        """Its number in the study; Tune's own ids are random."""
        return str(self._trials[trial.trial_id].user_attrs["trial_id"])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._trials[trial_id].report(result[self._score_key], step=result["epoch"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """COMPLETE if the trial ran to its end, PRUNED if ASHA stopped it, else FAIL."""
        trial = self._trials.pop(trial_id)
        if error or not result or self._score_key not in result:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        for key in ("epoch", "best_epoch", "best_miou", "best_miou_image"):
            trial.set_user_attr(key, result[key])
        if result["finished"]:
            self._study.tell(trial, result[self._score_key])
            return
        trial.report(
            result[self._score_key], step=result["epoch"]
        )  # Tune skips it for the last one
        self._study.tell(trial, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        state = (self._study.sampler, {name: trial.number for name, trial in self._trials.items()})
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        sampler, numbers = pickle.loads(Path(checkpoint_path).read_bytes())
        self._study.sampler = sampler
        ids = {trial.number: trial._trial_id for trial in self._study.get_trials(deepcopy=False)}
        self._trials = {
            name: optuna.Trial(self._study, ids[number]) for name, number in numbers.items()
        }
