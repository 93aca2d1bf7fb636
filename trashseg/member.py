"""A trained fold on disk: trained, scored on its validation photos, and kept to vote.

OUT/config.yaml        what launch.py train takes to train it again
OUT/folds.json         which photos were in which fold
OUT/history.jsonl      the metrics of each epoch
OUT/model.safetensors  weights of the best epoch; classes and fold in its metadata
OUT/oof/ID.npz         softmax on each validation photo (C, S, S) float16: out of fold; trashseg/oof.py
OUT/metrics.json       scores on the validation photos at their own size; written last
OUT/last.safetensors   weights after the last epoch, of members that teach (trashseg/rounds.py)
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn

from trashseg.augment import normalize
from trashseg.checkpoint import CHECKPOINTS, read_weights, write_weights
from trashseg.config import TrainConfig, fingerprint
from trashseg.config_file import load_train_config, write_yaml
from trashseg.data.cache import dataset_key, resize_photo
from trashseg.data.coco import CocoDataset, Photo, rasterize, read_photo
from trashseg.data.folds import Folds, write_folds
from trashseg.data.pseudo_labels import PseudoLabels
from trashseg.device import Resources, autocast, memory_format, place
from trashseg.errors import CheckpointError
from trashseg.files import new_folder, write_json, write_text
from trashseg.masks import decide
from trashseg.metrics import Scores, SegmentationScores
from trashseg.models import build_model
from trashseg.oof import oof_file, oof_folder, resize_probabilities
from trashseg.train import FoldTraining, Metrics
from trashseg.tta import TRANSFORMS, add_upright
from trashseg.views import PLAIN, View

BEST, LAST = "model.safetensors", "last.safetensors"


@dataclass(frozen=True)
class Member:
    """One trained network, ready to vote."""

    folder: Path
    config: TrainConfig
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    fold: int
    dataset: str
    """`dataset_key` of the photos it was trained and validated on."""
    model: nn.Module


def train_member(
    config: TrainConfig,
    dataset: CocoDataset,
    folds: Folds,
    fold: int,
    out: Path,
    resources: Resources,
    on_epoch: Callable[[Metrics], None] = lambda metrics: None,
    *,
    pseudo: PseudoLabels | None = None,
    keep_last: bool = False,
) -> Scores:
    """Train one fold into `out` and return its scores; what is already there is not done again.

    An interrupted training goes on from its last epoch. `keep_last` keeps the weights of the last epoch
    too. Raises as `FoldTraining` does, and CheckpointError where `out` holds a fold of another
    configuration.
    """
    checkpoints = out / CHECKPOINTS
    if (done := member_scores(out, config)) is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)  # where a kill came before they were deleted
        return done
    training = FoldTraining(
        config, dataset, folds, fold, checkpoints=checkpoints, resources=resources, pseudo=pseudo
    )
    if training.history:
        write_progress(out, config, dataset, folds, training)
    while not training.finished:  # nothing is written before: what cannot start leaves nothing
        metrics = training.next_epoch()
        write_progress(out, config, dataset, folds, training)
        on_epoch(metrics)
    key = dataset_key(dataset)
    about = {
        "classes": json.dumps(dataset.classes),
        "category_ids": json.dumps(dataset.category_ids),
        "fold": str(fold),
        "dataset": key,
    }
    if keep_last:
        write_weights(out / LAST, training.last_weights(), **about)
    model = training.best_model()
    member = Member(out, config, dataset.classes, dataset.category_ids, fold, key, model)
    scores = score_out_of_fold(member, dataset, folds, resources)
    write_weights(out / BEST, model.state_dict(), **about)
    last = training.history[-1]
    assert training.checkpoint is not None
    shutil.copytree(training.checkpoint / "pictures", out / "pictures", dirs_exist_ok=True)
    write_json(out / "metrics.json", {**scores, "best_epoch": last["best_epoch"], "fold": fold})
    shutil.rmtree(checkpoints)
    return scores


def write_progress(
    out: Path, config: TrainConfig, dataset: CocoDataset, folds: Folds, training: FoldTraining
) -> None:
    """Whose training this is, once, and its history anew, from what the checkpoint knows: after a kill
    no epoch is missing or there twice."""
    if not (out / "config.yaml").is_file():
        write_folds(out / "folds.json", dataset, folds)
        write_yaml(out / "config.yaml", config.model_dump(mode="json"))
    lines = [json.dumps(metrics) + "\n" for metrics in training.history]
    write_text(out / "history.jsonl", "".join(lines))


def member_scores(out: Path, config: TrainConfig) -> Scores | None:
    """The scores of the fold trained in `out`; None if it is not (fully) trained yet."""
    if not (out / "config.yaml").is_file():
        return None
    if fingerprint(load_train_config(out / "config.yaml")) != fingerprint(config):
        raise CheckpointError(
            f"{out}: holds a fold of another configuration: choose another folder or delete it"
        )
    if not (out / "metrics.json").is_file():
        return None
    return dict(json.loads((out / "metrics.json").read_text()))


def load_member(folder: Path, device: torch.device, weights: str = BEST) -> Member:
    """The network in `folder`, in evaluation mode on `device`; CheckpointError if it is not whole."""
    if not (folder / "metrics.json").is_file():
        raise CheckpointError(f"{folder}: holds no finished fold: train it with launch.py retrain")
    config = load_train_config(folder / "config.yaml")
    metadata = read_metadata(folder / weights)
    classes = tuple(json.loads(metadata["classes"]))
    model = build_model(config.model, len(classes), pretrained=False)
    read_weights(folder / weights, model)
    place(model, config, device)
    model.eval()
    return Member(
        folder,
        config,
        classes,
        tuple(json.loads(metadata["category_ids"])),
        int(metadata["fold"]),
        metadata["dataset"],
        model,
    )


def read_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}): train it again") from None


# --- inference ---------------------------------------------------------------------------------


@torch.inference_mode()
def view_softmax(
    member: Member, images: list[NDArray[np.uint8]], device: torch.device, view: View
) -> torch.Tensor:
    """Photos (H, W, 3) of any sizes to softmax (N, C, S, S) float32, S the member's image size, as the
    view shows them: `add_upright` puts it back. What is resized is the softmax: it still sums to 1."""
    size, side = member.config.data.image_size, view.side(member.config.data.image_size)
    show = TRANSFORMS[view.transform]
    seen = [show(resize_photo(image, side).transpose(2, 0, 1)) for image in images]
    batch = torch.from_numpy(np.stack(seen))  # (N, 3, s, s)
    inputs = normalize(batch.to(device), member.config.data.normalize)
    member.model.eval()
    with autocast(member.config, device):
        logits = member.model(inputs.contiguous(memory_format=memory_format(member.config, device)))
    softmax: torch.Tensor = logits.float().softmax(dim=1)
    if side == size:
        return softmax
    return torch.nn.functional.interpolate(softmax, (size, size), mode="bilinear")


@torch.inference_mode()
def probabilities(
    member: Member, images: list[NDArray[np.uint8]], device: torch.device, view: View = PLAIN
) -> torch.Tensor:
    """`view_softmax`, upright."""
    seen = view_softmax(member, images, device, view)
    if view.transform == "identity":
        return seen
    upright = torch.zeros(seen.shape, device=device)
    add_upright(upright, seen, view.transform)
    return upright


def score_out_of_fold(
    member: Member, dataset: CocoDataset, folds: Folds, resources: Resources
) -> Scores:
    """Predict the member's validation photos, keep the softmax in `oof/`, score at photo size."""
    totals = SegmentationScores(dataset.classes)
    (member.folder / "oof").mkdir(exist_ok=True)
    for photo, vote in _held_out_votes(member, dataset, folds, resources, PLAIN):
        np.savez_compressed(oof_file(member.folder, photo), vote)
        mask = decide(resize_probabilities(vote.astype(np.float32), (photo.height, photo.width)))
        totals.update(torch.from_numpy(mask)[None], torch.from_numpy(rasterize(photo))[None])
    return totals.scores()


def keep_views(
    member: Member, views: Sequence[View], dataset: CocoDataset, folds: Folds, resources: Resources
) -> None:
    """Predict the member's validation photos in these views and keep the softmax beside `oof/`."""
    for view in views:
        with new_folder(oof_folder(member.folder, view.name)) as folder:
            for photo, vote in _held_out_votes(member, dataset, folds, resources, view):
                np.savez_compressed(folder / f"{photo.id}.npz", vote)


def _held_out_votes(
    member: Member, dataset: CocoDataset, folds: Folds, resources: Resources, view: View
) -> Iterator[tuple[Photo, NDArray[np.float16]]]:
    held_out = [dataset.photos[position] for position in folds.split(member.fold)[1]]
    for photos in batched(held_out, member.config.batch_size):
        images = [read_photo(photo.path) for photo in photos]
        softmax = probabilities(member, images, resources.device, view)
        yield from zip(photos, softmax.half().cpu().numpy(), strict=True)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
