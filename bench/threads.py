"""What is compared on one thread keeps to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

from trashseg.device import Resources


@contextmanager
def one_thread() -> Iterator[None]:
    """Of torch and of OpenCV; the process is set up as the product does it, for all that is compared."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    Resources(cpus=1, device=torch.device("cpu")).claim()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
