"""Checkpoints: whole or not there, refused where they do not fit, and resuming proven by equality."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trashseg.checkpoint import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    read_weights,
    save_checkpoint,
    write_weights,
)
from trashseg.config import AdamConfig, StepConfig, TrainConfig
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.errors import CheckpointError
from trashseg.optim import Schedule, build_optimizer
from trashseg.train import Resources, train

RESOURCES = Resources(cpus=1, device=torch.device("cpu"))


class Parts:
    """A network small enough to save often, and all that a checkpoint holds beside it."""

    def __init__(self, inputs: int = 2) -> None:
        self.model = nn.Sequential(nn.Linear(inputs, 1), nn.BatchNorm1d(1))
        self.optimizer = build_optimizer(AdamConfig(), self.model)
        self.schedule = Schedule(StepConfig(step_size=1, gamma=0.5), self.optimizer, 9, 1)

    def step(self) -> None:
        loss = self.model(torch.randn(4, 2)).square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.after_epoch(0.5)

    def save(self, folder: Path, epoch: int = 1, identity: str = "mine") -> Path:
        progress = Progress(identity, epoch, best_epoch=epoch, best_scores={"miou": 0.5, "x": None})
        best = self.model.state_dict()
        parts = (self.model, self.optimizer, self.schedule)
        return save_checkpoint(folder, progress, *parts, best, lambda pictures: pictures.mkdir())

    def load(self, path: Path, identity: str = "mine") -> tuple[Progress, dict[str, Tensor]]:
        return load_checkpoint(path, identity, self.model, self.optimizer, self.schedule)


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


# --- saved and loaded --------------------------------------------------------------------------


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = Parts()
    parts.step()
    path = parts.save(tmp_path)
    expected = torch.rand(3)  # the random state is part of a checkpoint
    torch.manual_seed(9)
    again = Parts()
    progress, best = again.load(path)
    assert progress == Progress("mine", 1, 1, {"miou": 0.5, "x": None})
    assert _same(best, parts.model.state_dict())
    assert _same(again.model.state_dict(), parts.model.state_dict())
    assert torch.equal(torch.rand(3), expected)
    assert [g["lr"] for g in again.optimizer.param_groups] == [0.5e-4, 0.5e-3]  # after one epoch
    for network in (parts, again):
        torch.manual_seed(1)
        network.step()
    assert _same(again.model.state_dict(), parts.model.state_dict())


def test_a_checkpoint_holds_what_its_description_lists(tmp_path: Path) -> None:
    path = Parts().save(tmp_path, epoch=7)
    assert path == tmp_path / "epoch_0007"
    assert {entry.name for entry in path.iterdir()} == {
        "model.safetensors",
        "best.safetensors",
        "state.pt",
        "progress.json",
        "pictures",
    }


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    parts = Parts()
    for epoch in (9, 10, 11):
        parts.save(tmp_path, epoch)
    assert [entry.name for entry in tmp_path.iterdir()] == ["epoch_0011"]
    assert latest_checkpoint(tmp_path) == tmp_path / "epoch_0011"


def test_saving_an_epoch_again_replaces_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = Parts()
    parts.save(tmp_path)
    parts.step()
    path = parts.save(tmp_path)
    again = Parts()
    again.load(path)
    assert _same(again.model.state_dict(), parts.model.state_dict())


# --- whole or not there ------------------------------------------------------------------------


def test_where_nothing_was_saved_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "none") is None


def test_a_save_that_fails_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    parts = Parts()
    parts.save(tmp_path, epoch=1)

    def full_disk(pictures: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(
            tmp_path,
            Progress("mine", 2),
            parts.model,
            parts.optimizer,
            parts.schedule,
            {},
            full_disk,
        )
    assert latest_checkpoint(tmp_path) == tmp_path / "epoch_0001"
    assert Parts().load(tmp_path / "epoch_0001")[0].epoch == 1
    assert parts.save(tmp_path, epoch=2) == latest_checkpoint(tmp_path)  # over what was left
    assert [entry.name for entry in tmp_path.iterdir()] == ["epoch_0002"]


def test_a_partial_folder_is_ignored(tmp_path: Path) -> None:
    Parts().save(tmp_path, epoch=1)
    (tmp_path / "epoch_0002.partial").mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "epoch_0001"


# --- refused -----------------------------------------------------------------------------------


def test_a_checkpoint_of_another_run_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = Parts().save(tmp_path, identity="theirs")
    parts = Parts()
    before = {name: value.clone() for name, value in parts.model.state_dict().items()}
    with pytest.raises(CheckpointError, match="belongs to another configuration, dataset or fold"):
        parts.load(path, identity="mine")
    assert _same(parts.model.state_dict(), before)


@pytest.mark.parametrize("file", ["progress.json", "state.pt", "best.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "other"])
def test_a_damaged_checkpoint_says_so(file: str, damage: str, tmp_path: Path) -> None:
    path = Parts().save(tmp_path)
    content = (path / file).read_bytes()
    (path / file).unlink()
    if damage != "missing":
        kept = {"empty": b"", "half": content[: len(content) // 2], "other": b"hello"}[damage]
        (path / file).write_bytes(kept)
    with pytest.raises(
        CheckpointError, match=r"epoch_0001: is damaged .*: delete it to start over"
    ):
        Parts().load(path)


def test_progress_with_unknown_keys_is_damage(tmp_path: Path) -> None:
    path = Parts().save(tmp_path)
    (path / "progress.json").write_text(json.dumps({"identity": "mine", "step": 3}))
    with pytest.raises(CheckpointError, match="is damaged"):
        Parts().load(path)


# --- single files of weights -------------------------------------------------------------------


def test_weights_and_their_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved, loaded = Parts(), Parts()
    write_weights(path, saved.model.state_dict(), arch="fpn", fold="3")
    assert read_weights(path, loaded.model) == {"arch": "fpn", "fold": "3"}
    assert _same(loaded.model.state_dict(), saved.model.state_dict())
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_weights_in_another_memory_layout_come_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved, loaded = (nn.Conv2d(3, 4, 3) for _ in range(2))
    saved.to(memory_format=torch.channels_last)
    write_weights(path, saved.state_dict())
    read_weights(path, loaded)
    assert _same(loaded.state_dict(), saved.state_dict())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "a.safetensors", Parts(inputs=3).model.state_dict())
    with pytest.raises(CheckpointError, match=r"a\.safetensors: does not fit its configuration"):
        read_weights(tmp_path / "a.safetensors", Parts(inputs=2).model)


@pytest.mark.parametrize("content", [None, b"", b"not weights"])
def test_weights_that_cannot_be_read_are_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: cannot be read"):
        read_weights(path, Parts().model)


# --- resuming ----------------------------------------------------------------------------------


class KilledError(Exception):
    """What a scheduler that takes the machine away looks like."""


def _train(
    config: TrainConfig, data: Path, folder: Path, stop_after: int = 99, resume: Path | None = None
) -> tuple[list[dict[str, Any]], dict[str, Tensor], Progress]:
    dataset = load_coco(data)
    reports: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], checkpoint: Path) -> None:
        reports.append({name: value for name, value in metrics.items() if name != "seconds"})
        if len(reports) == stop_after:
            raise KilledError

    progress, model = train(
        config,
        dataset,
        stratify(dataset, count=5, seed=0),
        fold=0,
        report=report,
        checkpoints=folder,
        resources=RESOURCES,
        resume_from=resume,
    )
    return reports, model.state_dict(), progress


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
    config = TrainConfig.model_validate(
        {
            "epochs": 3,
            "batch_size": 4,
            "data": {"image_size": 64},
            "augment": {"shift_scale_rotate": {"p": 0.7}, "cutout": {"p": 0.5}},
            "optim": optimizer,
            "schedule": schedule,
        }
    )
    reports, weights, progress = _train(config, sample, tmp_path / "whole")
    with pytest.raises(KilledError):
        _train(config, sample, tmp_path / "cut", stop_after=1)
    checkpoint = latest_checkpoint(tmp_path / "cut")
    torch.manual_seed(123)  # another process would have another random state
    later, resumed, resumed_progress = _train(config, sample, tmp_path / "cut", resume=checkpoint)
    assert later == reports[1:]
    assert resumed_progress == progress
    assert _same(resumed, weights)
    for name in ("model.safetensors", "best.safetensors"):
        one, other = (tmp_path / run / "epoch_0003" / name for run in ("whole", "cut"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_changed_configuration_does_not_resume(sample: Path, tmp_path: Path) -> None:
    tree = {"epochs": 1, "batch_size": 4, "data": {"image_size": 64}}
    _train(TrainConfig.model_validate(tree), sample, tmp_path)
    changed = TrainConfig.model_validate({**tree, "seed": 1})
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        _train(changed, sample, tmp_path, resume=latest_checkpoint(tmp_path))
