"""The two losses that cost a network's step a good part more, against what is usually run for them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.comparison import Bar, Comparison, UnequalResultsError
from bench.metrics import CLASSES, class_maps
from bench.timing import seconds_in_turn
from trashseg.losses import Loss, lovasz, ssim
from trashseg.ssim import C1, C2, RADIUS, WINDOW

SIZE = 128
ROUNDS = 9
TOLERANCE = 1e-5  # sums in another order


def run() -> list[Comparison]:
    logits, target = logits_and_truth()
    peers: dict[str, tuple[Loss, Loss]] = {
        "Lovasz, against sorting floats": (lovasz, lovasz_by_sorting),
        "SSIM, against convolutions": (ssim, ssim_by_convolutions),
    }
    return [
        compare_losses(f"losses: {name}", *pair, logits, target) for name, pair in peers.items()
    ]


def compare_losses(name: str, ours: Loss, peer: Loss, logits: Tensor, target: Tensor) -> Comparison:
    """Forward and backward of both, whose values and gradients have to be the same; in float64, in which
    no two errors of a Lovasz loss are alike: of such as are, either may come first."""
    (value, gradient), (other, its_gradient) = (
        with_gradient(loss, logits.double(), target) for loss in (ours, peer)
    )
    apart = (gradient - its_gradient).abs().max() / gradient.abs().max()
    if abs(value - other) > TOLERANCE or apart > TOLERANCE:
        raise UnequalResultsError(f"{name}: the values or gradients differ")
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: with_gradient(ours, logits, target),
        "peer": lambda: with_gradient(peer, logits, target),
    }
    seconds = seconds_in_turn(ways, ROUNDS)
    return Comparison(
        name=name,
        unit="ms",
        bar=Bar("<=", 1.0),
        ours=1e3 * seconds["ours"],
        peer=1e3 * seconds["peer"],
        note=f"forward and backward on {len(logits)} photos of {SIZE} px, {CLASSES} classes; values and "
        f"gradients equal to {TOLERANCE:g}, in float64",
    )


def with_gradient(loss: Loss, logits: Tensor, target: Tensor) -> tuple[float, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, target)
    torch.autograd.backward(value)
    assert logits.grad is not None
    return value.item(), logits.grad


def logits_and_truth() -> tuple[Tensor, Tensor]:
    """(N, C, S, S) as a channels-last network gives them, more often right than not; (N, S, S) int64."""
    _, target = class_maps()
    step = target.shape[-1] // SIZE
    target = target[:, ::step, ::step].long()
    right = 3 * F.one_hot(target, CLASSES).permute(0, 3, 1, 2)
    noise = torch.randn(right.shape, generator=torch.Generator().manual_seed(0))
    return (right + 2 * noise).to(memory_format=torch.channels_last), target


def lovasz_by_sorting(logits: Tensor, target: Tensor) -> Tensor:
    """As published (Berman et al. 2018, algorithm 1) and in smp, which does not work in float64."""
    costs = []
    for index, probability in enumerate(logits.softmax(1).unbind(1)):
        true = (target == index).flatten().to(logits.dtype)
        if true.any():
            errors, order = (true - probability.flatten()).abs().sort(descending=True)
            hit = true[order]
            lost = 1 - (hit.sum() - hit.cumsum(0)) / (hit.sum() + (1 - hit).cumsum(0))
            costs.append(torch.dot(errors, torch.cat([lost[:1], lost.diff()])))
    return torch.stack(costs).mean()


def ssim_by_convolutions(logits: Tensor, target: Tensor) -> Tensor:
    """As common code for SSIM has it: one convolution along each side, a group for each class."""
    classes = logits.shape[1]
    window = torch.tensor(WINDOW, dtype=logits.dtype)
    across, down = (
        window.view(1, 1, *shape).repeat(classes, 1, 1, 1) for shape in ((1, -1), (-1, 1))
    )

    def total(values: Tensor) -> Tensor:
        rows = F.conv2d(values, across, padding=(0, RADIUS), groups=classes)
        return F.conv2d(rows, down, padding=(RADIUS, 0), groups=classes)

    weight = total(torch.ones_like(logits))
    p = logits.softmax(1)
    t = F.one_hot(target, classes).permute(0, 3, 1, 2).to(p.dtype)
    mean_p, mean_t, square_p, square_t, product = (
        total(values) / weight for values in (p, t, p * p, t * t, p * t)
    )
    luminance = (2 * mean_p * mean_t + C1) / (mean_p**2 + mean_t**2 + C1)
    covariance = 2 * (product - mean_p * mean_t) + C2
    variances = square_p - mean_p**2 + square_t - mean_t**2 + C2
    return 1 - (luminance * covariance / variances).mean()
