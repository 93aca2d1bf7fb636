"""A trial that notes what its worker is called during each epoch; imported by the workers."""

import os
from pathlib import Path

from search.space import Point
from search.trainable import TrialSetting, run_trial
from trashseg.train import FoldTraining, Metrics

unseen_epoch = FoldTraining.next_epoch


def noted_epoch(self: FoldTraining) -> Metrics:
    [title, *_] = Path("/proc/self/cmdline").read_text().split("\0")
    with noted_file(self._checkpoints.parents[2]).open("a") as file:
        file.write(f"{os.getpid()} {title}\n")
    return unseen_epoch(self)


def noted_trial(point: Point, setting: TrialSetting) -> None:
    FoldTraining.next_epoch = noted_epoch  # type: ignore[method-assign]
    run_trial(point, setting)


def noted_file(trials: Path) -> Path:
    """Of a run's folder of trials."""
    return trials / "titles.txt"
