"""A training whose steps take no time, for tests of what happens in it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.tiny import TINY_MODEL
from trashseg.config import TrainConfig
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.device import Resources
from trashseg.train import FoldTraining

RESOURCES = Resources(cpus=1, device=torch.device("cpu"))
TREE: dict[str, Any] = {"epochs": 3, "batch_size": 8, "patience": 0, "data": {"image_size": 32}}


def make_config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**TREE, "model": TINY_MODEL, **changes})


def start(config: TrainConfig, data: Path, folder: Path, fold: int = 0) -> FoldTraining:
    dataset = load_coco(data)
    folds = stratify(dataset, count=5, seed=0)
    return FoldTraining(config, dataset, folds, fold, checkpoints=folder, resources=RESOURCES)


def run(training: FoldTraining) -> FoldTraining:
    while not training.finished:
        training.next_epoch()
    return training


def numbers(training: FoldTraining) -> list[dict[str, Any]]:
    """The history without what no two runs share."""
    return [{key: m[key] for key in m if key != "seconds"} for m in training.history]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
