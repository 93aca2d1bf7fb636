"""The files in configs/ and cluster.yaml are what the code takes."""

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from search.config import load_search_config
from search.space import load_space
from tests.conftest import ROOT
from trashseg.config import TrainConfig
from trashseg.config_file import load_train_config, read_yaml

SEARCHES = sorted((ROOT / "configs").glob("*.yaml"))
RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))


def test_base_yaml_lists_every_setting_with_its_default() -> None:
    assert read_yaml(ROOT / "configs" / "base.yaml") == TrainConfig().model_dump(mode="json")


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_every_search_file_loads_and_its_first_trial_lies_in_its_space(path: Path) -> None:
    config = load_search_config(path)
    space = load_space(config.search.space)
    assert space.apply(config.train, space.point_of(config.train)) == config.train


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_the_settings_that_the_team_published(path: Path) -> None:
    config = load_train_config(path)
    assert (config.epochs, config.patience, config.batch_size) == (100, 8, 7)
    assert config.data.image_size == 512
    assert config.optim.name == "adam"
    assert (config.optim.decoder_lr, config.optim.encoder_lr) == (1e-3, 1e-4)
    assert config.loss.name == "cross_entropy"
    used = {name for name, section in config.augment if section.p > 0}
    assert used == {
        "horizontal_flip",
        "grid_distortion",
        "elastic_transform",
        "random_resized_crop",
        "shift_scale_rotate",
    }


def test_a_recipe_can_be_searched_around() -> None:
    recipe = ROOT / "configs" / "recipes" / "fpn_efficientnet_b4.yaml"
    space = load_space("aug_loss")
    assert space.point_of(load_search_config(recipe).train)["loss.name"] == "cross_entropy"


def test_ray_accepts_the_cluster_file() -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(cluster))
