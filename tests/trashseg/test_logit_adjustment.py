"""Logit adjustment: rare classes count more where that helps on photos that the power was not picked on,
and in the deployed ensemble as it was decided."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.trashseg.written_votes import (
    assert_masks_are_the_truth,
    decided,
    decisions_beside_other_truths,
    gather,
    share_right,
    shy,
    step,
    truth,
    write_votes,
)
from trashseg.assemble import build_ensemble
from trashseg.choice import Choice, Proposals, single
from trashseg.config import CrfConfig
from trashseg.data.coco import CocoDataset, rasterize
from trashseg.data.folds import Folds
from trashseg.device import Resources
from trashseg.fold_models import FoldModel, ballots_of, by_candidate
from trashseg.manifest import read_manifest
from trashseg.oof import read_oof, read_vote
from trashseg.postprocess import rarity

NAME = "logit adjustment"
# Classes are 11.6 to 312 times rarer than the background (test_how_rare_the_classes_are). `shy` says 0.3
# for an object's class, 0.6 for background, 0.01 for each other; for background 0.95.
# 0.25: the commonest class counts 1.85 times: 0.3 * 1.85 < 0.6, it stays background; the next 2.27 times
# 0.5: it counts 3.4 times, the rarest 17.7 times: 0.3 * 3.4 > 0.6 > 0.01 * 17.7: all are right, and
#      background too: 0.95 > 0.0045 * 17.7
# 1: the rarest counts 312 times: 0.0045 * 312 > 0.95, all background is taken for it
POWERS = (0.25, 0.5, 1.0)
ADJUSTED = Proposals(logit_adjustment=POWERS, crf=())


def pixels_of(dataset: CocoDataset) -> NDArray[np.int64]:
    return np.bincount(np.concatenate([rasterize(p).ravel() for p in dataset.photos]), minlength=12)


@pytest.fixture
def shy_models(tmp_path: Path, dataset: CocoDataset, folds: Folds) -> list[FoldModel]:
    return write_votes(tmp_path, 0, dataset, folds, shy)


# --- the factors -------------------------------------------------------------------------------


def test_a_class_counts_as_many_times_as_it_is_rarer_to_the_power() -> None:
    pixels = np.array([100, 25, 1, 100])
    assert rarity(pixels, 1.0) == pytest.approx((1, 4, 100, 1))
    assert rarity(pixels, 0.5) == pytest.approx((1, 2, 10, 1))


def test_a_class_without_a_pixel_counts_once() -> None:
    assert rarity(np.array([100, 0, 4]), 0.5) == pytest.approx((1, 1, 5))


def test_the_vote_for_a_class_is_multiplied_by_its_factor_and_sums_to_one(
    shy_models: list[FoldModel], dataset: CocoDataset, folds: Folds
) -> None:
    factors = tuple(np.linspace(1, 6, 12).tolist())
    ballot = ballots_of(by_candidate(shy_models), dataset, folds)[0]
    choice = Choice((1.0,), class_factors=factors)
    expected = read_oof(ballot.candidates[0][0], ballot.photo).astype(np.float64)
    expected *= np.array(factors)[:, None, None]
    expected /= expected.sum(axis=0)
    got = read_vote(ballot, choice.effective_weights, choice.views)
    np.testing.assert_allclose(got, expected, atol=1e-6)


# --- whether it is kept ------------------------------------------------------------------------


def test_how_rare_the_classes_are(dataset: CocoDataset) -> None:
    pixels = pixels_of(dataset)
    times = pixels.max() / pixels
    assert (np.argmax(pixels), np.sort(times)[1], times.max()) == (
        0, pytest.approx(11.6, abs=0.1), pytest.approx(312, abs=1)
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["miou", "miou_image"])
def test_classes_that_always_lose_to_the_background_are_raised(
    shy_models: list[FoldModel],
    dataset: CocoDataset,
    folds: Folds,
    pool: ThreadPoolExecutor,
    metric: str,
) -> None:
    evidence = gather(pool, shy_models, dataset, folds)
    decision = decided(evidence, ADJUSTED, metric)
    assert [step.name for step in decision.steps] == ["selection", "tta", NAME, "crf"]
    taken = step(decision, NAME)
    assert taken.kept
    assert decision.choice == Choice((1.0,), class_factors=rarity(pixels_of(dataset), 0.5))
    assert share_right(evidence, decision.choice) == 1


def test_votes_that_are_right_as_they_are_stay_so(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, truth)
    decision = decided(gather(pool, models, dataset, folds), ADJUSTED)
    assert step(decision, NAME).describe()["why"].startswith("nothing was found that differs")
    assert decision.choice == single(0, 1)


def test_it_is_not_tried_without_powers(
    shy_models: list[FoldModel], dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    decision = decided(gather(pool, shy_models, dataset, folds), Proposals(crf=()))
    assert [step.name for step in decision.steps] == ["selection", "tta", "crf"]
    assert decision.choice == single(0, 1)


def test_the_truth_of_a_fold_has_no_part_in_the_factors_that_it_is_scored_with(
    shy_models: list[FoldModel], dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    decisions = decisions_beside_other_truths(pool, shy_models, dataset, folds, ADJUSTED)
    assert all(decision.choice.class_factors for decision in decisions[: folds.count])


# --- deployed ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_chosen_is_reported_deployed_and_in_the_masks(
    shy_models: list[FoldModel], dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    out, resources = tmp_path / "ensemble", Resources(1, torch.device("cpu"))
    nothing = CrfConfig(gaussian_weight=0.0, bilateral_weight=0.0)
    proposals = Proposals(logit_adjustment=POWERS, crf=(nothing,))
    build_ensemble(shy_models, dataset, folds, out, proposals, "miou", resources)
    factors = rarity(pixels_of(dataset), 0.5)
    report = json.loads((out / "post.json").read_text())
    assert report["tried"]["logit_adjustment"] == list(POWERS)
    assert report["chosen"]["class_factors"] == list(factors)
    assert report["chosen"]["weights"] == [1.0]
    metrics = json.loads((out / "metrics.json").read_text())
    assert {step["step"]: step["kept"] for step in metrics["steps"]} == {
        "selection": False, "tta": False, NAME: True, "crf": False
    }  # fmt: skip
    assert metrics["oof"]["soft_vote"]["miou"] == 1
    assert {m.folder: m.weight for m in read_manifest(out).members} == {
        f"../0/{fold}": pytest.approx(tuple(factor / 4 for factor in factors)) for fold in range(4)
    }
    assert_masks_are_the_truth(out, dataset)
