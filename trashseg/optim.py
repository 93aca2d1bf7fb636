"""Optimizers with a rate each for encoder and decoder, and the schedules of those rates."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, lr_scheduler

from trashseg.config import CosineRestartsConfig, OptimConfig, ScheduleConfig

OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Any], Optimizer]] = {
    "adam": lambda groups, config: Adam(groups),
    "adamw": lambda groups, config: AdamW(groups),
    "sgd": lambda groups, config: SGD(
        groups, momentum=config.momentum, nesterov=config.momentum > 0
    ),
}


def build_optimizer(config: OptimConfig, model: nn.Module) -> Optimizer:
    """Two parameter groups, `encoder` and `decoder` (which holds all that is not the encoder)."""
    encoder = [p for name, p in model.named_parameters() if name.startswith("encoder.")]
    decoder = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    groups = [
        {"name": "encoder", "params": encoder, "lr": config.encoder_lr},
        {"name": "decoder", "params": decoder, "lr": config.decoder_lr},
    ]
    for group in groups:
        group["weight_decay"] = config.weight_decay
    return OPTIMIZERS[config.name](groups, config)


class Schedule:
    """A torch schedule behind two calls: `after_step` every step, `after_epoch` every epoch."""

    def __init__(self, config: ScheduleConfig, optimizer: Optimizer, epochs: int, steps: int):
        """`steps` is the number of optimizer steps in an epoch."""
        self._every_step = config.name in EVERY_STEP
        self._scheduler = SCHEDULES[config.name](config, optimizer, epochs, steps)

    def after_step(self) -> None:
        if self._every_step:
            self._scheduler.step()

    def after_epoch(self, metric: float) -> None:
        """`metric` is the validation metric, larger is better."""
        if isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau):
            self._scheduler.step(metric)
        elif not self._every_step:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return dict(self._scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scheduler.load_state_dict(state)


def cosine_restarts_factor(config: CosineRestartsConfig, epoch: float) -> float:
    """The rate's share of its peak at a (fractional) epoch: in every cycle a linear warm-up, then a
    cosine to `min_factor` (Loshchilov & Hutter 2017, with warm-up as in katsura-jp's scheduler)."""
    cycle, start, length = 0, 0.0, float(config.cycle_epochs)
    while epoch >= start + length:
        start, cycle, length = start + length, cycle + 1, length * config.cycle_factor
    peak = max(config.decay**cycle, config.min_factor)
    within = epoch - start
    if within < config.warmup_epochs:
        return config.min_factor + (peak - config.min_factor) * within / config.warmup_epochs
    progress = (within - config.warmup_epochs) / (length - config.warmup_epochs)
    return config.min_factor + (peak - config.min_factor) * (1 + math.cos(math.pi * progress)) / 2


def _cosine_restarts(config: Any, optimizer: Optimizer, epochs: int, steps: int) -> Any:
    # a step has the rate of its middle: at the ends of a cycle it may be zero
    return lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine_restarts_factor(config, (step + 0.5) / steps)
    )


def _onecycle(config: Any, optimizer: Optimizer, epochs: int, steps: int) -> Any:
    total = epochs * steps + 1  # the step after the last one asks for a rate too
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=max(config.warmup_share, 2 / total),  # torch divides by the length of the rise
        cycle_momentum=False,
    )


SCHEDULES: dict[str, Callable[[Any, Optimizer, int, int], Any]] = {
    "constant": lambda config, optimizer, epochs, steps: lr_scheduler.ConstantLR(
        optimizer, factor=1.0
    ),
    "step": lambda config, optimizer, epochs, steps: lr_scheduler.StepLR(
        optimizer, step_size=config.step_size, gamma=config.gamma
    ),
    "cosine_restarts": _cosine_restarts,
    "plateau": lambda config, optimizer, epochs, steps: lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=config.factor, patience=config.patience
    ),
    "onecycle": _onecycle,
    "polynomial": lambda config, optimizer, epochs, steps: lr_scheduler.PolynomialLR(
        optimizer, total_iters=epochs * steps, power=config.power
    ),
}
EVERY_STEP = {"cosine_restarts", "onecycle", "polynomial"}
