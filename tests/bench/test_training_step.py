"""The bench of the training step times two loops only where they do the same."""

import pytest

from bench.comparison import UnequalResultsError
from bench.training_step import check_equal, prepare, shrunk


@pytest.mark.slow
def test_our_epoch_is_the_bare_loop_bit_by_bit_and_other_photos_are_noticed() -> None:
    ours, bare, inputs = prepare()
    check_equal(ours, bare, inputs)
    check_equal(shrunk(ours), shrunk(bare), inputs)
    brighter = [(images + 0.1, masks) for images, masks in inputs]
    with pytest.raises(UnequalResultsError, match="mean losses differ"):
        check_equal(ours, bare, brighter)
