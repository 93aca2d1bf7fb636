"""A run with an ensemble, written by hand: no search, no training, scores as a test wants them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.config import SearchConfig
from search.run_folder import RunFolder, new_run_folder
from search.space import load_space
from tests.trashseg.untrained_folds import write_untrained
from trashseg.config_file import write_yaml
from trashseg.data.coco import CocoDataset, load_coco
from trashseg.data.folds import stratify
from trashseg.files import write_json

WEIGHT = {"trial_000": 0.3125, "trial_001": 0.1875}  # of each of two folds
BEST_EPOCHS = {"trial_000/0": 3, "trial_000/1": 2, "trial_001/0": 1, "trial_001/1": 3}
STEP = {
    "step": "crf", "without": 0.3111, "with": 0.3555, "gain": 0.0444, "noise": 0.0123, "kept": True,
    "why": "the gain, +0.04440, is more than its noise, 0.01230", "photos": 20,
}  # fmt: skip


def write_run(
    sample: Path,
    folder: Path,
    tracking_uri: str,
    name: str = "night",
    nested: float = 0.25,
    changes: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Two trials, of 32 and 64 pixels, with two untrained folds each. `changes` are of the search's
    settings; metrics.json has the nested `miou` that is asked for."""
    settings = {
        "name": name, "data_dir": str(sample), "space": "optim", "storage": str(folder / "runs"),
        "tracking_uri": tracking_uri, **(changes or {}),
    }  # fmt: skip
    config = SearchConfig.model_validate(
        {"epochs": 3, "batch_size": 5, "data": {"image_size": 64, "folds": 2},
         "model": {"weights": "none"}, "search": settings}
    )  # fmt: skip
    run, dataset = new_run_folder(config), load_coco(sample)
    run.create(config, load_space("optim"), dataset, stratify(dataset, 2, 0))
    for trial, size in zip(WEIGHT, (32, 64), strict=True):
        for fold in range(2):
            seed = 10 * size + fold
            write_untrained(run.fold(trial, fold), dataset, fold, size, seed)
    metrics = metrics_of(dataset, nested)
    write_json(run.ensemble / "metrics.json", metrics)
    write_json(run.ensemble / "post.json", {"metric": config.metric, "chosen": metrics["steps"]})
    write_yaml(run.ensemble / "manifest.yaml", manifest_of(dataset))
    return run


def manifest_of(dataset: CocoDataset) -> dict[str, Any]:
    return {
        "classes": list(dataset.classes),
        "members": [
            {"folder": f"../folds/{trial}/{fold}", "weight": weight}
            for trial, weight in WEIGHT.items()
            for fold in range(2)
        ],
        "tta": {"views": ["identity", "horizontal_flip"], "scales": [1.0]},
        "chosen": "soft_vote_crf",
        "crf": {"iterations": 2},
    }


def metrics_of(dataset: CocoDataset, nested: float) -> dict[str, Any]:
    """No two scores of it are the same."""
    return {
        "oof": {"soft_vote": scores(dataset, 0.3111), "soft_vote_crf": scores(dataset, 0.3555)},
        "nested": scores(dataset, nested),
        "chosen": "soft_vote_crf",
        "steps": [STEP],
        "candidates": {"0": scores(dataset, 0.2999), "1": scores(dataset, 0.2888)},
        "voters": {
            str(rank): [f"{trial}/{fold}" for fold in range(2)] for rank, trial in enumerate(WEIGHT)
        },
        "test": None,
        "members": {
            name: {**scores(dataset, 0.1 + epoch / 1000), "best_epoch": epoch}
            for name, epoch in BEST_EPOCHS.items()
        },
    }


def scores(dataset: CocoDataset, miou: float) -> dict[str, Any]:
    """Class c has an IoU of miou + c / 97; that of the mean is not theirs."""
    return {
        "miou": miou,
        "miou_image": miou + 0.0101,
        "pixel_accuracy": miou + 0.5003,
        "iou": {name: miou + place / 97 for place, name in enumerate(dataset.classes)},
        "images": len(dataset.photos),
    }


def set_metrics(run: RunFolder, **changes: Any) -> None:
    """Change some of metrics.json."""
    file = run.ensemble / "metrics.json"
    write_json(file, {**json.loads(file.read_text()), **changes})
