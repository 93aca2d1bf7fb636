"""Every loss: hand-computed values, and a contract that all of LOSSES keep."""

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch

from trashseg.config import TrainConfig
from trashseg.config_file import sections_of
from trashseg.losses import (
    LOSSES,
    Loss,
    build_loss,
    class_weights,
    focal,
    largest_first,
    topk_cross_entropy,
)
from trashseg.ssim import C1, C2, local_mean

VARIANTS = sections_of(TrainConfig.model_fields["loss"].annotation)
CPU = torch.device("cpu")

# Logits are logarithms of probabilities, so softmax gives these back. Truth is class 0, then 1.
PIXELS = [[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]
LOGITS = torch.tensor(PIXELS).log().T.reshape(1, 3, 1, 2)  # (N, C, H, W)
TARGET = torch.tensor([[[0, 1]]])
LN2 = log(2)
# Dice with smooth 1, per class (hits + 1) / (mean of predicted and true pixels + 1):
# class 0: (0.5 + 1) / ((0.75 + 1) / 2 + 1) = 4/5;  class 1: (0.25 + 1) / ((0.5 + 1) / 2 + 1) = 5/7
# class 2 is absent and counts as no loss: (1/5 + 2/7 + 0) / 3
DICE = 17 / 105


def _loss(name: str, class_pixels: tuple[int, ...] = (1, 1, 1), **settings: Any) -> Loss:
    config = VARIANTS[name].model_validate({"name": name, **settings})
    return build_loss(config, np.array(class_pixels), CPU)  # type: ignore[arg-type]


def _value(name: str, class_pixels: tuple[int, ...] = (1, 1, 1), **settings: Any) -> float:
    return float(_loss(name, class_pixels, **settings)(LOGITS, TARGET))


def test_every_loss_that_a_configuration_can_name_exists() -> None:
    assert set(VARIANTS) == set(LOSSES)


# --- values by hand ----------------------------------------------------------------------------


def test_cross_entropy_is_the_mean_of_minus_log_p() -> None:
    assert _value("cross_entropy") == pytest.approx((LN2 + 2 * LN2) / 2)


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    # the classes' -log p are 1, 2 and 2 ln 2 in both pixels: 5/3 ln 2 on average
    expected = 0.7 * 1.5 * LN2 + 0.3 * 5 / 3 * LN2
    assert _value("cross_entropy", label_smoothing=0.3) == pytest.approx(expected)


def test_class_weights_make_cross_entropy_a_weighted_mean() -> None:
    # pixel counts 1, 3, 3: class 0 weighs 3 times class 1, whatever the scale
    expected = (3 * LN2 + 1 * 2 * LN2) / 4
    assert _value("cross_entropy", (1, 3, 3), class_weights="inverse") == pytest.approx(expected)
    assert _value("cross_entropy", (1, 9, 9), class_weights="inverse_sqrt") == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, 1.5 * LN2),  # cross entropy
        (1.0, (0.5 * LN2 + 0.75 * 2 * LN2) / 2),
        (2.0, (0.25 * LN2 + 0.5625 * 2 * LN2) / 2),
    ],
)
def test_focal_weighs_each_pixel_by_its_error_to_the_gamma(gamma: float, expected: float) -> None:
    assert _value("focal", gamma=gamma) == pytest.approx(expected)


def test_focal_takes_class_weights() -> None:
    expected = (3 * 0.25 * LN2 + 1 * 0.5625 * 2 * LN2) / 4
    assert _value("focal", (1, 3, 3), class_weights="inverse", gamma=2.0) == pytest.approx(expected)


def test_focal_without_focus_is_weighted_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    weighted = {"class_pixels": (5, 2, 9), "class_weights": "inverse_sqrt"}
    focal_loss = _loss("focal", gamma=0.0, **weighted)(logits, target)
    cross_entropy = _loss("cross_entropy", **weighted)(logits, target)
    torch.testing.assert_close(focal_loss, cross_entropy)


def test_ce_l1_adds_the_distance_between_softmax_and_truth() -> None:
    # distances 2 * (1 - 0.5) and 2 * (1 - 0.25): 1.25 on average
    assert _value("ce_l1", l1_weight=0.4) == pytest.approx(1.5 * LN2 + 0.4 * 1.25)
    assert _value("ce_l1", l1_weight=0.0) == pytest.approx(1.5 * LN2)


def test_dice_averages_over_classes_and_an_absent_one_counts_as_nothing() -> None:
    assert _value("dice", smooth=1.0) == pytest.approx(DICE)
    # class 0: 0.5 / 0.875 = 4/7;  class 1: 0.25 / 0.75 = 1/3
    assert _value("dice", smooth=0.0) == pytest.approx((3 / 7 + 2 / 3) / 3)


def test_dice_of_a_perfect_prediction_is_zero() -> None:
    perfect = 50.0 * torch.eye(3).reshape(1, 3, 1, 3)
    assert float(_loss("dice")(perfect, torch.tensor([[[0, 1, 2]]]))) == pytest.approx(0, abs=1e-6)


def test_dice_topk_averages_cross_entropy_over_the_hardest_pixels_only() -> None:
    value = _value("dice_topk", dice_weight=0.25, topk_percent=50.0)
    assert value == pytest.approx(0.25 * DICE + 0.75 * 2 * LN2)  # the harder of two pixels
    everything = _value("dice_topk", dice_weight=0.0, topk_percent=100.0)
    assert everything == pytest.approx(1.5 * LN2)


def test_topk_takes_at_least_one_pixel() -> None:
    assert float(topk_cross_entropy(LOGITS, TARGET, percent=0.01)) == pytest.approx(2 * LN2)


def test_dice_focal_mixes_both_by_the_weight() -> None:
    value = _value("dice_focal", dice_weight=0.5, gamma=2.0)
    assert value == pytest.approx(0.5 * DICE + 0.5 * 0.6875 * LN2)


def test_dice_bce_sees_each_class_through_a_sigmoid() -> None:
    # sigmoid(log p) = p / (1 + p): 1/3 for 0.5, 1/5 for 0.25; -log of it where true, of the rest else
    bce = (log(3) + 2 * log(5 / 4) + log(5) + log(5 / 4) + log(3 / 2)) / 6
    assert _value("dice_bce", dice_weight=0.2) == pytest.approx(0.2 * DICE + 0.8 * bce)


def test_lovasz_charges_each_error_what_it_costs_in_iou() -> None:
    # class 0, true in the first pixel only: errors 0.5 there and 0.25 in the other. In falling order
    # the first takes the IoU from 1 to 0, after which the second costs nothing more: 0.5
    # class 1, true in the second pixel only: errors 0.25 and 0.75, the larger one first: 0.75
    # class 2 is in no pixel and is left out
    assert _value("lovasz") == pytest.approx((0.5 + 0.75) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_places_come_in_falling_order_of_their_values(dtype: torch.dtype) -> None:
    values = torch.tensor([0.25, 0.0, 1.0, 6e-5, 0.75, 0.5], dtype=dtype)
    assert largest_first(values).tolist() == [2, 4, 5, 0, 3, 1]


def test_lovasz_shares_the_cost_among_the_pixels_of_an_object() -> None:
    # both pixels are class 0, with errors 0.5 and 0.75: missing one of two costs half, so the mean
    value = float(_loss("lovasz")(LOGITS, torch.tensor([[[0, 0]]])))
    assert value == pytest.approx((0.5 + 0.75) / 2)
    # truth 1, 0: errors of class 0 are 0.5 (false) and 0.75 (missed). Missed first: the only true
    # pixel, IoU 0 at once, 0.75. Class 1: 0.75 (missed) and 0.25 (false): 0.75
    assert float(_loss("lovasz")(LOGITS, torch.tensor([[[1, 0]]]))) == pytest.approx(0.75)


def test_a_false_pixel_costs_the_less_the_larger_the_object_is() -> None:
    # class 0 has p = 1, 1 and 0.5 and is true in the first two: errors 0, 0, 0.5; one false pixel
    # beside two true ones takes the IoU to 2/3: 0.5 / 3. Class 1 is the third pixel: missed, 0.5
    p0 = torch.tensor([1 - 1e-7, 1 - 1e-7, 0.5])
    logits = torch.stack([p0, 1 - p0]).log().reshape(1, 2, 1, 3)
    value = float(_loss("lovasz", (1, 1))(logits, torch.tensor([[[0, 0, 1]]])))
    assert value == pytest.approx((0.5 / 3 + 0.5) / 2, abs=1e-5)


def test_lovasz_per_image_is_the_mean_over_photos() -> None:
    # photo 1: as LOGITS, 0.625; photo 2: one class in both pixels, 0.625 too, by other errors
    target = torch.cat([TARGET, torch.tensor([[[0, 0]]])])
    both = LOGITS.repeat(2, 1, 1, 1)
    assert float(_loss("lovasz", per_image=True)(both, target)) == pytest.approx(0.625)
    # over the batch class 0 is three pixels, errors 0.5, 0.5, 0.75, and 0.25 where it is not true:
    # falling 0.75, 0.5, 0.5 cost a third each, 0.25 nothing more: 1.75 / 3; class 1, one true pixel:
    # errors 0.75 (missed) and smaller ones: 0.75
    expected = (1.75 / 3 + 0.75) / 2
    assert float(_loss("lovasz")(both, target)) == pytest.approx(expected)


def test_tversky_weighs_missed_pixels_by_beta_and_false_ones_by_the_rest() -> None:
    # class 0: hits 0.5, missed 0.5, false 0.25; with beta 0.8 and smooth 1:
    # 1.5 / (1.5 + 0.2 * 0.25 + 0.8 * 0.5) = 1.5 / 1.95 = 10/13
    # class 1: hits 0.25, missed 0.75, false 0.25: 1.25 / (1.25 + 0.05 + 0.6) = 1.25 / 1.9 = 25/38
    expected = (3 / 13 + 13 / 38 + 0) / 3
    assert _value("tversky", beta=0.8) == pytest.approx(expected)
    assert _value("tversky", beta=0.5) == pytest.approx(DICE)


def test_ssim_of_single_pixels_compares_their_values() -> None:
    # one pixel has no variance: each class is (2 p t + C1) / (p^2 + t^2 + C1)
    logits = torch.tensor([0.8, 0.2]).log().reshape(1, 2, 1, 1)
    first, second = (1.6 + C1) / (0.64 + 1 + C1), C1 / (0.04 + C1)
    value = float(_loss("ssim", (1, 1))(logits, torch.zeros(1, 1, 1, dtype=torch.long)))
    assert value == pytest.approx(1 - (first + second) / 2)


def test_ssim_looks_through_a_gaussian_window() -> None:
    # two pixels see themselves with weight a and the other with b; a + b = 1, b / a = exp(-2/9)
    a = 1 / (1 + exp(-2 / 9))
    b = 1 - a
    total = 0.0
    for p, t in [((0.8, 0.3), (1.0, 0.0)), ((0.2, 0.7), (0.0, 1.0))]:  # the two classes
        spread = a * b  # weighted variance of two values is a b (difference)^2
        variance_p, variance_t = spread * (p[0] - p[1]) ** 2, spread * (t[0] - t[1]) ** 2
        covariance = spread * (p[0] - p[1]) * (t[0] - t[1])
        structure = (2 * covariance + C2) / (variance_p + variance_t + C2)
        for near, far in [(0, 1), (1, 0)]:
            mean_p, mean_t = a * p[near] + b * p[far], a * t[near] + b * t[far]
            luminance = (2 * mean_p * mean_t + C1) / (mean_p**2 + mean_t**2 + C1)
            total += luminance * structure
    logits = torch.tensor([[0.8, 0.3], [0.2, 0.7]]).log().reshape(1, 2, 1, 2)
    for shape in [(1, 2), (2, 1)]:  # side by side, one above the other
        value = _loss("ssim", (1, 1))(
            logits.reshape(1, 2, *shape), torch.tensor([0, 1]).view(1, *shape)
        )
        assert float(value) == pytest.approx(1 - total / 4, abs=1e-5)


def test_the_ssim_window_reaches_five_pixels_and_keeps_a_constant() -> None:
    spike = torch.zeros(1, 1, 15, 15)
    spike[0, 0, 7, 7] = 1.0
    seen = local_mean(spike)[0, 0] > 0
    rows, columns = torch.nonzero(seen, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 12, 2, 12)
    torch.testing.assert_close(local_mean(torch.ones(1, 2, 15, 3)), torch.ones(1, 2, 15, 3))


@pytest.mark.parametrize("shape", [(1, 2, 3, 13), (2, 1, 7, 1)])
def test_the_gradient_through_the_window_is_that_of_its_mean(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(local_mean, values)


def test_a_sum_adds_its_terms_by_their_weights() -> None:
    ssim = _value("ssim")
    assert _value("sum") == pytest.approx(0.75 * 1.5 * LN2 + 0.25 * DICE + 0.25 * ssim)
    only = {"ce": 0.0, "dice": 0.0, "ssim": 0.0}
    value = _value("sum", **{**only, "focal": 2.0, "lovasz": 3.0, "tversky": 0.5, "beta": 0.5})
    assert value == pytest.approx(2 * 0.34375 * 2 * LN2 + 3 * 0.625 + 0.5 * DICE)


def test_the_settings_of_a_sum_reach_its_terms() -> None:
    off = {"ce": 0.0, "dice": 0.0, "ssim": 0.0}
    for term, name, settings in [
        ("ce", "cross_entropy", {"label_smoothing": 0.3, "class_weights": "inverse"}),
        ("focal", "focal", {"gamma": 1.0, "class_weights": "inverse_sqrt"}),
        ("dice", "dice", {"smooth": 0.0}),
        ("tversky", "tversky", {"smooth": 0.5, "beta": 0.9}),
        ("lovasz", "lovasz", {"per_image": True}),
    ]:
        summed = _value("sum", (1, 3, 3), **{**off, term: 0.5, **settings})
        assert summed == pytest.approx(0.5 * _value(name, (1, 3, 3), **settings)), term


@pytest.mark.parametrize("name", ["dice_topk", "dice_focal", "dice_bce"])
def test_a_mixture_of_dice_alone_is_dice(name: str) -> None:
    assert _value(name, dice_weight=1.0) == pytest.approx(DICE)


# --- class weights -----------------------------------------------------------------------------


def test_no_class_weights_are_none() -> None:
    assert class_weights("none", np.array([1, 2])) is None


def test_inverse_weights_fall_with_the_pixels_and_have_mean_one() -> None:
    weights = class_weights("inverse", np.array([10, 20, 60]))  # 1, 1/2 and 1/6 by their mean 5/9
    assert weights is not None
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx([1.8, 0.9, 0.3])


def test_inverse_sqrt_weights_are_the_root_of_the_frequency() -> None:
    weights = class_weights("inverse_sqrt", np.array([1, 9]))  # 1 and 1/3 by their mean 2/3
    assert weights is not None
    assert weights.tolist() == pytest.approx([1.5, 0.5])


def test_a_class_without_pixels_weighs_one_and_leaves_the_others_alone() -> None:
    weights = class_weights("inverse", np.array([1, 3, 0]))  # 1 and 1/3 by their mean 2/3
    assert weights is not None
    assert weights.tolist() == pytest.approx([1.5, 0.5, 1.0])


# --- the contract ------------------------------------------------------------------------------


@pytest.fixture(params=sorted(LOSSES))
def loss(request: pytest.FixtureRequest) -> Loss:
    return _loss(request.param, class_pixels=(40, 8, 2))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 3, (2, 8, 8), generator=generator)


def test_a_loss_is_one_finite_number_not_below_zero(
    loss: Loss, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    value = loss(*batch)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert value >= 0


def test_a_step_against_the_gradient_lowers_a_loss(
    loss: Loss, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, target = batch
    before = loss(logits, target)
    (gradient,) = torch.autograd.grad(before, logits)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    assert loss(logits - gradient, target) < before


def test_the_right_answer_has_a_lower_loss_than_a_wrong_one(
    loss: Loss, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    _, target = batch
    right = torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2) * 20.0
    wrong = right.roll(1, dims=1)
    unsure = torch.zeros_like(right)
    assert loss(right, target) < loss(unsure, target) < loss(wrong, target)


@pytest.mark.parametrize("truth", [0, 1])
def test_a_photo_of_one_class_gives_a_finite_loss_and_gradient(loss: Loss, truth: int) -> None:
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), truth))
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_a_very_sure_network_gets_finite_gradients(loss: Loss) -> None:
    # a gap of 60 makes softmax exactly 1 in float32; half the pixels are right, half wrong
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 0] = 60.0
    logits.requires_grad_()
    value = loss(logits, torch.tensor([[[0, 0], [1, 2]]]))
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5, 0.99, 1.0, 2.0, 4.0])
def test_focal_has_a_finite_gradient_on_pixels_that_are_surely_right(gamma: float) -> None:
    # the derivative of (1 - p)^gamma is infinite at p = 1 for gamma < 1; spaces start at 0.5
    logits = torch.tensor([60.0, 0.0, 0.0]).reshape(1, 3, 1, 1).requires_grad_()
    value = focal(logits, torch.zeros(1, 1, 1, dtype=torch.long), gamma, None)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(gradient).all()
