"""Pixels whose truth nobody knows: for every loss it is as if they did not exist."""

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import LovaszLoss
from torch import Tensor

from trashseg.config import TrainConfig
from trashseg.config_file import sections_of
from trashseg.data.coco import IGNORED
from trashseg.losses import LOSSES, Loss, build_loss
from trashseg.ssim import C1, C2, structural_similarity

VARIANTS = sections_of(TrainConfig.model_fields["loss"].annotation)
EVERY_TERM = {"ce": 0.5, "dice": 0.5, "ssim": 0.5, "focal": 0.5, "lovasz": 0.5, "tversky": 0.5}
# every loss with its defaults, and what has ways of its own
SETTINGS: list[dict[str, Any]] = [
    *({"name": name} for name in sorted(LOSSES)),
    {"name": "lovasz", "per_image": True},
    {"name": "cross_entropy", "class_weights": "inverse", "label_smoothing": 0.2},
    {"name": "focal", "class_weights": "inverse"},
    {"name": "sum", **EVERY_TERM, "per_image": True, "class_weights": "inverse"},
]
LN2 = log(2)


def _loss(settings: dict[str, Any]) -> Loss:
    config = VARIANTS[settings["name"]].model_validate(settings)
    return build_loss(config, np.array([40, 8, 2]), torch.device("cpu"))  # type: ignore[arg-type]


@pytest.fixture(params=SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
def loss(request: pytest.FixtureRequest) -> Loss:
    return _loss(request.param)


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 12, 12, generator=generator, requires_grad=True)


@pytest.fixture
def target() -> Tensor:
    return torch.randint(0, 3, (2, 12, 12), generator=torch.Generator().manual_seed(1))


def _scattered(target: Tensor) -> Tensor:
    """About half of the pixels ignored, here and there, more of them in the second photo."""
    generator = torch.Generator().manual_seed(2)
    ignored = (
        torch.rand(target.shape, generator=generator) < torch.tensor([0.4, 0.7])[:, None, None]
    )
    return target.masked_fill(ignored, IGNORED)


# --- the contract ------------------------------------------------------------------------------


def test_an_ignored_pixel_gets_no_gradient_and_others_do(
    loss: Loss, logits: Tensor, target: Tensor
) -> None:
    partly = _scattered(target)
    value = loss(logits, partly)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.shape == ()
    assert torch.isfinite(gradient).all()
    at_ignored = gradient.movedim(1, -1)[partly == IGNORED]
    assert torch.equal(at_ignored, torch.zeros_like(at_ignored))
    assert gradient.abs().sum() > 0


def test_what_the_network_says_of_an_ignored_pixel_changes_nothing(
    loss: Loss, logits: Tensor, target: Tensor
) -> None:
    partly = _scattered(target)
    other = torch.where(partly.unsqueeze(1) == IGNORED, logits.flip(1) * 9, logits)
    assert not torch.equal(loss(other, target), loss(logits, target))
    torch.testing.assert_close(loss(other, partly), loss(logits, partly))


def test_ignoring_all_but_a_rectangle_equals_the_loss_of_the_rectangle(
    loss: Loss, logits: Tensor, target: Tensor
) -> None:
    rows, columns = slice(3, 10), slice(0, 5)
    partly = torch.full_like(target, IGNORED)
    partly[:, rows, columns] = target[:, rows, columns]
    cut_out = loss(logits[:, :, rows, columns], target[:, rows, columns])
    ignoring = loss(logits, partly)
    torch.testing.assert_close(ignoring, cut_out)
    one, other = (torch.autograd.grad(value, logits)[0] for value in (ignoring, cut_out))
    torch.testing.assert_close(one, other)


def test_a_photo_without_a_labelled_pixel_is_as_good_as_none(
    loss: Loss, logits: Tensor, target: Tensor
) -> None:
    partly = target.clone()
    partly[1] = IGNORED
    torch.testing.assert_close(loss(logits, partly), loss(logits[:1], target[:1]))


def test_a_batch_without_a_labelled_pixel_costs_nothing(loss: Loss, logits: Tensor) -> None:
    value = loss(logits, torch.full((2, 12, 12), IGNORED))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_single_labelled_pixel_is_enough(loss: Loss, logits: Tensor) -> None:
    partly = torch.full((2, 12, 12), IGNORED)
    partly[1, 5, 7] = 2
    value = loss(logits, partly)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value)
    assert set(gradient.abs().sum(1).nonzero().T.tolist()[0]) == {1}
    assert gradient[1, :, 5, 7].abs().sum() == gradient.abs().sum() > 0


def test_without_such_pixels_each_image_loses_what_smp_says(logits: Tensor, target: Tensor) -> None:
    ours = _loss({"name": "lovasz", "per_image": True})(logits, target)
    assert torch.equal(ours, LovaszLoss(mode="multiclass", per_image=True)(logits, target))


# --- values by hand ----------------------------------------------------------------------------

# Logits are logarithms of probabilities; the third pixel's are never looked at.
PIXELS = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.01, 0.01, 0.98]])
THREE = PIXELS.log().T.reshape(1, 3, 1, 3)
TRUTH = torch.tensor([[[0, 1, IGNORED]]])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "cross_entropy"}, (LN2 + 2 * LN2) / 2),
        # pixels 40, 8, 2 of the classes: class 0 weighs a fifth of class 1
        ({"name": "cross_entropy", "class_weights": "inverse"}, (LN2 + 5 * 2 * LN2) / 6),
        ({"name": "ce_l1"}, 1.5 * LN2 + 1.25),
        ({"name": "dice"}, 17 / 105),  # as tests/trashseg/test_losses.py derives it from two pixels
        ({"name": "dice_topk", "dice_weight": 0.0, "topk_percent": 50.0}, 2 * LN2),  # one of two
    ],
)
def test_means_are_over_the_pixels_that_are_labelled(
    settings: dict[str, Any], expected: float
) -> None:
    assert float(_loss(settings)(THREE, TRUTH)) == pytest.approx(expected)


def test_lovasz_of_each_image_is_the_mean_over_images_with_a_labelled_pixel() -> None:
    # alone, pixel 1 misses half of its class 0: 0.5; pixel 2 three quarters of its class 1: 0.75
    first, second = torch.tensor([[[0, IGNORED, IGNORED]]]), torch.tensor([[[IGNORED, 1, IGNORED]]])
    none = torch.full((1, 1, 3), IGNORED)
    batch, truth = THREE.repeat(3, 1, 1, 1), torch.cat([first, none, second])
    value = _loss({"name": "lovasz", "per_image": True})(batch, truth)
    assert float(value) == pytest.approx((0.5 + 0.75) / 2)


def test_an_ssim_window_does_not_look_at_ignored_pixels() -> None:
    # pixels 0 and 2 of a row, the one between is ignored: a window at one gives it the weight a and
    # the other, two pixels away, b; a + b = 1 and b / a = exp(-4 / 4.5)
    a = 1 / (1 + exp(-4 / 4.5))
    b = 1 - a
    p, t, total = (0.8, 0.3), (1.0, 0.0), 0.0
    for values, truth in [(p, t), (tuple(1 - x for x in p), tuple(1 - x for x in t))]:
        spread_p, spread_t = (a * b * (x[0] - x[1]) ** 2 for x in (values, truth))
        covariance = a * b * (values[0] - values[1]) * (truth[0] - truth[1])
        structure = (2 * covariance + C2) / (spread_p + spread_t + C2)
        for near, far in [(0, 1), (1, 0)]:
            mean_p, mean_t = (a * x[near] + b * x[far] for x in (values, truth))
            total += structure * (2 * mean_p * mean_t + C1) / (mean_p**2 + mean_t**2 + C1)
    probabilities = torch.tensor([[0.8, 0.5, 0.3], [0.2, 0.5, 0.7]]).reshape(1, 2, 1, 3)
    value = structural_similarity(probabilities, torch.tensor([[[0, IGNORED, 1]]]))
    assert float(value) == pytest.approx(total / 4, abs=1e-5)
