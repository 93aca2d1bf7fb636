"""The losses: logits (N, C, H, W) float and truth (N, H, W) long to one float.

Pixel-wise terms average over all pixels of the batch (weighted where classes have weights). The others
count every class alike, so they take no class weights: Dice and Tversky are smp's, on softmax over the
whole batch, averaged over classes, absent ones as 0; Lovasz averages over the classes that are there.

Every loss passes over pixels whose truth is IGNORED: it is what it would be if they did not exist, and
0 where no others do.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss, TverskyLoss
from torch import Tensor

from trashseg.config_loss import LossConfig
from trashseg.data.coco import IGNORED
from trashseg.ssim import structural_similarity

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig, class_pixels: NDArray[Any], device: torch.device) -> Loss:
    """The loss that `config` names; `class_pixels` (C,) are the training photos' pixel counts."""
    weights = class_weights(getattr(config, "class_weights", "none"), class_pixels)
    return LOSSES[config.name](config, weights.to(device) if weights is not None else None)


def class_weights(kind: str, class_pixels: NDArray[Any]) -> Tensor | None:
    """(C,) float32 of mean 1 over the classes that occur; a class that never occurs gets 1."""
    if kind == "none":
        return None
    pixels = torch.as_tensor(class_pixels, dtype=torch.float64)
    seen = pixels > 0
    weights = pixels.clamp(min=1).pow(-0.5 if kind == "inverse_sqrt" else -1.0)
    weights = torch.where(seen, weights / weights[seen].mean(), 1.0)
    return weights.float()


def on_labelled(loss: Loss) -> Loss:
    """`loss`, for which a batch is no more than the set of its pixels, without those to be ignored."""

    def of_labelled(logits: Tensor, target: Tensor) -> Tensor:
        labelled = target != IGNORED
        if labelled.all():
            return loss(logits, target)
        if not labelled.any():
            return nothing(logits)
        pixels = logits.movedim(1, -1)[labelled]  # (P, C)
        return loss(
            pixels.T[None, :, None], target[labelled][None, None]
        )  # (1, C, 1, P), (1, 1, P)

    return of_labelled


def nothing(logits: Tensor) -> Tensor:
    """0, with a gradient of 0."""
    return 0 * logits.sum()


def focal(logits: Tensor, target: Tensor, gamma: float, weights: Tensor | None) -> Tensor:
    """mean of -w (1 - p)^gamma log p, p the softmax of the true class (Lin et al. 2017, eq. 4).

    smp's focal loss is the sigmoid, one-class-against-the-rest form; this is the softmax form.
    """
    log_p = F.log_softmax(logits, dim=1)
    log_pt = log_p.gather(1, target.unsqueeze(1)).squeeze(1)  # (N, H, W)
    error = (1 - log_pt.exp()).clamp(min=1e-6)  # at 0 the gradient is infinite for gamma < 1
    losses = -(error**gamma) * log_pt
    if weights is None:
        return losses.mean()
    pixel_weights = weights[target]
    return (losses * pixel_weights).sum() / pixel_weights.sum()


def l1(logits: Tensor, target: Tensor) -> Tensor:
    """mean over pixels of the distance sum_c |softmax - one hot| = 2 (1 - p of the true class)."""
    p_true = F.softmax(logits, dim=1).gather(1, target.unsqueeze(1))
    return 2 * (1 - p_true).mean()


def topk_cross_entropy(logits: Tensor, target: Tensor, percent: float) -> Tensor:
    """Cross entropy averaged over the `percent` % of pixels where it is largest (nnU-Net's TopK)."""
    losses = F.cross_entropy(logits, target, reduction="none").flatten()
    count = max(1, round(losses.numel() * percent / 100))
    return losses.topk(count, sorted=False).values.mean()


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Each class against the others through a sigmoid, averaged over pixels and classes."""
    one_hot = F.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2)  # (N, C, H, W)
    return F.binary_cross_entropy_with_logits(logits, one_hot.to(logits.dtype))


def ssim(logits: Tensor, target: Tensor) -> Tensor:
    """1 - the mean structural similarity of softmax and one-hot truth: 0 to 2."""
    if (target == IGNORED).all():
        return nothing(logits)
    return 1 - structural_similarity(logits.softmax(dim=1), target)


def _cross_entropy(config: Any, weights: Tensor | None) -> Loss:
    smoothing = config.label_smoothing
    return on_labelled(
        lambda logits, target: F.cross_entropy(
            logits, target, weight=weights, label_smoothing=smoothing
        )
    )


def _ce_l1(config: Any, weights: Tensor | None) -> Loss:
    cross_entropy = _cross_entropy(config, weights)
    return on_labelled(
        lambda logits, target: cross_entropy(logits, target) + config.l1_weight * l1(logits, target)
    )


def _focal(config: Any, weights: Tensor | None) -> Loss:
    return on_labelled(lambda logits, target: focal(logits, target, config.gamma, weights))


def _dice(config: Any) -> Loss:
    return on_labelled(DiceLoss(mode="multiclass", from_logits=True, smooth=config.smooth))


def _tversky(config: Any) -> Loss:
    """Salehi et al. 2017; smp's alpha weighs false positives."""
    return on_labelled(
        TverskyLoss(
            mode="multiclass", smooth=config.smooth, alpha=1 - config.beta, beta=config.beta
        )
    )


def _lovasz(config: Any) -> Loss:
    """Lovasz-softmax (Berman et al. 2018); smp's takes the softmax itself."""
    lovasz = on_labelled(LovaszLoss(mode="multiclass"))
    return _mean_over_photos(lovasz) if config.per_image else lovasz


def _mean_over_photos(loss: Loss) -> Loss:
    """The mean of the loss of each photo that has labelled pixels."""

    def of_photos(logits: Tensor, target: Tensor) -> Tensor:
        photos = [place for place, truth in enumerate(target) if (truth != IGNORED).any()]
        losses = [loss(logits[p : p + 1], target[p : p + 1]) for p in photos]
        return sum(losses, nothing(logits)) / max(1, len(losses))

    return of_photos


def _with_dice(config: Any, other: Loss) -> Loss:
    dice, share = _dice(config), config.dice_weight
    return on_labelled(
        lambda logits, target: share * dice(logits, target) + (1 - share) * other(logits, target)
    )


def _sum(config: Any, weights: Tensor | None) -> Loss:
    terms = [(weight, TERMS[name](config, weights)) for name, weight in config.term_weights.items()]
    return lambda logits, target: torch.stack(
        [weight * term(logits, target) for weight, term in terms]
    ).sum()


TERMS: dict[str, Callable[[Any, Tensor | None], Loss]] = {  # of a sum
    "ce": _cross_entropy,
    "dice": lambda config, weights: _dice(config),
    "ssim": lambda config, weights: ssim,
    "focal": _focal,
    "lovasz": lambda config, weights: _lovasz(config),
    "tversky": lambda config, weights: _tversky(config),
}

LOSSES: dict[str, Callable[[Any, Tensor | None], Loss]] = {
    "cross_entropy": _cross_entropy,
    "focal": _focal,
    "ce_l1": _ce_l1,
    "dice": lambda config, weights: _dice(config),
    "dice_topk": lambda config, weights: _with_dice(
        config, lambda logits, target: topk_cross_entropy(logits, target, config.topk_percent)
    ),
    "dice_focal": lambda config, weights: _with_dice(config, _focal(config, None)),
    "dice_bce": lambda config, weights: _with_dice(config, binary_cross_entropy),
    "lovasz": lambda config, weights: _lovasz(config),
    "tversky": lambda config, weights: _tversky(config),
    "ssim": lambda config, weights: ssim,
    "sum": _sum,
}
