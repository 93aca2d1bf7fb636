"""Trials in which something goes wrong, by the trial's name; imported by the workers."""

import os
import signal
from pathlib import Path

import torch
from ray import tune

from search.space import Point
from search.trainable import TrialSetting, run_trial
from trashseg.train import FoldTraining, Metrics

CRASHES_ONCE, CRASHES, DIES_ONCE, SHORT_OF_MEMORY = (f"trial_{n:03d}" for n in (1, 2, 3, 4))
ROOM = 4  # photos at once
healthy_epoch = FoldTraining.next_epoch


def faulty_trial(point: Point, setting: TrialSetting) -> None:
    FoldTraining.next_epoch = faulty_epoch  # type: ignore[method-assign]
    run_trial(point, setting)


def faulty_epoch(self: FoldTraining) -> Metrics:
    name = tune.get_context().get_trial_name()
    if len(self.history) == 1:  # in the second epoch
        if name == CRASHES or (name == CRASHES_ONCE and first_time(self)):
            raise RuntimeError("the loader broke")
        if name == DIES_ONCE and first_time(self):
            os.kill(os.getpid(), signal.SIGKILL)
    if name == SHORT_OF_MEMORY:
        self._trainer.model.register_forward_pre_hook(no_room)
    return healthy_epoch(self)


def first_time(training: FoldTraining) -> bool:
    mark = Path(training._checkpoints) / "happened"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def no_room(model: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
    if len(inputs[0]) > ROOM:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
