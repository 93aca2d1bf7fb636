"""Is a difference between two scores more than chance? Photos are drawn anew, many times, in pairs.

The noise of a gain is its standard error by the bootstrap over photos (Efron 1979): both predictions of
a photo are drawn together, so that what is hard about a photo is hard for both and cancels out.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trashseg.counts import Counts
from trashseg.metrics import resampled_score

DRAWS = 1000
SEED = 0


@dataclass(frozen=True)
class Comparison:
    """The metric without and with a change, over the same photos, and the noise of the difference."""

    without: float
    with_it: float
    noise: float

    @property
    def gain(self) -> float:
        return self.with_it - self.without

    @property
    def beyond_noise(self) -> bool:
        return self.gain > self.noise


def score(counts: Counts, metric: str, times: NDArray[np.int64] | None = None) -> float:
    """`metric` of the photos, each counted `times` (N,) times, or once."""
    times = np.ones(len(counts), dtype=np.int64) if times is None else times
    return float(resampled_score(torch.from_numpy(counts), metric, _tensor(times)))


def compare(
    without: Counts, with_it: Counts, metric: str, draws: int = DRAWS, seed: int = SEED
) -> Comparison:
    """Both are of the same photos, in the same order."""
    photos = len(without)
    times = _tensor(np.random.default_rng(seed).multinomial(photos, [1 / photos] * photos, draws))
    before, after = (
        resampled_score(torch.from_numpy(counts), metric, times) for counts in (without, with_it)
    )
    noise = float((after - before).std())
    return Comparison(score(without, metric), score(with_it, metric), noise)


def _tensor(times: NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(times).double()
