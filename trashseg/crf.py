"""Refinement of class probabilities by a dense CRF; pydensecrf is the backend."""

import numpy as np
import pydensecrf.densecrf as densecrf
from numpy.typing import NDArray
from pydensecrf.utils import unary_from_softmax

from trashseg.config import CrfConfig


def refine(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], config: CrfConfig
) -> NDArray[np.float32]:
    """Mean-field probabilities (C, H, W) float32 after `config.iterations`.

    `probabilities` is (C, H, W) and sums to 1 over C; `image` is the (H, W, 3) RGB photo itself,
    not a normalised one. Source: Kraehenbuehl & Koltun, NIPS 2011.
    """
    classes, height, width = probabilities.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.shape} {image.dtype}, expected {(height, width, 3)} uint8"
        )
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))  # (C, H*W)
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.ascontiguousarray(image),
        compat=config.bilateral_weight,
    )
    refined = crf.inference(config.iterations)
    return np.asarray(refined, dtype=np.float32).reshape(classes, height, width)
