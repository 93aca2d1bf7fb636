"""One epoch: a pass over the training photos, step by step, and one over the validation photos.

Where a GPU's memory does not hold a batch, the batch is worked through in parts and the gradients are
added up, so that the optimizer still makes one step a batch. That step is the whole batch's for losses
that are means over photos; Dice, Tversky, Lovasz and batch normalisation see the parts, and means are
taken over the class weights and the labelled pixels of each. The first attempt's batch also stays in the
running statistics of the layers that it reached.

On a GPU no step waits for the one before it: its loss stays there until the epoch is over, and whatever
a step needs to know of the truth is found out where the truth comes from, in the host's memory.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from trashseg.augment import normalize
from trashseg.averaging import WeightAverage
from trashseg.config import TrainConfig
from trashseg.data.cache import Cache
from trashseg.data.coco import CocoDataset
from trashseg.data.dataset import EpochBatches
from trashseg.device import (
    Resources,
    autocast,
    memory_format,
    random_state,
    set_random_state,
)
from trashseg.errors import MemoryShortError, NonFiniteError
from trashseg.losses import Loss
from trashseg.metrics import Scores, SegmentationScores
from trashseg.optim import Schedule
from trashseg.pictures import comparison, write_image

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


@dataclass
class Trainer:
    """Everything that a training run needs, built once (trashseg/train.py)."""

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
    average: WeightAverage | None = None
    parts: int = 1  # that a batch is worked through in
    last_finite: str = "none"  # the newest finite loss that was looked at, and where it was

    @property
    def micro_batch(self) -> int:
        """Photos that are on the device at once, at most."""
        return -(-self.config.batch_size // self.parts)

    @property
    def validated(self) -> nn.Module:
        """What is scored and kept: the average of the weights where there is one, else the network."""
        return self.average.network if self.average and self.average.count else self.model


def train_epoch(trainer: Trainer, epoch: int) -> float:
    """One pass over the training photos; returns the mean loss of its steps. NonFiniteError, at the end
    of the steps, where one of them had none."""
    trainer.model.train()
    freeze_encoder(trainer.model, epoch <= trainer.config.model.freeze_encoder_epochs)
    trainer.train_batches.epoch = epoch
    losses = train_steps(trainer, epoch).cpu()
    check_finite(trainer, losses.tolist(), epoch)
    average_epoch(trainer, epoch)
    return float(sum(losses)) / len(losses)


def train_steps(trainer: Trainer, epoch: int) -> Tensor:
    """The losses of an epoch's steps (S,) float32, on the device: no step waits for them."""
    return torch.stack(
        [
            train_step(trainer, images, masks, where=f"epoch {epoch}, step {step}")
            for step, (images, masks) in enumerate(trainer.train_loader)
        ]
    )


def check_finite(trainer: Trainer, losses: list[float], epoch: int) -> None:
    """Of the epoch's steps. A loss that is not spoils all weights after it, but only an epoch whose
    losses all are is validated and saved."""
    for step, loss in enumerate(losses):
        where = f"epoch {epoch}, step {step}"
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"{where}: the loss is {loss} (last finite: {trainer.last_finite}): lower "
                "optim.decoder_lr and optim.encoder_lr, or set clip_norm"
            )
        trainer.last_finite = f"{loss:.4g} in {where}"


def freeze_encoder(model: nn.Module, frozen: bool) -> None:
    """Frozen, the encoder gets no gradients, so that no optimizer moves it, not even by weight decay,
    and it is in evaluation mode, so that its batch statistics stay. A function of the epoch alone: a
    training that is taken up again needs to know nothing of it."""
    encoder = model.get_submodule("encoder")
    encoder.requires_grad_(not frozen)
    if frozen:
        encoder.eval()


def train_step(trainer: Trainer, images: Tensor, masks: Tensor, where: str) -> Tensor:
    """Gradients, clip, step, average; returns the loss, still on its device."""
    while (loss := add_gradients(trainer, images, masks)) is None:
        split_further(trainer, len(images), where)
    if trainer.config.clip_norm > 0:
        nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.config.clip_norm)
    trainer.optimizer.step()
    trainer.schedule.after_step()
    if trainer.average:
        trainer.average.after_step(trainer.model)
    return loss


def add_gradients(trainer: Trainer, images: Tensor, masks: Tensor) -> Tensor | None:
    """Forward and backward, part by part; returns the batch's loss, None if memory ran out."""
    trainer.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=trainer.resources.device)
    try:
        for part, truth in in_parts(trainer, images, masks):
            logits = forward(trainer, trainer.model, part)
            loss = trainer.loss(logits, truth) * (len(part) / len(images))
            torch.autograd.backward(loss)
            total += loss.detach()
    except torch.OutOfMemoryError:
        return None  # the caller goes on when this frame has let go of what it held
    return total


def in_parts(trainer: Trainer, images: Tensor, masks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    parts = min(trainer.parts, len(images))
    return zip(images.tensor_split(parts), masks.tensor_split(parts), strict=True)


def split_further(trainer: Trainer, batch: int, where: str) -> None:
    """Twice as many parts; not of single photos, of which batch normalisation can fail to take the
    variance. Raises MemoryShortError where that is not possible."""
    most = max(1, batch // 2)
    if trainer.parts >= most:
        config = trainer.config
        raise MemoryShortError(
            f"{where}: {trainer.micro_batch} photos of {config.data.image_size} px do not fit the "
            f"GPU's memory with {config.model.arch} on {config.model.encoder}: lower "
            "data.image_size, choose a smaller model, or give the trial more of a GPU"
        )
    trainer.parts = min(2 * trainer.parts, most)
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.resources.device.type == "cuda":
        torch.cuda.empty_cache()


def forward(trainer: Trainer, network: nn.Module, images: Tensor) -> Tensor:
    """Batch of uint8 to logits (N, C, S, S) float32 on the device."""
    inputs = network_inputs(trainer, images)
    with autocast(trainer.config, trainer.resources.device):
        logits: Tensor = network(inputs)
    return logits.float()


def network_inputs(trainer: Trainer, images: Tensor) -> Tensor:
    """(N, 3, S, S) uint8 to normalised float32 on the device, in the network's memory layout."""
    config, device = trainer.config, trainer.resources.device
    inputs = normalize(images.to(device, non_blocking=True), config.data.normalize)
    return inputs.contiguous(memory_format=memory_format(config, device))


def average_epoch(trainer: Trainer, epoch: int) -> None:
    """Tell the average, if any, that an epoch has ended; it may draw the epoch's photos again, which
    takes nothing from the random numbers of the training."""
    if trainer.average:
        state = random_state()
        with autocast(trainer.config, trainer.resources.device):
            trainer.average.after_epoch(trainer.model, epoch, training_inputs(trainer))
        set_random_state(state)


def training_inputs(trainer: Trainer) -> Iterator[Tensor]:
    """What the network saw in the epoch that `train_batches` is at."""
    for images, masks in trainer.train_loader:
        for part, _ in in_parts(trainer, images, masks):
            yield network_inputs(trainer, part)


@torch.inference_mode()
def evaluate(trainer: Trainer) -> tuple[Scores, float, dict[int, Tensor]]:
    """Scores and mean loss on the validation photos, and the pictured photos' predictions."""
    trainer.validated.eval()
    totals = SegmentationScores(trainer.dataset.classes, trainer.resources.device)
    loss = torch.zeros((), dtype=torch.float64, device=trainer.resources.device)
    predicted: dict[int, Tensor] = {}
    seen = 0
    for images, masks in trainer.val_loader:
        while (logits := predict_batch(trainer, images)) is None:
            split_further(trainer, len(images), where="validation")
        labels = logits.argmax(1)
        totals.update(labels, masks.to(labels.device, non_blocking=True))
        loss += trainer.loss(logits, masks).double() * len(images)
        for place in trainer.pictured:
            if seen <= place < seen + len(images):
                predicted[place] = labels[place - seen].to(torch.uint8)
        seen += len(images)
    return totals.scores(), float(loss) / seen, predicted


def predict_batch(trainer: Trainer, images: Tensor) -> Tensor | None:
    """Logits of the whole batch, part by part; None if memory ran out."""
    try:
        parts = images.tensor_split(min(trainer.parts, len(images)))
        return torch.cat([forward(trainer, trainer.validated, part) for part in parts])
    except torch.OutOfMemoryError:
        return None


def draw(trainer: Trainer, predicted: dict[int, Tensor], folder: Path) -> None:
    """Photo | truth | prediction of the pictured validation photos, as PNG."""
    for place, labels in predicted.items():
        position = int(trainer.val_positions[place])
        name = Path(trainer.dataset.photos[position].file_name).with_suffix("")
        picture = comparison(
            trainer.cache.images[position],
            trainer.cache.masks[position],
            labels.cpu().numpy(),
            trainer.dataset.classes,
        )
        write_image(folder / f"{str(name).replace('/', '_')}.png", picture)
