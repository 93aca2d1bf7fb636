"""Augmentation of training photos on uint8, and the normalisation that every photo gets.

Normalisation runs on batches, on the device: photos travel there as uint8, a quarter of the bytes.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np
import torch

from trashseg.config_augment import AugmentConfig
from trashseg.elastic import ElasticTransform

MEAN_AND_STD = {  # of RGB in [0, 1]
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),  # 0 to 255, as they are
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # measured by the 2021 team on its photos (bcaitech1/p3-ims-obd-savetheearth, augmentation.py)
    "trash": ((0.46009655, 0.43957878, 0.41827092), (0.2108204, 0.20766491, 0.21656131)),
}


def normalize(images: torch.Tensor, kind: str) -> torch.Tensor:
    """(N, 3, H, W) uint8 to float32 in the same memory layout, of about zero mean and unit deviation
    unless `kind`, as in the config, is none."""
    scale, shift = scale_and_shift(kind, images.device)
    normalized = torch.empty_like(images, dtype=torch.float32)
    into, raw = normalized, images
    if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        # whole rows of pixels: torch is slow where it repeats three numbers
        scale, shift = (one.flatten().repeat(images.shape[-1]) for one in (scale, shift))
        into, raw = (one.permute(0, 2, 3, 1).flatten(2) for one in (normalized, images))
    # On a CPU one by one: what the last operation wrote is then still in the processor's cache.
    together = 1 if images.device.type == "cpu" else len(images)
    pairs = zip(torch.split(into, together), torch.split(raw, together), strict=True)
    for some, photos in pairs:
        some.copy_(photos).mul_(scale).sub_(shift)
    return normalized


def scale_and_shift(kind: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Both (1, 3, 1, 1): what pixels are multiplied with, and what is subtracted then."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in MEAN_AND_STD[kind])
    scale, shift = 1 / (255 * std), mean / std
    return scale.to(device, non_blocking=True), shift.to(device, non_blocking=True)


def build_augment(config: AugmentConfig, image_size: int) -> A.Compose:
    """What `augment(image=(S, S, 3) uint8, mask=(S, S) uint8)` does to a training photo.

    Order is that of AugmentConfig's fields; those with p = 0 are left out. Copy-paste needs other photos
    and comes before: trashseg/data/copy_paste.py.
    """
    transforms = [
        AUGMENTATIONS[name](section, image_size)
        for name, section in config
        if section.p > 0 and name in AUGMENTATIONS
    ]
    return A.Compose(transforms)


def reseed(augment: A.Compose, seed: np.random.SeedSequence) -> None:
    """What `augment` draws next depends on `seed` alone.

    All transforms draw from one source. Compose's own `set_random_seed` gives each transform one of its
    own with the same seed: their first number, which decides whether they come, is then the same, and
    a photo that gets the rarest gets all.
    """
    first = int(seed.generate_state(1)[0])
    augment.set_random_state(np.random.default_rng(seed), random.Random(first))


def _elastic(config: Any, size: int) -> ElasticTransform:
    sigma = max(1.0, config.smoothness * size)  # the least that albumentations takes
    # Gaussian blur shrinks uniform [-1, 1] noise (deviation 1/sqrt 3) by 1 / (2 sigma sqrt pi)
    blurred_std = 1 / (math.sqrt(3) * 2 * sigma * math.sqrt(math.pi))
    return ElasticTransform(
        alpha=config.displacement * size / blurred_std,
        sigma=sigma,
        noise_distribution="uniform",
        p=config.p,
    )


AUGMENTATIONS: dict[str, Callable[[Any, int], A.BasicTransform]] = {
    "random_resized_crop": lambda config, size: A.RandomResizedCrop(
        size=(size, size), scale=(config.min_scale, 1.0), p=config.p
    ),
    "horizontal_flip": lambda config, size: A.HorizontalFlip(p=config.p),
    "vertical_flip": lambda config, size: A.VerticalFlip(p=config.p),
    "shift_scale_rotate": lambda config, size: A.Affine(
        translate_percent=(-config.shift, config.shift),
        scale=(1 - config.scale, 1 + config.scale),
        keep_ratio=True,
        rotate=(-config.rotate, config.rotate),
        p=config.p,
    ),
    "elastic_transform": _elastic,
    "grid_distortion": lambda config, size: A.GridDistortion(
        num_steps=config.steps, distort_limit=config.limit, p=config.p
    ),
    "clahe": lambda config, size: A.CLAHE(clip_limit=(1.0, config.clip_limit), p=config.p),
    "brightness_contrast": lambda config, size: A.RandomBrightnessContrast(
        brightness_limit=config.limit, contrast_limit=config.limit, p=config.p
    ),
    "channel_shuffle": lambda config, size: A.ChannelShuffle(p=config.p),
    "cutout": lambda config, size: A.CoarseDropout(
        num_holes_range=(config.holes, config.holes),
        hole_height_range=(max(1, round(config.size * size)),) * 2,
        hole_width_range=(max(1, round(config.size * size)),) * 2,
        p=config.p,
    ),
}
