"""Training of one fold: load, loop, report. Read it top to bottom.

Everything that drives a training run (the command line, Ray Tune, a retraining task) calls `train`
and hears of it through `report(metrics, checkpoint)` after every epoch.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from trashseg.augment import build_augment, normalize
from trashseg.checkpoint import Progress, load_checkpoint, save_checkpoint
from trashseg.config import TrainConfig, fingerprint
from trashseg.data.cache import Cache, open_cache
from trashseg.data.coco import CocoDataset
from trashseg.data.dataset import EpochBatches, SegmentationDataset, make_loader
from trashseg.data.folds import Folds
from trashseg.errors import ConfigError, NonFiniteError
from trashseg.losses import Loss, build_loss
from trashseg.metrics import Scores, SegmentationScores
from trashseg.models import build_model
from trashseg.optim import Schedule, build_optimizer
from trashseg.pictures import comparison, write_image

Metrics = dict[str, Any]
Report = Callable[[Metrics, Path], None]
PICTURES = 4  # validation photos, the same in every epoch and trial, that are drawn


@dataclass(frozen=True)
class Resources:
    """What this run may use: CPU threads in all, and the device of the network."""

    cpus: int
    device: torch.device


def local_resources(cpus: int | None = None) -> Resources:
    """This machine's GPU, where there is one, and `cpus` of its CPUs, or all that it may use."""
    if cpus is None:
        has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
        cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return Resources(cpus, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass
class Trainer:
    """Everything that a training run needs, built once."""

    config: TrainConfig
    resources: Resources
    dataset: CocoDataset
    cache: Cache
    train_batches: EpochBatches
    train_loader: "DataLoader[tuple[Tensor, Tensor]]"
    val_loader: "DataLoader[tuple[Tensor, Tensor]]"
    val_positions: NDArray[np.int64]
    pictured: list[int]  # places among val_positions
    model: nn.Module
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule


def train(
    config: TrainConfig,
    dataset: CocoDataset,
    folds: Folds,
    fold: int,
    report: Report,
    *,
    checkpoints: Path,
    resources: Resources,
    resume_from: Path | None = None,
) -> tuple[Progress, nn.Module]:
    """Train on all folds but `fold`, validate on it after every epoch.

    `report` gets flat metrics (`epoch`, `loss`, `val_loss`, `miou`, `miou_image`, `pixel_accuracy`,
    the best epoch's as `best_*`, `iou` by class name, rates, seconds, `finished`) and the folder of
    the epoch's checkpoint under `checkpoints`. Whatever it raises ends the run. Returns the
    progress and the network with the weights of its best epoch.

    Raises DataError, ConfigError, WeightsError, CheckpointError, NonFiniteError.
    """
    trainer = build_trainer(config, dataset, folds, fold, resources)
    identity = f"{fingerprint(config)}-{trainer.cache.key}-{fold}"
    progress = Progress(identity)
    best: dict[str, Tensor] = {}
    if resume_from:
        progress, best = load_checkpoint(
            resume_from, identity, trainer.model, trainer.optimizer, trainer.schedule
        )
    for epoch in range(progress.epoch + 1, config.epochs + 1):
        if _out_of_patience(config, progress):
            break
        started = time.perf_counter()
        train_loss = train_epoch(trainer, epoch)
        scores, val_loss, predicted = evaluate(trainer)
        trainer.schedule.after_epoch(scores[config.metric])
        progress = dataclasses.replace(progress, epoch=epoch)
        if (
            progress.best_scores is None
            or scores[config.metric] > progress.best_scores[config.metric]
        ):
            progress = dataclasses.replace(progress, best_epoch=epoch, best_scores=scores)
            best = {name: value.cpu().clone() for name, value in trainer.model.state_dict().items()}
        checkpoint = save_checkpoint(
            checkpoints,
            progress,
            trainer.model,
            trainer.optimizer,
            trainer.schedule,
            best,
            functools.partial(draw, trainer, predicted),
        )
        metrics = {
            **_flat(scores, progress),
            "loss": train_loss,
            "val_loss": val_loss,
            "lr_encoder": trainer.optimizer.param_groups[0]["lr"],
            "lr_decoder": trainer.optimizer.param_groups[1]["lr"],
            "seconds": time.perf_counter() - started,
            "finished": epoch == config.epochs or _out_of_patience(config, progress),
        }
        report(metrics, checkpoint)
    trainer.model.load_state_dict(best)
    return progress, trainer.model


def _out_of_patience(config: TrainConfig, progress: Progress) -> bool:
    return 0 < config.patience <= progress.epoch - progress.best_epoch


def _flat(scores: Scores, progress: Progress) -> Metrics:
    best = progress.best_scores or {}
    return {
        "epoch": progress.epoch,
        "miou": scores["miou"],
        "miou_image": scores["miou_image"],
        "pixel_accuracy": scores["pixel_accuracy"],
        "iou": scores["iou"],
        "best_epoch": progress.best_epoch,
        "best_miou": best["miou"],
        "best_miou_image": best["miou_image"],
    }


# --- building ----------------------------------------------------------------------------------


def build_trainer(
    config: TrainConfig, dataset: CocoDataset, folds: Folds, fold: int, resources: Resources
) -> Trainer:
    set_threads(resources.cpus)
    make_deterministic(config.seed, resources.device)
    check_fits(config, folds, fold)
    cache = open_cache(dataset, config.data.image_size)
    train_positions, val_positions = folds.split(fold)
    on_gpu = resources.device.type == "cuda"
    workers = max(1, resources.cpus - 1) if on_gpu else 0  # on a CPU the network needs them itself
    train_batches = EpochBatches(train_positions, config.batch_size, config.seed, shuffle=True)
    val_batches = EpochBatches(val_positions, config.batch_size, shuffle=False)
    augment = build_augment(config.augment, config.data.image_size)
    model = build_model(config.model, len(dataset.classes))
    place(model, config, resources.device)
    optimizer = build_optimizer(config.optim, model)
    pixels = cache.class_pixels[train_positions].sum(axis=0)
    return Trainer(
        config=config,
        resources=resources,
        dataset=dataset,
        cache=cache,
        train_batches=train_batches,
        train_loader=make_loader(
            SegmentationDataset(cache, augment, config.seed), train_batches, workers, pin=on_gpu
        ),
        val_loader=make_loader(SegmentationDataset(cache), val_batches, workers, pin=on_gpu),
        val_positions=val_positions,
        pictured=np.linspace(0, len(val_positions) - 1, PICTURES).astype(int).tolist(),
        model=model,
        loss=build_loss(config.loss, pixels, resources.device),
        optimizer=optimizer,
        schedule=Schedule(config.schedule, optimizer, config.epochs, len(train_batches)),
    )


def check_fits(config: TrainConfig, folds: Folds, fold: int) -> None:
    """ConfigError where the network or the batch does not fit the photos of `fold`."""
    if config.model.arch == "pan" and config.data.image_size < 128:
        raise ConfigError(
            f"data.image_size: {config.data.image_size} is too small for pan: choose 128 or more"
        )
    photos = len(folds.split(fold)[0])
    if photos < config.batch_size:
        raise ConfigError(
            f"batch_size: {config.batch_size} is more than the {photos} training photos of "
            f"fold {fold}: lower it"
        )


def set_threads(cpus: int) -> None:
    """Keep torch and OpenCV to `cpus` threads together: more of them get in each other's way."""
    torch.set_num_threads(cpus)
    cv2.setNumThreads(0)


def make_deterministic(seed: int, device: torch.device) -> None:
    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    channels_last = config.memory_format == "channels_last" or (
        config.memory_format == "auto" and device.type == "cuda"
    )
    return torch.channels_last if channels_last else torch.contiguous_format


def place(model: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Move the network to its device and memory layout, in place."""
    model.to(device)
    model.to(memory_format=memory_format(config, device))


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bfloat16 where asked for, or where a CUDA device has it; on CPUs it is many times slower."""
    bfloat16 = config.precision == "bfloat16" or (
        config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16)


# --- an epoch ----------------------------------------------------------------------------------


def train_epoch(trainer: Trainer, epoch: int) -> float:
    """One pass over the training photos; returns the mean loss of its steps."""
    trainer.model.train()
    trainer.train_batches.epoch = epoch
    total = torch.zeros((), device=trainer.resources.device)
    for step, (images, masks) in enumerate(trainer.train_loader):
        total += train_step(trainer, images, masks, where=f"epoch {epoch}, step {step}")
    return float(total) / len(trainer.train_batches)


def train_step(trainer: Trainer, images: Tensor, masks: Tensor, where: str) -> Tensor:
    """Forward, check, backward, clip, step; returns the loss, still on its device."""
    logits, target = forward(trainer, images, masks)
    loss = trainer.loss(logits, target)
    if not torch.isfinite(loss):
        raise NonFiniteError(
            f"{where}: the loss is {float(loss)}: lower optim.decoder_lr and optim.encoder_lr, "
            "or set clip_norm"
        )
    trainer.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    if trainer.config.clip_norm > 0:
        nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.config.clip_norm)
    trainer.optimizer.step()
    trainer.schedule.after_step()
    return loss.detach()


def forward(trainer: Trainer, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Batch of uint8 to (logits (N, C, S, S) float32, target (N, S, S) long), on the device."""
    config, device = trainer.config, trainer.resources.device
    inputs = normalize(images.to(device, non_blocking=True), config.data.normalize)
    inputs = inputs.contiguous(memory_format=memory_format(config, device))
    with autocast(config, device):
        logits = trainer.model(inputs)
    return logits.float(), masks.to(device, non_blocking=True).long()


@torch.inference_mode()
def evaluate(trainer: Trainer) -> tuple[Scores, float, dict[int, Tensor]]:
    """Scores and mean loss on the validation photos, and the pictured photos' predictions."""
    trainer.model.eval()
    totals = SegmentationScores(trainer.dataset.classes, trainer.resources.device)
    loss = torch.zeros((), dtype=torch.float64, device=trainer.resources.device)
    predicted: dict[int, Tensor] = {}
    seen = 0
    for images, masks in trainer.val_loader:
        logits, target = forward(trainer, images, masks)
        labels = logits.argmax(1)
        totals.update(labels, target)
        loss += trainer.loss(logits, target).double() * len(images)
        for place in trainer.pictured:
            if seen <= place < seen + len(images):
                predicted[place] = labels[place - seen].to(torch.uint8)
        seen += len(images)
    return totals.scores(), float(loss) / seen, predicted


def draw(trainer: Trainer, predicted: dict[int, Tensor], folder: Path) -> None:
    """Photo | truth | prediction of the pictured validation photos, as PNG."""
    for place, labels in predicted.items():
        position = int(trainer.val_positions[place])
        name = Path(trainer.dataset.photos[position].file_name).with_suffix("")
        picture = comparison(
            np.asarray(trainer.cache.images[position]),
            np.asarray(trainer.cache.masks[position]),
            labels.cpu().numpy(),
            trainer.dataset.classes,
        )
        write_image(folder / f"{str(name).replace('/', '_')}.png", picture)
