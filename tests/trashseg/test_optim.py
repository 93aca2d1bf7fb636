"""Optimizers: two groups with a rate each, hand-computed first steps, and a contract for all."""

import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from trashseg.config import AdamConfig, AdamWConfig, OptimConfig, SGDConfig, TrainConfig
from trashseg.config_file import sections_of
from trashseg.optim import OPTIMIZERS, build_optimizer

VARIANTS = sections_of(TrainConfig.model_fields["optim"].annotation)


class Network(nn.Module):
    """One weight of 1 in each part that a segmentation network has."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(1, 1, bias=False)
        self.decoder = nn.Linear(1, 1, bias=False)
        self.segmentation_head = nn.Linear(1, 1, bias=False)
        for weight in self.parameters():
            nn.init.ones_(weight)


def _set_gradients(network: nn.Module, value: float) -> None:
    for weight in network.parameters():
        weight.grad = torch.full_like(weight, value)


def _after_one_step(config: OptimConfig, gradient: float) -> tuple[float, float]:
    """Encoder's and decoder's weight, 1 before, after one step."""
    network = Network()
    optimizer = build_optimizer(config, network)
    _set_gradients(network, gradient)
    optimizer.step()
    assert torch.equal(network.decoder.weight, network.segmentation_head.weight)
    return network.encoder.weight.item(), network.decoder.weight.item()


def test_every_optimizer_that_a_configuration_can_name_exists() -> None:
    assert set(VARIANTS) == set(OPTIMIZERS)


@pytest.fixture(params=sorted(OPTIMIZERS))
def config(request: pytest.FixtureRequest) -> Any:
    return VARIANTS[request.param].model_validate(
        {"name": request.param, "encoder_lr": 0.01, "decoder_lr": 0.1, "weight_decay": 0.5}
    )


def test_the_encoder_is_one_group_and_all_the_rest_the_other(config: OptimConfig) -> None:
    network = Network()
    encoder, decoder = build_optimizer(config, network).param_groups
    assert (encoder["name"], encoder["lr"], encoder["weight_decay"]) == ("encoder", 0.01, 0.5)
    assert (decoder["name"], decoder["lr"], decoder["weight_decay"]) == ("decoder", 0.1, 0.5)
    assert [id(p) for p in encoder["params"]] == [id(network.encoder.weight)]
    others = [id(network.decoder.weight), id(network.segmentation_head.weight)]
    assert [id(p) for p in decoder["params"]] == others


def test_each_part_moves_at_its_own_rate(config: Any) -> None:
    without_decay = config.model_copy(update={"weight_decay": 0.0})
    encoder, decoder = _after_one_step(without_decay, gradient=1.0)
    assert encoder < 1
    assert (1 - decoder) / (1 - encoder) == pytest.approx(10.0, rel=1e-3)


def test_a_state_that_went_through_a_file_takes_the_same_next_step(config: OptimConfig) -> None:
    def steps(network: Network, optimizer: Optimizer, gradients: list[float]) -> None:
        for gradient in gradients:
            _set_gradients(network, gradient)
            optimizer.step()

    network = Network()
    optimizer = build_optimizer(config, network)
    steps(network, optimizer, [1.0, -3.0, 0.5])
    file = io.BytesIO()
    torch.save((network.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    steps(network, optimizer, [2.0, -1.0])

    again = Network()
    restored = build_optimizer(config, again)
    again.load_state_dict(weights)
    restored.load_state_dict(state)
    steps(again, restored, [2.0, -1.0])
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


# --- first steps by hand -----------------------------------------------------------------------


def test_sgd_without_momentum_follows_the_gradient() -> None:
    config = SGDConfig(encoder_lr=0.01, decoder_lr=0.1, momentum=0.0, weight_decay=0.0)
    assert _after_one_step(config, gradient=2.0) == pytest.approx((1 - 0.02, 1 - 0.2))


def test_sgd_with_momentum_is_nesterovs() -> None:
    # velocity 2, step = gradient + momentum * velocity = 2 + 0.5 * 2
    config = SGDConfig(encoder_lr=0.01, decoder_lr=0.1, momentum=0.5, weight_decay=0.0)
    assert _after_one_step(config, gradient=2.0) == pytest.approx((1 - 0.03, 1 - 0.3))


def test_sgds_decay_is_a_penalty_in_the_gradient() -> None:
    config = SGDConfig(encoder_lr=0.01, decoder_lr=0.1, momentum=0.0, weight_decay=0.5)
    # gradient 0 + 0.5 * weight 1
    assert _after_one_step(config, gradient=0.0) == pytest.approx((1 - 0.005, 1 - 0.05))


def test_adams_first_step_is_its_rate_whatever_the_gradient() -> None:
    config = AdamConfig(encoder_lr=0.01, decoder_lr=0.1, weight_decay=0.0)
    assert _after_one_step(config, gradient=7.0) == pytest.approx((0.99, 0.9))
    # the penalty is part of the gradient, so it alone makes a full step
    decayed = AdamConfig(encoder_lr=0.01, decoder_lr=0.1, weight_decay=0.5)
    assert _after_one_step(decayed, gradient=0.0) == pytest.approx((0.99, 0.9))


def test_adamws_decay_is_apart_from_the_gradient() -> None:
    config = AdamWConfig(encoder_lr=0.01, decoder_lr=0.1, weight_decay=0.5)
    # weight * (1 - rate * decay)
    assert _after_one_step(config, gradient=0.0) == pytest.approx((1 - 0.005, 1 - 0.05))
