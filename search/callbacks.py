"""Ray Tune's events, handed to MLflow and to the terminal."""

import re
import shutil
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from search.config import SearchConfig
from search.display import Display
from search.space import Space
from search.tracking import Tracker


class SearchCallback(Callback):
    """Logs every trial to its own MLflow run and to the display, then drops its weights.

    Winners are trained again on every fold, so the weights of a trial serve only to go on after a
    crash; Tune itself always keeps at least one checkpoint (ray issue 30506).
    """

    def __init__(
        self,
        config: SearchConfig,
        space: Space,
        hand_tuned: str,
        tracker: Tracker,
        display: Display,
    ) -> None:
        self._config, self._space, self._hand_tuned = config, space, hand_tuned
        self._tracker, self._display = tracker, display
        self._runs: dict[str, str] = {}  # MLflow run of each trial

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to disk; a terminal and a database cannot go there."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        name = str(trial)
        self._runs[trial.trial_id] = self._tracker.start(
            f"trial/{name}",
            name,
            self._space.apply(self._config.train, trial.config),
            {
                "kind": "trial",
                "hand_tuned": str(name == self._hand_tuned).lower(),
                "fold": str(self._config.search.fold),
            },
        )
        self._display.trial_started(name, trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        numbers = {key: result[key] for key in result if key in REPORTED or key.startswith("iou")}
        self._tracker.log_epoch(self._runs[trial.trial_id], numbers)
        self._display.epoch(str(trial), result["epoch"], result[self._config.score_key])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        result = trial.last_result or {}
        finished = bool(result.get("finished"))
        state, detail = (
            ("finished", "") if finished else ("pruned", f"at epoch {result.get('epoch')}")
        )
        self._close(trial, state, detail)
        self._display.trial_ended(str(trial), state, detail, result.get(self._config.score_key))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        if trial.trial_id not in self._runs:  # its worker never came up: Tune told of no start
            self.on_trial_start(iteration, trials, trial)
        # trial.get_error() looks where the file is copied to later
        traceback = Path(trial.error_file).read_text() if trial.error_file else "unknown error"
        traceback = ANSI_COLOUR.sub("", traceback)
        self._tracker.log_text(self._runs[trial.trial_id], traceback, "traceback.txt")
        last_line = [line for line in traceback.strip().splitlines() if line.strip()][-1].strip()
        self._close(trial, "failed", last_line[:300])
        self._display.trial_ended(str(trial), "failed", last_line, None)

    def _close(self, trial: Trial, state: str, detail: str) -> None:
        run_id = self._runs[trial.trial_id]
        if trial.checkpoint:
            folder = Path(trial.checkpoint.path)
            self._tracker.log_files(run_id, folder / "pictures", "pictures")
            shutil.rmtree(folder, ignore_errors=True)
        self._tracker.end(run_id, state, detail)


ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
REPORTED = {
    "epoch", "loss", "val_loss", "miou", "miou_image", "pixel_accuracy", "best_epoch", "best_miou",
    "best_miou_image", "lr_encoder", "lr_decoder", "seconds",
}  # fmt: skip
