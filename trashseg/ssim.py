"""Structural similarity of softmax and one-hot truth (Wang et al. 2004)."""

import math
from collections.abc import Callable

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

    Shifted copies are added up: a convolution would round to TF32 on a GPU, too coarse for variances,
    and took ten times as long on a CPU.
    """
    return _mean_along(2, _mean_along(3, values))


def _mean_along(dim: int, values: Tensor) -> Tensor:
    size = values.shape[dim]
    border = (0, 0, RADIUS, RADIUS) if dim == 2 else (RADIUS, RADIUS)
    padded, inside = F.pad(values, border), F.pad(values.new_ones(size), (RADIUS, RADIUS))
    total, weight = values.new_zeros(()), values.new_zeros(())
    for offset, share in enumerate(WINDOW):
        total = total + share * padded.narrow(dim, offset, size)
        weight = weight + share * inside.narrow(0, offset, size)
    return total / (weight.view(-1, 1) if dim == 2 else weight)
