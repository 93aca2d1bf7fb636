"""What each step after training brings alone, on votes whose worth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trashseg.written_votes import (
    blind,
    noisy,
    shifted,
    shy,
    softmax,
    truth,
    write_votes,
)
from trashseg.config import CrfConfig, TtaConfig
from trashseg.data.coco import CocoDataset, Photo, rasterize
from trashseg.data.folds import Folds, stratify
from trashseg.device import Resources, local_resources
from trashseg.fold_scores import FoldScores, score_folds, score_selection, score_steps

PLAIN = TtaConfig()
CRF = CrfConfig()


@pytest.fixture(scope="module")
def folds(dataset: CocoDataset) -> Folds:
    return stratify(dataset, 2, 0)


@pytest.fixture(scope="module")
def one_cpu() -> Resources:
    return replace(local_resources(), cpus=1)


def test_scores_are_of_each_folds_photos_and_of_all_at_once() -> None:
    first = np.array([[[3, 1], [0, 0]]])  # IoU 3/4 and 0/1
    second = np.array([[[0, 0], [0, 4]], [[2, 0], [0, 2]]])  # 2/2 and 6/6
    scores = score_folds({0: first, 1: second}, ["background", "paper"])
    assert scores.by_fold[0]["miou"] == pytest.approx(0.375)
    assert scores.by_fold[1]["miou"] == pytest.approx(1.0)
    assert scores.pooled["miou"] == pytest.approx((5 / 6 + 6 / 7) / 2)
    assert (scores.by_fold[1]["images"], scores.pooled["images"]) == (2, 3)


def test_a_crf_and_views_are_each_scored_without_the_other(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, one_cpu: Resources
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, noisy(0.3))
    found = score_steps(models, PLAIN, (), CRF, "miou", dataset, folds, one_cpu)
    assert found["tta"] == found["plain"], "the only view is the plain one"
    assert found["logit_adjustment"] == found["plain"], "there is no power"
    assert found["crf"].pooled["miou"] > found["plain"].pooled["miou"] + 0.1
    assert sorted(found["plain"].by_fold) == [0, 1]


def test_a_power_is_chosen_for_a_fold_on_the_other_one(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, one_cpu: Resources
) -> None:
    """In fold 0 objects lose to the background, in fold 1 all is right as long as nothing is raised:
    so fold 1 is raised, to its harm, and fold 0 is not."""
    models = [
        *write_votes(tmp_path / "a", 0, dataset, folds, shy)[:1],
        *write_votes(tmp_path / "b", 0, dataset, folds, easily_led)[1:],
    ]
    found = score_steps(models, PLAIN, (0.5,), CRF, "miou", dataset, folds, one_cpu)
    plain, adjusted = found["plain"].by_fold, found["logit_adjustment"].by_fold
    assert adjusted[0] == plain[0]
    assert adjusted[1]["miou"] < plain[1]["miou"] == 1


def easily_led(photo: Photo) -> NDArray[np.float16]:
    """The truth, just ahead of every other class."""
    return softmax(rasterize(photo), 0.1)


def test_two_that_each_see_a_half_are_better_together_than_the_best_of_them(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, one_cpu: Resources
) -> None:
    votes = (blind(left=True), blind(left=False), shifted)
    models = [
        model
        for candidate, vote in enumerate(votes)
        for model in write_votes(tmp_path, candidate, dataset, folds, vote)
    ]
    found = score_selection(models, "miou", dataset, folds, one_cpu)
    miou = {name: scores.pooled["miou"] for name, scores in found.items()}
    assert miou["best_single"] < miou["equal_vote"] <= miou["selection"]


def test_what_is_best_is_chosen_for_a_fold_on_the_other_one(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, one_cpu: Resources
) -> None:
    """Each of two knows one fold's photos; so each is chosen for the fold that it does not know."""
    knows_0 = [
        *write_votes(tmp_path / "a", 0, dataset, folds, truth)[:1],
        *write_votes(tmp_path / "b", 0, dataset, folds, shifted)[1:],
    ]
    knows_1 = [
        *write_votes(tmp_path / "c", 1, dataset, folds, shifted)[:1],
        *write_votes(tmp_path / "d", 1, dataset, folds, truth)[1:],
    ]
    found = score_selection([*knows_0, *knows_1], "miou", dataset, folds, one_cpu)
    wrong = alone(tmp_path / "e", dataset, folds, one_cpu)
    assert found["best_single"] == wrong
    assert found["selection"] == wrong


def alone(folder: Path, dataset: CocoDataset, folds: Folds, resources: Resources) -> FoldScores:
    models = write_votes(folder, 0, dataset, folds, shifted)
    return score_steps(models, PLAIN, (), CRF, "miou", dataset, folds, resources)["plain"]
