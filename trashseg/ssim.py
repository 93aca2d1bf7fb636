"""Structural similarity of softmax and one-hot truth (Wang et al. 2004)."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trashseg.data.coco import IGNORED

RADIUS, SIGMA = 5, 1.5  # the paper's window: 11 x 11 pixels, Gaussian
WINDOW = [math.exp(-(k**2) / (2 * SIGMA**2)) for k in range(-RADIUS, RADIUS + 1)]
C1, C2 = 0.01**2, 0.03**2  # the paper's constants for values in [0, 1]


def structural_similarity(probabilities: Tensor, target: Tensor) -> Tensor:
    """Mean over photos, classes and pixels of the SSIM of `probabilities` (N, C, H, W), float in [0, 1],
    and the one-hot `target` (N, H, W) of any integer type, which may be in the host's memory; one float
    in [-1, 1], 1 where they are equal.

    Pixels that are IGNORED are as those beyond the border: no window sees them. One must be left.
    """
    whole = not (target == IGNORED).any()  # where the target is: no GPU is waited for
    target = target.to(probabilities.device, non_blocking=True)
    seen = (target != IGNORED).unsqueeze(1).to(probabilities.dtype)  # (N, 1, H, W)
    mean = local_mean if whole else _mean_over(seen)
    classes = target.where(target != IGNORED, 0).long()
    truth = F.one_hot(classes, probabilities.shape[1])
    truth = truth.permute(0, 3, 1, 2).to(probabilities.dtype)  # (N, C, H, W)
    mean_p, mean_t = mean(probabilities), mean(truth)
    variance_p = mean(probabilities.square()) - mean_p.square()
    variance_t = mean_t - mean_t.square()  # 0 and 1 are their own squares
    covariance = mean(probabilities * truth) - mean_p * mean_t
    luminance = (2 * mean_p * mean_t + C1) / (mean_p.square() + mean_t.square() + C1)
    structure = (2 * covariance + C2) / (variance_p + variance_t + C2)
    similarity = luminance * structure
    if whole:
        return similarity.mean()
    return (similarity * seen).sum() / (seen.sum() * probabilities.shape[1])


def _mean_over(seen: Tensor) -> Callable[[Tensor], Tensor]:
    """`local_mean` over the pixels where `seen` (N, 1, H, W) is 1; 0 where a window holds none."""
    total = local_mean(seen).clamp(min=1e-12)
    return lambda values: local_mean(values * seen) / total


def local_mean(values: Tensor) -> Tensor:
    """(N, C, H, W): around each pixel, weighted by the window; at the border over the pixels that exist.

    Shifted copies are added up: a convolution would round to TF32 on a GPU, too coarse for variances.
    """
    mean: Tensor = _LocalMean.apply(values)
    return mean


class _LocalMean(torch.autograd.Function):
    """With a gradient of its own, so that sums can be made in place: six times as fast on a CPU as
    what autograd would keep each shifted copy of."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        weight = _window_sum(values.new_ones(values.shape[-2:]))
        ctx.save_for_backward(weight)
        return _window_sum(values).div_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return _window_sum(gradient / weight)  # the window is symmetric: the sum is its own adjoint


def _window_sum(values: Tensor) -> Tensor:
    """Over the window around each pixel of the last two dimensions; beyond the border is nothing."""
    for dim in (-1, -2):
        size = values.shape[dim]
        total = values * WINDOW[RADIUS]
        for offset in range(1, min(RADIUS + 1, size)):
            share, overlap = WINDOW[RADIUS + offset], size - offset
            for to, of in ((offset, 0), (0, offset)):
                total.narrow(dim, to, overlap).add_(values.narrow(dim, of, overlap), alpha=share)
        values = total
    return values
