"""configs/recipes: what the team published, and that it can still be built."""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp

from trashseg.config import CosineRestartsConfig, StepConfig, TrainConfig
from trashseg.config_file import load_train_config
from trashseg.config_loss import CrossEntropyConfig
from trashseg.models import check_encoder

RECIPES = sorted((Path(__file__).parents[2] / "configs" / "recipes").glob("*.yaml"))


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> TrainConfig:
    return load_train_config(request.param)


def test_there_is_a_recipe_for_each_published_model() -> None:
    stems = {path.stem for path in RECIPES}
    assert {"deeplabv3plus_resnext101_32x4d", "fpn_efficientnet_b4"} <= stems


def test_a_recipe_trains_as_published(recipe: TrainConfig) -> None:
    assert recipe.optim.name == "adam"
    assert (recipe.optim.decoder_lr, recipe.optim.encoder_lr) == (0.001, 0.0001)
    assert (recipe.batch_size, recipe.epochs, recipe.patience) == (7, 100, 8)
    assert recipe.data.image_size == 512
    assert recipe.data.normalize == "trash"
    assert recipe.loss == CrossEntropyConfig()


def test_a_recipe_has_the_five_published_augmentations_and_no_other(recipe: TrainConfig) -> None:
    # one of three with probability 0.3, by weights 1, 1, 2: 0.3/4, 0.3/4 and 0.3/2 each
    drawn = {name: section.p for name, section in recipe.augment if section.p > 0}
    assert drawn == {
        "horizontal_flip": 0.5,
        "shift_scale_rotate": 0.3,
        "grid_distortion": 0.075,
        "elastic_transform": 0.075,
        "random_resized_crop": 0.15,
    }
    affine = recipe.augment.shift_scale_rotate
    assert (affine.shift, affine.scale, affine.rotate) == (0.06, 0.1, 90.0)
    assert recipe.augment.random_resized_crop.min_scale == 0.08
    assert (recipe.augment.grid_distortion.steps, recipe.augment.grid_distortion.limit) == (5, 0.4)


def test_the_encoder_of_a_recipe_exists_with_its_weights(recipe: TrainConfig) -> None:
    check_encoder(recipe.model.encoder)
    assert (
        recipe.model.weights in smp.encoders.encoders[recipe.model.encoder]["pretrained_settings"]
    )


def test_the_best_recipe_is_deeplab_with_a_step_schedule() -> None:
    path = next(path for path in RECIPES if path.stem.startswith("deeplabv3plus"))
    config = load_train_config(path)
    assert (config.model.arch, config.model.encoder) == ("deeplabv3plus", "resnext101_32x4d")
    assert config.optim.weight_decay == 1e-6
    assert config.schedule == StepConfig(step_size=5, gamma=0.95)


def test_the_second_recipe_is_fpn_with_restarts() -> None:
    config = load_train_config(next(path for path in RECIPES if path.stem.startswith("fpn")))
    assert (config.model.arch, config.model.encoder) == ("fpn", "timm-efficientnet-b4")
    assert config.optim.weight_decay == 0.0
    assert config.schedule == CosineRestartsConfig(
        cycle_epochs=30, cycle_factor=2.0, warmup_epochs=5, decay=0.3
    )
