"""A trial that says in a file, named in OBSERVED_EPOCHS, when it has an epoch's checkpoint in place.

One named in HELD_TRIAL waits before its first epoch until it is let go: its search cannot end before
that, however fast the machine is. Imported by the workers: what they do not need is not in this module.
"""

import os
import time
from pathlib import Path

from search.space import Point
from search.trainable import TrialSetting, run_trial
from trashseg.train import FoldTraining, Metrics

OBSERVED, HELD = "OBSERVED_EPOCHS", "HELD_TRIAL"
unobserved = FoldTraining.next_epoch


def next_epoch(self: FoldTraining) -> Metrics:
    observed = Path(os.environ[OBSERVED])
    if self._checkpoints.parts[-3] == os.environ.get(HELD) and not self.history:
        waits_file(observed).touch()
        while not let_go_file(observed).exists():
            time.sleep(0.05)
    metrics = unobserved(self)
    assert self.checkpoint is not None
    trial, fold, _, epoch = self.checkpoint.parts[-4:]
    line = f"{trial} {fold} {epoch}\n"
    file = os.open(observed, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())  # one write: whole, whoever else writes
    os.close(file)
    return metrics


def observed_trial(point: Point, setting: TrialSetting) -> None:
    FoldTraining.next_epoch = next_epoch  # type: ignore[method-assign]
    run_trial(point, setting)


def waits_file(observed: Path) -> Path:
    """Is there while the held trial waits."""
    return observed.with_suffix(".waits")


def let_go_file(observed: Path) -> Path:
    """Whoever makes it lets the held trial go."""
    return observed.with_suffix(".let_go")


def read_epochs(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []
