"""The simulated clock: what it says can be added up by hand."""

from pathlib import Path

import pytest

from bench.load import EPOCHS, TRIALS_PER_GPU, Service, simulate
from bench.orchestration import Orchestration
from bench.scale import told_apart
from bench.trials import growth

NOTHING = Service(0.0, 0.0)


def test_one_gpu_takes_what_its_trials_take_one_after_another(tmp_path: Path) -> None:
    driver = Service(trial=2.0, epoch=0.5)
    load = simulate(1, 10.0, 1.0, driver, Service(4.0, 1.0), tmp_path)
    seconds = load.trials * (2.0 + 1.0) + load.epochs * (10.0 + 0.5)
    assert load.trials == TRIALS_PER_GPU
    assert EPOCHS <= load.epochs <= TRIALS_PER_GPU * EPOCHS
    assert load.hours * 3600 == pytest.approx(seconds)
    assert load.waited == pytest.approx((load.trials * 2.0 + load.epochs * 0.5) / seconds)
    assert load.driver == pytest.approx(load.waited)  # it works while the only GPU waits
    assert load.mlflow == pytest.approx(2 * load.driver)


def test_a_driver_that_takes_no_time_is_not_waited_for(tmp_path: Path) -> None:
    load = simulate(4, 10.0, 1.0, NOTHING, NOTHING, tmp_path)
    assert load.trials == 4 * TRIALS_PER_GPU
    assert (load.waited, load.driver, load.mlflow) == (0.0, 0.0, 0.0)


def test_a_driver_that_is_too_slow_decides_how_long_the_search_takes(tmp_path: Path) -> None:
    """An epoch takes a GPU 1 s and the driver 1 s: with 8 GPUs the driver is never idle, but for the
    first epoch and the last GPUs' end."""
    load = simulate(8, 1.0, 0.0, Service(0.0, 1.0), NOTHING, tmp_path)
    assert load.epochs <= load.hours * 3600 < load.epochs + EPOCHS
    assert load.driver > 0.8


def test_what_a_trial_and_what_an_epoch_costs_are_told_apart() -> None:
    """Trials of 3 epochs take 0.10 s, of 12 epochs 0.19 s: 0.09 s for 9 epochs, 0.07 s beside them."""
    told = told_apart(0.10, 0.19)
    assert (told.epoch, told.trial) == (pytest.approx(0.01), pytest.approx(0.07))


def test_a_slow_moment_does_not_count_as_growth() -> None:
    """600 trials of a second each, ten of the last of which took another 90 s: 1 s at first and at last.
    Where the last 200 take two seconds each, it is 2 s."""
    ends = [float(second) for second in range(601)]
    stalled = [end + 9 * min(max(end - 500, 0), 10) for end in ends]
    for completed, last in ((stalled, 1.0), ([end + max(end - 400, 0) for end in ends], 2.0)):
        run = Orchestration(601, 1803, completed, seconds=completed[-1], rss=0)
        assert (run.typical(0, 200), run.typical(400, 600)) == (1.0, last)
        result = growth({("ours", 601): run}, 601)
        assert (result.ours, result.peer) == (1000 * last, 1000.0)


def test_what_a_trial_costs_leaves_out_the_start_and_the_end_of_the_search() -> None:
    """Ends at 0, 1, 2, 3, 5, 7 s: 7 s for 5 trials, 3 s for the first 3 after one; 2 s more until all
    is closed."""
    run = Orchestration(6, 18, [0.0, 1.0, 2.0, 3.0, 5.0, 7.0], seconds=9.0, rss=0)
    assert (run.per_trial(6), run.per_trial(4), run.ending) == (pytest.approx(1.4), 1.0, 2.0)
