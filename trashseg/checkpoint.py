"""Checkpoints that are whole or not there: weights as safetensors, the rest of the state beside them.

CHECKPOINTS/epoch_0007/model.safetensors   weights after epoch 7
                       best.safetensors    weights after the best epoch so far
                       average.safetensors average of the weights, where one is taken
                       state.pt            optimizer, schedule, length of the average, random state
                       progress.json       metrics of all epochs, the best one, whose checkpoint it is
                       pictures/           photo | truth | prediction after epoch 7
"""

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from trashseg.averaging import WeightAverage
from trashseg.device import RandomState
from trashseg.errors import CheckpointError
from trashseg.files import new_folder, sync, sync_all
from trashseg.optim import Schedule

FULL = os.strerror(errno.ENOSPC)
ROOM_FOR_A_BLOCK = 2**20  # bytes; a disk with less is full

CHECKPOINTS = "checkpoints"  # their folder in a fold's

UNREADABLE = (  # what torch and safetensors raise on a file that is not whole, or not theirs
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    RuntimeError,
    SafetensorError,
    pickle.UnpicklingError,
)


@dataclass(frozen=True)
class Progress:
    """How far a training run is; `identity` tells whose it is (configuration, data, fold)."""

    identity: str
    best_epoch: int = 0
    best_scores: dict[str, Any] | None = None
    parts: int = 1
    """That a batch is worked through in, where the memory of the device asks for it."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Metrics of each epoch, oldest first."""

    @property
    def epoch(self) -> int:
        return len(self.history)


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    average: WeightAverage | None,
    best: dict[str, torch.Tensor],
    random_state: RandomState,
    write_pictures: Callable[[Path], None],
) -> Path:
    """Write folder/epoch_NNNN, by a rename once all of it is on the disk; drop the older ones.

    A process that is killed, or a machine that loses power, leaves the older one or this one whole.
    Raises OSError (ENOSPC) where the disk is full; the older one is still there then.
    """
    final = folder / f"epoch_{progress.epoch:04d}"
    with new_folder(final, replace=True) as partial, full_disk_is_an_oserror(folder):
        write_weights(partial / "model.safetensors", model.state_dict())
        write_weights(partial / "best.safetensors", best)
        if average:
            write_weights(partial / "average.safetensors", average.network.state_dict())
        state = {
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "averaged": average.count if average else 0,
            "random": random_state,
        }
        torch.save(state, partial / "state.pt")
        (partial / "progress.json").write_text(json.dumps(asdict(progress)))
        write_pictures(partial / "pictures")
        sync_all(partial)
    sync(folder)  # in which it was renamed
    keep_only(final)
    return final


def keep_only(checkpoint: Path) -> None:
    """Delete what is beside it: older ones, and half of a newer one where a kill came while it was
    written."""
    for other in checkpoint.parent.glob("epoch_*"):
        if other != checkpoint:
            shutil.rmtree(other)


@contextmanager
def full_disk_is_an_oserror(folder: Path) -> Iterator[None]:
    """Each library says it in its own way: SafetensorError, RuntimeError of torch."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if shutil.disk_usage(folder).free > ROOM_FOR_A_BLOCK and FULL not in str(error):
            raise
        raise OSError(errno.ENOSPC, FULL, str(folder)) from error


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint under `folder`, None where there is none."""
    return max((path for path in folder.glob("epoch_????")), default=None)


def load_checkpoint(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    average: WeightAverage | None,
) -> tuple[Progress, dict[str, torch.Tensor], RandomState]:
    """Put everything back as it was; returns the progress, the best weights so far, and the random
    state at the epoch's end.

    Raises CheckpointError where the checkpoint is damaged or belongs to another run.
    """
    try:
        progress = Progress(**json.loads((path / "progress.json").read_text()))
        state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        best = load_file(path / "best.safetensors")
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: is damaged ({error}): delete it to start over") from None
    if progress.identity != identity:
        raise CheckpointError(
            f"{path}: belongs to another configuration, dataset or fold: "
            "use the same ones, or another --out"
        )
    read_weights(path / "model.safetensors", model)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    if average:
        read_weights(path / "average.safetensors", average.network)
        average.count = state["averaged"]
    return progress, best, state["random"]


def write_weights(path: Path, state: dict[str, torch.Tensor], **metadata: str) -> None:
    """Atomic safetensors file."""
    partial = path.with_name(path.name + ".partial")
    save_file({name: value.contiguous() for name, value in state.items()}, partial, metadata)
    partial.replace(path)


def read_weights(path: Path, model: nn.Module) -> dict[str, str]:
    """Load a safetensors file into `model`, every name and shape must match; returns its metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}): train it again") from None
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: does not fit its configuration ({problem})") from None
    return dict(metadata)
