"""Which photos went well and which are disputed, from votes and masks that are written by hand."""

from pathlib import Path

import numpy as np
import pytest

from tests.trashseg.written_votes import truth, write_votes
from trashseg.choice import Choice
from trashseg.config import CrfConfig
from trashseg.data.coco import CocoDataset, Photo, load_coco, rasterize
from trashseg.data.folds import stratify
from trashseg.disputed import (
    Vote,
    mean_iou,
    probability,
    read_mask,
    rescaled,
    score_photo,
    votes_of,
)
from trashseg.errors import CheckpointError
from trashseg.manifest import read_manifest, write_manifest
from trashseg.pictures import encode_mask, write_mask
from trashseg.weighting import sum_of

Labels = np.ndarray


def inverted_left(photo: Photo) -> Labels:
    """Another class than the truth on the left half of the photo."""
    labels = rasterize(photo)
    return np.where(np.arange(labels.shape[1]) < 32, (labels + 1) % 12, labels)


@pytest.fixture
def dataset(sample: Path) -> CocoDataset:
    return load_coco(sample)


@pytest.fixture
def votes(dataset: CocoDataset, tmp_path: Path) -> list[Vote]:
    """Two candidates: one says the truth with 0.6, the other does so on the right half alone."""
    folds = stratify(dataset, 2, 0)
    models = [
        *write_votes(tmp_path, 0, dataset, folds, truth),
        *write_votes(tmp_path, 1, dataset, folds, inverted_left),
    ]
    out = tmp_path / "ensemble"
    with_crf = Choice((0.75, 0.25), crf=CrfConfig())
    members = {m.folder: (0.75, 0.25)[m.candidate] / 2 for m in models}
    write_manifest(out, out, members, dataset.classes, with_crf, "soft_vote")
    return votes_of(out, read_manifest(out), dataset, folds)


def test_each_photo_is_voted_on_by_the_members_of_its_fold(
    votes: list[Vote], tmp_path: Path
) -> None:
    assert len(votes) == 20
    for vote in votes:
        fold = str(vote.ballot.fold)
        assert vote.ballot.candidates == (
            (tmp_path / "0" / fold,), (tmp_path / "1" / fold,)
        )  # fmt: skip
        assert vote.weights == pytest.approx((0.75, 0.25))


def test_weights_by_class_are_rescaled_class_by_class() -> None:
    assert rescaled([(0.1, 0.3), (0.3, 0.3)], np.ones(2)) == (
        pytest.approx((0.25, 0.5)), pytest.approx((0.75, 0.5))
    )  # fmt: skip


def test_a_class_counts_as_much_in_each_folds_vote_as_in_the_whole_ensemble() -> None:
    """The second one counts four times; of two folds each has a half of both."""
    of_a_fold = [(0.125, 0.5), (0.375, 1.5)]
    whole = sum_of([*of_a_fold, *of_a_fold])
    assert whole.tolist() == [1, 4]
    assert rescaled(of_a_fold, whole) == (pytest.approx((0.25, 1)), pytest.approx((0.75, 3)))


def test_disagreement_is_the_share_of_pixels_with_several_classes(
    votes: list[Vote], tmp_path: Path
) -> None:
    right, empty = tmp_path / "right", tmp_path / "empty"
    for vote in votes:
        photo = vote.ballot.photo
        write_mask(right, photo.file_name, encode_mask(rasterize(photo)))
        write_mask(empty, photo.file_name, encode_mask(np.zeros((64, 64), np.uint8)))
    scores = score_photo(votes[0], right, empty, classes=12)
    assert scores.iou == 1.0
    assert scores.iou_other < 1.0
    assert scores.disagreement == 0.5
    # right half: both say 0.6. Left: 0.75 * 0.6 + 0.25 * 0.4 / 11
    left = 0.45 + 0.1 / 11
    assert scores.doubt == pytest.approx(1 - (0.6 + left) / 2, abs=1e-3)


def test_the_probability_is_that_of_the_likeliest_class(votes: list[Vote]) -> None:
    found = probability(votes[0])
    assert found.shape == (64, 64)
    assert found[:, 40:] == pytest.approx(np.full((64, 24), 0.6), abs=1e-3)


def test_views_that_were_deleted_are_not_asked_for(votes: list[Vote]) -> None:
    assert {vote.views for vote in votes} == {("identity_1",)}


def test_the_iou_of_a_photo_is_the_mean_over_classes_that_are_there() -> None:
    # class 0: 6 of 6 + 2 + 0; class 1: 2 right, 2 said to be 0; class 2 is nowhere
    counts = np.array([[6, 0, 0], [2, 2, 0], [0, 0, 0]])
    assert mean_iou(counts) == pytest.approx((6 / 8 + 2 / 4) / 2)


def test_a_mask_that_is_missing_says_what_to_do(votes: list[Vote], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="build the ensemble again"):
        read_mask(tmp_path / "nowhere", votes[0].ballot.photo)
