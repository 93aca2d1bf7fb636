"""The losses: logits (N, C, H, W) float and truth (N, H, W) of any integer type to one float.

The truth may stay in the host's memory when the logits are on a GPU, and does in training: what depends
on it (which pixels are labelled, which classes there are) is then known without waiting for the GPU.

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
from segmentation_models_pytorch.losses import DiceLoss, TverskyLoss
from torch import Tensor

from trashseg.config_loss import LossConfig
from trashseg.data.coco import IGNORED
from trashseg.ssim import structural_similarity

Loss = Callable[[Tensor, Tensor], Tensor]
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


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
    """`loss`, for which a batch is no more than the set of its pixels, without those to be ignored; it
    gets a truth that is long and where the logits are."""

    def of_labelled(logits: Tensor, truth: Tensor) -> Tensor:
        pixels, classes = labelled_pixels(logits, truth)
        return loss(pixels, classes_at(pixels, classes)) if classes.numel() else nothing(logits)

    return of_labelled


def labelled_pixels(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both as they are where no pixel is IGNORED, else those that are not: (1, C, 1, P), (1, 1, P)."""
    labelled = truth != IGNORED
    if labelled.all():
        return logits, truth
    places = labelled.flatten().nonzero().squeeze(1)  # (P,), found where the truth is
    pixels = logits.movedim(1, -1).flatten(0, -2)[places.to(logits.device, non_blocking=True)]
    return pixels.T[None, :, None], truth[labelled][None, None]


def classes_at(logits: Tensor, truth: Tensor) -> Tensor:
    """The truth as torch's losses take it: long, and where the logits are."""
    return truth.to(logits.device, non_blocking=True).long()


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


def ssim(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - the mean structural similarity of softmax and one-hot truth: 0 to 2."""
    if (truth == IGNORED).all():
        return nothing(logits)
    return 1 - structural_similarity(logits.softmax(dim=1), truth)


def lovasz(logits: Tensor, truth: Tensor) -> Tensor:
    """Lovasz-softmax (Berman et al. 2018, eq. 11 and algorithm 1), averaged over the classes that are
    in the truth; smp's asks the device for each class whether it is."""
    pixels, classes = labelled_pixels(logits, truth)
    present = classes.flatten().bincount().nonzero().flatten().tolist()
    probabilities = pixels.softmax(dim=1).movedim(1, -1).flatten(0, -2)  # (P, C)
    target = classes_at(pixels, classes).flatten()  # (P,)
    costs = [iou_lost(probabilities[:, index], target == index) for index in present]
    return sum(costs[1:], costs[0]) / len(costs) if costs else nothing(logits)


def iou_lost(probability: Tensor, truth: Tensor) -> Tensor:
    """Of one class: its errors (P,), each times the IoU that it costs after those that are larger; the
    truth (P,) is bool."""
    true = truth.to(probability.dtype)
    errors = (true - probability).abs()
    order = largest_first(errors.detach())
    hit = true.take(order)
    left = hit.sum() - hit.cumsum(0)
    lost = 1 - left / (hit.sum() + (1 - hit).cumsum(0))
    costs = torch.empty_like(lost).scatter_(0, order, torch.cat([lost[:1], lost.diff()]))
    return torch.dot(errors, costs)


def largest_first(values: Tensor) -> Tensor:
    """(P,) places of `values` (P,), floats that are not negative. Their bits, as integers, have their
    order, and torch sorts integers several times as fast as floats on a CPU."""
    return (-values.view(INTEGERS[values.element_size()])).argsort()


def _cross_entropy(config: Any, weights: Tensor | None) -> Loss:
    smoothing = config.label_smoothing
    return lambda logits, target: F.cross_entropy(
        logits, target, weight=weights, label_smoothing=smoothing
    )


def _ce_l1(config: Any, weights: Tensor | None) -> Loss:
    cross_entropy = _cross_entropy(config, weights)
    return lambda logits, target: (
        cross_entropy(logits, target) + config.l1_weight * l1(logits, target)
    )


def _focal(config: Any, weights: Tensor | None) -> Loss:
    return lambda logits, target: focal(logits, target, config.gamma, weights)


def _dice(config: Any) -> Loss:
    loss: Loss = DiceLoss(mode="multiclass", from_logits=True, smooth=config.smooth)
    return loss


def _tversky(config: Any) -> Loss:
    """Salehi et al. 2017; smp's alpha weighs false positives."""
    loss: Loss = TverskyLoss(
        mode="multiclass", smooth=config.smooth, alpha=1 - config.beta, beta=config.beta
    )
    return loss


def _with_dice(config: Any, other: Loss) -> Loss:
    dice, share = _dice(config), config.dice_weight
    return lambda logits, target: share * dice(logits, target) + (1 - share) * other(logits, target)


def _topk(config: Any) -> Loss:
    return lambda logits, target: topk_cross_entropy(logits, target, config.topk_percent)


def _lovasz(config: Any) -> Loss:
    return _mean_over_photos(lovasz) if config.per_image else lovasz


def _mean_over_photos(loss: Loss) -> Loss:
    """The mean of the loss of each photo that has labelled pixels."""

    def of_photos(logits: Tensor, truth: Tensor) -> Tensor:
        photos = (truth != IGNORED).flatten(1).any(1).nonzero().flatten().tolist()
        losses = [loss(logits[p : p + 1], truth[p : p + 1]) for p in photos]
        return sum(losses, nothing(logits)) / max(1, len(losses))

    return of_photos


def _sum(config: Any, weights: Tensor | None) -> Loss:
    terms = [(weight, TERMS[name](config, weights)) for name, weight in config.term_weights.items()]
    return lambda logits, truth: torch.stack(
        [weight * term(logits, truth) for weight, term in terms]
    ).sum()


Build = Callable[[Any, Tensor | None], Loss]  # from the configuration and the class weights

TERMS: dict[str, Build] = {  # of a sum
    "ce": lambda config, weights: on_labelled(_cross_entropy(config, weights)),
    "dice": lambda config, weights: on_labelled(_dice(config)),
    "ssim": lambda config, weights: ssim,
    "focal": lambda config, weights: on_labelled(_focal(config, weights)),
    "lovasz": lambda config, weights: _lovasz(config),
    "tversky": lambda config, weights: on_labelled(_tversky(config)),
}

LOSSES: dict[str, Build] = {
    "cross_entropy": TERMS["ce"],
    "focal": TERMS["focal"],
    "ce_l1": lambda config, weights: on_labelled(_ce_l1(config, weights)),
    "dice": TERMS["dice"],
    "dice_topk": lambda config, weights: on_labelled(_with_dice(config, _topk(config))),
    "dice_focal": lambda config, weights: on_labelled(_with_dice(config, _focal(config, None))),
    "dice_bce": lambda config, weights: on_labelled(_with_dice(config, binary_cross_entropy)),
    "lovasz": TERMS["lovasz"],
    "tversky": TERMS["tversky"],
    "ssim": TERMS["ssim"],
    "sum": _sum,
}
