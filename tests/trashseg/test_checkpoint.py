"""Checkpoints: whole or not there, and refused where they do not fit."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trashseg.averaging import ExponentialAverage, WeightAverage
from trashseg.checkpoint import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    read_weights,
    save_checkpoint,
    write_weights,
)
from trashseg.config import AdamConfig, StepConfig
from trashseg.device import RandomState, random_state, set_random_state
from trashseg.errors import CheckpointError
from trashseg.optim import Schedule, build_optimizer


def make_progress(epochs: int, identity: str = "mine") -> Progress:
    history = [{"epoch": epoch, "loss": 0.5} for epoch in range(1, epochs + 1)]
    return Progress(identity, epochs, {"miou": 0.5, "x": None}, parts=2, history=history)


class Parts:
    """A network small enough to save often, and all that a checkpoint holds beside it."""

    def __init__(self, inputs: int = 2) -> None:
        self.model = nn.Sequential(nn.Linear(inputs, 1), nn.BatchNorm1d(1))
        self.optimizer = build_optimizer(AdamConfig(), self.model)
        self.schedule = Schedule(StepConfig(step_size=1, gamma=0.5), self.optimizer, 9, 1)
        self.average: WeightAverage | None = None

    def step(self) -> None:
        loss = self.model(torch.randn(4, 2)).square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.after_epoch(0.5)
        if self.average:
            self.average.after_step(self.model)

    def save(self, folder: Path, epoch: int = 1, identity: str = "mine") -> Path:
        progress = make_progress(epoch, identity)
        return save_checkpoint(
            folder,
            progress,
            self.model,
            self.optimizer,
            self.schedule,
            self.average,
            self.model.state_dict(),
            random_state(),
            lambda pictures: pictures.mkdir(),
        )

    def load(
        self, path: Path, identity: str = "mine"
    ) -> tuple[Progress, dict[str, Tensor], RandomState]:
        return load_checkpoint(
            path, identity, self.model, self.optimizer, self.schedule, self.average
        )


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
    progress, best, state = again.load(path)
    assert progress == make_progress(1)
    assert progress.epoch == 1
    set_random_state(state)
    assert _same(best, parts.model.state_dict())
    assert _same(again.model.state_dict(), parts.model.state_dict())
    assert torch.equal(torch.rand(3), expected)
    assert [g["lr"] for g in again.optimizer.param_groups] == [0.5e-4, 0.5e-3]  # after one epoch
    for network in (parts, again):
        torch.manual_seed(1)
        network.step()
    assert _same(again.model.state_dict(), parts.model.state_dict())


def test_an_average_comes_back_and_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts, again = Parts(), Parts()
    for network in (parts, again):
        network.average = ExponentialAverage(network.model, decay=0.5)
    parts.step()
    parts.step()
    path = parts.save(tmp_path)
    assert (path / "average.safetensors").is_file()
    again.load(path)
    for network in (parts, again):
        torch.manual_seed(1)
        network.step()
    assert parts.average is not None
    assert again.average is not None
    assert again.average.count == parts.average.count == 3
    assert _same(again.average.network.state_dict(), parts.average.network.state_dict())
    assert not _same(again.average.network.state_dict(), parts.model.state_dict())


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


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_older_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts()
    older = parts.save(tmp_path, epoch=1)
    synced: list[int] = []

    def note(descriptor: int) -> None:
        assert older.exists()
        synced.append(os.fstat(descriptor).st_ino)  # which a renamed folder keeps

    monkeypatch.setattr(os, "fsync", note)
    path = parts.save(tmp_path, epoch=2)
    *inside, checkpoint, folder = synced
    assert sorted(inside) == sorted(entry.stat().st_ino for entry in path.iterdir())
    assert (checkpoint, folder) == (path.stat().st_ino, tmp_path.stat().st_ino)
    assert not older.exists()


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
            make_progress(2),
            parts.model,
            parts.optimizer,
            parts.schedule,
            parts.average,
            {},
            random_state(),
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


# --- a full disk -------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_is_an_oserror_and_leaves_the_checkpoint_before(
    small_disk: Path,
) -> None:
    """Whoever drives the training can wait for room and save again."""
    parts = Parts(inputs=40_000)  # 160 kB of weights, twice
    first = parts.save(small_disk, epoch=1)
    filler = small_disk / "filler"
    for kilobytes in range(0, 320, 40):  # the disk fills up in one file or another
        filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - kilobytes * 1000))
        with pytest.raises(OSError, match="No space left on device") as caught:
            parts.save(small_disk, epoch=2)
        assert caught.value.errno == errno.ENOSPC
        assert sorted(entry.name for entry in small_disk.iterdir()) == ["epoch_0001", "filler"]
        assert parts.load(first)[0].epoch == 1
        filler.unlink()
    second = parts.save(small_disk, epoch=2)
    assert [entry.name for entry in small_disk.iterdir()] == ["epoch_0002"]
    assert parts.load(second)[0].epoch == 2
