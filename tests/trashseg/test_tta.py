"""Views of a photo: undone exactly, and averaged without a change where the network does not mind."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from trashseg.config import TtaConfig
from trashseg.tta import TRANSFORMS, view_softmax, weighted_sum
from trashseg.views import PLAIN, View, views_of

every_transform = pytest.mark.parametrize("name", TRANSFORMS)


def pixelwise(photos: Tensor) -> Tensor:
    """A network that sees each pixel alone, so that it does not mind where the pixel is."""
    red, green, blue = photos.unbind(1)
    return torch.stack([red - green, green * blue, 2 * blue, red], dim=1)


@pytest.fixture
def photos() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@every_transform
def test_undoing_a_view_gives_the_very_photo(name: str, photos: Tensor) -> None:
    transform = TRANSFORMS[name]
    assert torch.equal(transform.undo(transform.apply(photos)), photos)


@every_transform
def test_a_view_is_another_photo_unless_it_is_the_identity(name: str, photos: Tensor) -> None:
    assert torch.equal(TRANSFORMS[name].apply(photos), photos) == (name == "identity")


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("identity", [[1, 2], [3, 4]]),
        ("horizontal_flip", [[2, 1], [4, 3]]),
        ("vertical_flip", [[3, 4], [1, 2]]),
        ("rotate_90", [[2, 4], [1, 3]]),  # counter-clockwise: the right column becomes the top row
        ("rotate_180", [[4, 3], [2, 1]]),
        ("rotate_270", [[3, 1], [4, 2]]),
    ],
)
def test_a_view_shows_what_its_name_says(name: str, seen: list[list[int]]) -> None:
    assert TRANSFORMS[name].apply(torch.tensor([[1, 2], [3, 4]])).tolist() == seen


@every_transform
def test_a_network_that_does_not_mind_says_the_same_in_every_view(
    name: str, photos: Tensor
) -> None:
    plain = view_softmax(pixelwise, photos, "identity", 32)
    assert torch.equal(view_softmax(pixelwise, photos, name, 32), plain)


def test_the_average_of_equal_views_is_the_plain_softmax(photos: Tensor) -> None:
    plain = pixelwise(photos).softmax(1)
    views = [view_softmax(pixelwise, photos, name, 32) for name in TRANSFORMS]
    average = weighted_sum((1 / len(views), softmax) for softmax in views)
    torch.testing.assert_close(average, plain)


def test_a_network_that_minds_is_heard_in_every_view() -> None:
    def left_is_one(photos: Tensor) -> Tensor:
        """Class 1 with logit ln 3 in the left half: softmax (1/4, 3/4) there, (1/2, 1/2) elsewhere."""
        logits = torch.zeros(len(photos), 2, *photos.shape[2:])
        logits[:, 1, :, : photos.shape[-1] // 2] = torch.log(torch.tensor(3.0))
        return logits

    photo = torch.zeros(1, 3, 4, 4)
    views = [view_softmax(left_is_one, photo, name, 4) for name in ("identity", "horizontal_flip")]
    average = weighted_sum((0.5, softmax) for softmax in views)
    # each half is the left one in one of the two views: (3/4 + 1/2) / 2
    torch.testing.assert_close(average[:, 1], torch.full((1, 4, 4), 5 / 8))


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.25, 2.0])
def test_a_scale_keeps_the_shape_and_the_sum_of_the_softmax(scale: float) -> None:
    side = View(scale=scale).side(64)
    assert side % 32 == 0
    softmax = view_softmax(pixelwise, torch.randn(2, 3, side, side), "rotate_90", 64)
    assert softmax.shape == (2, 4, 64, 64)
    torch.testing.assert_close(softmax.sum(1), torch.ones(2, 64, 64))


def test_a_scale_is_rounded_to_the_stride_of_the_encoders() -> None:
    # 0.75 * 512 = 384 = 12 * 32;  1.3 * 512 = 665.6, nearest 21 * 32 = 672;  never less than 32
    sides = [View(scale=s).side(size) for s, size in ((0.75, 512), (1.3, 512), (0.25, 32))]
    assert sides == [384, 672, 32]


def test_views_are_every_transform_at_every_scale() -> None:
    config = TtaConfig(views=("identity", "vertical_flip"), scales=(1.0, 1.5))
    assert [view.name for view in views_of(config)] == [
        *("identity_1", "vertical_flip_1", "identity_1.5", "vertical_flip_1.5")
    ]
    assert views_of(TtaConfig()) == (PLAIN,)


def test_a_view_that_is_named_twice_or_unknown_is_refused() -> None:
    with pytest.raises(ValidationError, match="name each once"):
        TtaConfig(views=("identity", "identity"))
    with pytest.raises(ValidationError, match="'identity', 'horizontal_flip'"):
        TtaConfig.model_validate({"views": ["mirror"]})
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.25"):
        TtaConfig(scales=(0.1,))
