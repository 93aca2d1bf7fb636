"""One training for bench/gpu_ladder.py: warms up, says so, waits to be told to go, and prints as JSON
what its steps took; nothing where memory ran out.

    python -m bench.gpu_steps SAMPLE RECIPE ours|bare SHARE SECTION.KEY=VALUE ...

SHARE is that of the GPU's memory which it may take. On a machine without a GPU it runs on the CPU, for
tests.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from bench.training_step import Batches
from trashseg.config_file import load_train_config
from trashseg.data.coco import load_coco
from trashseg.data.folds import make_folds
from trashseg.device import local_resources
from trashseg.epoch import Trainer, network_inputs, train_steps
from trashseg.errors import MemoryShortError
from trashseg.train import build_trainer

RECIPES = Path(__file__).parent.parent / "configs" / "recipes"
WARM_UP = 3  # epochs: kernels are chosen or compiled, memory is claimed
SECONDS = 4.0


def main(sample: Path, recipe: str, way: str, share: float, settings: Sequence[str]) -> None:
    trainer = make_trainer(sample, recipe, share, settings)
    epoch = WAYS[way]
    try:
        first_loss = float(epoch(trainer)[0])
        for _ in range(WARM_UP):
            epoch(trainer).cpu()
        print("ready", flush=True)
        if sys.stdin.readline():
            print(json.dumps({**timed(trainer, epoch), "first_loss": first_loss}))
    except (torch.OutOfMemoryError, MemoryShortError):
        return


def make_trainer(sample: Path, recipe: str, share: float, settings: Sequence[str]) -> Trainer:
    """Of the recipe without its encoder's weights, and of batches that are ready in pinned memory.

    Nothing is dropped at random: compiled kernels draw other numbers, and first losses, which tell
    whether all train the same, would differ by 10%.
    """
    always = ("model.weights=none", "data.folds=2")
    config = load_train_config(RECIPES / f"{recipe}.yaml", [*always, *settings])
    dataset = load_coco(sample)
    resources = local_resources(cpus=1, gpu_memory=share)
    trainer = build_trainer(config, dataset, make_folds(dataset, config.data), 0, resources)
    batches = list(trainer.train_loader)
    trainer.train_loader = batches  # type: ignore[assignment]
    trainer.model.train()
    drop_nothing(trainer.model)
    return trainer


def drop_nothing(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0


def timed(trainer: Trainer, epoch: Callable[[Trainer], Tensor]) -> dict[str, float]:
    batches: Batches = trainer.train_loader  # type: ignore[assignment]
    photos = sum(len(images) for images, _ in batches)
    started, epochs = time.monotonic(), 0
    while time.monotonic() - started < SECONDS:
        epoch(trainer).cpu()
        epochs += 1
    on_gpu = trainer.resources.device.type == "cuda"
    return {
        "speed": epochs * photos / (time.monotonic() - started),
        "peak_bytes": torch.cuda.max_memory_reserved() if on_gpu else 0,
        "micro_batch": trainer.micro_batch,
    }


def our_epoch(trainer: Trainer) -> Tensor:
    return train_steps(trainer, 1)


def bare_epoch(trainer: Trainer) -> Tensor:
    """The least that trains, on the same batches."""
    losses = []
    for images, masks in trainer.train_loader:
        trainer.optimizer.zero_grad()
        target = masks.to(trainer.resources.device, non_blocking=True).long()
        loss = F.cross_entropy(trainer.model(network_inputs(trainer, images)), target)
        torch.autograd.backward(loss)
        trainer.optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


WAYS: dict[str, Callable[[Trainer], Tensor]] = {"ours": our_epoch, "bare": bare_epoch}


if __name__ == "__main__":
    _, sample, recipe, way, share, *settings = sys.argv
    main(Path(sample), recipe, way, float(share), settings)
