"""The tables of a model card (search/model_card.py)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.ablation_page import lines
from trashseg.config_file import load_train_config
from trashseg.data.coco import CocoDataset
from trashseg.manifest import Manifest
from trashseg.weighting import Weight

NAMES = {"soft_vote": "without the CRF", "soft_vote_crf": "with the CRF"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return lines([head, ["---"] * len(head), *rows])


def score(value: float | None) -> str:
    """Four decimals; - for a class that is in neither truth nor prediction."""
    return "-" if value is None else f"{value:.4f}"


def scores_table(metrics: Mapping[str, Any]) -> str:
    """A row for each way of predicting, a column for each score of all classes."""
    rows = [(f"out of fold, {NAMES[kind]}", kind, of) for kind, of in metrics["oof"].items()]
    rows.append(("out of fold, nested", "", metrics["nested"]))
    rows += [(f"test, {NAMES[kind]}", kind, of) for kind, of in (metrics["test"] or {}).items()]
    keys = ("miou", "miou_image", "pixel_accuracy")
    return table(
        ["", *(f"`{key}`" for key in keys), "photos"],
        [
            [
                name + (" (chosen)" if kind == metrics["chosen"] else ""),
                *(score(scores[key]) for key in keys),
                str(scores["images"]),
            ]
            for name, kind, scores in rows
        ],
    )


def by_class(dataset: CocoDataset, metrics: Mapping[str, Any]) -> str:
    """Photos, objects and IoU of each class; of the background there are no objects."""
    chosen = metrics["chosen"]
    columns = {
        "nested": metrics["nested"],
        "without the CRF": metrics["oof"]["soft_vote"],
        "with the CRF": metrics["oof"]["soft_vote_crf"],
        **({"test": metrics["test"][chosen]} if metrics["test"] else {}),
    }
    photos = [{a.class_index for a in photo.annotations} for photo in dataset.photos]
    objects = [a.class_index for photo in dataset.photos for a in photo.annotations]
    return table(
        ["class", "photos", "objects", *columns],
        [
            [
                name.replace("|", "\\|"),
                str(sum(index in of_photo for of_photo in photos)) if index else "-",
                str(objects.count(index)) if index else "-",
                *(score(scores["iou"][name]) for scores in columns.values()),
            ]
            for index, name in enumerate(dataset.classes)
        ],
    )


def networks(manifest: Manifest, metrics: Mapping[str, Any], folds: Path) -> str:
    """A row for each trial that was offered a vote; `folds` is the run's folder of that name."""
    trials: dict[str, list[str]] = {}  # best first
    for name in metrics["members"]:
        trial, _, fold = name.rpartition("/")
        trials.setdefault(trial, []).append(fold)
    weights = {tuple(Path(m.folder).parts[-2:]): m.weight for m in manifest.members}
    rows = []
    for rank, (trial, of_trial) in enumerate(trials.items()):
        config = load_train_config(folds / trial / of_trial[0] / "config.yaml")
        epochs = [str(metrics["members"][f"{trial}/{fold}"]["best_epoch"]) for fold in of_trial]
        model = f"{config.model.arch} on {config.model.encoder}"
        rows.append(
            [
                trial,
                model,
                str(config.data.image_size),
                config.loss.name,
                ", ".join(of_trial),
                weight(weights.get((trial, of_trial[0]))),
                ", ".join(epochs),
                score(metrics["candidates"][str(rank)]["miou"]),
            ]
        )
    head = ["trial", "network", "size", "loss", "folds", "weight of each fold's network"]
    return table([*head, "best epochs", "`miou` alone"], rows)


def weight(value: Weight | None) -> str:
    if value is None:
        return "has no vote"
    if isinstance(value, tuple):
        return f"{min(value):.4f} to {max(value):.4f}, by class"
    return f"{value:.4f}"


def steps_table(steps: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ["step", "without", "with", "gain", "noise", "kept"],
        [
            [
                step["step"],
                *(score(step[key]) for key in ("without", "with", "gain", "noise")),
                "yes" if step["kept"] else "no",
            ]
            for step in steps
        ],
    )
