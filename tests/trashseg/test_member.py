"""A trained fold on disk: whole, honest about its photos, trained once, and resumable."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.trashseg.trained_folds import Trained, tiny_config
from trashseg.data.coco import load_coco, rasterize, read_photo
from trashseg.data.folds import make_folds, read_folds
from trashseg.device import Resources
from trashseg.errors import CheckpointError, TrashSegError
from trashseg.fold_models import FoldModel
from trashseg.member import load_member, member_scores, probabilities, train_member
from trashseg.oof import read_oof

CPU = Resources(1, torch.device("cpu"))
pytestmark = pytest.mark.slow


def _iou_by_hand(truth: np.ndarray, predicted: np.ndarray, classes: int) -> list[float | None]:
    found: list[float | None] = []
    for index in range(classes):
        union = ((truth == index) | (predicted == index)).sum()
        hits = ((truth == index) & (predicted == index)).sum()
        found.append(float(hits / union) if union else None)
    return found


def _history(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class InterruptionError(Exception):
    """What a test raises in the middle of a training."""


def test_a_finished_fold_holds_what_its_description_says(trained: Trained) -> None:
    for model in trained.models:
        assert {path.name for path in model.folder.iterdir()} - {"oof_views"} == {
            *("config.yaml", "folds.json", "history.jsonl", "metrics.json", "model.safetensors"),
            *("oof", "pictures"),
        }  # other tests may have asked for views
        assert len(_history(model.folder)) == 1
        assert list((model.folder / "pictures").glob("*.png"))
        again = read_folds(model.folder / "folds.json", trained.dataset)
        np.testing.assert_array_equal(again.fold_of, trained.folds.fold_of)


def test_metrics_json_has_the_scores_the_best_epoch_and_the_fold(trained: Trained) -> None:
    for model in trained.models:
        metrics = json.loads((model.folder / "metrics.json").read_text())
        assert set(metrics) == {
            *("miou", "miou_image", "pixel_accuracy", "iou", "images", "best_epoch", "fold")
        }
        assert tuple(metrics["iou"]) == trained.dataset.classes
        assert metrics["images"] == 10
        assert metrics["best_epoch"] == 1
        assert metrics["fold"] == model.fold


def test_the_softmax_kept_is_of_exactly_the_photos_not_trained_on(trained: Trained) -> None:
    for model in trained.models:
        held_out = {trained.dataset.photos[i].id for i in trained.folds.split(model.fold)[1]}
        assert {int(path.stem) for path in (model.folder / "oof").iterdir()} == held_out
        size = model.config.data.image_size
        for photo in trained.dataset.photos:
            if photo.id not in held_out:
                continue
            softmax = read_oof(model.folder, photo)
            assert softmax.shape == (12, size, size)
            assert softmax.dtype == np.float16
            np.testing.assert_allclose(softmax.astype(float).sum(axis=0), 1, atol=5e-3)


def test_the_scores_are_those_of_the_softmax_kept(trained: Trained) -> None:
    model = trained.models[0]  # at 64 pixels, the photos' own size
    photos = [trained.dataset.photos[i] for i in trained.folds.split(model.fold)[1]]
    predicted = np.stack([read_oof(model.folder, photo).argmax(axis=0) for photo in photos])
    truth = np.stack([rasterize(photo) for photo in photos])
    metrics = json.loads((model.folder / "metrics.json").read_text())
    by_class = _iou_by_hand(truth, predicted, 12)
    assert list(metrics["iou"].values()) == pytest.approx(by_class)
    assert metrics["miou"] == pytest.approx(np.mean([v for v in by_class if v is not None]))
    by_photo = [
        np.mean([v for v in _iou_by_hand(t, p, 12) if v is not None])
        for t, p in zip(truth, predicted, strict=True)
    ]
    assert metrics["miou_image"] == pytest.approx(np.mean(by_photo))
    assert metrics["pixel_accuracy"] == pytest.approx((truth == predicted).mean())


def test_a_loaded_member_gives_the_softmax_that_it_gave_when_trained(trained: Trained) -> None:
    for model in trained.models:
        member = load_member(model.folder, trained.resources.device)
        assert member.classes == trained.dataset.classes
        assert member.category_ids == tuple(range(11))
        assert member.fold == model.fold
        photo = trained.dataset.photos[int(trained.folds.split(model.fold)[1][0])]
        softmax = probabilities(member, [read_photo(photo.path)], trained.resources.device)
        expected = read_oof(model.folder, photo).astype(np.float32)
        np.testing.assert_allclose(softmax[0].numpy(), expected, atol=2e-3)


def test_a_fold_that_exists_is_not_trained_again(trained: Trained) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("trained again")

    model = trained.models[0]
    before = (model.folder / "model.safetensors").stat().st_mtime_ns
    again = train_member(
        model.config, trained.dataset, trained.folds, 0, model.folder, CPU, on_epoch=refuse
    )
    assert again == member_scores(model.folder, model.config)
    assert again == json.loads((model.folder / "metrics.json").read_text())
    assert (model.folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_with_another_configuration_is_refused_and_left_alone(trained: Trained) -> None:
    model = trained.models[0]
    before = (model.folder / "config.yaml").read_bytes()
    other = tiny_config(64, seed=1)
    with pytest.raises(CheckpointError, match="holds a fold of another configuration: choose"):
        train_member(other, trained.dataset, trained.folds, 0, model.folder, CPU)
    assert (model.folder / "config.yaml").read_bytes() == before


def test_training_that_was_interrupted_ends_where_the_uninterrupted_ends(
    sample: Path, tmp_path: Path
) -> None:
    config, dataset = tiny_config(32, epochs=4), load_coco(sample)
    folds = make_folds(dataset, config.data)

    def stop_in_second_epoch(metrics: dict[str, Any]) -> None:
        if metrics["epoch"] == 2:
            raise InterruptionError

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_member(config, dataset, folds, 1, whole, CPU)
    with pytest.raises(InterruptionError):
        train_member(config, dataset, folds, 1, parts, CPU, on_epoch=stop_in_second_epoch)
    assert member_scores(parts, config) is None
    assert not (parts / "metrics.json").exists()
    epochs: list[int] = []
    train_member(
        config, dataset, folds, 1, parts, CPU, on_epoch=lambda metrics: epochs.append(metrics["epoch"])
    )  # fmt: skip
    assert epochs == [3, 4]
    assert _history(parts) == _history(whole)
    assert (parts / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (parts, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_history_without_a_checkpoint_is_started_anew(sample: Path, tmp_path: Path) -> None:
    config, dataset = tiny_config(32), load_coco(sample)
    (tmp_path / "history.jsonl").write_text('{"epoch": 1}\n')
    train_member(config, dataset, make_folds(dataset, config.data), 0, tmp_path, CPU)
    assert [row["epoch"] for row in _history(tmp_path)] == [1]


def test_a_fold_killed_after_its_last_checkpoint_is_finished_without_an_epoch(
    sample: Path, tmp_path: Path
) -> None:
    config, dataset = tiny_config(32), load_coco(sample)
    folds, out = make_folds(dataset, config.data), tmp_path / "out"

    def stop(_: object) -> None:
        raise InterruptionError

    with pytest.raises(InterruptionError):
        train_member(config, dataset, folds, 0, out, CPU, on_epoch=stop)
    for name in ("config.yaml", "folds.json", "history.jsonl"):
        (out / name).unlink()  # as if killed before they were written
    scores = train_member(config, dataset, folds, 0, out, CPU, on_epoch=stop)
    assert member_scores(out, config)["miou"] == scores["miou"]
    assert load_member(out, torch.device("cpu")).fold == 0


def test_checkpoints_that_a_kill_kept_from_being_deleted_go_the_next_time(
    sample: Path, tmp_path: Path
) -> None:
    config, dataset = tiny_config(32), load_coco(sample)
    folds, left = make_folds(dataset, config.data), tmp_path / "checkpoints" / "epoch_0001"
    scores = train_member(config, dataset, folds, 0, tmp_path, CPU)
    left.mkdir(parents=True)
    (left / "state.pt").write_bytes(b"what is left of it")
    assert train_member(config, dataset, folds, 0, tmp_path, CPU)["miou"] == scores["miou"]
    assert not left.parent.exists()


@pytest.mark.parametrize(
    ("changes", "fold", "message"),
    [
        ({}, 2, "fold 2: there are folds 0 to 1: choose one of them"),
        ({"batch_size": 11}, 0, "batch_size: 11 is more than the 10 training photos of fold 0"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(
    sample: Path, tmp_path: Path, changes: dict[str, Any], fold: int, message: str
) -> None:
    config, dataset = tiny_config(32, **changes), load_coco(sample)
    folds = make_folds(dataset, config.data)
    with pytest.raises(TrashSegError, match=message):
        train_member(config, dataset, folds, fold, tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()


# --- damaged -----------------------------------------------------------------------------------


@pytest.fixture
def broken(trained: Trained, tmp_path: Path) -> FoldModel:
    """A copy of a trained fold that a test may damage."""
    model = trained.models[2]
    folder = Path(shutil.copytree(model.folder, tmp_path / "fold"))
    return FoldModel(model.candidate, model.fold, folder, model.config)


def test_a_fold_that_is_not_finished_is_not_loaded(broken: FoldModel) -> None:
    (broken.folder / "metrics.json").unlink()
    assert member_scores(broken.folder, broken.config) is None
    with pytest.raises(CheckpointError, match="holds no finished fold: train it with"):
        load_member(broken.folder, torch.device("cpu"))


def test_damaged_weights_are_named(broken: FoldModel) -> None:
    path = broken.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        CheckpointError, match=r"model.safetensors: cannot be read .*train it again"
    ):
        load_member(broken.folder, torch.device("cpu"))


@pytest.mark.parametrize("kept", [None, 0, 500], ids=["missing", "empty", "cut off"])
def test_a_damaged_vote_is_named(trained: Trained, broken: FoldModel, kept: int | None) -> None:
    photo = trained.dataset.photos[int(trained.folds.split(broken.fold)[1][0])]
    path = broken.folder / "oof" / f"{photo.id}.npz"
    if kept is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"{photo.id}.npz: cannot be read .*retrain"):
        read_oof(broken.folder, photo)
