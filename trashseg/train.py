"""Training of one fold, an epoch at a time: load, loop, save. The epoch itself is in trashseg/epoch.py.

Everything that drives a training run (the command line, Ray Tune, a retraining task) steps a
`FoldTraining` and reads its metrics.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trashseg.augment import build_augment
from trashseg.averaging import build_average
from trashseg.checkpoint import (
    Progress,
    keep_only,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from trashseg.config import TrainConfig, fingerprint
from trashseg.data.cache import Cache, open_cache
from trashseg.data.coco import CocoDataset
from trashseg.data.copy_paste import build_copy_paste
from trashseg.data.dataset import EpochBatches, SegmentationDataset, make_loader
from trashseg.data.folds import Folds
from trashseg.data.pseudo_labels import PseudoLabels
from trashseg.data.sampling import photo_weights, with_pseudo_labelled
from trashseg.device import (
    Resources,
    compile_network,
    make_deterministic,
    place,
    random_state,
    return_freed_memory,
    set_precision,
    set_random_state,
)
from trashseg.epoch import Trainer, draw, evaluate, train_epoch
from trashseg.errors import ConfigError
from trashseg.losses import build_loss
from trashseg.metrics import Scores
from trashseg.models import build_model
from trashseg.optim import Schedule, build_optimizer

Metrics = dict[str, Any]
PICTURES = 4  # validation photos, the same in every epoch and trial, that are drawn


class FoldTraining:
    """Training on all folds but one, and on pseudo-labelled photos where the configuration has some
    (trashseg/rounds.py makes them), validated on that one after every epoch.

    Goes on from the newest checkpoint under `checkpoints`, as if it had never stopped: metrics (but
    for their seconds) and weights are those of an undisturbed run. Several may be stepped in turn in
    one process, each has its own random state.

    Raises DataError, ConfigError, WeightsError, CheckpointError; an epoch also NonFiniteError and
    MemoryShortError.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: CocoDataset,
        folds: Folds,
        fold: int,
        *,
        checkpoints: Path,
        resources: Resources,
        pseudo: PseudoLabels | None = None,
    ) -> None:
        self._config, self._checkpoints = config, checkpoints
        self._trainer = build_trainer(config, dataset, folds, fold, resources, pseudo)
        labels = f"-{pseudo.key}" if pseudo else ""
        identity = f"{fingerprint(config)}-{self._trainer.cache.key}-{fold}{labels}"
        self._progress = Progress(identity)
        self._best: dict[str, Tensor] = {}
        self._random_state = random_state()
        self._unsaved: dict[int, Tensor] | None = None  # what was predicted in an epoch without one
        self.checkpoint = latest_checkpoint(checkpoints)
        if self.checkpoint:
            self._take_up(self.checkpoint)

    def _take_up(self, checkpoint: Path) -> None:
        trainer = self._trainer
        self._progress, self._best, self._random_state = load_checkpoint(
            checkpoint,
            self._progress.identity,
            trainer.model,
            trainer.optimizer,
            trainer.schedule,
            trainer.average,
        )
        keep_only(checkpoint)
        trainer.parts = self._progress.parts
        trainer.last_finite = (
            f"{self.history[-1]['loss']:.4g}, the mean of epoch {len(self.history)}"
        )

    @property
    def history(self) -> list[Metrics]:
        """Metrics of each epoch that is checkpointed, oldest first: `epoch`, `loss`, `val_loss`,
        `miou`, `miou_image`, `pixel_accuracy`, the best epoch's as `best_*`, `iou` by class name,
        learning rates, `micro_batch` (photos on the device at once), `seconds`, `finished`."""
        saved = self._progress.history
        return saved[:-1] if self._unsaved is not None else saved

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or none of the last `patience` was better."""
        return bool(self.history) and bool(self.history[-1]["finished"])

    def next_epoch(self) -> Metrics:
        """Train, validate, checkpoint; returns the epoch's metrics.

        After an OSError, of a full disk for instance, the next call goes on with the writing: what
        was trained is not trained again.
        """
        if self._unsaved is None:
            self._unsaved = self._train_epoch()
        trainer = self._trainer
        self.checkpoint = save_checkpoint(
            self._checkpoints,
            self._progress,
            trainer.model,
            trainer.optimizer,
            trainer.schedule,
            trainer.average,
            self._best,
            self._random_state,
            functools.partial(draw, trainer, self._unsaved),
        )
        self._unsaved = None
        return self.history[-1]

    def last_weights(self) -> dict[str, Tensor]:
        """Weights after the last epoch, averaged where an average is taken: no truth of the validation
        photos has chosen them. To be asked for before `best_model`."""
        return self._trainer.validated.state_dict()

    def best_model(self) -> nn.Module:
        """The network with the weights of its best epoch."""
        self._trainer.model.load_state_dict(self._best)
        return self._trainer.model

    def _train_epoch(self) -> dict[int, Tensor]:
        """Enters the epoch's result in the progress; returns the pictured photos' predictions."""
        trainer, epoch = self._trainer, len(self.history) + 1
        return_freed_memory()
        set_random_state(self._random_state)
        started = time.perf_counter()
        loss = train_epoch(trainer, epoch)
        scores, val_loss, predicted = evaluate(trainer)
        trainer.schedule.after_epoch(scores[self._config.metric])
        progress = self._with_best(epoch, scores)
        metrics = {
            **_flat(epoch, scores, progress),
            "loss": loss,
            "val_loss": val_loss,
            "lr_encoder": trainer.optimizer.param_groups[0]["lr"],
            "lr_decoder": trainer.optimizer.param_groups[1]["lr"],
            "micro_batch": trainer.micro_batch,
            "seconds": time.perf_counter() - started,
            "finished": epoch == self._config.epochs
            or 0 < self._config.patience <= epoch - progress.best_epoch,
        }
        history = [*progress.history, metrics]
        self._progress = dataclasses.replace(progress, history=history, parts=trainer.parts)
        self._random_state = random_state()
        return predicted

    def _with_best(self, epoch: int, scores: Scores) -> Progress:
        """The progress, with this epoch as the best one if it is; its weights are kept then."""
        best, metric = self._progress.best_scores, self._config.metric
        if best is not None and scores[metric] <= best[metric]:
            return self._progress
        state = self._trainer.validated.state_dict()
        self._best = {name: value.cpu().clone() for name, value in state.items()}
        return dataclasses.replace(self._progress, best_epoch=epoch, best_scores=scores)


def _flat(epoch: int, scores: Scores, progress: Progress) -> Metrics:
    best = progress.best_scores or {}
    return {
        "epoch": epoch,
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
    config: TrainConfig,
    dataset: CocoDataset,
    folds: Folds,
    fold: int,
    resources: Resources,
    pseudo: PseudoLabels | None = None,
) -> Trainer:
    assert (pseudo is None) == (config.pseudo.name == "none"), "rounds.py makes the labels"
    resources.claim()
    make_deterministic(config.seed, resources.device)
    set_precision(config)
    check_fits(config, folds, fold)
    cache = open_cache(dataset, config.data.image_size)
    train_positions, val_positions = folds.split(fold)
    on_gpu = resources.device.type == "cuda"
    workers = max(1, resources.cpus - 1) if on_gpu else 0  # on a CPU the network needs them itself
    class_pixels = cache.class_pixels[train_positions]  # (N, C)
    train_batches = build_train_batches(config, cache, train_positions, pseudo)
    val_batches = EpochBatches(val_positions, config.batch_size, shuffle=False)
    train_photos = SegmentationDataset(
        cache,
        build_augment(config.augment, config.data.image_size),
        config.seed,
        build_copy_paste(config.augment.copy_paste, dataset, cache, train_positions),
        pseudo,
    )
    model = build_model(config.model, len(dataset.classes))
    place(model, config, resources.device)
    optimizer = build_optimizer(config.optim, model)
    average = build_average(config.averaging, model, config.epochs)
    compile_network(model, config)
    return Trainer(
        config=config,
        resources=resources,
        dataset=dataset,
        cache=cache,
        train_batches=train_batches,
        train_loader=make_loader(train_photos, train_batches, workers, pin=on_gpu),
        val_loader=make_loader(SegmentationDataset(cache), val_batches, workers, pin=on_gpu),
        val_positions=val_positions,
        pictured=np.linspace(0, len(val_positions) - 1, PICTURES).astype(int).tolist(),
        model=model,
        loss=build_loss(config.loss, class_pixels.sum(axis=0), resources.device),
        optimizer=optimizer,
        schedule=Schedule(config.schedule, optimizer, config.epochs, len(train_batches)),
        average=average,
    )


def build_train_batches(
    config: TrainConfig,
    cache: Cache,
    train_positions: NDArray[np.int64],
    pseudo: PseudoLabels | None,
) -> EpochBatches:
    """Of the training photos alone, or mixed with the pseudo-labelled ones, which come on top."""
    weights = photo_weights(config.sampling, cache.class_pixels[train_positions])
    batches = functools.partial(
        EpochBatches, batch_size=config.batch_size, seed=config.seed, shuffle=True
    )
    if pseudo is None or config.pseudo.name == "none":
        return batches(train_positions, weights=weights)
    labelled, share = len(train_positions), config.pseudo.share
    return batches(
        np.concatenate([train_positions, len(cache.images) + np.arange(len(pseudo))]),
        weights=with_pseudo_labelled(weights, labelled, len(pseudo), share),
        photos=round(labelled / (1 - share)),
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
