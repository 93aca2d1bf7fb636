"""Training a fold: resuming proven by equality, folds side by side, and what an epoch may meet."""

import errno
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.trashseg.tiny_training import make_config, numbers, run, same, start
from trashseg.checkpoint import latest_checkpoint
from trashseg.epoch import evaluate
from trashseg.errors import CheckpointError, NonFiniteError
from trashseg.train import FoldTraining

ROOT = Path(__file__).parent.parent.parent


# --- resuming ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ({"name": "adam"}, {"name": "step", "step_size": 1}),
        ({"name": "adamw"}, {"name": "onecycle"}),
        ({"name": "sgd"}, {"name": "plateau", "patience": 0}),
        ({"name": "adam"}, {"name": "cosine_restarts", "cycle_epochs": 2, "warmup_epochs": 0.5}),
        ({"name": "adam"}, {"name": "polynomial"}),
    ],
)
def test_resuming_equals_never_having_stopped(
    optimizer: dict[str, Any], schedule: dict[str, Any], sample: Path, tmp_path: Path
) -> None:
    augment = {"shift_scale_rotate": {"p": 0.7}, "cutout": {"p": 0.5}}
    config = make_config(augment=augment, optim=optimizer, schedule=schedule)
    whole = run(start(config, sample, tmp_path / "whole"))
    for epoch in (1, 2):
        torch.manual_seed(epoch)  # another process would have another random state
        cut = start(config, sample, tmp_path / "cut")
        assert len(cut.history) == epoch - 1
        cut.next_epoch()
    resumed = run(start(config, sample, tmp_path / "cut"))
    assert numbers(resumed) == numbers(whole)
    assert same(resumed.best_model().state_dict(), whole.best_model().state_dict())
    for name in ("model.safetensors", "best.safetensors"):
        one, other = (tmp_path / run / "epoch_0003" / name for run in ("whole", "cut"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"averaging": {"name": "ema", "decay": 0.8}},
        {"averaging": {"name": "swa", "start_share": 0.34}},  # after the first epoch
        {"sampling": {"name": "class_balanced"}},
        {"sampling": {"name": "rare_class", "threshold": 0.5}},
        {"augment": {"copy_paste": {"p": 0.8, "classes": "all"}}},
        {"loss": {"name": "sum", "lovasz": 0.5, "tversky": 0.5, "focal": 0.5}},
    ],
    ids=lambda changes: str(next(iter(changes.values()))),
)
def test_resuming_equals_never_having_stopped_with_each_addition(
    changes: dict[str, Any], sample: Path, tmp_path: Path
) -> None:
    config = make_config(**changes)
    whole = run(start(config, sample, tmp_path / "whole"))
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        start(config, sample, tmp_path / "cut").next_epoch()
    resumed = run(start(config, sample, tmp_path / "cut"))
    assert numbers(resumed) == numbers(whole)
    assert same(resumed.best_model().state_dict(), whole.best_model().state_dict())
    one, other = (tmp_path / run / "epoch_0003" for run in ("whole", "cut"))
    files = sorted(file.name for file in one.glob("*.safetensors"))
    assert ("average.safetensors" in files) == ("averaging" in changes)
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    plain = run(start(make_config(), sample, tmp_path / "plain"))
    assert numbers(plain) != numbers(whole)


@pytest.mark.slow
@pytest.mark.parametrize("averaging", [{"name": "ema"}, {"name": "swa", "start_share": 0.0}])
def test_an_average_is_validated_and_kept_and_changes_nothing_of_the_training(
    averaging: dict[str, Any], sample: Path, tmp_path: Path
) -> None:
    plain = run(start(make_config(), sample, tmp_path / "plain"))
    averaged = run(start(make_config(averaging=averaging), sample, tmp_path / "averaged"))
    assert [m["loss"] for m in averaged.history] == [m["loss"] for m in plain.history]
    assert averaged.history[-1]["val_loss"] != plain.history[-1]["val_loss"]
    checkpoint, other = (tmp_path / run / "epoch_0003" for run in ("averaged", "plain"))
    trained = checkpoint / "model.safetensors"
    assert trained.read_bytes() == (other / "model.safetensors").read_bytes()
    training = averaged._trainer
    assert training.average is not None
    training.average.network.load_state_dict(load_file(checkpoint / "average.safetensors"))
    assert evaluate(training)[0]["miou"] == averaged.history[-1]["miou"]
    at_best = start(make_config(averaging=averaging), sample, tmp_path / "best")
    while len(at_best.history) < averaged.history[-1]["best_epoch"]:
        at_best.next_epoch()
    assert at_best.checkpoint is not None
    kept = load_file(at_best.checkpoint / "average.safetensors")
    assert same(averaged.best_model().state_dict(), kept)


@pytest.mark.slow
def test_folds_that_are_stepped_in_turn_equal_folds_that_run_alone(
    sample: Path, tmp_path: Path
) -> None:
    config = make_config(epochs=2, augment={"cutout": {"p": 0.5}})
    alone = [run(start(config, sample, tmp_path / f"alone{fold}", fold)) for fold in (0, 1)]
    together = [start(config, sample, tmp_path / f"together{fold}", fold) for fold in (0, 1)]
    for _ in range(2):
        for training in together:
            training.next_epoch()
    for one, other in zip(alone, together, strict=True):
        assert numbers(one) == numbers(other)
        assert same(one.best_model().state_dict(), other.best_model().state_dict())
    assert numbers(alone[0]) != numbers(alone[1])


@pytest.mark.slow
def test_a_training_learns_nothing_from_those_before_it_in_its_process(
    sample: Path, tmp_path: Path
) -> None:
    """Trials run one after another in one worker, which reads what they have in common once."""
    config = make_config(epochs=1, model={"weights": "bundled"})
    first = run(start(config, sample, tmp_path / "first"))
    other = make_config(
        epochs=1, model={"weights": "bundled"}, optim={"name": "sgd", "decoder_lr": 0.1}
    )
    run(start(other, sample, tmp_path / "other"))
    last = run(start(config, sample, tmp_path / "last"))
    assert numbers(last) == numbers(first)
    assert same(last.last_weights(), first.last_weights())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_killed_at_random_moments_has_the_history_of_one_left_alone(
    sample: Path, tmp_path: Path
) -> None:
    config = make_config(epochs=6)
    expected = run(start(config, sample, tmp_path / "whole"))
    (tmp_path / "config.json").write_text(config.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from tests.trashseg.tiny_training import run, start\n"
        "from trashseg.config import TrainConfig\n"
        "out, data = map(Path, sys.argv[1:])\n"
        "config = TrainConfig.model_validate_json((out / 'config.json').read_text())\n"
        "training = start(config, data, out / 'cut'); print('ready', flush=True); run(training)\n"
    )
    moments = random.Random(5)
    for _ in range(4):
        command = [sys.executable, "-c", code, str(tmp_path), str(sample)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0.0, 1.5))
            process.send_signal(signal.SIGKILL)
    resumed = run(start(config, sample, tmp_path / "cut"))
    assert numbers(resumed) == numbers(expected)
    assert [entry.name for entry in (tmp_path / "cut").iterdir()] == ["epoch_0006"]


@pytest.mark.slow
def test_what_a_kill_left_beside_the_newest_checkpoint_goes_when_it_is_taken_up(
    sample: Path, tmp_path: Path
) -> None:
    training = run(start(make_config(epochs=2), sample, tmp_path))
    for left in ("epoch_0001", "epoch_0002.partial"):
        (tmp_path / left / "pictures").mkdir(parents=True)
    assert numbers(start(make_config(epochs=2), sample, tmp_path)) == numbers(training)
    assert [entry.name for entry in tmp_path.iterdir()] == ["epoch_0002"]


@pytest.mark.slow
def test_a_changed_configuration_does_not_resume(sample: Path, tmp_path: Path) -> None:
    run(start(make_config(epochs=1), sample, tmp_path))
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        start(make_config(epochs=1, seed=1), sample, tmp_path)


@pytest.mark.slow
def test_an_epoch_that_could_not_be_written_is_written_later_and_not_trained_again(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(epochs=2)
    expected = run(start(config, sample, tmp_path / "whole"))
    training = start(config, sample, tmp_path / "full")
    training.next_epoch()

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("trashseg.train.save_checkpoint", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                training.next_epoch()
            assert len(training.history) == 1
            assert not training.finished
    torch.manual_seed(77)  # whatever else runs in the process meanwhile
    with monkeypatch.context() as patch:
        patch.setattr("trashseg.train.train_epoch", lambda *_: pytest.fail("trained again"))
        training.next_epoch()
    assert numbers(training) == numbers(expected)
    state = json.loads((tmp_path / "full" / "epoch_0002" / "progress.json").read_text())
    assert len(state["history"]) == 2
    one, other = (torch.load(tmp_path / f / "epoch_0002" / "state.pt") for f in ("whole", "full"))
    assert torch.equal(one["random"][0], other["random"][0])


@pytest.mark.slow
def test_the_micro_batch_is_reported_and_comes_back_after_a_resume(
    sample: Path, tmp_path: Path
) -> None:
    training = start(make_config(epochs=2), sample, tmp_path)
    training._trainer.model.register_forward_pre_hook(room_for_four)
    assert training.next_epoch()["micro_batch"] == 4
    assert start(make_config(epochs=2), sample, tmp_path).next_epoch()["micro_batch"] == 4


def room_for_four(model: nn.Module, inputs: tuple[Tensor]) -> None:
    if len(inputs[0]) > 4:
        raise torch.OutOfMemoryError("CUDA out of memory.")


# --- a loss that is not finite -----------------------------------------------------------------


LOWER = "): lower optim.decoder_lr and optim.encoder_lr, or set clip_norm"


def spoil(training: FoldTraining, after_steps: int) -> list[float]:
    """Let no weight be a number after so many further steps; returns the losses of those before, once
    they are taken."""
    optimizer, losses, loss = training._trainer.optimizer, [], training._trainer.loss

    def heard(logits: Tensor, truth: Tensor) -> Tensor:
        value = loss(logits, truth)
        losses.append(value.item())
        return value

    def spoil_weights(*_: object) -> None:
        if len(losses) == after_steps:
            with torch.no_grad():
                next(training._trainer.model.parameters()).fill_(float("nan"))

    training._trainer.loss = heard
    optimizer.register_step_post_hook(spoil_weights)
    return losses


@pytest.mark.parametrize("steps", [1, 2])
def test_a_loss_that_is_not_finite_names_its_step_and_the_last_finite_one_and_saves_nothing(
    steps: int, sample: Path, tmp_path: Path
) -> None:
    """16 photos are 2 steps an epoch: the third loss is that of epoch 2, step 0."""
    training = start(make_config(batch_size=8), sample, tmp_path)
    training.next_epoch()
    saved = [file.read_bytes() for file in sorted((tmp_path / "epoch_0001").glob("*.*"))]
    losses = spoil(training, after_steps=steps)
    with pytest.raises(NonFiniteError) as caught:
        run(training)
    if steps == 1:
        where, before = "epoch 2, step 1", "epoch 2, step 0"
    else:  # after an epoch that ended well, and its validation, which comes after the weights are spoilt
        where, before = "epoch 3, step 0", "epoch 2, step 1"
    assert str(caught.value) == (
        f"{where}: the loss is nan (last finite: {losses[steps - 1]:.4g} in {before}{LOWER}"
    )
    last = f"epoch_000{len(training.history)}"
    assert [entry.name for entry in tmp_path.iterdir()] == [last]
    if steps == 1:
        assert [f.read_bytes() for f in sorted((tmp_path / last).glob("*.*"))] == saved


def test_no_checkpoint_no_history(sample: Path, tmp_path: Path) -> None:
    training = start(make_config(), sample, tmp_path)
    assert training.history == []
    assert training.checkpoint is None is latest_checkpoint(tmp_path)
    assert not training.finished
