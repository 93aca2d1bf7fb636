"""The bench of the losses times only those that say the same."""

import pytest

from bench.comparison import UnequalResultsError
from bench.losses import (
    compare_losses,
    logits_and_truth,
    lovasz_by_sorting,
    ssim_by_convolutions,
)
from trashseg.losses import lovasz, ssim


def test_the_peers_are_ours_and_another_loss_is_noticed() -> None:
    logits, target = logits_and_truth()
    for ours, peer in [(ssim, ssim_by_convolutions), (lovasz, lovasz_by_sorting)]:
        assert compare_losses("one", ours, peer, logits[:2], target[:2]).ratio is not None
    with pytest.raises(UnequalResultsError, match="lovasz: the values or gradients differ"):
        compare_losses("lovasz", lovasz, ssim, logits[:2], target[:2])
