"""Rounds of pseudo labels that are interrupted, killed, or asked for other labels: nothing is lost."""

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trashseg.tiny_rounds import (
    CPU,
    folds_of,
    from_folder,
    history,
    same,
    teach,
    train,
)
from trashseg.checkpoint import latest_checkpoint
from trashseg.config import TrainConfig
from trashseg.data.coco import load_coco
from trashseg.errors import CheckpointError
from trashseg.member import member_scores
from trashseg.train import FoldTraining

pytestmark = pytest.mark.slow


class InterruptionError(Exception):
    """What a test raises in the middle of a training."""


def _files(folder: Path) -> dict[str, bytes]:
    """All that a finished fold holds; of histories, which know their seconds, the names. What a kill
    left half written is none of it."""
    return {
        str(path.relative_to(folder)): b"" if path.name == "history.jsonl" else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".partial"
    }


def _assert_equal(one: Path, other: Path) -> None:
    ours, theirs = _files(one), _files(other)
    assert ours.keys() == theirs.keys()
    for name in ours:  # safetensors writes its metadata in any order
        weights_file = name.endswith(".safetensors")
        equal = same(one / name, other / name) if weights_file else ours[name] == theirs[name]
        assert equal, name
    for folder in ("rounds/0", "rounds/1", "."):
        assert history(one / folder) == history(other / folder)


def test_rounds_that_are_interrupted_after_every_epoch_end_as_those_left_alone(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    def stop(metrics: dict[str, Any]) -> None:
        raise InterruptionError(metrics["round"], metrics["epoch"])

    config, stopped = from_folder(unlabelled, rounds=2), []
    train(config, sample, tmp_path / "whole")
    for number in range(6):
        torch.manual_seed(number)  # another process would have another random state
        assert member_scores(tmp_path / "parts", config) is None
        with pytest.raises(InterruptionError) as caught:
            train(config, sample, tmp_path / "parts", on_epoch=stop)
        stopped.append(caught.value.args)
    assert stopped == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    train(config, sample, tmp_path / "parts", on_epoch=stop)  # no epoch is left
    _assert_equal(tmp_path / "parts", tmp_path / "whole")
    before = _files(tmp_path / "whole")
    train(config, sample, tmp_path / "whole", on_epoch=stop)
    assert _files(tmp_path / "whole") == before


def _dying(config: TrainConfig, data: Path, out: Path, change: int) -> int:
    """Train in a process of its own, which dies at that change of a file's or folder's name, as by a
    kill: nothing is tidied up. Its exit code: 9 where it died, 0 where it came to the end before."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    changes = itertools.count(1)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            if next(changes) == change:
                os._exit(9)
            return real(*arguments, **options)

        return operation

    for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    try:
        train(config, data, out)
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_rounds_that_are_killed_at_any_change_of_a_file_end_as_those_left_alone(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    config, whole = from_folder(unlabelled, rounds=2, epochs=1), tmp_path / "whole"
    train(config, sample, whole)
    change, died = 1, 0
    while _dying(config, sample, tmp_path / f"cut{change}", change) == 9:
        train(config, sample, tmp_path / f"cut{change}")
        _assert_equal(tmp_path / f"cut{change}", whole)
        change, died = change + 11, died + 1
    assert died >= 10, "a fold of three rounds changes more than a hundred files"


def test_labels_that_a_kill_took_are_made_again_the_same(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    config = from_folder(unlabelled)
    key = teach(config, sample, tmp_path).key
    shutil.rmtree(tmp_path / "pseudo")
    (tmp_path / "pseudo.partial").mkdir()  # as a kill in the middle of it leaves
    (tmp_path / "pseudo.partial" / "labels.npy").write_bytes(b"half of it")
    assert teach(config, sample, tmp_path).key == key
    assert not (tmp_path / "pseudo.partial").exists()


def test_another_threshold_makes_other_labels_and_keeps_the_teacher(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    config = from_folder(unlabelled)
    key = teach(config, sample, tmp_path).key
    trained = (tmp_path / "rounds" / "0" / "model.safetensors").stat().st_mtime_ns
    harder = config.model_copy(
        update={"pseudo": config.pseudo.model_copy(update={"threshold": 0.8})}
    )
    assert teach(harder, sample, tmp_path).key != key
    assert (tmp_path / "rounds" / "0" / "model.safetensors").stat().st_mtime_ns == trained


def test_a_student_does_not_go_on_with_other_labels(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    config = from_folder(unlabelled)
    labels = teach(config, sample, tmp_path / "one")
    checkpoints = tmp_path / "checkpoints"
    arguments = {"checkpoints": checkpoints, "resources": CPU}
    FoldTraining(config, *folds_of(sample), 0, pseudo=labels, **arguments).next_epoch()
    assert latest_checkpoint(checkpoints)
    shutil.copy(
        load_coco(sample).photos[int(folds_of(sample)[1].split(0)[1][0])].path,
        Path(shutil.copytree(unlabelled, tmp_path / "more")) / "another.jpg",
    )
    more = teach(from_folder(tmp_path / "more"), sample, tmp_path / "two")
    assert len(more.images) == 7
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        FoldTraining(config, *folds_of(sample), 0, pseudo=more, **arguments)
