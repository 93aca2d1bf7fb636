"""TrainConfig: frozen, strict, and with a fingerprint that equals exactly where the values do."""

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.conftest import ROOT
from trashseg.config import (
    AdamConfig,
    CosineRestartsConfig,
    CrfConfig,
    DataConfig,
    ModelConfig,
    SGDConfig,
    TrainConfig,
    fingerprint,
)
from trashseg.config_augment import CopyPasteConfig
from trashseg.config_loss import FocalConfig, SumConfig
from trashseg.config_pseudo import FolderPseudoConfig


def test_a_configuration_cannot_be_changed_after_it_was_made() -> None:
    config = TrainConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.optim.decoder_lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("size", [32, 64, 512, 1024])
def test_an_image_size_of_a_multiple_of_32_is_taken(size: int) -> None:
    assert DataConfig(image_size=size).image_size == size


@pytest.mark.parametrize(("size", "near"), [(500, 512), (33, 32), (1, 32), (79, 64), (81, 96)])
def test_another_image_size_is_refused_and_the_nearest_is_named(size: int, near: int) -> None:
    with pytest.raises(
        ValidationError, match=f"{size} is not a multiple of 32; the nearest is {near}"
    ):
        DataConfig(image_size=size)


# timm's own lite0 (tu-) has no last convolution: the package's tensors do not line up with it
@pytest.mark.parametrize("encoder", ["resnet18", "tu-tf_efficientnet_lite0"])
def test_bundled_weights_are_refused_for_an_encoder_that_has_none(encoder: str) -> None:
    with pytest.raises(
        ValidationError, match=f"only fit timm-tf_efficientnet_lite0, not {encoder}"
    ):
        ModelConfig(encoder=encoder)
    assert ModelConfig(encoder=encoder, weights="none").weights == "none"


def test_a_warm_up_as_long_as_its_cycle_is_refused() -> None:
    message = r"warmup_epochs \(4\) must be less than cycle_epochs \(4\)"
    with pytest.raises(ValidationError, match=message):
        CosineRestartsConfig(cycle_epochs=4, warmup_epochs=4)


def test_a_sum_of_no_losses_is_refused() -> None:
    with pytest.raises(ValidationError, match="a sum of no terms: give one of ce, dice"):
        SumConfig(ce=0.0, dice=0.0, ssim=0.0)
    assert SumConfig(ce=0.0, dice=0.0, ssim=0.0, tversky=0.1).term_weights == {"tversky": 0.1}


@pytest.mark.parametrize("classes", [3, None, [], ["paper", 3], {"paper": 1}])
def test_classes_to_paste_are_names(classes: object) -> None:
    with pytest.raises(ValidationError, match="write rare, all, the name of a class, or a list"):
        CopyPasteConfig.model_validate({"classes": classes})
    assert CopyPasteConfig.model_validate({"classes": ["paper"]}).classes == ("paper",)


def test_a_batch_of_one_photo_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        TrainConfig(batch_size=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_learning_rate_is_positive_and_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="decoder_lr"):
        AdamConfig(decoder_lr=value)


def test_a_schedule_that_follows_the_truth_is_refused_where_a_network_teaches() -> None:
    plateau = {"schedule": {"name": "plateau"}}
    assert TrainConfig.model_validate(plateau).pseudo.name == "none"
    with pytest.raises(ValidationError, match="plateau follows the scores on validation photos"):
        TrainConfig.model_validate({**plateau, "pseudo": {"name": "validation"}})


def test_a_folder_of_unlabelled_photos_is_kept_as_an_absolute_path() -> None:
    kept = FolderPseudoConfig(folder="some/photos").folder
    assert kept == str(Path("some/photos").resolve())


@pytest.mark.parametrize("module", ["config", "config_loss", "config_augment", "config_pseudo"])
def test_every_setting_says_what_it_means(module: str) -> None:
    # a sentence under every field; `name` and the sections speak for themselves
    silent = []
    for node in ast.parse((ROOT / "trashseg" / f"{module}.py").read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            value = field.value
            is_section = isinstance(value, ast.Call) and ast.unparse(value.func).endswith(
                ("Config", "Augmentation")
            )
            documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if not (documented or is_section or field.target.id == "name"):
                silent.append(f"{node.name}.{field.target.id}")
    assert silent == []


# --- fingerprint -------------------------------------------------------------------------------


def test_equal_configurations_share_a_fingerprint_of_12_hex_digits() -> None:
    one = TrainConfig(epochs=3, loss=FocalConfig(gamma=1.0))
    other = TrainConfig.model_validate({"loss": {"name": "focal", "gamma": 1}, "epochs": 3})
    assert fingerprint(one) == fingerprint(other)
    assert len(fingerprint(one)) == 12
    int(fingerprint(one), 16)


@pytest.mark.parametrize(
    "changed",
    [
        TrainConfig(seed=1),
        TrainConfig(epochs=99),
        TrainConfig(optim=AdamConfig(decoder_lr=1.001e-3)),
        TrainConfig(optim=SGDConfig()),
        TrainConfig(loss=FocalConfig(gamma=2.0)),
        TrainConfig(data=DataConfig(folds_seed=1)),
        TrainConfig(memory_format="contiguous"),
    ],
)
def test_one_changed_value_changes_the_fingerprint(changed: TrainConfig) -> None:
    assert fingerprint(changed) != fingerprint(TrainConfig())


def test_variants_with_the_same_values_differ_by_their_name() -> None:
    focal, dice_focal = (
        TrainConfig.model_validate({"loss": {"name": name}}) for name in ("dice", "dice_bce")
    )
    assert fingerprint(focal) != fingerprint(dice_focal)


def test_the_crf_settings_have_a_fingerprint_of_their_own() -> None:
    assert fingerprint(CrfConfig()) == fingerprint(CrfConfig(iterations=10))
    assert fingerprint(CrfConfig()) != fingerprint(CrfConfig(iterations=9))
