"""Ray Tune's events, handed to MLflow, to the terminal and to Ray's metrics."""

import math
import re
import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from search.checkpoint_store import open_store
from search.config import SearchConfig
from search.kept_weights import KeptWeights
from search.ledger import HAND_TUNED, NAME, STATES, Ledger, State
from search.live import SearchDisplay
from search.patience import TimeBudget, wait_for_room
from search.ray_metrics import RayMetrics
from search.run_folder import RunFolder
from search.space import Space
from search.tracking import Tracker
from trashseg.checkpoint import CHECKPOINTS, latest_checkpoint

SHOW_SECONDS = 0.5  # between two drawings of the table


class SearchCallback(Callback):
    """Logs every trial to its own MLflow run and to the display, and has its weights dropped at its
    end, or kept for the final choice.

    What was logged before is not logged again: a trial that was taken up again repeats its last epoch.
    """

    def __init__(
        self,
        run: RunFolder,
        config: SearchConfig,
        space: Space,
        ledger: Ledger,
        tracker: Tracker,
        display: SearchDisplay,
        budget: TimeBudget,
    ) -> None:
        self._run, self._config, self._space, self._ledger = run, config, space, ledger
        self._tracker, self._display, self._budget = tracker, display, budget
        self._store = open_store(config.search.checkpoint_uri, config.search.name)
        self._weights = KeptWeights(run, config)
        self._metrics = RayMetrics(config)
        self._shown = -math.inf  # when, by the monotonic clock

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to disk; a terminal and a database cannot go there."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Several times a second, also while no worker sends a result: those that wait for room send
        none."""
        folder, min_free_gb = self._run.path, self._config.search.min_free_gb
        wait_for_room(folder, min_free_gb, say=self._display.line)
        if time.monotonic() - self._shown >= SHOW_SECONDS:
            self._show(active=True)

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        """Also after Ctrl-C: what is left in the terminal does not say that it runs."""
        self._show(active=False)

    def _show(self, active: bool) -> None:
        """How it stands, at a cost that does not grow with the trials that have ended."""
        status = self._ledger.progress.status(active)
        self._display.show(status)
        self._metrics.show(status)
        self._shown = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._start(str(trial))
        self._display.trial_started(str(trial), trial.config)

    def _start(self, name: str) -> None:
        self._tracker.start(
            f"trial/{name}",
            name,
            self._space.apply(self._config.train, self._ledger.points[name]),
            {
                "kind": "trial",
                "hand_tuned": str(name == HAND_TUNED).lower(),
                "folds": ",".join(map(str, self._config.search.folds)),
            },
        )

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        if "error" in result:
            return
        numbers = {key: result[key] for key in result if REPORTED.fullmatch(key)}
        self._tracker.log_epoch(f"trial/{trial}", numbers)
        self._budget.saw_epoch(result["seconds"])
        self._ledger.progress.pace.epoch(self._run.pace_json)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._display.line(f"{trial} lost its worker, it goes on after its last whole epoch")

    def trial_ended(self, name: str, state: State, facts: Mapping[str, Any]) -> None:
        """The ledger has it: close its MLflow run, drop its weights or keep them."""
        if not self._tracker.has_started(f"trial/{name}"):
            self._start(name)  # its worker never came up: Tune told of no start
        detail = {"pruned": f"at epoch {facts.get('epoch')}", "failed": facts.get("error", "")}.get(
            state, ""
        )
        self._close(name, state, detail, facts.get("traceback", ""))
        self._weights.trial_ended(name, state, facts)
        self._display.trial_ended(name, state, detail, facts.get(self._config.score_key))

    def catch_up(self) -> None:
        """Close what had ended, but not here, when the last command was killed."""
        for trial in self._ledger.trials:
            name = trial.user_attrs[NAME]
            if trial.state not in STATES:
                continue
            state, facts = STATES[trial.state], trial.user_attrs
            if not self._tracker.has_ended(f"trial/{name}"):
                self.trial_ended(name, state, facts)
            else:
                self._weights.trial_ended(name, state, facts)

    def _close(self, name: str, state: State, detail: str, traceback: str) -> None:
        what = f"trial/{name}"
        self._store.pull(f"trials/{name}", self._run.trial(name), only="/pictures/")
        first = self._run.trial_fold(name, self._config.search.folds[0])
        checkpoint = latest_checkpoint(first / CHECKPOINTS)
        if checkpoint:
            self._tracker.log_files(what, checkpoint / "pictures", "pictures")
        if traceback:
            self._tracker.log_text(what, traceback, "traceback.txt")
        self._tracker.end(what, state, detail)


REPORTED = re.compile(  # of a trial's result, in which Tune puts much of its own
    r"epoch|loss|val_loss|pixel_accuracy|best_epoch|best_miou(_image)?|lr_(en|de)coder|seconds"
    r"|micro_batch|iou|((fold_\d+_)?miou(_image)?(_std)?)"
)
