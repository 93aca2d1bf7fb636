"""Elastic deformation whose displacements are drawn coarsely, because they are smooth."""

from typing import Any

import albumentations as A
import cv2
import numpy as np

KNOTS = 3  # per standard deviation of the blur: finer noise would be blurred away


class ElasticTransform(A.ElasticTransform):  # type: ignore[misc]
    """albumentations' with uniform noise, which draws a number for each pixel and blurs them with a
    kernel of eight standard deviations. Here numbers are drawn on a grid `sigma / KNOTS` pixels wide,
    blurred there and enlarged: the same displacements, but for those at the border. There albumentations
    repeats the outermost numbers, which no blur averages out: at 512 px pixels move nine times as far
    as elsewhere. Here numbers are mirrored.

    Source: Simard, Steinkraus & Platt, "Best practices for convolutional neural networks applied to
    visual document analysis", ICDAR 2003.
    """

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """`map_x` and `map_y` (H, W) float32: where each pixel comes from."""
        height, width = params["shape"][:2]
        step = max(1, int(self.sigma / KNOTS))  # pixels
        grid = (-(-height // step), -(-width // step), 2)
        noise = self.random_generator.uniform(-1, 1, grid).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), self.sigma / step)
        # the fewer numbers a blur averages, the more is left of them: `step` times as much
        smooth *= self.alpha / step
        shift = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)  # (H, W, 2)
        return {
            "map_x": shift[..., 0] + np.arange(width, dtype=np.float32),
            "map_y": shift[..., 1] + np.arange(height, dtype=np.float32)[:, None],
        }
