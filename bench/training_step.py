"""What our training loop costs beside the bare forward, backward and step, on the same batches.

Single epochs of either differ by a tenth, the loops themselves by much less. What ours costs on top is
therefore the difference of both around a network of one convolution, and is set against a bare step of a
real one.
"""

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.comparison import Bar, Comparison, UnequalResultsError
from bench.timing import seconds_in_turn
from trashseg.config import DataConfig, TrainConfig
from trashseg.data.coco import load_coco
from trashseg.data.folds import make_folds
from trashseg.data.sample import write_sample
from trashseg.device import local_resources
from trashseg.epoch import Trainer, network_inputs, train_epoch
from trashseg.train import build_trainer

SIZE, BATCH, STEPS = 128, 8, 5
ROUNDS, SMALL_ROUNDS = 3, 20
Batches = list[tuple[Tensor, Tensor]]


def run() -> list[Comparison]:
    ours, bare, inputs = prepare()
    check_equal(ours, bare, inputs)
    peer = milliseconds({"bare": lambda: bare_epoch(bare, inputs)}, inputs, ROUNDS)["bare"]
    small, small_bare = shrunk(ours), shrunk(bare)
    check_equal(small, small_bare, inputs)
    loops = milliseconds(
        {"ours": lambda: train_epoch(small, 1), "bare": lambda: bare_epoch(small_bare, inputs)},
        inputs,
        SMALL_ROUNDS,
    )
    return [
        Comparison(
            name="training_step: our loop, against bare forward, backward and step",
            unit="ms per step",
            bar=Bar("<=", 1.03),
            ours=peer + loops["ours"] - loops["bare"],
            peer=peer,
            note=f"FPN on efficientnet-lite0, batch {BATCH}, {SIZE} px, {len(inputs)} prepared batches; "
            "the bare loop's are normalised beforehand; after an epoch mean loss and weights are equal, "
            "bit by bit; ours is the bare step and what our loop takes more than the bare one around a "
            f"network of one convolution, {loops['ours']:.1f} ms against {loops['bare']:.1f}",
        )
    ]


def milliseconds(
    ways: Mapping[str, Callable[[], object]], inputs: Batches, rounds: int
) -> dict[str, float]:
    """Of a step, for each way of doing an epoch."""
    seconds = seconds_in_turn(ways, rounds)
    return {name: 1e3 * taken / len(inputs) for name, taken in seconds.items()}


def shrunk(trainer: Trainer) -> Trainer:
    """The same training of a network with next to nothing to compute."""
    torch.manual_seed(0)
    network = nn.Sequential(OrderedDict(encoder=nn.Conv2d(3, len(trainer.dataset.classes), 1)))
    network.to(memory_format=torch.channels_last)
    return replace(trainer, model=network, optimizer=torch.optim.Adam(network.parameters()))


def prepare() -> tuple[Trainer, Trainer, Batches]:
    """Two equal trainings, the first with its batches drawn; and these as the network gets them."""
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder) / "sample", images=2 * BATCH * STEPS, size=SIZE, seed=0)
        ours, bare = (make_trainer(Path(folder) / "sample") for _ in range(2))
        batches = list(ours.train_loader)
    ours.train_loader = batches  # type: ignore[assignment]
    inputs = [(network_inputs(ours, images), masks.long()) for images, masks in batches]
    return ours, bare, inputs


def make_trainer(sample: Path) -> Trainer:
    config = TrainConfig(batch_size=BATCH, data=DataConfig(image_size=SIZE, folds=2))
    dataset = load_coco(sample)
    on_cpu = replace(local_resources(), device=torch.device("cpu"))
    return build_trainer(config, dataset, make_folds(dataset, config.data), 0, on_cpu)


def check_equal(ours: Trainer, bare: Trainer, inputs: Batches) -> None:
    losses = []
    epochs: list[Callable[[], float]] = [
        lambda: train_epoch(ours, 1), lambda: bare_epoch(bare, inputs)
    ]  # fmt: skip
    for epoch in epochs:
        torch.manual_seed(0)  # of the decoder's dropout
        losses.append(epoch())
    if losses[0] != losses[1]:
        raise UnequalResultsError("training_step: the mean losses differ")
    one, other = ours.model.state_dict(), bare.model.state_dict()
    if not all(torch.equal(one[name], other[name]) for name in one):
        raise UnequalResultsError("training_step: the weights after an epoch differ")


def bare_epoch(trainer: Trainer, inputs: Batches) -> float:
    """The least that trains: the network, cross entropy, the optimizer."""
    total = torch.zeros(())
    for images, target in inputs:
        trainer.optimizer.zero_grad()
        loss = F.cross_entropy(trainer.model(images), target)
        torch.autograd.backward(loss)
        trainer.optimizer.step()
        total += loss.detach()
    return float(total) / len(inputs)
