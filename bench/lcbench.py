"""Learning curves of networks on 34 data sets, from a surrogate: what a search is simulated on.

LCBench (Zimmer et al. 2021) as a small network of YAHPO Gym (Pfisterer et al. 2022), which predicts the
accuracy after each of 52 epochs from seven hyper-parameters. It is for measuring searches, nothing else.
"""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from search.space import Parameter, Point, Space
from trashseg.config import TrainConfig

EPOCHS = 52
TASK = "OpenML_task_id"
INPUTS = (  # of x_cont, after the epoch; another order gives plausible nonsense
    "batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout"
)  # fmt: skip
VAL_ACCURACY = 1  # of the outputs, in percent
Curve = npt.NDArray[np.float64]


def folder() -> Path:
    """Where it is, if it is at hand."""
    root = Path(__file__).parent.parent
    shared = Path(os.environ.get("TRASHSEG_SHARED") or root.parent / "shared" / "data")
    return shared / "lcbench"


class LcbenchSpace(Space):
    """The benchmark's own space, whose own default stands for the hand-tuned configuration."""

    def point_of(self, config: TrainConfig) -> Point:
        return {name: entry["default"] for name, entry in _entries().items()}


def load_space() -> LcbenchSpace:
    return LcbenchSpace(
        "lcbench",
        {
            name: Parameter.model_validate(
                {
                    entry["type"].removeprefix("uniform_"): (entry["lower"], entry["upper"]),
                    "log": entry["log"],
                }
            )
            for name, entry in _entries().items()
        },
    )


def load_tasks() -> list[str]:
    """Names of the 34 data sets, in the benchmark's order."""
    [entry] = [entry for entry in _config_space() if entry["name"] == TASK]
    return list(entry["choices"])


def _entries() -> dict[str, dict[str, Any]]:
    """What is searched, in the order of the surrogate's inputs."""
    entries = {entry["name"]: entry for entry in _config_space()}
    return {name: entries[name] for name in INPUTS}


def _config_space() -> list[dict[str, Any]]:
    tree = json.loads((folder() / "config_space.json").read_text())
    return list(tree["hyperparameters"])


class Task:
    """One data set: the learning curve of any configuration."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._code = json.loads((folder() / "encoding.json").read_text())[TASK][name]

    def curve(self, point: Point) -> Curve:
        """Validation accuracy (EPOCHS,) after each epoch, 0 to 1."""
        only: Curve = self.curves([point], np.arange(1, EPOCHS + 1))[0]
        return only

    def curves(self, points: list[Point], epochs: npt.NDArray[np.int_]) -> Curve:
        """Validation accuracy (points, epochs) after these epochs, counted from 1."""
        settings = [[point[name] for name in INPUTS] for point in points]
        inputs = np.empty((len(points), len(epochs), 1 + len(INPUTS)), np.float32)
        inputs[:, :, 0] = epochs
        inputs[:, :, 1:] = np.asarray(settings, np.float32)[:, None]
        rows = inputs.reshape(-1, 1 + len(INPUTS))  # (points * epochs, 8)
        task = np.full((len(rows), 1), self._code, np.int32)
        outputs = self._session.run(None, {"x_cat": task, "x_cont": rows})[0]
        accuracy: Curve = np.asarray(outputs, np.float64)[:, VAL_ACCURACY] / 100
        by_point: Curve = accuracy.reshape(len(points), len(epochs))
        return by_point

    @cached_property
    def _session(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(str(folder() / "model.onnx"), options)
