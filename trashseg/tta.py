"""Test-time augmentation: a photo seen mirrored, turned or at another size, and its softmax put back.

Mirroring and turning by right angles move pixels without mixing them, so that undoing them is exact.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trashseg.config import ViewName


@dataclass(frozen=True)
class Transform:
    """What is done to photos (..., S, S), and what undoes it; both keep the shape."""

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]


TRANSFORMS: dict[ViewName, Transform] = {
    "identity": Transform(lambda x: x, lambda x: x),
    "horizontal_flip": Transform(lambda x: x.flip(-1), lambda x: x.flip(-1)),
    "vertical_flip": Transform(lambda x: x.flip(-2), lambda x: x.flip(-2)),
    "rotate_90": Transform(lambda x: x.rot90(1, (-2, -1)), lambda x: x.rot90(-1, (-2, -1))),
    "rotate_180": Transform(lambda x: x.flip(-2, -1), lambda x: x.flip(-2, -1)),
    "rotate_270": Transform(lambda x: x.rot90(-1, (-2, -1)), lambda x: x.rot90(1, (-2, -1))),
}


def view_softmax(
    network: Callable[[Tensor], Tensor], images: Tensor, transform: ViewName, size: int
) -> Tensor:
    """Normalised photos (N, 3, s, s) to softmax (N, C, size, size) float32, upright again.

    `network` gives logits (N, C, s, s) of any float type. What is resized is the softmax: it still
    sums to 1 in every pixel.
    """
    view = TRANSFORMS[transform]
    softmax = view.undo(network(view.apply(images)).float().softmax(dim=1))
    if softmax.shape[-1] == size:
        return softmax
    return torch.nn.functional.interpolate(softmax, (size, size), mode="bilinear")


def weighted_sum(terms: Iterable[tuple[float | Tensor, Tensor]]) -> Tensor:
    """Sum of weight * tensor; the tensors are used up, one and the sum in memory at a time."""
    total: Tensor | None = None
    for weight, tensor in terms:
        tensor.mul_(weight)
        total = tensor if total is None else total.add_(tensor)
    assert total is not None, "there is at least one view of one network"
    return total
