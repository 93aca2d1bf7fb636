"""Rounds of pseudo labels: what a round is, and that no truth that should be hidden gets in."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from tests.trashseg.tiny_rounds import (
    CPU,
    SURE_ENOUGH,
    folds_of,
    from_folder,
    history,
    same,
    teach,
    tiniest_config,
    train,
)
from trashseg.config import EMAConfig, TrainConfig
from trashseg.config_pseudo import ValidationPseudoConfig
from trashseg.data.coco import load_coco
from trashseg.data.folds import Folds
from trashseg.data.pseudo_labels import PseudoLabels
from trashseg.errors import CheckpointError, DataError
from trashseg.member import load_member, member_scores, probabilities, train_member
from trashseg.rounds import train_teachers
from trashseg.train import FoldTraining

pytestmark = pytest.mark.slow


# --- what a round is ---------------------------------------------------------------------------


def test_without_pseudo_labels_it_is_the_training_of_a_member(sample: Path, tmp_path: Path) -> None:
    config = tiniest_config()
    train(config, sample, tmp_path / "rounds")
    train_member(config, *folds_of(sample), 0, tmp_path / "member", CPU)
    one, other = tmp_path / "rounds", tmp_path / "member"
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    assert same(one / "model.safetensors", other / "model.safetensors")
    for name in ("metrics.json", "config.yaml", "folds.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_each_round_lies_in_its_folder_and_the_last_one_is_the_member(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    config, heard = from_folder(unlabelled, rounds=2), []
    scores = train(
        config, sample, tmp_path, on_epoch=lambda m: heard.append((m["round"], m["epoch"]))
    )
    assert heard == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert member_scores(tmp_path, config)["miou"] == scores["miou"]
    assert load_member(tmp_path, CPU.device).config == config
    folders = [tmp_path / "rounds" / "0", tmp_path / "rounds" / "1", tmp_path]
    for number, folder in enumerate(folders):
        assert len(history(folder)) == 2
        assert (folder / "last.safetensors").is_file() == (number < 2)
        kept = [path.name for path in (folder / "pseudo").glob("*")]
        assert kept == (["photos.json"] if number else [])
    for one, other in [(0, 1), (1, 2), (0, 2)]:
        assert not same(folders[one] / "model.safetensors", folders[other] / "model.safetensors")


def test_the_first_round_is_a_member_that_trains_all_epochs(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    _, folds = folds_of(sample)
    data = with_other_truth(
        sample, tmp_path / "data", folds.split(0)[1]
    )  # its best epoch is the first
    dataset, members = load_coco(data), {}
    for patience in (0, 1):
        config, out = tiniest_config(epochs=3, patience=patience), tmp_path / str(patience)
        train_member(config, dataset, folds, 0, out, CPU)
        members[patience] = out
    assert [len(history(out)) for out in members.values()] == [3, 2]
    impatient = from_folder(unlabelled, epochs=3, patience=1)
    train_teachers(impatient, dataset, folds, 0, tmp_path / "out", CPU)
    first = tmp_path / "out" / "rounds" / "0"
    assert history(first) == history(members[0])
    assert same(first / "model.safetensors", members[0] / "model.safetensors")


def test_labels_are_what_the_last_weights_of_the_round_before_say(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    labels = teach(from_folder(unlabelled), sample, tmp_path)
    teacher = load_member(tmp_path / "rounds" / "0", CPU.device, "last.safetensors")
    for position in range(6):
        softmax = probabilities(teacher, [np.array(labels.images[position])], CPU.device)[0].numpy()
        np.testing.assert_array_equal(labels.labels[position], softmax.argmax(axis=0))
        # 255 at 0.9, 0 at 0.1
        expected = 255 * ((softmax.max(axis=0) - 0.1) / 0.8).clip(0, 1)
        np.testing.assert_allclose(labels.weights[position], expected, atol=0.6)
    assert 20 < labels.weights.mean() < 235, "a test of soft weights needs some"
    assert len(np.unique(labels.labels)) > 1


def test_the_last_weights_of_an_average_are_the_average(sample: Path, tmp_path: Path) -> None:
    config = tiniest_config(averaging=EMAConfig(decay=0.8))
    training = FoldTraining(config, *folds_of(sample), 0, checkpoints=tmp_path, resources=CPU)
    training.next_epoch()
    assert training.checkpoint is not None
    average = load_file(training.checkpoint / "average.safetensors")
    trained = load_file(training.checkpoint / "model.safetensors")
    last = training.last_weights()
    assert all(torch.equal(last[name], average[name]) for name in average)
    assert not all(torch.equal(last[name], trained[name]) for name in trained)


def test_a_loss_stays_finite_where_nine_photos_in_ten_are_pseudo_labelled(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    # most pixels are ignored, whole photos now and then
    loss = {
        "name": "sum",
        "ce": 0.5,
        "lovasz": 0.5,
        "tversky": 0.5,
        "focal": 0.5,
        "per_image": True,
    }
    config = from_folder(unlabelled, batch_size=2)
    pseudo = {**config.pseudo.model_dump(), "share": 0.9, "least_sure": 0.0}
    config = TrainConfig.model_validate({**config.model_dump(), "loss": loss, "pseudo": pseudo})
    train(config, sample, tmp_path)
    assert all(np.isfinite(row["loss"]) for row in history(tmp_path))


# --- no truth that should be hidden ------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """All of a fold's rounds that is not the choice of an epoch by the score on validation photos."""

    labels: PseudoLabels
    last_weights: Path
    teacher: Path
    trained: list[float]
    scores: list[float]


def outcome(config: TrainConfig, data: Path, folds: Folds, out: Path) -> Outcome:
    dataset = load_coco(data)
    labels = train_teachers(config, dataset, folds, 0, out, CPU)
    assert labels is not None
    student = FoldTraining(config, dataset, folds, 0, checkpoints=out, resources=CPU, pseudo=labels)
    while not student.finished:
        student.next_epoch()
    assert student.checkpoint is not None
    numbers = student.history
    return Outcome(
        labels,
        student.checkpoint / "model.safetensors",
        out / "rounds" / "0",
        [m["loss"] for m in numbers],
        [m["val_loss"] for m in numbers],
    )


def with_other_truth(data: Path, copy: Path, positions: NDArray[np.int64]) -> Path:
    """Every object of these photos becomes one of another class that covers all of the photo."""
    names = {load_coco(data).photos[position].id for position in positions}
    shutil.copytree(data, copy)
    tree = json.loads((copy / "train_all.json").read_text())
    for annotation in tree["annotations"]:
        if annotation["image_id"] in names:
            annotation["category_id"] = 1
            annotation["segmentation"] = [[0, 0, 64, 0, 64, 64, 0, 64]]
    (copy / "train_all.json").write_text(json.dumps(tree))
    return copy


@pytest.mark.parametrize("source", ["folder", "validation"])
def test_the_truth_of_validation_photos_changes_no_label_and_no_weight(
    sample: Path, unlabelled: Path, tmp_path: Path, source: str
) -> None:
    config = from_folder(unlabelled, rounds=2)
    if source == "validation":
        pseudo = ValidationPseudoConfig(rounds=2, **SURE_ENOUGH)
        config = config.model_copy(update={"pseudo": pseudo})
    _, folds = folds_of(sample)  # strata are made from all truth: the same folds for both
    other_truth = with_other_truth(sample, tmp_path / "data", folds.split(0)[1])
    first = outcome(config, sample, folds, tmp_path / "first")
    other = outcome(config, other_truth, folds, tmp_path / "other")
    assert first.labels.key == other.labels.key
    np.testing.assert_array_equal(first.labels.labels, other.labels.labels)
    np.testing.assert_array_equal(first.labels.weights, other.labels.weights)
    np.testing.assert_array_equal(first.labels.positions, other.labels.positions)
    assert first.trained == other.trained
    assert same(first.last_weights, other.last_weights)
    # the other truth is another one: it scores otherwise and chooses another epoch of the teacher
    assert first.scores != other.scores
    chosen = [
        json.loads((run.teacher / "metrics.json").read_text())["best_epoch"]
        for run in (first, other)
    ]
    assert chosen == [2, 1]
    assert not same(first.teacher / "model.safetensors", other.teacher / "model.safetensors")


def test_the_truth_of_a_training_photo_does_change_them(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    _, folds = folds_of(sample)
    other_truth = with_other_truth(sample, tmp_path / "data", folds.split(0)[0][:3])
    first = outcome(from_folder(unlabelled), sample, folds, tmp_path / "first")
    other = outcome(from_folder(unlabelled), other_truth, folds, tmp_path / "other")
    assert first.labels.key != other.labels.key
    assert not same(first.last_weights, other.last_weights)


def test_copies_of_training_photos_are_not_labelled_and_change_nothing(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    dataset, folds = folds_of(sample)
    mixed = Path(shutil.copytree(unlabelled, tmp_path / "mixed"))
    seen = folds.split(0)[0][:4]
    for position in seen:
        shutil.copy(dataset.photos[position].path, mixed / f"copy_{position:02d}.jpg")
    without = teach(from_folder(unlabelled), sample, tmp_path / "without")
    labels = teach(from_folder(mixed), sample, tmp_path / "with")
    about = json.loads((tmp_path / "with" / "pseudo" / "photos.json").read_text())
    assert about["show_training_photos"] == sorted(f"copy_{position:02d}.jpg" for position in seen)
    np.testing.assert_array_equal(labels.labels, without.labels)
    np.testing.assert_array_equal(labels.images, without.images)
    # the networks of the other fold are not trained on those photos: they may label them
    assert set(seen) <= set(folds.split(1)[1])
    assert len(teach(from_folder(mixed), sample, tmp_path / "fold1", fold=1).images) == 10


def test_a_teacher_that_was_trained_for_another_fold_is_refused(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    teach(from_folder(unlabelled), sample, tmp_path, fold=1)
    with pytest.raises(
        CheckpointError, match=r"rounds/0: was trained on other photos or for another"
    ):
        train(from_folder(unlabelled), sample, tmp_path)


def test_a_teacher_that_was_trained_on_other_folds_is_refused(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    config, (dataset, folds) = from_folder(unlabelled), folds_of(sample)
    teach(config, sample, tmp_path)
    swapped = folds.fold_of.copy()
    one, other = (int(folds.split(0)[side][0]) for side in (0, 1))
    swapped[[one, other]] = swapped[[other, one]]
    with pytest.raises(CheckpointError, match="was trained on other photos or for another fold"):
        train_teachers(config, dataset, Folds(swapped, folds.count), 0, tmp_path, CPU)


# --- what cannot be ----------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_refused_before_anything_is_trained(
    sample: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder: check pseudo\.folder"):
        train(from_folder(tmp_path / "nowhere"), sample, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_is_sure_of_nothing_ends_the_rounds_and_another_threshold_goes_on(
    sample: Path, unlabelled: Path, tmp_path: Path
) -> None:
    config = from_folder(unlabelled)
    too_hard = {"threshold": 1.0, "band": 0.0, "least_sure": 1.0}
    hard = config.model_copy(update={"pseudo": config.pseudo.model_copy(update=too_hard)})
    with pytest.raises(DataError, match=r"^pseudo\.least_sure: the network is sure of 0\.\d+ of"):
        train(hard, sample, tmp_path)
    heard: list[int] = []
    train(config, sample, tmp_path, on_epoch=lambda m: heard.append(m["round"]))
    assert heard == [1, 1]
