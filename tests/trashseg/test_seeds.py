"""A configuration that was trained with several seeds votes with the mean of them all."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trashseg.written_votes import gather, guesses, noisy, write_votes
from trashseg.assemble import build_ensemble
from trashseg.choice import Proposals, equal_vote, single
from trashseg.config import CrfConfig
from trashseg.config_file import write_yaml
from trashseg.data.coco import CocoDataset
from trashseg.data.folds import Folds, stratify
from trashseg.device import Resources
from trashseg.errors import CheckpointError
from trashseg.evidence import sample_photo
from trashseg.fold_models import FoldModel, ballots_of, by_candidate
from trashseg.fold_scores import score_vote
from trashseg.manifest import read_manifest
from trashseg.oof import read_oof, read_vote

CPU = Resources(1, torch.device("cpu"))


@pytest.fixture(scope="module")
def folds(dataset: CocoDataset) -> Folds:
    return stratify(dataset, 2, 0)


@pytest.fixture
def models(tmp_path: Path, dataset: CocoDataset, folds: Folds) -> list[FoldModel]:
    """Configuration 0 with seeds 5, 6, 7; configuration 1 with one seed. Two folds each."""
    seeds = [
        with_seed(model, 5 + number)
        for number in range(3)
        for model in write_votes(tmp_path, number, dataset, folds, guesses(number))
    ]
    return [*seeds, *write_votes(tmp_path, 3, dataset, folds, noisy(0.9))]


def with_seed(model: FoldModel, seed: int) -> FoldModel:
    config = model.config.model_copy(update={"seed": seed})
    write_yaml(model.folder / "config.yaml", config.model_dump(mode="json"))
    return FoldModel(0, model.fold, model.folder, config)


def test_seeds_of_a_configuration_vote_as_one(
    models: list[FoldModel], dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    ballots = ballots_of(by_candidate(models), dataset, folds)
    assert len(ballots) == 20
    for ballot in ballots:
        of_seeds, other = ballot.candidates
        assert of_seeds == tuple(tmp_path / str(seed) / str(ballot.fold) for seed in range(3))
        assert other == (tmp_path / "3" / str(ballot.fold),)
        seeds = [read_oof(folder, ballot.photo).astype(np.float64) for folder in of_seeds]
        single_one = read_oof(other[0], ballot.photo).astype(np.float64)
        expected = 0.75 * (seeds[0] + seeds[1] + seeds[2]) / 3 + 0.25 * single_one
        voted = read_vote(ballot, (0.75, 0.25), ["identity_1"])
        np.testing.assert_allclose(voted, expected, atol=1e-6)


def test_the_sample_has_the_mean_of_the_seeds(
    models: list[FoldModel], dataset: CocoDataset, folds: Folds
) -> None:
    ballot = ballots_of(by_candidate(models), dataset, folds)[0]
    votes, _ = sample_photo(ballot, ["identity_1"], 64 * 64)  # every pixel
    for rank in (0, 1):
        voted = read_vote(ballot, single(rank, 2).weights, ["identity_1"])
        np.testing.assert_allclose(votes[rank, 0], voted.reshape(12, -1), atol=1e-3)


def test_what_a_choice_scores_is_the_same_on_the_sample_and_on_whole_photos(
    models: list[FoldModel], dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    evidence = gather(pool, models, dataset, folds)
    assert evidence.sample.candidates == 2
    sampled = evidence.sampled(single(0, 2), np.arange(20))
    full = evidence.full.counts(single(0, 2), np.arange(20))
    right = [np.trace(counts.sum(axis=0)) / counts.sum() for counts in (sampled, full)]
    assert right[0] == pytest.approx(right[1], abs=1e-3)  # the sample has 16 bits


def test_seeds_whose_mistakes_differ_score_more_together_than_any_alone(
    models: list[FoldModel], dataset: CocoDataset, folds: Folds
) -> None:
    seeds = [model for model in models if model.candidate == 0]
    accuracies = [
        score_vote(voters, dataset, folds, CPU).pooled["pixel_accuracy"]
        for voters in (seeds[:2], seeds[2:4], seeds[4:], seeds)
    ]
    assert accuracies[3] > max(accuracies[:3]) + 0.01


def test_the_weight_of_a_configuration_is_shared_by_its_seeds_and_folds(
    models: list[FoldModel], dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    out, proposals = tmp_path / "ensemble", Proposals(crf=(CrfConfig(iterations=1),))
    metrics = build_ensemble(models, dataset, folds, out, proposals, "miou", CPU)
    assert metrics["voters"] == {
        "0": ["0/0", "0/1", "1/0", "1/1", "2/0", "2/1"], "1": ["3/0", "3/1"]
    }  # fmt: skip
    assert set(metrics["candidates"]) == {"0", "1"}
    assert len(metrics["members"]) == 8
    chosen, other = json.loads((out / "post.json").read_text())["chosen"]["weights"]
    weights = {m.folder: m.weight for m in read_manifest(out).members}
    assert chosen > 0
    for name in metrics["voters"]["0"]:
        assert weights[f"../{name}"] == pytest.approx(chosen / 6)
    assert sum(weights.values()) == pytest.approx(1.0)  # type: ignore[arg-type]
    assert other == pytest.approx(1 - chosen)


def test_a_seed_without_all_folds_is_refused(models: list[FoldModel], tmp_path: Path) -> None:
    lacking = [model for model in models if model.folder != tmp_path / "1" / "1"]
    wrong = rf"{tmp_path}/1: is trained on other folds than {tmp_path}/0: train both"
    with pytest.raises(CheckpointError, match=wrong):
        by_candidate(lacking)


def test_an_equal_vote_is_of_configurations_not_of_seeds(
    models: list[FoldModel], dataset: CocoDataset, folds: Folds
) -> None:
    ballot = ballots_of(by_candidate(models), dataset, folds)[0]
    voted = read_vote(ballot, equal_vote(2).weights, ["identity_1"])
    ones = [read_vote(ballot, single(rank, 2).weights, ["identity_1"]) for rank in (0, 1)]
    np.testing.assert_allclose(voted, (ones[0] + ones[1]) / 2, atol=1e-6)
