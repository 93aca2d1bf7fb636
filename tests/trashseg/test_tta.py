"""Views of a photo: undone exactly, and averaged without a change where the network does not mind."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from trashseg.config import TtaConfig, ViewName
from trashseg.tta import TRANSFORMS, add_by_place, add_upright
from trashseg.views import PLAIN, View, views_of

every_transform = pytest.mark.parametrize("name", TRANSFORMS)


def pixelwise(photos: Tensor) -> Tensor:
    """A network that sees each pixel alone, so that it does not mind where the pixel is."""
    red, green, blue = photos.unbind(1)
    return torch.stack([red - green, green * blue, 2 * blue, red], dim=1)


def see(photos: Tensor, name: ViewName) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(TRANSFORMS[name](photos.numpy())))


@pytest.fixture
def photos() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@every_transform
def test_no_view_of_a_photo_copies_it(name: ViewName) -> None:
    photo = np.zeros((3, 8, 8), dtype=np.uint8)
    assert np.shares_memory(TRANSFORMS[name](photo), photo)


@every_transform
def test_a_view_is_another_photo_unless_it_is_the_identity(name: ViewName, photos: Tensor) -> None:
    seen = TRANSFORMS[name](photos.numpy())
    assert np.array_equal(seen, photos.numpy()) == (name == "identity")


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
def test_a_view_shows_what_its_name_says(name: ViewName, seen: list[list[int]]) -> None:
    assert TRANSFORMS[name](np.array([[1, 2], [3, 4]])).tolist() == seen


@pytest.mark.parametrize("add", [add_upright, add_by_place])
@every_transform
def test_what_was_seen_is_added_where_it_was(
    name: ViewName, add: Callable[[Tensor, Tensor, ViewName], None], photos: Tensor
) -> None:
    total = torch.ones_like(photos)
    add(total, see(photos, name), name)
    assert torch.equal(total, 1 + photos)


@every_transform
def test_a_network_that_does_not_mind_says_the_same_in_every_view(
    name: ViewName, photos: Tensor
) -> None:
    upright = torch.zeros(2, 4, 32, 32)
    add_upright(upright, pixelwise(see(photos, name)).softmax(1), name)
    assert torch.equal(upright, pixelwise(photos).softmax(1))


def test_a_network_that_minds_is_heard_in_every_view() -> None:
    def left_is_one(photos: Tensor) -> Tensor:
        """Class 1 with logit ln 3 in the left half: softmax (1/4, 3/4) there, (1/2, 1/2) elsewhere."""
        logits = torch.zeros(len(photos), 2, *photos.shape[2:])
        logits[:, 1, :, : photos.shape[-1] // 2] = torch.log(torch.tensor(3.0))
        return logits

    photo, total = torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4)
    names: tuple[ViewName, ...] = ("identity", "horizontal_flip")
    for name in names:
        add_upright(total, left_is_one(see(photo, name)).softmax(1), name)
    # each half is the left one in one of the two views: (3/4 + 1/2) / 2
    torch.testing.assert_close(total[:, 1] / 2, torch.full((1, 4, 4), 5 / 8))


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
