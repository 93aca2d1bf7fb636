"""launch.py, except that whoever trains an epoch says so in a file once its checkpoint is in place.

Run as `python -m tests.faults.observed_search search ...`, with the file's name in OBSERVED_EPOCHS.
A trial named in HELD_TRIAL waits before its first epoch until it is let go: its search cannot end
before that, however fast the machine is.
"""

import os
import time
from pathlib import Path

import launch
from search import driver
from search.space import Point
from search.trainable import TrialSetting, run_trial
from trashseg.train import FoldTraining, Metrics

OBSERVED, HELD = "OBSERVED_EPOCHS", "HELD_TRIAL"
unobserved = FoldTraining.next_epoch


def next_epoch(self: FoldTraining) -> Metrics:
    observed = Path(os.environ[OBSERVED])
    if self._checkpoints.parent.name == os.environ.get(HELD) and not self.history:
        waits_file(observed).touch()
        while not let_go_file(observed).exists():
            time.sleep(0.05)
    metrics = unobserved(self)
    assert self.checkpoint is not None
    _, trial, fold, epoch = self.checkpoint.parts[-4:]
    line = f"{trial} {fold} {epoch}\n"
    file = os.open(observed, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())  # one write: whole, whoever else writes
    os.close(file)
    return metrics


def observed_trial(point: Point, setting: TrialSetting) -> None:
    """Runs in a worker, which imports this module for it."""
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


if __name__ == "__main__":
    from tests.faults.observed_search import observed_trial as importable

    driver.run_trial = importable
    launch.app()
