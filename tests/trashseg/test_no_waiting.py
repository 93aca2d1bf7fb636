"""No step of an epoch waits for the device.

A meta tensor has a shape and no values: whoever asks for one (item, bool, tolist, nonzero, a copy to the
host) gets an error where on a GPU he would wait. So losses and steps run on `meta`, with every
optimizer, schedule and average, and must ask for nothing. On CPUs nobody waits, and counting reads
there would count what lies in the host's memory on a GPU too: Adam's number of steps, for one.
"""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trashseg.averaging import AVERAGES
from trashseg.config import TrainConfig
from trashseg.config_file import sections_of
from trashseg.data.coco import IGNORED, load_coco
from trashseg.data.folds import stratify
from trashseg.device import Resources
from trashseg.epoch import Trainer, average_epoch, train_steps
from trashseg.losses import LOSSES, Loss, build_loss
from trashseg.optim import OPTIMIZERS, SCHEDULES
from trashseg.train import build_trainer

META = torch.device("meta")
EVERY_TERM = {"ce": 0.5, "dice": 0.5, "ssim": 0.5, "focal": 0.5, "lovasz": 0.5, "tversky": 0.5}
LOSS_SETTINGS: list[dict[str, Any]] = [
    *({"name": name} for name in sorted(LOSSES)),
    {"name": "sum", **EVERY_TERM, "per_image": True, "class_weights": "inverse"},
    {"name": "focal", "class_weights": "inverse"},
]
# as many as there are schedules, so that each of the others comes at least once
AVERAGING = cycle({"name": name} for name in sorted(AVERAGES))
STEP_SETTINGS: list[dict[str, Any]] = [
    {"schedule": {"name": schedule}, "optim": {"name": optim}, "averaging": average, "clip_norm": c}
    for schedule, optim, average, c in zip(
        sorted(SCHEDULES), cycle(sorted(OPTIMIZERS)), AVERAGING, cycle((0.0, 1.0)), strict=False
    )
]
every_loss = pytest.mark.parametrize("settings", LOSS_SETTINGS, ids=str)
every_step = pytest.mark.parametrize("settings", STEP_SETTINGS, ids=str)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="waiting for a GPU needs one")


def make_loss(settings: dict[str, Any], device: torch.device) -> Loss:
    variants = sections_of(TrainConfig.model_fields["loss"].annotation)
    config = variants[settings["name"]].model_validate(settings)
    return build_loss(config, np.array([40, 8, 2]), device)  # type: ignore[arg-type]


@pytest.fixture(params=["whole", "partly", "none"])
def truth(request: pytest.FixtureRequest) -> Tensor:
    """(2, 12, 12) uint8 as a loader gives it: labelled in each pixel, in some, in none."""
    masks = torch.randint(0, 3, (2, 12, 12), generator=torch.Generator().manual_seed(1)).byte()
    ignored = {"whole": 0, "partly": 7, "none": 12}[request.param]
    masks[:, :ignored] = IGNORED
    return masks


@every_loss
def test_no_loss_asks_the_device_for_anything(settings: dict[str, Any], truth: Tensor) -> None:
    logits = torch.randn(2, 3, 12, 12, device=META, requires_grad=True)
    torch.autograd.backward(make_loss(settings, META)(logits, truth))
    assert logits.grad is not None


@every_loss
def test_a_truth_may_have_any_integer_type(settings: dict[str, Any], truth: Tensor) -> None:
    loss = make_loss(settings, torch.device("cpu"))
    logits = torch.randn(2, 3, 12, 12)
    assert torch.equal(loss(logits, truth), loss(logits, truth.long()))


def make_trainer(sample: Path, device: torch.device, **changes: Any) -> Trainer:
    tree = {"batch_size": 8, "data": {"image_size": 64}, "model": {"weights": "none"}}
    config = TrainConfig.model_validate({**tree, "epochs": 3, **changes})
    dataset = load_coco(sample)
    return build_trainer(config, dataset, stratify(dataset, 5, 0), 0, Resources(1, device))


@every_step
def test_no_step_asks_the_device_for_anything(settings: dict[str, Any], sample: Path) -> None:
    trainer = make_trainer(sample, META, **settings)
    trainer.model.train()
    losses = train_steps(trainer, epoch=3)
    average_epoch(trainer, epoch=3)
    assert losses.shape == (2,)  # 16 training photos in batches of 8
    assert losses.device == META
    assert (trainer.average is None) == (settings["averaging"]["name"] == "none")


class Curious(nn.Module):
    """Looks at what it was given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.network(images)) * float(images.amax())


def test_a_step_that_asks_is_found_out(sample: Path) -> None:
    trainer = make_trainer(sample, META)
    trainer.model = Curious(trainer.model)
    with pytest.raises(RuntimeError, match="meta tensors"):
        train_steps(trainer, epoch=1)


@on_a_gpu
@every_loss
def test_no_loss_waits_for_the_gpu(settings: dict[str, Any], truth: Tensor) -> None:
    cuda = torch.device("cuda")
    loss, logits = make_loss(settings, cuda), torch.randn(2, 3, 12, 12, device=cuda)
    logits.requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.backward(loss(logits, truth.pin_memory()))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_a_gpu
@every_step
def test_no_step_waits_for_the_gpu(settings: dict[str, Any], sample: Path) -> None:
    trainer = make_trainer(sample, torch.device("cuda"), **settings)
    trainer.model.train()
    train_steps(trainer, epoch=1)  # what libraries set up when they are first used
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = train_steps(trainer, epoch=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(losses).all()
