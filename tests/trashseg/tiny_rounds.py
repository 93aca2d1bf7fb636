"""Rounds of the smallest networks, and what two of them have in common."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from tests.tiny import TINY_LEARNER
from tests.trashseg.trained_folds import tiny_config
from trashseg.config import ModelConfig, TrainConfig
from trashseg.config_pseudo import FolderPseudoConfig
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, make_folds
from trashseg.data.pseudo_labels import PseudoLabels
from trashseg.device import Resources
from trashseg.rounds import train_in_rounds, train_teachers

CPU = Resources(1, torch.device("cpu"))
# two epochs make a network that is sure of some pixels, not of all
SURE_ENOUGH = {"threshold": 0.9, "band": 0.8, "least_sure": 0.05, "share": 0.4}


def tiniest_config(**changes: Any) -> TrainConfig:
    model = ModelConfig.model_validate(TINY_LEARNER)
    return tiny_config(32, **{"model": model, **changes})


def from_folder(folder: Path, rounds: int = 1, **changes: Any) -> TrainConfig:
    pseudo = FolderPseudoConfig(folder=str(folder), rounds=rounds, **SURE_ENOUGH)
    return tiniest_config(**{"epochs": 2, "pseudo": pseudo, **changes})


def folds_of(data: Path) -> tuple[CocoDataset, Folds]:
    dataset = load_coco(data)
    return dataset, make_folds(dataset, tiniest_config().data)


def train(config: TrainConfig, data: Path, out: Path, **arguments: Any) -> dict[str, Any]:
    return train_in_rounds(config, *folds_of(data), 0, out, CPU, **arguments)


def teach(config: TrainConfig, data: Path, out: Path, fold: int = 0) -> PseudoLabels:
    labels = train_teachers(config, *folds_of(data), fold, out, CPU)
    assert labels is not None
    return labels


def weights(file: Path) -> dict[str, NDArray[Any]]:
    return {name: value.numpy() for name, value in load_file(file).items()}


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def history(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
