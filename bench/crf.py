"""The dense CRF against pydensecrf: real photos, probabilities of a network that has not seen them, all
cores as the product uses them."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from bench.comparison import Bar, Comparison, UnequalResultsError
from bench.crf_scenes import WAYS, Scene, background, difference, disagree, read, refine_scene
from bench.photos import bench_photos, work_folder
from bench.timing import seconds_in_turn
from trashseg.config import CrfConfig, TrainConfig
from trashseg.crf.on_gpu import refine_tensors
from trashseg.data.cache import listing_key
from trashseg.data.coco import CocoDataset
from trashseg.data.folds import make_folds
from trashseg.device import local_resources
from trashseg.masks import cpu_pool, stream
from trashseg.member import train_member

NETWORK = TrainConfig.model_validate({"epochs": 4, "data": {"image_size": 128}})
TIMED, ROUNDS = 16, 3  # photos, times
MOST_OFF, MOST_LABELS = 1e-2, 1e-3  # a probability; the share of pixels with another label
GPU_SCENES, GPU_ROUNDS = 4, 20


def run() -> list[Comparison]:
    dataset, what = bench_photos()
    scenes = network_scenes(dataset)
    with cpu_pool(local_resources().cpus) as pool:
        agreement = compare_results(pool, scenes, what)
        throughput = compare_throughput(pool, scenes[:TIMED])
    return [*agreement, *throughput, compare_gpu(scenes[:GPU_SCENES])]


def network_scenes(dataset: CocoDataset) -> list[Scene]:
    """The photos of the fold that a network, trained on the others for a minute, has not seen; first
    those on which it sees most objects, which take longest. It is trained in the first run and kept."""
    folds = make_folds(dataset, NETWORK.data)
    member = work_folder() / f"crf-{listing_key(dataset)}"
    train_member(NETWORK, dataset, folds, 0, member, local_resources())
    _, held_out = folds.split(0)
    photos = [replace(dataset.photos[place], annotations=()) for place in held_out]
    return sorted((Scene(photo, member) for photo in photos), key=background)


def compare_results(
    pool: ProcessPoolExecutor, scenes: Sequence[Scene], what: str
) -> list[Comparison]:
    calls = ((scene,) for scene in scenes)
    off, labels = np.array(list(stream(pool, disagree, calls))).T
    check(float(off.max()), float(labels.mean()))
    note = f"{len(scenes)} photos of {what}; every probability and pixel, by both of our ways"
    return [
        Comparison(
            "crf: apart from pydensecrf", "probability", Bar("<=", MOST_OFF), off.max(), note=note
        ),
        Comparison(
            "crf: pixels with another label",
            "share",
            Bar("<=", MOST_LABELS),
            labels.mean(),
            note=note,
        ),
    ]


def check(off: float, labels: float) -> None:
    """Raises UnequalResultsError where a result is further from pydensecrf's than is allowed."""
    if off > MOST_OFF or labels > MOST_LABELS:
        raise UnequalResultsError(
            f"crf: a probability is {off:.2g} off, {labels:.2%} of the pixels have another label"
        )


def compare_throughput(pool: ProcessPoolExecutor, scenes: Sequence[Scene]) -> list[Comparison]:
    def refine_all(way: str) -> None:
        deque(stream(pool, refine_scene, ((scene, way) for scene in scenes)), maxlen=0)

    seconds = seconds_in_turn({way: partial(refine_all, way) for way in WAYS}, ROUNDS)
    rates = {way: len(scenes) / taken for way, taken in seconds.items()}
    peer = rates["pydensecrf"]
    where = f"{len(scenes)} votes of a small network; one process a core"
    return [
        Comparison(
            "crf: throughput",
            "photos/s",
            Bar(">=", 3),
            rates["default"],
            peer,
            f"{where}; the product's default, which holds pixels once they are decided",
        ),
        Comparison(
            "crf: throughput, all pixels in all iterations",
            "photos/s",
            Bar(">=", 1.5),
            rates["all pixels"],
            peer,
            f"{where}; no label is dropped and no pixel is held",
        ),
    ]


def compare_gpu(scenes: Sequence[Scene]) -> Comparison:
    name, unit, bar = "crf: a photo on a GPU", "ms", Bar("<=", 5)
    if not torch.cuda.is_available():
        return Comparison(name, unit, bar, note="no GPU is at hand; backend gpu")
    taken = []
    for scene in scenes:
        probabilities, image = (torch.from_numpy(array).cuda() for array in read(scene))
        refine = partial(refine_tensors, probabilities, image, CrfConfig())
        check(*difference(refine().cpu().numpy(), WAYS["pydensecrf"](*read(scene))))
        taken += [_seconds_on_gpu(refine) for _ in range(GPU_ROUNDS)]
    note = "512x512 pixels, which are on the GPU already, as the result is; backend gpu"
    return Comparison(name, unit, bar, 1e3 * statistics.median(taken), note=note)


def _seconds_on_gpu(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
