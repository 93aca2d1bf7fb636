"""Several folds of one trial: together, and by their mean."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from search.lockstep import Lockstep, average


@dataclass
class Fold:
    """A training with known numbers, which counts how often it was stepped."""

    scores: list[float]
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0

    @property
    def finished(self) -> bool:
        return len(self.history) == len(self.scores)

    def next_epoch(self) -> dict[str, Any]:
        self.steps += 1
        return self.restore(1)

    def restore(self, epochs: int) -> dict[str, Any]:
        for _ in range(epochs):
            epoch = len(self.history) + 1
            self.history.append(
                {
                    "epoch": epoch,
                    "miou": self.scores[epoch - 1],
                    "miou_image": self.scores[epoch - 1] / 2,
                    "loss": 1.0,
                    "lr_encoder": 0.1,
                    "iou": {"Glass": self.scores[epoch - 1], "Metal": None},
                    "seconds": 2.0,
                    "micro_batch": 8,
                    "best_epoch": 1,
                    "best_miou": 0.9,
                    "best_miou_image": 0.9,
                    "finished": epoch == len(self.scores),
                }
            )
        return self.history[-1]


def run(trial: Lockstep) -> list[dict[str, Any]]:
    while not trial.finished:
        trial.next_epoch()
    return trial.history


def test_the_mean_and_the_spread_of_each_epoch_are_reported() -> None:
    first, second = run(Lockstep({0: Fold([0.2, 0.4]), 3: Fold([0.4, 0.8])}, "miou"))
    assert (first["epoch"], first["miou"], first["miou_image"]) == (
        1,
        pytest.approx(0.3),
        pytest.approx(0.15),
    )
    # sample standard deviation of two numbers: their distance over the square root of 2
    assert first["miou_std"] == pytest.approx(0.2 / 2**0.5)
    assert second["miou"] == pytest.approx(0.6)
    assert (second["fold_0_miou"], second["fold_3_miou"]) == (0.4, 0.8)
    assert (first["finished"], second["finished"]) == (False, True)
    assert (first["seconds"], first["micro_batch"], first["lr_encoder"]) == (4.0, 8, 0.1)


def test_the_best_epoch_is_that_of_the_mean_not_of_a_fold() -> None:
    # means: 0.5, 0.6, 0.55; each fold alone is best elsewhere
    trial = Lockstep({0: Fold([0.9, 0.4, 0.2]), 1: Fold([0.1, 0.8, 0.9])}, "miou")
    best = [(m["best_epoch"], round(m["best_miou"], 6)) for m in run(trial)]
    assert best == [(1, 0.5), (2, 0.6), (2, 0.6)]


def test_one_fold_is_itself() -> None:
    fold = Fold([0.2, 0.5, 0.4])
    history = run(Lockstep({0: fold}, "miou"))
    assert [m["miou"] for m in history] == [0.2, 0.5, 0.4]
    assert [(m["best_epoch"], m["best_miou"]) for m in history] == [(1, 0.2), (2, 0.5), (2, 0.5)]
    assert "miou_std" not in history[0]


def test_the_metric_of_the_search_decides_what_is_best_and_the_first_of_equals_is() -> None:
    history = run(Lockstep({0: Fold([0.5, 0.5])}, "miou_image"))
    assert [m["best_epoch"] for m in history] == [1, 1]


def test_a_fold_that_was_ahead_when_the_trial_was_cut_off_is_not_trained_again() -> None:
    ahead, behind = Fold([0.2, 0.4, 0.6]), Fold([0.4, 0.6, 0.8])
    ahead.restore(2)
    behind.restore(1)
    trial = Lockstep({0: ahead, 1: behind}, "miou")
    assert [m["epoch"] for m in trial.history] == [1]
    assert trial.next_epoch()["miou"] == pytest.approx(0.5)
    assert (ahead.steps, behind.steps) == (0, 1)
    undisturbed = run(Lockstep({0: Fold(ahead.scores), 1: Fold(behind.scores)}, "miou"))
    assert run(trial) == undisturbed


def test_a_fold_that_ran_out_of_patience_keeps_its_last_numbers() -> None:
    history = run(Lockstep({0: Fold([0.2, 0.4]), 1: Fold([0.4, 0.6, 0.8])}, "miou"))
    assert [m["miou"] for m in history] == pytest.approx([0.3, 0.5, 0.6])
    assert [m["finished"] for m in history] == [False, False, True]


def test_a_class_is_averaged_over_the_folds_that_have_it() -> None:
    folds = [{"iou": {"Glass": 0.2, "Metal": None}}, {"iou": {"Glass": 0.4, "Metal": 0.6}}]
    iou = average(folds)["iou"]
    assert iou == {"Glass": pytest.approx(0.3), "Metal": 0.6}
    assert average([folds[0], folds[0]])["iou"]["Metal"] is None
