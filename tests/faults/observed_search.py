"""launch.py, except that whoever trains an epoch says so in a file once its checkpoint is in place.

Run as `python -m tests.faults.observed_search search ...`, with the file's name in OBSERVED_EPOCHS.
"""

import os
from pathlib import Path

import launch
from search import driver
from search.space import Point
from search.trainable import TrialSetting, run_trial
from trashseg.train import FoldTraining, Metrics

OBSERVED = "OBSERVED_EPOCHS"
unobserved = FoldTraining.next_epoch


def next_epoch(self: FoldTraining) -> Metrics:
    metrics = unobserved(self)
    assert self.checkpoint is not None
    _, trial, fold, epoch = self.checkpoint.parts[-4:]
    line = f"{trial} {fold} {epoch}\n"
    file = os.open(os.environ[OBSERVED], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())  # one write: whole, whoever else writes
    os.close(file)
    return metrics


def observed_trial(point: Point, setting: TrialSetting) -> None:
    """Runs in a worker, which imports this module for it."""
    FoldTraining.next_epoch = next_epoch  # type: ignore[method-assign]
    run_trial(point, setting)


def read_epochs(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


if __name__ == "__main__":
    from tests.faults.observed_search import observed_trial as importable

    driver.run_trial = importable
    launch.app()
