"""A fold whose network was never trained: all that the page and the interface need of a model."""

import json
from pathlib import Path

import torch

from tests.trashseg.trained_folds import tiny_config
from trashseg.checkpoint import write_weights
from trashseg.config_file import write_yaml
from trashseg.data.cache import dataset_key
from trashseg.data.coco import load_coco
from trashseg.files import write_json
from trashseg.member import BEST
from trashseg.models import build_model

CLASSES = 12


def write_untrained(folder: Path, sample: Path) -> Path:
    """A fold for the classes of `sample`, at 64 pixels, which finds something in every photo."""
    config, dataset = tiny_config(64), load_coco(sample)
    torch.manual_seed(0)
    model = build_model(config.model, CLASSES, pretrained=False)
    write_yaml(folder / "config.yaml", config.model_dump(mode="json"))
    write_json(folder / "metrics.json", {})
    write_weights(
        folder / BEST,
        model.state_dict(),
        classes=json.dumps(dataset.classes),
        category_ids=json.dumps(dataset.category_ids),
        fold="0",
        dataset=dataset_key(dataset),
    )
    return folder
