"""configs/recipes: what the team published, and that each can be built, trained and predicted with."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
import segmentation_models_pytorch as smp
import torch

from trashseg.config import (
    AdamConfig,
    CosineRestartsConfig,
    StepConfig,
    TrainConfig,
)
from trashseg.config_file import load_train_config
from trashseg.config_loss import CrossEntropyConfig
from trashseg.data.coco import load_coco
from trashseg.data.folds import make_folds
from trashseg.device import Resources
from trashseg.ensemble import load_ensemble
from trashseg.member import train_member
from trashseg.models import check_encoder
from trashseg.optim import cosine_restarts_factor
from trashseg.predict import predict

FOLDER = Path(__file__).parents[2] / "configs" / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
BASELINES = ["baseline_fcn8s", "baseline_fcn8s_frozen"]
FINAL = [name for name in RECIPES if name not in BASELINES]

every_recipe = pytest.mark.parametrize("name", RECIPES)
every_final_recipe = pytest.mark.parametrize("name", FINAL)
every_baseline = pytest.mark.parametrize("name", BASELINES)


def recipe(name: str, *overrides: str) -> TrainConfig:
    return load_train_config(FOLDER / f"{name}.yaml", overrides)


def test_there_is_a_recipe_for_each_published_model() -> None:
    assert set(RECIPES) == {
        *BASELINES,
        "deeplabv3",
        "deeplabv3plus_resnext101_32x4d",
        "deeplabv3plus_resnext101_32x8d",
        "fpn_efficientnet_b4",
        "unet_efficientnet_b4",
        "unet_efficientnet_b4_finetune",
        "unet_efficientnet_b4_frozen",
    }


# --- settings ----------------------------------------------------------------------------------


@every_recipe
def test_a_recipe_names_its_source_and_has_the_size_and_loss_of_all(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    header = " ".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    assert "Source: bcaitech1/p3-ims-obd-savetheearth" in header
    config = recipe(name)
    assert (config.epochs, config.data.image_size, config.data.folds) == (100, 512, 5)
    assert config.loss == CrossEntropyConfig()


@every_final_recipe
def test_a_final_recipe_trains_as_published(name: str) -> None:
    config = recipe(name)
    assert (config.batch_size, config.patience, config.data.normalize) == (7, 8, "trash")
    assert config.optim.name == "adam"
    assert (config.optim.decoder_lr, config.optim.encoder_lr) == (0.001, 0.0001)
    if name != "fpn_efficientnet_b4":
        assert config.optim.weight_decay == 1e-6
        assert config.schedule == StepConfig(step_size=5, gamma=0.95)


@every_final_recipe
def test_a_final_recipe_has_the_five_published_augmentations_and_no_other(name: str) -> None:
    # one of three with probability 0.3, by weights 1, 1, 2: 0.3/4, 0.3/4 and 0.3/2 each
    augment = recipe(name).augment
    assert {name: section.p for name, section in augment if section.p > 0} == {
        "horizontal_flip": 0.5,
        "shift_scale_rotate": 0.3,
        "grid_distortion": 0.075,
        "elastic_transform": 0.075,
        "random_resized_crop": 0.15,
    }
    affine = augment.shift_scale_rotate
    assert (affine.shift, affine.scale, affine.rotate) == (0.06, 0.1, 90.0)
    assert augment.random_resized_crop.min_scale == 0.08
    assert (augment.grid_distortion.steps, augment.grid_distortion.limit) == (5, 0.4)


@every_baseline
def test_a_baseline_trains_as_the_readme_says(name: str) -> None:
    # --learning_rate=0.0001 --batch_size=8 --nepochs=100 --patience=5 --seed=42 --model=FCN8s
    config = recipe(name)
    assert (config.batch_size, config.patience, config.seed) == (8, 5, 42)
    assert (config.model.arch, config.model.encoder) == ("fcn8s", "vgg16")
    assert config.optim == AdamConfig(decoder_lr=1e-4, encoder_lr=1e-4, weight_decay=1e-6)
    assert config.schedule == StepConfig(step_size=20, gamma=0.9)
    assert config.data.normalize == "none"
    assert not any(section.p for _, section in config.augment)


@pytest.mark.parametrize(
    ("name", "arch", "encoder", "weights", "frozen"),
    [
        ("baseline_fcn8s", "fcn8s", "vgg16", "imagenet", 0),
        ("baseline_fcn8s_frozen", "fcn8s", "vgg16", "imagenet", 100),
        ("deeplabv3", "deeplabv3", "resnet101", "imagenet", 0),
        ("deeplabv3plus_resnext101_32x4d", "deeplabv3plus", "resnext101_32x4d", "ssl", 0),
        ("deeplabv3plus_resnext101_32x8d", "deeplabv3plus", "resnext101_32x8d", "ssl", 0),
        ("fpn_efficientnet_b4", "fpn", "timm-efficientnet-b4", "noisy-student", 0),
        ("unet_efficientnet_b4", "unet", "efficientnet-b4", "imagenet", 0),
        ("unet_efficientnet_b4_frozen", "unet", "efficientnet-b4", "imagenet", 100),
        ("unet_efficientnet_b4_finetune", "unet", "efficientnet-b4", "imagenet", 10),
    ],
)
def test_a_recipe_has_its_network(
    name: str, arch: str, encoder: str, weights: str, frozen: int
) -> None:
    model = recipe(name).model
    assert (model.arch, model.encoder, model.weights) == (arch, encoder, weights)
    assert model.freeze_encoder_epochs == frozen


@every_recipe
def test_the_encoder_of_a_recipe_exists_with_its_weights(name: str) -> None:
    model = recipe(name).model
    check_encoder(model.encoder)
    assert model.weights in smp.encoders.encoders[model.encoder]["pretrained_settings"]


@pytest.mark.parametrize("stem", ["baseline_fcn8s", "unet_efficientnet_b4"])
def test_variants_of_a_recipe_differ_in_nothing_but_freezing(stem: str) -> None:
    plain = recipe(stem)
    for name in RECIPES:
        if name.startswith(stem):
            assert recipe(name, "model.freeze_encoder_epochs=0") == plain


def test_the_second_recipe_restarts_after_the_teams_30_and_85_epochs() -> None:
    config = recipe("fpn_efficientnet_b4")
    assert config.optim.weight_decay == 0.0
    schedule = config.schedule
    assert isinstance(schedule, CosineRestartsConfig)
    assert (schedule.warmup_epochs, schedule.decay) == (5, 0.3)
    # Cycles of 30 and (30 - 5) * 2 + 5 = 55 epochs; each begins at zero, its peak 0.3 of the last.
    for begin, peak in ((0, 1.0), (30, 0.3), (85, 0.09)):
        assert cosine_restarts_factor(schedule, begin + 1e-9) == pytest.approx(0, abs=1e-6)
        assert cosine_restarts_factor(schedule, begin + 5) == pytest.approx(peak)
    assert cosine_restarts_factor(schedule, 85 - 1e-6) == pytest.approx(0, abs=1e-6)


# --- real photos -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few_photos(taco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve of the real photos, each with objects, and their part of the json."""
    folder = tmp_path_factory.mktemp("taco") / "few"
    tree: dict[str, Any] = json.loads((taco / "train_all.json").read_text())
    tree["images"] = tree["images"][:12]
    kept = {image["id"] for image in tree["images"]}
    tree["annotations"] = [a for a in tree["annotations"] if a["image_id"] in kept]
    for image in tree["images"]:
        (folder / image["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(taco / image["file_name"], folder / image["file_name"])
    (folder / "train_all.json").write_text(json.dumps(tree))
    return folder


@pytest.mark.slow
@every_recipe
def test_a_recipe_trains_an_epoch_on_real_photos_and_predicts(
    name: str, few_photos: Path, tmp_path: Path
) -> None:
    small = ("epochs=1", "batch_size=2", "data.image_size=64", "data.folds=2", "model.weights=none")
    config = recipe(name, *small)
    dataset, resources = load_coco(few_photos), Resources(1, torch.device("cpu"))
    folds = make_folds(dataset, config.data)
    scores = train_member(config, dataset, folds, 0, tmp_path / "fold", resources)
    assert scores["images"] == len(folds.split(0)[1])
    assert 0 <= scores["miou"] <= 1
    loaded = load_ensemble(tmp_path / "fold", resources)
    assert predict(loaded, few_photos, tmp_path / "out") == 12
    csv.field_size_limit(1 << 20)
    with (tmp_path / "out" / "submission.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["image_id", "PredictionString"]
    assert {row[0] for row in rows} == {photo.file_name for photo in dataset.photos}
    for photo in dataset.photos:
        mask = cv2.imread(
            str(tmp_path / "out" / "masks" / Path(photo.file_name).with_suffix(".png")),
            cv2.IMREAD_UNCHANGED,
        )
        assert mask is not None
        assert mask.shape == (photo.height, photo.width)
        assert mask.max() < len(dataset.classes)
