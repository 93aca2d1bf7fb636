"""An encoder that is frozen for some epochs: what stays, what moves, and that resuming is exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trashseg.tiny_training import make_config, numbers, run, same, start
from trashseg.config import TrainConfig
from trashseg.train import FoldTraining

pytestmark = pytest.mark.slow


def frozen(for_epochs: int, **changes: Any) -> TrainConfig:
    model = {"weights": "none", "freeze_encoder_epochs": for_epochs}
    return make_config(**{"model": model, **changes})


def state_of(training: FoldTraining, part: str) -> dict[str, Tensor]:
    """Weights and batch statistics of the encoder or the decoder, as they are now."""
    module = training._trainer.model.get_submodule(part)
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize(
    "optim",
    [
        {"name": "adam", "weight_decay": 0.1},
        {"name": "adamw", "weight_decay": 0.1},
        {"name": "sgd", "weight_decay": 0.1},
    ],
    ids=lambda optim: optim["name"],
)
def test_a_frozen_encoder_stays_and_moves_in_the_first_epoch_after(
    optim: dict[str, Any], sample: Path, tmp_path: Path
) -> None:
    training = start(frozen(1, optim=optim, epochs=2), sample, tmp_path)
    encoder, decoder = state_of(training, "encoder"), state_of(training, "decoder")
    training.next_epoch()
    assert same(state_of(training, "encoder"), encoder)
    assert not same(state_of(training, "decoder"), decoder)
    training.next_epoch()
    after = state_of(training, "encoder")
    moved = {name for name in after if not torch.equal(after[name], encoder[name])}
    network = training._trainer.model.get_submodule("encoder")
    classifiers = ("conv_head", "bn2")  # lite0 has them, and no decoder asks for them
    used = {name for name, _ in network.named_parameters() if not name.startswith(classifiers)}
    assert used <= moved
    assert any(name.endswith("running_mean") for name in moved)


def test_an_encoder_that_is_frozen_throughout_never_moves(sample: Path, tmp_path: Path) -> None:
    training = start(frozen(7, epochs=2), sample, tmp_path)
    before = state_of(training, "encoder")
    run(training)
    assert same(state_of(training, "encoder"), before)


def test_resuming_equals_never_having_stopped_while_frozen_and_after(
    sample: Path, tmp_path: Path
) -> None:
    config = frozen(2, epochs=4, schedule={"name": "step", "step_size": 1})
    whole = run(start(config, sample, tmp_path / "whole"))
    for epoch in (1, 2, 3):  # cut while frozen, at the end of it, and after
        torch.manual_seed(epoch)
        cut = start(config, sample, tmp_path / "cut")
        assert len(cut.history) == epoch - 1
        cut.next_epoch()
    resumed = run(start(config, sample, tmp_path / "cut"))
    assert numbers(resumed) == numbers(whole)
    for name in ("model.safetensors", "best.safetensors"):
        one, other = (tmp_path / run / "epoch_0004" / name for run in ("whole", "cut"))
        assert one.read_bytes() == other.read_bytes()


def test_a_frozen_training_is_not_that_of_a_free_one(sample: Path, tmp_path: Path) -> None:
    free, held = (
        run(start(frozen(count, epochs=1), sample, tmp_path / str(count))) for count in (0, 1)
    )
    assert numbers(free) != numbers(held)
