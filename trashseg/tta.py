"""Test-time augmentation: a photo seen mirrored or turned, and what is said of it put back.

Mirroring and turning by right angles move pixels without mixing them, so that undoing them is exact. No
pixel is copied for it: numpy looks at an array backwards or turned by its strides alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trashseg.config import ViewName

Array = NDArray[Any]
TRANSFORMS: dict[ViewName, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "horizontal_flip": lambda x: x[..., ::-1],
    "vertical_flip": lambda x: x[..., ::-1, :],
    "rotate_90": lambda x: np.rot90(x, 1, (-2, -1)),
    "rotate_180": lambda x: x[..., ::-1, ::-1],
    "rotate_270": lambda x: np.rot90(x, -1, (-2, -1)),
}
"""What a network sees of photos (..., S, S): views of their memory."""


def add_upright(total: Tensor, seen: Tensor, transform: ViewName) -> None:
    """total += what a network said of photos that it saw so, put upright; both (N, C, S, S) float32 on
    one device.

    It is the sum that is turned, not what is added to it. torch cannot look at a tensor backwards, so
    that on a GPU each pixel's place in the sum is written down instead.
    """
    if total.device.type == "cpu":
        turned = TRANSFORMS[transform](total.numpy())
        np.add(turned, seen.numpy(), out=turned)
    else:
        add_by_place(total, seen, transform)


def add_by_place(total: Tensor, seen: Tensor, transform: ViewName) -> None:
    """`add_upright` on any device; on a CPU it is slow."""
    photos, classes, side, _ = total.shape
    places = TRANSFORMS[transform](np.arange(side**2).reshape(side, side)).ravel()
    index = torch.from_numpy(places).to(total.device)
    total.view(photos, classes, -1).index_add_(2, index, seen.flatten(2))
