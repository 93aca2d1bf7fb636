"""How many trials share a GPU: one trial's peak memory, measured, decides."""

import ray
from ray.exceptions import RayTaskError

from search.cluster import NODE_SECONDS, Say, all_gpus
from search.config import SearchConfig
from trashseg.config import TrainConfig
from trashseg.errors import ResourceError, TrashSegError

MARGIN = 0.15  # of a trial's peak: CUDA contexts, and proposals larger than the measured one
MOST = 8


def trials_in_gpu(config: SearchConfig, classes: int, say: Say) -> int:
    """How many trials fit into one GPU's memory; 1 where that was decided by hand or has no GPU.

    Measured with the hand-tuned configuration on the first free GPU: a search over networks of very
    different size, or over GPUs of different memory, wants `search.gpus_per_trial` set by hand.
    """
    if config.search.gpus_per_trial != "auto" or not all_gpus():
        return 1
    measured = _peak_share.remote(config.train, classes)
    if not ray.wait([measured], timeout=NODE_SECONDS)[0]:
        ray.cancel(measured)
        raise ResourceError(
            f"search.gpus_per_trial=auto: no GPU was free for {NODE_SECONDS:.0f} s to measure a trial "
            "on: see 'ray status', or state a number"
        )
    try:
        share = ray.get(measured)
    except RayTaskError as error:
        if isinstance(error.cause, TrashSegError):
            raise error.cause from None
        raise
    trials = trials_per_gpu(share)
    say(f"a trial's peak is {share:.0%} of a GPU's memory: {trials} at most on one GPU")
    return trials


def trials_per_gpu(peak_share: float) -> int:
    """Trials whose peaks, each with the margin, fit into one GPU; at least 1.

    `peak_share`: share (0 to 1) of the GPU's memory at a trial's peak.
    """
    assert peak_share > 0
    return max(1, min(MOST, int(1 / (peak_share * (1 + MARGIN)))))


@ray.remote(num_cpus=1, num_gpus=1, max_calls=1)
def _peak_share(config: TrainConfig, classes: int) -> float:
    from trashseg.device import local_resources
    from trashseg.memory import peak_share

    return peak_share(config, classes, local_resources(1))
