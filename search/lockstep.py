"""The folds of one trial, an epoch of each at a time; the trial's numbers are their means.

ASHA then judges a trial by all of its folds at every rung, not by the luck of one.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Protocol

Metrics = dict[str, Any]
SPREAD = ("miou", "miou_image")
FIRST = ("lr_encoder", "lr_decoder")  # the same in all folds, but for plateau schedules
SUMMED = ("seconds",)
LEAST = ("micro_batch",)


class Training(Protocol):
    """What `trashseg.train.FoldTraining` is here."""

    @property
    def history(self) -> list[Metrics]: ...

    @property
    def finished(self) -> bool: ...

    def next_epoch(self) -> Metrics: ...


class Lockstep:
    """Trainings that are stepped together. A fold that was ahead when the trial was cut off waits for
    the others; a fold that ran out of patience keeps its last numbers."""

    def __init__(self, trainings: Mapping[int, Training], metric: str) -> None:
        self._trainings, self._metric = dict(trainings), metric
        self.history: list[Metrics] = []
        while self._has_epoch(len(self.history) + 1):
            self._add_epoch()

    @property
    def finished(self) -> bool:
        return bool(self.history) and bool(self.history[-1]["finished"])

    def next_epoch(self) -> Metrics:
        """Train the epoch in every fold that has not; returns the means, as `FoldTraining` would."""
        epoch = len(self.history) + 1
        for training in self._trainings.values():
            if len(training.history) < epoch and not training.finished:
                training.next_epoch()
        self._add_epoch()
        return self.history[-1]

    def _has_epoch(self, epoch: int) -> bool:
        """Whether all folds have trained that far, and one of them really did."""
        trainings = self._trainings.values()
        return all(
            len(training.history) >= epoch or training.finished for training in trainings
        ) and any(len(training.history) >= epoch for training in trainings)

    def _add_epoch(self) -> None:
        epoch = len(self.history) + 1
        folds = {
            fold: training.history[min(epoch, len(training.history)) - 1]
            for fold, training in self._trainings.items()
        }
        metrics = {**average(list(folds.values())), "epoch": epoch}
        if len(folds) > 1:
            metrics |= {f"{key}_std": stdev(m[key] for m in folds.values()) for key in SPREAD}
            metrics |= {f"fold_{fold}_{key}": m[key] for fold, m in folds.items() for key in SPREAD}
        metrics |= self._best(metrics)
        metrics["finished"] = all(
            training.finished and len(training.history) <= epoch
            for training in self._trainings.values()
        )
        self.history.append(metrics)

    def _best(self, metrics: Metrics) -> Metrics:
        """The best epoch of the mean so far; the first of equals."""
        best = max(
            [*self.history, metrics], key=lambda epoch: (epoch[self._metric], -epoch["epoch"])
        )
        return {
            "best_epoch": best["epoch"],
            "best_miou": best["miou"],
            "best_miou_image": best["miou_image"],
        }


def average(folds: Sequence[Metrics]) -> Metrics:
    """Means of the folds' numbers; a class's IoU over the folds that have the class."""
    metrics: Metrics = {}
    for key, first in folds[0].items():
        values = [fold[key] for fold in folds]
        if key == "iou":
            metrics[key] = {name: mean_of([iou[name] for iou in values]) for name in first}
        elif key in SUMMED:
            metrics[key] = sum(values)
        elif key in LEAST:
            metrics[key] = min(values)
        else:
            metrics[key] = first if key in FIRST else fmean(values)
    return metrics


def mean_of(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
