"""Without a GPU the CRF's kernels are interpreted: each start of one takes some 20 ms, each of its
programs a few. So there is less of everything."""

import numpy as np
import torch
from numpy.typing import NDArray

from trashseg.config import CrfConfig

Scene = tuple[NDArray[np.float32], NDArray[np.uint8]]
CUT = 16  # pixels
ITERATIONS = 3


def is_interpreted(crf: CrfConfig) -> bool:
    return crf.backend == "gpu" and not torch.cuda.is_available()


def with_few_iterations(crf: CrfConfig) -> CrfConfig:
    few = min(crf.iterations, ITERATIONS)
    return crf.model_copy(update={"iterations": few}) if is_interpreted(crf) else crf


def with_few_pixels(scenes: list[Scene], crf: CrfConfig) -> list[Scene]:
    """One scene, around a border between labels."""
    if not is_interpreted(crf):
        return scenes
    votes, image = scenes[0]
    labels = votes.argmax(axis=0)
    y, x = (max(0, place - CUT // 2) for place in np.argwhere(labels[:, 1:] != labels[:, :-1])[0])
    window = slice(y, y + CUT), slice(x, x + CUT)
    return [(votes[:, *window], image[window])]
