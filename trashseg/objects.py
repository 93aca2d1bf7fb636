"""One class for each object: the pixels of one piece of litter decide together what it is.

Pixel by pixel, background wins wherever classes of litter share out the rest: a bottle that is glass
with 0.3 and plastic with 0.3 is background with 0.4. Here it is decided first where there is litter,
whatever it is, and then what each connected region of it is: what its pixels say most for, in sum.
Panoptic-DeepLab (Cheng et al., CVPR 2020) names its instances likewise, by their pixels' majority.

Pieces that touch become one, of one class. No torch here.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

HALF = 0.5


def one_class_per_object(vote: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, h, w) with sums of 1 over C, to the same with one class of litter in each pixel, which has
    what all of them had: that of the pixel's region where background has less than half, elsewhere
    the pixel's own likeliest. Pixels that touch at a corner are of one region; of equals the first
    class counts."""
    background, litter = vote[0], vote[1:]
    is_litter = background < HALF
    count, region = cv2.connectedComponents(is_litter.astype(np.uint8), connectivity=8)
    place = region[is_litter]
    sums = [np.bincount(place, weights=plane[is_litter], minlength=count) for plane in litter]
    of_region = np.argmax(sums, axis=0)  # (count,)
    chosen = np.where(is_litter, of_region[region], litter.argmax(axis=0))
    single = np.zeros_like(vote)
    single[0] = background
    np.put_along_axis(single[1:], chosen[None], 1 - background[None], axis=0)
    return single
