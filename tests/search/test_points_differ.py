"""Different points of a space train different networks: a search that compares nothing is worthless."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from search.space import Point, Space, load_space
from trashseg.config import TrainConfig
from trashseg.config_file import load_train_config
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.device import Resources
from trashseg.train import FoldTraining

pytestmark = pytest.mark.slow

BASE = ["epochs=1", "batch_size=4", "data.image_size=64", "data.folds=2"]


def trained(
    space: Space, base: TrainConfig, point: Point, data: Path, out: Path
) -> dict[str, Tensor]:
    dataset = load_coco(data)
    training = FoldTraining(
        space.apply(base, point),
        dataset,
        stratify(dataset, 2, 0),
        0,
        checkpoints=out,
        resources=Resources(1, torch.device("cpu")),
    )
    training.next_epoch()
    return training.best_model().state_dict()


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize(
    ("path", "value"),
    [("optim.decoder_lr", 3e-3), ("loss.name", "dice"), ("augment.vertical_flip.p", 0.5)],
)
def test_another_value_gives_other_weights_and_the_same_value_the_same(
    sample: Path, tmp_path: Path, path: str, value: str | float
) -> None:
    space, base = load_space("aug_loss"), load_train_config(None, BASE)
    first = space.point_of(base)
    other: Point = {**first, path: value}
    if path == "loss.name":  # dice has no class weights and no smoothing
        other = {key: value for key, value in other.items() if space.active(key, other)}
    weights = [
        trained(space, base, point, sample, tmp_path / str(number))
        for number, point in enumerate((first, first, other))
    ]
    assert differing(weights[0], weights[1]) == set()
    different = differing(weights[0], weights[2])
    assert any(name.startswith("decoder.") for name in different)
    assert any(name.startswith("encoder.") for name in different)
