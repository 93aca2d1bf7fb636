"""Augmentation: a contract for all of AUGMENTATIONS, and normalisation by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trashseg.augment import AUGMENTATIONS, MEAN_AND_STD, build_augment, normalize, reseed
from trashseg.config_augment import AugmentConfig
from trashseg.data.cache import Cache
from trashseg.data.dataset import SegmentationDataset

SIZE = 96
GEOMETRIC = {  # these move pixels; the others only change colours
    "random_resized_crop",
    "horizontal_flip",
    "vertical_flip",
    "shift_scale_rotate",
    "elastic_transform",
    "grid_distortion",
}
OFF = {name: {"p": 0.0} for name in AugmentConfig.model_fields}


def _only(name: str, p: float = 1.0, **settings: Any) -> AugmentConfig:
    return AugmentConfig.model_validate({**OFF, name: {"p": p, **settings}})


@pytest.fixture
def scene() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A bright object on dark ground exactly where the mask says class 3, off the centre."""
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[20:60, 14:50] = 3
    image = np.where(mask[..., None] == 3, 200, 20).repeat(3, axis=2).astype(np.uint8)
    return image, mask


@pytest.fixture
def noise() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    mask = generator.choice(np.array([0, 3, 7], dtype=np.uint8), (SIZE, SIZE))
    return image, mask


def _draw(
    config: AugmentConfig, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    augment = build_augment(config, SIZE)
    reseed(augment, np.random.SeedSequence(seed))
    augmented = augment(image=pair[0], mask=pair[1])
    return augmented["image"], augmented["mask"]


# --- the contract ------------------------------------------------------------------------------


def test_every_augmentation_of_the_configuration_exists() -> None:
    assert list(AugmentConfig.model_fields) == ["copy_paste", *AUGMENTATIONS]  # data/copy_paste.py
    assert set(AUGMENTATIONS) >= GEOMETRIC


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shapes_types_and_classes_stay(name: str, noise: Any) -> None:
    for seed in range(5):
        image, mask = _draw(_only(name), noise, seed)
        assert image.shape == (SIZE, SIZE, 3)
        assert mask.shape == (SIZE, SIZE)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 3, 7}  # never between two classes


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_something_happens_to_the_photo(name: str, noise: Any) -> None:
    assert any((_draw(_only(name), noise, seed)[0] != noise[0]).any() for seed in range(5))


@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_the_mask_moves_with_the_photo(name: str, scene: Any) -> None:
    moved = 0
    for seed in range(8):
        image, mask = _draw(_only(name), scene, seed)
        bright, labelled = image[..., 0] > 110, mask == 3
        if not labelled.any():  # a crop or shift may lose the object, then from both
            assert bright.sum() < 20
            continue
        iou = (bright & labelled).sum() / (bright | labelled).sum()
        assert iou > 0.9, f"seed {seed}"  # edges are interpolated in the photo only
        moved += (mask != scene[1]).any()
    assert moved > 0


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - GEOMETRIC))
def test_a_change_of_colour_leaves_the_mask_alone(name: str, noise: Any) -> None:
    for seed in range(5):
        assert (_draw(_only(name), noise, seed)[1] == noise[1]).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_photos_that_cannot_be_written_to_are_taken(name: str, noise: Any) -> None:
    for pixels in noise:  # as those of the cache are
        pixels.flags.writeable = False
    for seed in range(5):
        _draw(_only(name), noise, seed)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_seed_draws_the_same(name: str, noise: Any) -> None:
    one, other = (_draw(_only(name), noise, seed=5) for _ in range(2))
    assert (one[0] == other[0]).all()
    assert (one[1] == other[1]).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_probability_of_zero_leaves_it_out(name: str, noise: Any) -> None:
    everything = {key: {"p": 1.0} for key in OFF} | {name: {"p": 0.0}}
    built = build_augment(AugmentConfig.model_validate(everything), SIZE)
    assert len(built.transforms) == len(AUGMENTATIONS) - 1
    nothing = build_augment(AugmentConfig.model_validate(OFF), SIZE)
    assert len(nothing.transforms) == 0
    assert (nothing(image=noise[0], mask=noise[1])["image"] == noise[0]).all()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("random_resized_crop", {"min_scale": 0.01}),
        ("random_resized_crop", {"min_scale": 1.0}),
        ("shift_scale_rotate", {"shift": 0.0, "scale": 0.0, "rotate": 0.0}),
        ("shift_scale_rotate", {"shift": 1.0, "scale": 0.99, "rotate": 180.0}),
        ("elastic_transform", {"displacement": 0.0}),
        ("elastic_transform", {"displacement": 0.5, "smoothness": 0.5}),
        ("elastic_transform", {"smoothness": 0.005}),  # under half a pixel
        ("grid_distortion", {"steps": 2, "limit": 1.0}),
        ("grid_distortion", {"steps": 5, "limit": 0.0}),
        ("clahe", {"clip_limit": 1.0}),
        ("brightness_contrast", {"limit": 0.0}),
        ("brightness_contrast", {"limit": 1.0}),
        ("cutout", {"holes": 1, "size": 1.0}),
        ("cutout", {"holes": 1, "size": 0.001}),  # under a pixel
    ],
)
def test_settings_at_the_end_of_their_range_work(
    name: str, settings: dict[str, float], noise: Any
) -> None:
    image, mask = _draw(_only(name, **settings), noise, seed=1)
    assert image.shape == (SIZE, SIZE, 3)
    assert set(np.unique(mask)) <= {0, 3, 7}


# --- what the settings mean --------------------------------------------------------------------


def test_flips_mirror_exactly(noise: Any) -> None:
    image, mask = _draw(_only("horizontal_flip"), noise, seed=0)
    assert (image == noise[0][:, ::-1]).all()
    assert (mask == noise[1][:, ::-1]).all()
    image, mask = _draw(_only("vertical_flip"), noise, seed=0)
    assert (image == noise[0][::-1]).all()
    assert (mask == noise[1][::-1]).all()


def test_a_probability_is_the_share_of_photos_that_get_it(noise: Any) -> None:
    config = _only("horizontal_flip", p=0.25)
    flipped = sum((_draw(config, noise, seed)[0] != noise[0]).any() for seed in range(200))
    assert 25 <= flipped <= 75  # 50 expected, deviation 6; the seeds are fixed


def test_one_augmentation_comes_whether_or_not_another_does(noise: Any) -> None:
    flips = {name: {"p": 0.5} for name in ("horizontal_flip", "vertical_flip")}
    config = AugmentConfig.model_validate({**OFF, **flips})
    mirrored = [
        noise[1][::vertically, ::horizontally] for vertically in (1, -1) for horizontally in (1, -1)
    ]
    times = [0, 0, 0, 0]
    for seed in range(200):
        _, mask = _draw(config, noise, seed)
        times[[bool((mask == other).all()) for other in mirrored].index(True)] += 1
    assert min(times) >= 25  # 50 of each expected, deviation 6; the seeds are fixed


def test_cutout_blackens_squares_of_the_share_of_the_side(noise: Any) -> None:
    white = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    image, _ = _draw(_only("cutout", holes=1, size=0.25), (white, noise[1]), seed=0)
    rows, columns = np.nonzero((image == 0).all(axis=2))
    assert len(rows) == 24 * 24  # 0.25 of 96
    assert np.ptp(rows) == np.ptp(columns) == 23


def test_channel_shuffle_only_reorders_channels(noise: Any) -> None:
    image, _ = _draw(_only("channel_shuffle"), noise, seed=1)
    assert (np.sort(image, axis=2) == np.sort(noise[0], axis=2)).all()


@pytest.mark.parametrize(("displacement", "smoothness"), [(0.02, 0.06), (0.04, 0.03)])
def test_elastic_displacements_have_the_deviation_that_is_set(
    displacement: float, smoothness: float
) -> None:
    size = 256
    settings = _only("elastic_transform", displacement=displacement, smoothness=smoothness)
    transform = AUGMENTATIONS["elastic_transform"](settings.elastic_transform, size)
    columns = np.arange(size, dtype=np.float32)[None, :]
    shifts = []
    for seed in range(6):
        transform.set_random_seed(seed)
        drawn = transform.get_params_dependent_on_data({"shape": (size, size, 3)}, {})
        shifts.append(drawn["map_x"] - columns)
    inner = np.stack(shifts)[:, 64:-64, 64:-64]  # the blur and the clipping act at the border
    assert math.sqrt((inner**2).mean()) == pytest.approx(displacement * size, rel=0.3)


def test_elastic_displacements_are_smooth_and_no_larger_at_the_border() -> None:
    size, sigma = 256, 15  # 0.06 of the side
    transform = AUGMENTATIONS["elastic_transform"](
        _only("elastic_transform").elastic_transform, size
    )
    transform.set_random_seed(0)
    drawn = [
        transform.get_params_dependent_on_data({"shape": (size, size, 3)}, {}) for _ in range(50)
    ]
    shifts = np.stack([maps["map_y"] for maps in drawn]) - np.arange(size)[:, None]
    inner = shifts[:, 64:-64]
    # White noise blurred by a Gaussian of deviation s has the correlation exp(-d^2 / (4 s^2)) over a
    # distance d: exp(-1/4) = 0.78 over one deviation.
    correlation = (inner[..., :-sigma] * inner[..., sigma:]).mean() / (inner**2).mean()
    assert correlation == pytest.approx(0.78, abs=0.05)
    # Where noise is mirrored, each number counts twice: its share of the variance doubles.
    assert shifts[:, 0].std() / inner.std() == pytest.approx(math.sqrt(2), rel=0.2)


# --- over epochs -------------------------------------------------------------------------------


@pytest.fixture
def cache(noise: Any) -> Cache:
    image, mask = noise
    return Cache(
        key="noise",
        images=np.stack([image, image]),
        masks=np.stack([mask, mask]),
        class_pixels=np.zeros((2, 8), dtype=np.int64),
    )


def test_epochs_photos_and_seeds_draw_differently_but_each_always_the_same(cache: Cache) -> None:
    augment = build_augment(_only("shift_scale_rotate"), SIZE)
    dataset = SegmentationDataset(cache, augment, seed=1)
    draws = [dataset[epoch, photo][0] for epoch in (1, 2, 3) for photo in (0, 1)]
    draws += [SegmentationDataset(cache, augment, seed=2)[1, 0][0]]
    for first in range(len(draws)):
        for second in range(first):
            assert not torch.equal(draws[first], draws[second])
    assert torch.equal(dataset[2, 0][0], draws[2])  # whatever was drawn in between


def test_a_dataset_without_augmentation_gives_the_photo_channels_first(cache: Cache) -> None:
    image, mask = SegmentationDataset(cache)[4, 1]
    assert image.shape == (3, SIZE, SIZE)
    assert image.dtype == mask.dtype == torch.uint8
    assert (image.permute(1, 2, 0).numpy() == cache.images[1]).all()
    assert (mask.numpy() == cache.masks[1]).all()


# --- normalisation -----------------------------------------------------------------------------


def test_half_maps_black_to_minus_one_and_white_to_one() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 1, 1, 3).repeat(1, 3, 1, 1)
    normalized = normalize(images, "half")
    assert normalized.dtype == torch.float32
    expected = torch.tensor([-1.0, 1.0, 0.2 / 0.5 - 1]).expand(1, 3, 1, 3)
    torch.testing.assert_close(normalized, expected)


def test_imagenet_uses_each_channels_own_mean_and_deviation() -> None:
    white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    red, green, blue = normalize(white, "imagenet").flatten().tolist()
    assert red == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)
    assert green == pytest.approx((1 - 0.456) / 0.224, rel=1e-5)
    assert blue == pytest.approx((1 - 0.406) / 0.225, rel=1e-5)


@pytest.mark.parametrize("kind", MEAN_AND_STD)
def test_a_photo_of_the_mean_colour_becomes_zero(kind: str) -> None:
    mean, std = MEAN_AND_STD[kind]
    colour = torch.tensor([round(255 * channel) for channel in mean], dtype=torch.uint8)
    normalized = normalize(colour.reshape(1, 3, 1, 1).expand(2, 3, 4, 5), kind)
    assert normalized.shape == (2, 3, 4, 5)
    assert normalized.abs().max() <= 0.5 / 255 / min(std) + 1e-5  # half a step of rounding


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 4, 4), (2, 3, 1, 1), (2, 3, 6, 1)])
@pytest.mark.parametrize("kind", MEAN_AND_STD)
def test_the_memory_layout_stays_and_changes_no_value(kind: str, shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    planes = torch.randint(256, shape, dtype=torch.uint8, generator=draw)
    pixels = planes.contiguous(memory_format=torch.channels_last)
    by_planes, by_pixels = normalize(planes, kind), normalize(pixels, kind)
    assert by_planes.is_contiguous()
    assert by_pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(by_planes, by_pixels)
