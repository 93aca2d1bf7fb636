"""The dense CRF by its authors' C++ code, pydensecrf: slower, and what the other backend must equal."""

import numpy as np
import pydensecrf.densecrf as densecrf
from numpy.typing import NDArray
from pydensecrf.utils import unary_from_softmax

from trashseg.config import CrfConfig


def refine_photo(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], config: CrfConfig
) -> NDArray[np.float32]:
    """Mean-field probabilities (C, H, W) float32 of probabilities (C, H, W) and an image (H, W, 3)."""
    classes, height, width = probabilities.shape
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))  # (C, H*W)
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.require(image, requirements=["C", "W"]),
        compat=config.bilateral_weight,
    )
    refined = crf.inference(config.iterations)
    return np.asarray(refined, dtype=np.float32).reshape(classes, height, width)
