"""A trial that does not train before it is let go; imported by the workers."""

import time

import ray

from search.space import Point
from search.trainable import TrialSetting, run_trial

WAITING = "waiting"
"""Folder beside the search's runs."""


def waiting_trial(point: Point, setting: TrialSetting) -> None:
    """Says on which node it waits, and trains once there is a file `go`."""
    folder = setting.run.path.parent.parent / WAITING
    (folder / ray.get_runtime_context().get_node_id()).touch()
    while not (folder / "go").exists():
        time.sleep(0.05)
    run_trial(point, setting)
