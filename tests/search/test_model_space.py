"""configs/spaces/model.yaml: every pair of decoder and encoder that it can propose can be built."""

import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from search.space import Space, by_key, key_of, load_space
from trashseg.config import ModelConfig
from trashseg.models import build_model

SPACE = load_space("model")


def encoders_of(space: Space, arch: str) -> list[str]:
    """What `model.encoder` can be where `model.arch` is `arch`."""
    return [
        str(value)
        for path, parameter in space.parameters.items()
        if key_of(path) == "model.encoder" and space.active(path, {"model.arch": arch})
        for value in parameter.choice or ()
    ]


ARCHS = [str(arch) for arch in SPACE.parameters["model.arch"].choice or ()]
PAIRS = [(arch, encoder) for arch in ARCHS for encoder in encoders_of(SPACE, arch)]


def test_the_space_asks_about_these_families() -> None:
    assert {"upernet", "segformer", "unetplusplus", "dpt"} <= set(ARCHS)
    for family in ("tu-hrnet", "tu-convnext", "tu-swin", "tu-vit"):
        assert any(encoder.startswith(family) for _, encoder in PAIRS), family
    assert all(encoders_of(SPACE, arch) for arch in ARCHS)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "encoder"), PAIRS)
def test_every_pair_gives_a_logit_per_class_and_pixel(arch: str, encoder: str) -> None:
    size = 128 if arch == "pan" else 64
    config = ModelConfig.model_validate({"arch": arch, "encoder": encoder, "weights": "none"})
    with torch.inference_mode():
        logits = build_model(config, classes=3).eval()(torch.zeros(1, 3, size, size))
    assert logits.shape == (1, 3, size, size)
    assert torch.isfinite(logits).all()


def test_every_encoder_but_the_bundled_one_has_weights_by_the_name_that_is_proposed() -> None:
    for arch, encoder in PAIRS:
        point = by_key({"model.arch": arch, "model.encoder": encoder})
        if encoder == "timm-tf_efficientnet_lite0":
            assert not SPACE.active("model.weights", point)
            continue
        assert SPACE.active("model.weights", point), encoder
        assert SPACE.parameters["model.weights"].choice == ("imagenet",)
        if encoder.startswith("tu-"):
            assert timm.models.get_pretrained_cfg(encoder.removeprefix("tu-")).hf_hub_id
        else:
            assert "imagenet" in smp.encoders.encoders[encoder]["pretrained_settings"]


def test_photos_are_normalised_as_the_encoders_weights_were_trained() -> None:
    half = (0.5, 0.5, 0.5)
    for arch, encoder in PAIRS:
        if not encoder.startswith("tu-"):
            continue
        mean = timm.models.get_pretrained_cfg(encoder.removeprefix("tu-")).mean
        point = by_key({"model.arch": arch, "model.encoder": encoder})
        assert SPACE.active("data.normalize@half", point) == (mean == half), encoder
        assert SPACE.active("data.normalize", point) == (mean == (0.485, 0.456, 0.406)), encoder
