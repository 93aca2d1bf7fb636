"""Photos on their way into the network, against a dataset that decodes them on every access, and against
the least that augmentation costs. One process, one thread, at the size of the team's recipes."""

import contextlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import albumentations as A
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from bench.comparison import Bar, Comparison, UnequalResultsError
from bench.photos import bench_photos
from bench.shared_memory import proportional_bytes
from bench.threads import one_thread
from bench.timing import seconds_in_turn
from bench.usual_dataset import MEAN, STD, UsualDataset
from trashseg.augment import build_augment, normalize, reseed
from trashseg.config_augment import AugmentConfig, ElasticTransformConfig
from trashseg.data.cache import Cache, cache_bytes, open_cache
from trashseg.data.coco import CocoDataset
from trashseg.data.dataset import EpochBatches, SegmentationDataset, make_loader
from trashseg.elastic import ElasticTransform
from trashseg.member import batched

SIZE, BATCH = 512, 8  # pixels, photos
TRIALS = 4
ROUNDS = 5
LOADER_ROUNDS = 25  # both ways take as long, to a tenth, and single runs differ by more
TEAM = AugmentConfig()  # its five augmentations
STEP = 1 / 255 / STD.max()  # of a colour after normalisation: less is rounding

Pixels = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # photo (S, S, 3), mask (S, S)
Batches = Iterable[tuple[Tensor, Tensor]]  # images (N, 3, S, S), masks (N, S, S)


def run() -> list[Comparison]:
    dataset, what = bench_photos()
    memory = compare_memory(dataset)  # first: no map of the cache may be open here
    cache = open_cache(dataset, SIZE)
    photos = [
        (np.array(image), np.array(mask))
        for image, mask in zip(cache.images, cache.masks, strict=True)
    ]
    with one_thread():
        return [
            compare_plain(cache, dataset, what),
            compare_augmented(cache, dataset),
            compare_loader(cache, photos),
            compare_augmentation(cache, photos),
            memory,
        ]


# --- ours --------------------------------------------------------------------------------------


def loaded(cache: Cache, augment: A.Compose | None = None) -> Batches:
    """An epoch as training draws it; images are uint8, which is what travels to the device."""
    batches = EpochBatches(np.arange(len(cache.images)), BATCH, shuffle=False)
    return make_loader(SegmentationDataset(cache, augment), batches, 0, pin=False)


def into_network(cache: Cache, augment: A.Compose | None = None) -> Batches:
    """And normalised there, here on the CPU."""
    for images, masks in loaded(cache, augment):
        yield normalize(images, "imagenet"), masks


# --- peers -------------------------------------------------------------------------------------


def usual(dataset: CocoDataset, augment: A.Compose | None = None) -> Batches:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools says what it does
        photos = UsualDataset(dataset.json_files[0], SIZE, augment)
    return DataLoader(photos, BATCH)


def augmented(photos: Iterable[Pixels], augment: A.Compose) -> Iterator[tuple[object, object]]:
    """Nothing but the augmentation of arrays; draws are those of `loaded`."""
    for position, (image, mask) in enumerate(photos):
        reseed(augment, np.random.SeedSequence([0, 0, position]))
        drawn = augment(image=image, mask=mask)
        yield drawn["image"], drawn["mask"]


def by_albumentations(photos: Iterable[Pixels], config: AugmentConfig) -> Batches:
    """Augmented, normalised in float and made tensors by albumentations, photo by photo."""
    transforms = [_of_albumentations(one) for one in build_augment(config, SIZE)]
    augment = A.Compose([*transforms, A.Normalize(MEAN.tolist(), STD.tolist()), ToTensorV2()])
    for some in batched(augmented(photos, augment), BATCH):
        images, masks = zip(*some, strict=True)
        yield torch.stack(images), torch.stack(masks)


def _of_albumentations(transform: A.BasicTransform) -> A.BasicTransform:
    if not isinstance(transform, ElasticTransform):
        return transform
    settings = {"alpha": transform.alpha, "sigma": transform.sigma, "p": transform.p}
    return A.ElasticTransform(noise_distribution="uniform", **settings)


# --- comparisons -------------------------------------------------------------------------------


def compare_plain(cache: Cache, dataset: CocoDataset, what: str) -> Comparison:
    check_equal(into_network(cache), usual(dataset))
    ours, peer = _rates(cache, lambda: into_network(cache), lambda: usual(dataset))
    return Comparison(
        "data: into the network, no augmentation",
        "photos/s",
        Bar(">=", 10),
        ours,
        peer,
        f"{what} at {SIZE} px, on one thread, normalised to float32; the peer decodes with cv2 and "
        "rasterises with pycocotools on every access. Masks are bitwise equal, photos too before they "
        "are float, on every photo",
    )


def compare_augmented(cache: Cache, dataset: CocoDataset) -> Comparison:
    augment = build_augment(TEAM, SIZE)
    ours, peer = _rates(
        cache, lambda: into_network(cache, augment), lambda: usual(dataset, augment)
    )
    return Comparison(
        "data: into the network, the team's augmentations",
        "photos/s",
        None,
        ours,
        peer,
        "the same, and both augment with the same transforms",
    )


def compare_loader(cache: Cache, photos: list[Pixels]) -> Comparison:
    augment = build_augment(TEAM, SIZE)
    alone = (
        (torch.tensor(image), torch.tensor(mask)) for image, mask in augmented(photos, augment)
    )
    check_equal(_one_by_one(loaded(cache, augment)), alone, apart=0)
    ours, peer = _rates(
        cache, lambda: loaded(cache, augment), lambda: augmented(photos, augment), LOADER_ROUNDS
    )
    return Comparison(
        "data: the loader with the team's augmentations",
        "photos/s",
        Bar(">=", 0.9),
        ours,
        peer,
        "the peer is the augmentation alone, of arrays that are in memory; all draws are bitwise equal",
    )


def compare_augmentation(cache: Cache, photos: list[Pixels]) -> Comparison:
    fixed = TEAM.model_copy(update={"elastic_transform": ElasticTransformConfig(p=0)})
    check_equal(into_network(cache, build_augment(fixed, SIZE)), by_albumentations(photos, fixed))
    augment = build_augment(TEAM, SIZE)
    ours, peer = _rates(
        cache, lambda: into_network(cache, augment), lambda: by_albumentations(photos, TEAM)
    )
    return Comparison(
        "data: augmentation and normalisation",
        "us a photo",
        Bar("<=", 1.0),
        1e6 / ours,
        1e6 / peer,
        "from the cache into the network; the peer is albumentations alone, Normalize and ToTensorV2 "
        "included, on arrays that are in memory. All draws are equal but elastic displacements, which "
        "ours draws on a coarse grid",
    )


def compare_memory(dataset: CocoDataset) -> Comparison:
    return Comparison(
        f"data: memory of {TRIALS} trials",
        "MB",
        Bar("<=", 1.1),
        proportional_bytes(dataset, SIZE, TRIALS) / 1e6,
        cache_bytes(len(dataset.photos), SIZE) / 1e6,
        f"proportional set size of the photos and masks that {TRIALS} processes have read, all of them "
        "together; the peer is the size of one copy",
    )


def check_equal(ours: Batches, peer: Batches, apart: float = STEP / 10) -> None:
    """Raises UnequalResultsError where masks differ, or photos by more than `apart`."""
    for place, (mine, other) in enumerate(zip(ours, peer, strict=True)):
        if not torch.equal(mine[1], other[1]):
            raise UnequalResultsError(f"data: the masks of batch {place} differ")
        if (difference := float((mine[0] - other[0]).abs().max())) > apart:
            raise UnequalResultsError(f"data: a photo of batch {place} is {difference:.2g} off")


def _one_by_one(batches: Batches) -> Batches:
    """Channels last, as arrays are."""
    for images, masks in batches:
        yield from zip(images.permute(0, 2, 3, 1), masks, strict=True)


def _rates(
    cache: Cache,
    ours: Callable[[], Iterable[object]],
    peer: Callable[[], Iterable[object]],
    rounds: int = ROUNDS,
) -> tuple[float, float]:
    """Photos a second."""
    ways = {"ours": lambda: deque(ours(), maxlen=0), "peer": lambda: deque(peer(), maxlen=0)}
    seconds = seconds_in_turn(ways, rounds)
    return len(cache.images) / seconds["ours"], len(cache.images) / seconds["peer"]
