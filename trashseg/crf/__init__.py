"""Refinement of class probabilities by a dense CRF; all backends give the same result.

`lattice` is the fast one on CPUs: the permutohedral lattice and the mean field of this package, compiled
by numba. `gpu` is the same in kernels of Triton. `pydensecrf` is the authors' C++ code, which both are
measured against.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trashseg.config import CrfBackend, CrfConfig
from trashseg.errors import ConfigError

Probabilities = NDArray[np.float32]
Image = NDArray[np.uint8]
LEAST = 1e-5  # a probability below counts as this, as in pydensecrf


def refine(probabilities: Probabilities, image: Image, config: CrfConfig) -> Probabilities:
    """Mean-field probabilities (C, H, W) float32 after `config.iterations`.

    `probabilities` is (C, H, W) and sums to 1 over C; `image` is the (H, W, 3) RGB photo itself,
    not a normalised one. Source: Kraehenbuehl & Koltun, NIPS 2011.
    """
    _, height, width = probabilities.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.shape} {image.dtype}, expected {(height, width, 3)} uint8"
        )
    return BACKENDS[config.backend](probabilities, image, config)


# Imported where they are used: numba takes a fifth of a second, torch many, and not all who import this
# refine.


def _lattice(probabilities: Probabilities, image: Image, config: CrfConfig) -> Probabilities:
    from trashseg.crf.photo import refine_photo

    return refine_photo(probabilities, image, config)


def _gpu(probabilities: Probabilities, image: Image, config: CrfConfig) -> Probabilities:
    try:
        from trashseg.crf.on_gpu import refine_photo
    except ModuleNotFoundError as error:  # Triton comes with torch where it has GPUs
        raise ConfigError(f"crf.backend: gpu: {error}: set crf.backend=lattice") from error
    return refine_photo(probabilities, image, config)


def _pydensecrf(probabilities: Probabilities, image: Image, config: CrfConfig) -> Probabilities:
    from trashseg.crf.reference import refine_photo

    return refine_photo(probabilities, image, config)


BACKENDS: dict[CrfBackend, Callable[[Probabilities, Image, CrfConfig], Probabilities]] = {
    "lattice": _lattice,
    "gpu": _gpu,
    "pydensecrf": _pydensecrf,
}
