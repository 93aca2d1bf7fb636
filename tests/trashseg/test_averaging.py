"""Averages of weights: updates by hand, when they begin, and what batch normalisation does."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from trashseg.averaging import ExponentialAverage, StochasticAverage, build_average
from trashseg.config import EMAConfig, NoAveragingConfig, SWAConfig


def network(weight: float = 0.0) -> nn.Sequential:
    """y = weight * x, normalised."""
    built = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    return set_weight(built, weight)


def set_weight(built: nn.Sequential, weight: float) -> nn.Sequential:
    with torch.no_grad():
        built[0].weight.fill_(weight)  # type: ignore[operator,union-attr]
    return built


def weight_of(built: nn.Module) -> float:
    return next(built.parameters()).item()


def no_inputs() -> Iterator[Tensor]:
    pytest.fail("the photos were drawn")
    yield


# --- exponential -------------------------------------------------------------------------------


def test_each_state_weighs_decay_times_as_much_as_the_one_after_it() -> None:
    trained = network(100.0)  # the start, which must not count
    average = ExponentialAverage(trained, decay=0.5)
    # 1 alone; (1/2 * 1 + 2) / (3/2) = 5/3; (1/4 * 1 + 1/2 * 2 + 4) / (7/4) = 3
    for weight, mean in [(1.0, 1.0), (2.0, 5 / 3), (4.0, 3.0)]:
        average.after_step(set_weight(trained, weight))
        assert weight_of(average.network) == pytest.approx(mean)
    assert average.count == 3
    assert weight_of(trained) == 4.0


def test_a_decay_near_one_is_the_plain_mean() -> None:
    trained = network()
    average = ExponentialAverage(trained, decay=1 - 1e-9)
    for weight in (1.0, 2.0, 6.0):
        average.after_step(set_weight(trained, weight))
    assert weight_of(average.network) == pytest.approx(3.0)


def test_statistics_of_batch_normalisation_are_averaged_like_the_weights() -> None:
    trained = network(1.0)
    average = ExponentialAverage(trained, decay=0.5)
    for value in (1.0, 5.0):
        trained(torch.full((2, 1, 2, 2), value))
        average.after_step(trained)
    # momentum 0.1: 0.1 * 1 after the first step, 0.9 * 0.1 + 0.1 * 5 = 0.59 after the second, of
    # which the newer one weighs twice as much: (0.1 + 2 * 0.59) / 3
    norm = average.network[1]  # type: ignore[index]
    assert float(norm.running_mean) == pytest.approx(1.28 / 3)
    assert int(norm.num_batches_tracked) == 2


def test_an_epochs_end_is_nothing_to_an_exponential_average() -> None:
    average = ExponentialAverage(network(1.0), decay=0.9)
    average.after_epoch(network(2.0), 1, no_inputs())
    assert average.count == 0


# --- over epochs -------------------------------------------------------------------------------


def test_the_mean_over_epochs_begins_after_its_start() -> None:
    trained = network()
    average = StochasticAverage(trained, start=2)
    for epoch, weight in [(1, 50.0), (2, 70.0)]:
        average.after_step(trained)
        average.after_epoch(set_weight(trained, weight), epoch, no_inputs())
        assert average.count == 0
    for epoch, weight, mean in [(3, 1.0, 1.0), (4, 2.0, 1.5), (5, 6.0, 3.0)]:
        average.after_epoch(set_weight(trained, weight), epoch, [torch.ones(2, 1, 2, 2)])
        assert weight_of(average.network) == pytest.approx(mean)


def test_statistics_of_batch_normalisation_are_taken_anew_over_all_batches() -> None:
    trained = network(2.0)
    trained(torch.full((2, 1, 1, 1), 1000.0))  # statistics of other weights
    average = StochasticAverage(trained, start=0)
    average.network.eval()
    batches = [torch.tensor([1.0, 3.0]), torch.tensor([5.0, 11.0])]
    average.after_epoch(trained, 1, [batch.reshape(2, 1, 1, 1) for batch in batches])
    # times 2: 2, 6 and 10, 22: means 4 and 16, variances (of a sample) 8 and 72
    norm = average.network[1]  # type: ignore[index]
    assert float(norm.running_mean) == pytest.approx(10.0)
    assert float(norm.running_var) == pytest.approx(40.0)
    assert norm.momentum == 0.1
    assert not average.network.training


# --- from a configuration ----------------------------------------------------------------------


def test_no_averaging_is_none() -> None:
    assert build_average(NoAveragingConfig(), network(), epochs=9) is None


@pytest.mark.parametrize(
    ("share", "epochs", "first"),
    [(0.75, 100, 76), (0.0, 3, 1), (0.5, 5, 3), (0.99, 10, 10), (0.29, 100, 30)],
)
def test_the_share_of_epochs_says_which_is_the_first_in_the_mean(
    share: float, epochs: int, first: int
) -> None:
    average = build_average(SWAConfig(start_share=share), network(), epochs)
    assert average is not None
    begun = []
    for epoch in range(1, epochs + 1):
        average.after_epoch(network(), epoch, [torch.ones(2, 1, 2, 2)])
        begun += [epoch] if average.count else []
    assert begun[0] == first


def test_an_average_keeps_the_memory_layout_and_needs_no_gradients() -> None:
    trained = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = build_average(EMAConfig(), trained, epochs=1)
    assert average is not None
    weight = next(average.network.parameters())
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.requires_grad
    assert next(trained.parameters()).requires_grad
