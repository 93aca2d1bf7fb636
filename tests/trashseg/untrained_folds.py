"""Folds whose networks were never trained: weights are random, and the file is all that it should be."""

import json
from pathlib import Path

import torch

from tests.trashseg.trained_folds import tiny_config
from trashseg.checkpoint import write_weights
from trashseg.config_file import write_yaml
from trashseg.data.cache import dataset_key
from trashseg.data.coco import CocoDataset
from trashseg.files import write_json
from trashseg.member import BEST
from trashseg.models import build_model


def write_untrained(
    folder: Path,
    dataset: CocoDataset,
    fold: int = 0,
    image_size: int = 64,
    seed: int = 0,
    **changes: object,
) -> None:
    """For the classes of `dataset`; it sees several of them in most photos. `changes` are of the
    configuration."""
    config = tiny_config(image_size, **changes)
    torch.manual_seed(seed)
    model = build_model(config.model, len(dataset.classes), pretrained=False)
    write_yaml(folder / "config.yaml", config.model_dump(mode="json"))
    write_json(folder / "metrics.json", {})
    write_weights(
        folder / BEST,
        model.state_dict(),
        classes=json.dumps(dataset.classes),
        category_ids=json.dumps(dataset.category_ids),
        fold=str(fold),
        dataset=dataset_key(dataset),
    )
