"""Learning-rate schedules: hand-derived rates, and a contract for all of SCHEDULES."""

import io
from typing import Any

import pytest
import torch
from torch.optim import SGD

from trashseg.config import (
    ConstantConfig,
    CosineRestartsConfig,
    OneCycleConfig,
    PlateauConfig,
    PolynomialConfig,
    ScheduleConfig,
    StepConfig,
    TrainConfig,
)
from trashseg.config_file import sections_of
from trashseg.optim import EVERY_STEP, SCHEDULES, Schedule, cosine_restarts_factor

VARIANTS = sections_of(TrainConfig.model_fields["schedule"].annotation)
ENCODER_LR, DECODER_LR = 0.25, 2.0
Rates = tuple[float, float]


class Run:
    """The rates of a run: `steps` optimizer steps an epoch, a metric after each epoch."""

    def __init__(self, config: ScheduleConfig, epochs: int, steps: int) -> None:
        weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
        rates = zip(weights, (ENCODER_LR, DECODER_LR), strict=True)
        self.optimizer = SGD([{"params": [weight], "lr": lr} for weight, lr in rates])
        self.schedule = Schedule(config, self.optimizer, epochs, steps)
        self.steps = steps

    def epoch(self, metric: float = 0.5) -> list[Rates]:
        """The rates of encoder and decoder that each step of the epoch is taken with."""
        used: list[Rates] = []
        for _ in range(self.steps):
            encoder, decoder = (group["lr"] for group in self.optimizer.param_groups)
            used.append((float(encoder), float(decoder)))
            self.optimizer.step()
            self.schedule.after_step()
        self.schedule.after_epoch(metric)
        return used


def _factors(
    config: ScheduleConfig, epochs: int, steps: int, metrics: list[float] | None = None
) -> list[float]:
    """Each step's rate as a share of the peak, which must be the same in both groups."""
    run = Run(config, epochs, steps)
    rates = [rate for epoch in range(epochs) for rate in run.epoch((metrics or [0.5] * 99)[epoch])]
    factors = [encoder / ENCODER_LR for encoder, _ in rates]
    assert factors == pytest.approx([decoder / DECODER_LR for _, decoder in rates])
    return factors


# --- the contract ------------------------------------------------------------------------------


@pytest.fixture(params=sorted(SCHEDULES))
def config(request: pytest.FixtureRequest) -> Any:
    settings: dict[str, Any] = {"name": request.param}
    if request.param == "cosine_restarts":
        settings |= {"cycle_epochs": 4, "warmup_epochs": 1, "min_factor": 0.01, "decay": 0.5}
    return VARIANTS[request.param].model_validate(settings)


def test_every_schedule_that_a_configuration_can_name_exists() -> None:
    assert set(VARIANTS) == set(SCHEDULES)
    assert set(SCHEDULES) > EVERY_STEP


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (6, 3), (10, 1), (30, 2)])
def test_every_step_has_a_positive_rate_no_higher_than_the_peak(
    config: ScheduleConfig, epochs: int, steps: int
) -> None:
    factors = _factors(config, epochs, steps)
    assert len(factors) == epochs * steps
    assert all(0 < factor <= 1 + 1e-9 for factor in factors)  # NaN and infinity fail too


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_state_that_went_through_a_file_gives_the_same_next_rates(
    config: ScheduleConfig, done: int
) -> None:
    metrics = [0.5, 0.6, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    run = Run(config, epochs=8, steps=3)
    for epoch in range(done):
        run.epoch(metrics[epoch])
    file = io.BytesIO()
    torch.save((run.optimizer.state_dict(), run.schedule.state_dict()), file)
    file.seek(0)
    optimizer, schedule = torch.load(file, weights_only=True)
    again = Run(config, epochs=8, steps=3)
    again.optimizer.load_state_dict(optimizer)
    again.schedule.load_state_dict(schedule)
    for metric in metrics[done:]:
        assert again.epoch(metric) == run.epoch(metric)


# --- rates by hand -----------------------------------------------------------------------------


def test_constant_stays_at_its_peak() -> None:
    assert _factors(ConstantConfig(), epochs=7, steps=2) == [1.0] * 14


def test_step_decays_after_every_step_size_epochs() -> None:
    factors = _factors(StepConfig(step_size=2, gamma=0.5), epochs=5, steps=2)
    assert factors == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25])


def test_polynomial_falls_in_every_step_to_just_above_zero() -> None:
    factors = _factors(PolynomialConfig(power=2.0), epochs=2, steps=2)
    assert factors == pytest.approx([1, (3 / 4) ** 2, (2 / 4) ** 2, (1 / 4) ** 2])


def test_onecycle_rises_to_each_groups_own_peak_and_falls_again() -> None:
    # 21 rates (20 steps and one after), a third of them rising: from 1/25 in step 0 to 1 in step 6
    factors = _factors(OneCycleConfig(warmup_share=1 / 3), epochs=4, steps=5)
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[3] == pytest.approx((1 / 25 + 1) / 2)  # a cosine's middle
    assert factors[6] == pytest.approx(1.0)
    assert factors[:7] == sorted(factors[:7])
    assert factors[6:] == sorted(factors[6:], reverse=True)
    assert 0 < factors[-1] < 0.02


@pytest.mark.parametrize(
    ("epochs", "steps", "share"), [(3, 3, 0.1), (9, 1, 0.1), (1, 3, 0.25), (1, 1, 0.5)]
)
def test_onecycle_takes_runs_in_which_the_warm_up_is_a_single_rate(
    epochs: int, steps: int, share: float
) -> None:
    # share * (steps in all + 1) = 1: torch divides by the 0 steps from the first rate to the peak
    factors = _factors(OneCycleConfig(warmup_share=share), epochs, steps)
    assert all(0 < factor <= 1 + 1e-9 for factor in factors)


# --- plateau -----------------------------------------------------------------------------------


def test_plateau_drops_when_the_metric_was_no_better_for_longer_than_patience() -> None:
    # best in epoch 1; epochs 2 and 3 are no better, the second of them is more than patience 1
    config = PlateauConfig(factor=0.1, patience=1)
    factors = _factors(config, epochs=5, steps=1, metrics=[0.5, 0.5, 0.4, 0.5, 0.5])
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1])


def test_plateau_waits_anew_after_a_better_metric() -> None:
    config = PlateauConfig(factor=0.1, patience=1)
    factors = _factors(config, epochs=6, steps=1, metrics=[0.5, 0.4, 0.6, 0.5, 0.7, 0.1])
    assert factors == [1.0] * 6


def test_plateau_takes_larger_metrics_for_better_even_from_zero() -> None:
    config = PlateauConfig(factor=0.1, patience=0)
    assert _factors(config, epochs=4, steps=1, metrics=[0.0, 0.1, 0.2, 0.3]) == [1.0] * 4


# --- cosine with restarts ----------------------------------------------------------------------

RESTARTS = CosineRestartsConfig(
    cycle_epochs=4, cycle_factor=2.0, warmup_epochs=2, decay=0.5, min_factor=0.1
)


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [
        (0, 0.1),  # the warm-up starts at min_factor
        (1, 0.1 + 0.9 / 2),
        (2, 1.0),  # the peak
        (3, 0.1 + 0.9 / 2),  # the middle of the cosine from epoch 2 to 4
        (3.999999, 0.1),
        (4, 0.1),  # the second cycle, of 8 epochs, with half the peak
        (5, 0.1 + 0.4 / 2),
        (6, 0.5),
        (9, 0.1 + 0.4 / 2),  # the middle of the cosine from epoch 6 to 12
        (12, 0.1),  # the third, of 16
        (14, 0.25),
        (21, 0.1 + 0.15 / 2),
        (28, 0.1),  # the fourth
        (30, 0.125),
        (62, 0.1),  # from here on no peak is above min_factor: 1/16
        (70, 0.1),
    ],
)
def test_restarts_warm_up_fall_and_decay_as_derived_by_hand(epoch: float, factor: float) -> None:
    assert cosine_restarts_factor(RESTARTS, epoch) == pytest.approx(factor, abs=1e-9)


def test_without_warm_up_every_cycle_starts_at_its_peak() -> None:
    config = CosineRestartsConfig(cycle_epochs=2, warmup_epochs=0, decay=0.5)
    factors = [cosine_restarts_factor(config, epoch) for epoch in (0, 1, 2, 3, 4)]
    assert factors == pytest.approx([1, 0.5, 0.5, 0.25, 0.25])


def test_the_published_restarts_peak_in_epochs_5_35_and_95() -> None:
    config = CosineRestartsConfig(cycle_epochs=30, cycle_factor=2.0, warmup_epochs=5, decay=0.3)
    peaks = [cosine_restarts_factor(config, epoch) for epoch in (5, 35, 95)]
    assert peaks == pytest.approx([1, 0.3, 0.09])


def test_the_first_step_of_each_warm_up_has_a_rate_above_zero() -> None:
    config = CosineRestartsConfig(cycle_epochs=2, warmup_epochs=1)
    factors = _factors(config, epochs=4, steps=4)
    assert factors[0] > 0
    assert factors[8] > 0
    assert factors[8:] == pytest.approx(factors[:8])  # the second cycle is like the first


def test_no_step_of_a_cycle_is_wasted_on_a_rate_of_zero() -> None:
    config = CosineRestartsConfig(cycle_epochs=2, warmup_epochs=1, min_factor=0.0)
    assert all(factor > 0 for factor in _factors(config, epochs=4, steps=4))
