"""What the CRF's bench calls equal."""

import numpy as np
import pytest

from bench.comparison import UnequalResultsError
from bench.crf import check
from bench.crf_scenes import difference


def test_the_probability_that_differs_most_and_the_pixels_with_another_label_are_found() -> None:
    right = np.zeros((2, 2, 5), dtype=np.float32)
    right[0], right[1] = 0.75, 0.25
    made = right.copy()
    made[:, 0, 0] = 0.25, 0.75  # one pixel of ten
    assert difference(made, right) == (0.5, 0.1)
    assert difference(right, right) == (0, 0)


@pytest.mark.parametrize(("off", "labels"), [(0.011, 0.0), (0.0, 0.0011)])
def test_results_that_differ_are_not_timed(off: float, labels: float) -> None:
    check(0.01, 0.001)
    with pytest.raises(UnequalResultsError, match="crf: a probability is"):
        check(off, labels)
