"""A step of a training: what it does with too little memory, its precision, compiled kernels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trashseg.tiny_training import RESOURCES, make_config
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.epoch import Trainer, add_gradients, predict_batch, split_further, train_step
from trashseg.errors import MemoryShortError
from trashseg.train import build_trainer

# --- memory ------------------------------------------------------------------------------------


class SmallMemory(nn.Module):
    """A network on a device that has room for so many photos at once."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return torch.as_tensor(self.network(images))


def make_trainer(sample: Path, room: int, **changes: Any) -> Trainer:
    dataset = load_coco(sample)
    folds = stratify(dataset, count=5, seed=0)
    trainer = build_trainer(make_config(**changes), dataset, folds, 0, RESOURCES)
    torch.manual_seed(0)
    trainer.model = SmallMemory(nn.Conv2d(3, len(dataset.classes), 3, padding=1), room)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    return trainer


@pytest.fixture
def batch(sample: Path) -> tuple[Tensor, Tensor]:
    images, masks = next(iter(make_trainer(sample, room=8).train_loader))
    return images, masks


def test_a_batch_in_parts_gives_the_gradients_of_the_whole(
    sample: Path, batch: tuple[Tensor, Tensor]
) -> None:
    """For cross entropy without class weights, and a network without batch normalisation."""
    gradients = []
    for parts in (1, 2, 4, 3):  # of eight photos: 8, 4 + 4, 2 + 2 + 2 + 2, 3 + 3 + 2
        trainer = make_trainer(sample, room=8)
        trainer.parts = parts
        loss = add_gradients(trainer, *batch)
        assert loss is not None
        gradients.append((loss, [p.grad for p in trainer.model.parameters()]))
    for loss, gradient in gradients[1:]:
        torch.testing.assert_close(loss, gradients[0][0])
        torch.testing.assert_close(gradient, gradients[0][1])


def test_out_of_memory_halves_the_micro_batch_until_it_fits_and_keeps_it(
    sample: Path, batch: tuple[Tensor, Tensor]
) -> None:
    trainer = make_trainer(sample, room=3)
    steps = []
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    assert trainer.micro_batch == 8
    train_step(trainer, *batch, where="epoch 1, step 0")
    assert trainer.micro_batch == 2
    train_step(trainer, *batch, where="epoch 1, step 1")
    assert isinstance(trainer.model, SmallMemory)
    assert trainer.model.sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert len(steps) == 2  # one a batch, as configured


def test_validation_that_runs_out_of_memory_goes_on_in_parts_too(
    sample: Path, batch: tuple[Tensor, Tensor]
) -> None:
    whole = make_trainer(sample, room=8)
    answer = predict_batch(whole, batch[0])
    assert answer is not None
    trainer = make_trainer(sample, room=4)
    assert predict_batch(trainer, batch[0]) is None
    split_further(trainer, 8, where="validation")
    in_parts = predict_batch(trainer, batch[0])
    assert in_parts is not None
    torch.testing.assert_close(in_parts, answer)


def test_a_batch_that_fits_in_no_parts_is_a_clear_error(
    sample: Path, batch: tuple[Tensor, Tensor]
) -> None:
    trainer = make_trainer(sample, room=1)
    message = (
        r"^epoch 4, step 2: 2 photos of 32 px do not fit the GPU's memory with linknet on "
        r"tu-test_resnet: lower data\.image_size, choose a smaller model, or give"
    )
    with pytest.raises(MemoryShortError, match=message):
        train_step(trainer, *batch, where="epoch 4, step 2")


# --- precision and compiled kernels ------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "convolutions", "products"),
    [
        ("auto", "tf32", "ieee"),
        ("float32", "none", "ieee"),  # none: as the layers above have it, which is no TF32
        ("tf32", "tf32", "tf32"),
        ("bfloat16", "tf32", "ieee"),
    ],
)
def test_a_trainers_precision_holds_in_its_process_whatever_was_asked_for_before(
    precision: str, convolutions: str, products: str, sample: Path
) -> None:
    make_trainer(sample, room=8, precision="float32" if precision == "tf32" else "tf32")
    make_trainer(sample, room=8, precision=precision)
    assert torch.backends.cudnn.conv.fp32_precision == convolutions  # type: ignore[attr-defined]
    assert torch.backends.cudnn.allow_tf32 == (convolutions == "tf32")
    assert torch.backends.cuda.matmul.fp32_precision == products


def test_a_network_can_be_exported_after_a_training_in_exact_float32(sample: Path) -> None:
    make_trainer(sample, room=8, precision="float32")
    exported = torch.export.export(nn.Conv2d(3, 1, 1), (torch.zeros(1, 3, 4, 4),))
    assert exported.module()(torch.ones(1, 3, 4, 4)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_is_compiled_where_that_is_asked_for_and_its_average_never(
    compiled: bool, sample: Path
) -> None:
    """Compiling itself comes with the first batch, and would take minutes here."""
    dataset = load_coco(sample)
    config = make_config(compile=compiled, averaging={"name": "ema"})
    trainer = build_trainer(config, dataset, stratify(dataset, 5, 0), 0, RESOURCES)
    assert trainer.average is not None
    plain = build_trainer(make_config(), dataset, stratify(dataset, 5, 0), 0, RESOURCES)
    assert trainer.model.state_dict().keys() == plain.model.state_dict().keys()
    assert (trainer.model._compiled_call_impl is not None) == compiled
    assert trainer.average.network._compiled_call_impl is None
