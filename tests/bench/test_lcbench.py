"""The surrogate's inputs are in the one order that means something."""

import numpy as np
import pytest

from bench.lcbench import EPOCHS, INPUTS, Task, load_space, load_tasks
from search.config import SearchConfig
from search.space import Point
from tests.bench.surrogate import needs_surrogate

pytestmark = needs_surrogate
POINT: Point = {
    "batch_size": 64, "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.01,
    "num_layers": 3, "max_units": 256, "max_dropout": 0.2,
}  # fmt: skip


def test_a_curve_is_that_of_a_query_with_the_inputs_as_they_are_documented() -> None:
    """Taken from the model itself: x_cat [[34]], x_cont [[epoch, 64, 0.01, 0.9, 0.01, 3, 256, 0.2]]; its
    second output was 36.262844 for epoch 1 and 90.91872 for epoch 52."""
    curve = Task("3945").curve(POINT)
    assert curve.shape == (EPOCHS,)
    assert curve[[0, -1]] == pytest.approx([0.36262844, 0.9091872], abs=1e-6)


def test_curves_of_several_points_are_those_of_each() -> None:
    task, other = Task("3945"), {**POINT, "learning_rate": 1e-4}
    both = task.curves([POINT, other], np.array([1, 52]))
    assert both == pytest.approx(
        np.array([task.curve(POINT)[[0, 51]], task.curve(other)[[0, 51]]]), abs=1e-6
    )


def test_accuracy_grows_in_most_trainings() -> None:
    """Of 34 data sets: with other inputs in the epoch's place it would not."""
    growths = [np.diff(Task(name).curve(POINT)[[0, 51]])[0] for name in load_tasks()]
    assert len(growths) == 34
    assert np.mean(np.array(growths) > 0) > 0.9


def test_the_space_is_the_benchmarks_and_its_default_stands_for_the_hand_tuned_point() -> None:
    space = load_space()
    assert tuple(space.parameters) == INPUTS
    assert space.parameters["batch_size"].int_range == (16, 512)
    assert space.parameters["batch_size"].log
    assert space.parameters["max_dropout"].float_range == (0.0, 1.0)
    assert space.point_of(SearchConfig().train)["max_units"] == 256
