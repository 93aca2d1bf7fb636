"""The tables of a model card (search/model_card.py)."""

from collections.abc import Iterable, Mapping, Sequence
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
    weights = {"/".join(Path(m.folder).parts[-2:]): m.weight for m in manifest.members}
    rows = []
    for rank, names in metrics["voters"].items():  # best first
        configs = [load_train_config(folds / name / "config.yaml") for name in names]
        config = configs[0]
        rows.append(
            [
                names[0].partition("/")[0],
                f"{config.model.arch} on {config.model.encoder}",
                str(config.data.image_size),
                config.loss.name,
                each_once(name.rpartition("/")[2] for name in names),
                each_once(str(config.seed) for config in configs),
                weight(weights.get(names[0])),
                ", ".join(str(metrics["members"][name]["best_epoch"]) for name in names),
                score(metrics["candidates"][rank]["miou"]),
            ]
        )
    head = ["trial", "network", "size", "loss", "folds", "seeds", "weight of each network"]
    return table([*head, "best epochs", "`miou` alone"], rows)


def each_once(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


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
