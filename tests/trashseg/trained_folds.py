"""Two tiny candidates, trained on two folds, for the tests of members, ensembles, predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from trashseg.config import AdamConfig, DataConfig, ModelConfig, TrainConfig
from trashseg.config_loss import CrossEntropyConfig
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import Folds, make_folds
from trashseg.device import Resources
from trashseg.fold_models import FoldModel
from trashseg.member import train_member


def tiny_config(image_size: int, **changes: object) -> TrainConfig:
    """An epoch on CPU in a second: random weights, two folds, and a loss with which even one epoch
    gives masks of several classes."""
    config = TrainConfig(
        epochs=1,
        batch_size=5,
        data=DataConfig(image_size=image_size, folds=2),
        model=ModelConfig(weights="none"),
        loss=CrossEntropyConfig(class_weights="inverse"),
        optim=AdamConfig(decoder_lr=1e-2, encoder_lr=1e-3),
    )
    return config.model_copy(update=changes)


@dataclass(frozen=True)
class Trained:
    """Two candidates, at 64 and at 32 pixels, each on both folds of the 20 scenes."""

    run: Path
    dataset: CocoDataset
    folds: Folds
    models: tuple[FoldModel, ...]
    resources: Resources


def train_tiny(sample: Path, run: Path) -> Trained:
    configs = [tiny_config(64), tiny_config(32)]
    dataset, resources = load_coco(sample), Resources(1, torch.device("cpu"))
    folds = make_folds(dataset, configs[0].data)
    models = tuple(
        FoldModel(rank, fold, run / "folds" / str(rank) / str(fold), config)
        for rank, config in enumerate(configs)
        for fold in range(2)
    )
    for model in models:
        train_member(model.config, dataset, folds, model.fold, model.folder, resources)
    return Trained(run, dataset, folds, models, resources)


def enlarged(softmax: NDArray[Any], size: int) -> NDArray[np.float32]:
    """(C, size, size) of (C, S, S), bilinear."""
    planes = softmax.astype(np.float32)
    return np.stack([cv2.resize(p, (size, size), interpolation=cv2.INTER_LINEAR) for p in planes])
