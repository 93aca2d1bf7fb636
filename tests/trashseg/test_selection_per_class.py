"""Weights by class: found where each candidate knows other classes, kept only where they help, and the
same votes wherever they are counted, from the evidence to the ensemble at work."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.trashseg.trained_folds import Trained
from tests.trashseg.written_votes import (
    decided,
    decisions_beside_other_truths,
    gather,
    guesses,
    noisy,
    softmax,
    specialist,
    step,
    write_votes,
)
from trashseg.assemble import build_ensemble, weights_of
from trashseg.choice import Choice, Proposals, equal_vote, single
from trashseg.config import CrfConfig, TtaConfig
from trashseg.config_file import read_yaml, write_yaml
from trashseg.counts import Counts
from trashseg.data.coco import CocoDataset, rasterize, read_photo
from trashseg.data.folds import Folds
from trashseg.device import Resources
from trashseg.ensemble import load_ensemble, predict_photos, vote
from trashseg.errors import ConfigError
from trashseg.evidence import PixelSample
from trashseg.fold_models import FoldModel, ballots_of, by_candidate, keep_missing_views
from trashseg.manifest import read_manifest, write_manifest
from trashseg.masks import out_of_fold_masks
from trashseg.oof import read_oof, read_vote
from trashseg.selection import weights_by_class
from trashseg.views import views_of
from trashseg.weighting import Weights, to_probabilities

NAME = "selection per class"
PER_CLASS = Proposals(selection_per_class=True, crf=())
PLAIN_VIEW = "identity_1"
PHOTOS = 8
ALL = np.arange(PHOTOS)

SPECIAL = 3  # in 12 of the 20 photos, 5435 pixels of theirs
OTHERS = tuple(label for label in range(1, 12) if label != SPECIAL)
# One knows all classes but one, the other just that one; each takes what it does not know for
# background. With a share w for the first and 11 other classes for the rest of each vote:
# an object of OTHERS: 0.4 w + 0.1/11/2 (1-w) = 0.4 w + 0.005 (1-w) against 0.055 w + 0.95 (1-w):
#     right from w = 0.732 on
# one of SPECIAL: 0.05 w + 0.9 (1-w) against 0.45 w + 0.009 (1-w): right up to w = 0.690
# No w is right for both. By class: the first for OTHERS and background (0.4 against 0.055, and 0.005
# for SPECIAL), the second for SPECIAL (0.9 against 0.45): all are right.
MOST = specialist(OTHERS, right=0.4, wrong=0.45)
ONE = specialist([SPECIAL], right=0.9, wrong=0.95)
EACH_ITS_OWN: Weights = (
    tuple(float(label != SPECIAL) for label in range(12)),
    tuple(float(label == SPECIAL) for label in range(12)),
)


@pytest.fixture
def specialists(tmp_path: Path, dataset: CocoDataset, folds: Folds) -> list[FoldModel]:
    return [
        *write_votes(tmp_path, 0, dataset, folds, MOST),
        *write_votes(tmp_path, 1, dataset, folds, ONE),
    ]


# --- what is found -----------------------------------------------------------------------------


def same_in_every_photo(
    truth: list[int], *votes: list[tuple[float, ...]]
) -> Callable[[Weights], Counts]:
    """Counts where candidates vote (K pixels of C classes) so on each of the photos."""
    table = np.stack([np.transpose(of_one) for of_one in votes])  # (M, C, K)
    everywhere = np.broadcast_to(table[None, :, None], (PHOTOS, len(table), 1, *table.shape[1:]))
    labels = np.tile(np.array(truth, dtype=np.uint8), (PHOTOS, 1))
    some = PixelSample(everywhere.astype(np.float16), labels, [PLAIN_VIEW])
    return lambda weights: some.counts(Choice(weights))


def drawn_at_random(flip: slice = slice(0)) -> PixelSample:
    """Two candidates, four classes, 60 pixels of each photo; other truths in the photos of `flip`."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (PHOTOS, 60), dtype=np.uint8)
    votes = rng.random((PHOTOS, 2, 1, 4, 60)) + 0.3 * np.eye(4)[truth].swapaxes(1, 2)[:, None, None]
    truth[flip] = (truth[flip] + 1) % 4
    votes /= votes.sum(axis=3, keepdims=True)
    return PixelSample(votes.astype(np.float16), truth, [PLAIN_VIEW])


def found(some: PixelSample, photos: NDArray[np.int64] = ALL) -> Weights:
    return weights_by_class(
        lambda weights: some.counts(Choice(weights)), (0.5, 0.5), photos, "miou"
    )


def test_of_classes_that_want_the_same_pixels_the_rarest_is_served_first() -> None:
    """Truth: three pixels of background, two of class 1, seven of class 2. Six of these and the
    background are clear. To the other three the first candidate says background, the second 1 or 2.
    """
    clear_0, clear_2 = (0.9, 0.05, 0.05), (0.05, 0.05, 0.9)
    counts = same_in_every_photo(
        [0, 0, 0, 2, 2, 2, 2, 2, 2, 1, 1, 2],
        [*(clear_0,) * 3, *(clear_2,) * 6, *((0.4, 0.3, 0.3),) * 3],
        [*(clear_0,) * 3, *(clear_2,) * 6, *((0.0, 0.5, 0.5),) * 3],
    )
    # IoU of the three classes as it is: 3/6, 0, 6/7. Class 1 by the second: all three are 1 (0.5
    # against 0.4 and 0.3): 1, 2/3, 6/7. Class 2 by the second: all are 2: 1, 0, 7/9, a gain too. Both:
    # a tie, which is 1: no more than class 1 alone. Background by the second (0 against 0.3 and 0.3):
    # the same.
    assert weights_by_class(counts, (1.0, 0.0), ALL, "miou") == ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0))


def test_classes_that_gain_nothing_stay_with_what_was_kept() -> None:
    half = [(0.6, 0.4), (0.4, 0.6)]
    alike = same_in_every_photo([0, 1], half, half)
    assert weights_by_class(alike, (0.3, 0.7), ALL, "miou") == (0.3, 0.7)


def test_weights_of_each_class_sum_to_one() -> None:
    weights = found(drawn_at_random())
    assert weights != (0.5, 0.5)
    np.testing.assert_allclose(np.sum(weights, axis=0), 1)


def test_photos_that_are_not_asked_about_do_not_matter() -> None:
    half, rest = ALL[: PHOTOS // 2], slice(PHOTOS // 2, None)
    assert found(drawn_at_random(), half) == found(drawn_at_random(flip=rest), half)
    assert found(drawn_at_random()) != found(drawn_at_random(flip=rest))


def test_few_votes_are_counted_and_those_for_other_photos_are_the_same() -> None:
    some = drawn_at_random()
    found(some)
    # the start, alike for all classes; for each of four classes besides the shares 0, 1/3, 2/3, 1; what
    # is taken of each class
    first = some._counts.cache_info().misses
    assert first <= 1 + 1 + 4 * 4 + 4
    for left_out in ALL:
        before = some._counts.cache_info().misses
        found(some, np.delete(ALL, left_out))
        assert some._counts.cache_info().misses - before <= 4 + (22 - first)


# --- whether it is kept ------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["miou", "miou_image"])
def test_each_class_is_left_to_the_candidate_that_knows_it(
    specialists: list[FoldModel],
    dataset: CocoDataset,
    folds: Folds,
    pool: ThreadPoolExecutor,
    metric: str,
) -> None:
    evidence = gather(pool, specialists, dataset, folds)
    decision = decided(evidence, PER_CLASS, metric)
    taken = step(decision, NAME)
    assert [step.name for step in decision.steps] == ["selection", NAME, "tta", "crf"]
    assert taken.before == single(0, 2)
    assert taken.kept
    assert decision.choice == Choice(EACH_ITS_OWN)
    assert taken.comparison is not None
    assert taken.comparison.with_it == 1  # on photos that the weights were not picked on
    if metric == "miou":  # SPECIAL is 0, background too large by it, ten classes are right
        pixels = np.bincount(np.concatenate([rasterize(p).ravel() for p in dataset.photos]))
        background = pixels[0] / (pixels[0] + pixels[SPECIAL])
        assert taken.comparison.without == pytest.approx((10 + background) / 12)


def test_candidates_that_are_alike_have_the_same_weights_for_every_class(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = [
        model
        for rank in (0, 1)
        for model in write_votes(tmp_path, rank, dataset, folds, noisy(0.2))
    ]
    decision = decided(gather(pool, models, dataset, folds), PER_CLASS)
    assert not step(decision, NAME).kept
    assert decision.choice == equal_vote(2)


def test_it_is_tried_only_where_asked_for(
    specialists: list[FoldModel], dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    decision = decided(gather(pool, specialists, dataset, folds), Proposals(crf=()))
    assert [step.name for step in decision.steps] == ["selection", "tta", "crf"]
    assert decision.choice == single(0, 2)


@pytest.mark.slow
def test_the_truth_of_a_fold_has_no_part_in_the_weights_that_it_is_scored_with(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    """Candidates that all but guess: another truth changes the weights."""
    models = [
        model
        for rank in (0, 1)
        for model in write_votes(
            tmp_path, rank, dataset, folds, guesses(rank, sure=0.6 - 0.3 * rank)
        )
    ]
    decisions = decisions_beside_other_truths(pool, models, dataset, folds, PER_CLASS)
    seen = {step(decision, NAME).found.weights for decision in decisions}
    assert len(seen) > folds.count


# --- the vote ----------------------------------------------------------------------------------


def test_a_vote_by_class_is_the_sum_of_each_class_by_its_own_weights_over_their_sum(
    specialists: list[FoldModel], dataset: CocoDataset, folds: Folds
) -> None:
    first = np.linspace(0, 1, 12)
    weights = (tuple(first.tolist()), tuple((1 - first).tolist()))
    ballot = ballots_of(by_candidate(specialists), dataset, folds)[0]
    most, one = (
        read_oof(member, ballot.photo).astype(np.float64) for (member,) in ballot.candidates
    )
    expected = first[:, None, None] * most + (1 - first)[:, None, None] * one
    expected /= expected.sum(axis=0)
    got = read_vote(ballot, weights, [PLAIN_VIEW])
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(got.sum(axis=0), 1, atol=1e-6)
    assert len(np.unique(got.argmax(axis=0))) > 1


def test_where_nobody_votes_for_any_class_all_are_as_likely() -> None:
    votes = np.zeros((2, 4, 1, 1), dtype=np.float32)
    votes[1, :, 0, 0] = [0.1, 0.0, 0.2, 0.1]
    expected = [[0.25] * 4, [0.25, 0, 0.5, 0.25]]
    np.testing.assert_allclose(to_probabilities(votes)[..., 0, 0], expected, atol=1e-6)


def test_the_same_weights_for_every_class_are_the_vote_of_plain_weights(
    specialists: list[FoldModel], dataset: CocoDataset, folds: Folds
) -> None:
    ballot = ballots_of(by_candidate(specialists), dataset, folds)[0]
    plain = read_vote(ballot, (0.25, 0.75), [PLAIN_VIEW])
    by_class = read_vote(ballot, ((0.25,) * 12, (0.75,) * 12), [PLAIN_VIEW])
    np.testing.assert_allclose(by_class, plain, atol=1e-3)  # 16 bits: sums of 1 but for that much


def test_both_kinds_of_evidence_count_the_same_by_class(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = [
        model
        for rank in (0, 1)
        for model in write_votes(tmp_path, rank, dataset, folds, noisy(0.3, seed=rank))
    ]
    evidence, photos = gather(pool, models, dataset, folds), np.arange(20)
    first = np.linspace(0.1, 0.87, 12)  # no two of them sum to 1: that would be a tie
    choice = Choice((tuple(first.tolist()), tuple((1 - first).tolist())))
    sampled = evidence.sampled(choice, photos)  # photos and networks have 64 pixels a side
    np.testing.assert_array_equal(sampled, evidence.full.counts(choice, photos))
    said = [[softmax(noisy(0.3, seed=r)(p)) for p in dataset.photos] for r in (0, 1)]  # (2, N, ...)
    mean = np.einsum("mc,mnchw->nchw", [first, 1 - first], np.asarray(said, dtype=np.float64))
    hits = (mean.argmax(axis=1) == [rasterize(p) for p in dataset.photos]).sum(axis=(1, 2))
    assert sampled.trace(axis1=1, axis2=2).tolist() == hits.tolist()


# --- deployed ----------------------------------------------------------------------------------


def written(folder: Path, members: dict[Path, float | tuple[float, ...]], classes: int) -> Path:
    names = tuple(f"class {label}" for label in range(classes))
    choice = Choice(tuple(members.values()), crf=CrfConfig())
    write_manifest(folder, folder, members, names, choice, "soft_vote")
    return folder


def test_a_manifest_with_weights_by_class_is_read_back_equal(tmp_path: Path) -> None:
    members = {tmp_path / "a": (0.25, 0.0, 1.0), tmp_path / "b": (0.75, 1.0, 0.0)}
    read = read_manifest(written(tmp_path / "ensemble", members, classes=3))
    assert {m.folder: m.weight for m in read.members} == {
        "../a": (0.25, 0.0, 1.0),
        "../b": (0.75, 1.0, 0.0),
    }


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([0.5, 0.5], r"\.\./a has weights of 2 classes, the ensemble has 3: build it again"),
        ([0.0, 0.0, 0.0], r"members\.0\.weight: should be greater than 0"),
        ([1.0, -0.5, 0.5], r"members\.0\.weight: should be greater than 0"),
    ],
)
def test_weights_that_make_no_sense_are_refused(
    tmp_path: Path, weight: list[float], message: str
) -> None:
    folder = written(tmp_path / "ensemble", {tmp_path / "a": (1.0, 1.0, 1.0)}, classes=3)
    tree = read_yaml(folder / "manifest.yaml")
    tree["members"][0]["weight"] = weight
    write_yaml(folder / "manifest.yaml", tree)
    with pytest.raises(ConfigError, match=message):
        read_manifest(folder)


def test_a_candidates_weights_are_shared_by_its_folds_and_nobody_votes_for_nothing(
    tmp_path: Path, dataset: CocoDataset, folds: Folds
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, MOST)
    silent = write_votes(tmp_path, 1, dataset, folds, ONE)
    shared = weights_of(by_candidate([*models, *silent]), ((1.0,) * 12, (0.0,) * 12))
    assert shared == {model.folder: (0.25,) * 12 for model in models}


@pytest.mark.slow
def test_what_is_chosen_is_reported_and_written_down(
    specialists: list[FoldModel], dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    out, resources = tmp_path / "ensemble", Resources(1, torch.device("cpu"))
    nothing = CrfConfig(gaussian_weight=0.0, bilateral_weight=0.0)
    proposals = Proposals(selection_per_class=True, crf=(nothing,))
    build_ensemble(specialists, dataset, folds, out, proposals, "miou", resources)
    metrics, report = (
        json.loads((out / f"{name}.json").read_text()) for name in ("metrics", "post")
    )
    assert report["tried"]["selection_per_class"]
    assert report["chosen"]["weights"] == [list(weight) for weight in EACH_ITS_OWN]
    assert metrics["steps"] == report["chosen"]["steps"]
    assert {step["step"]: step["kept"] for step in metrics["steps"]} == {
        "selection": True, NAME: True, "tta": False, "crf": False
    }  # fmt: skip
    assert metrics["oof"]["soft_vote"]["miou"] == metrics["nested"]["miou"] == 1
    assert {m.folder: m.weight for m in read_manifest(out).members} == {
        f"../{rank}/{fold}": tuple(weight / 4 for weight in EACH_ITS_OWN[rank])
        for rank in (0, 1)
        for fold in range(4)
    }


@pytest.mark.slow
def test_the_ensemble_at_work_makes_the_masks_that_were_decided_out_of_fold(
    trained: Trained, tmp_path: Path
) -> None:
    """Members of fold 0 alone, so that its photos are new to all of them."""
    models = [
        replace(model, folder=Path(shutil.copytree(model.folder, tmp_path / str(model.candidate))))
        for model in trained.models
        if model.fold == 0
    ]
    first = np.linspace(0, 1, 12)
    flip, crf = TtaConfig(views=("identity", "horizontal_flip")), CrfConfig(iterations=2)
    choice = Choice((tuple(first.tolist()), tuple((1 - first).tolist())), flip, crf)
    keep_missing_views(models, views_of(flip), trained.dataset, trained.folds, trained.resources)
    folders = {model.folder: weight for model, weight in zip(models, choice.weights, strict=True)}
    out = tmp_path / "ensemble"
    write_manifest(out, out, folders, trained.dataset.classes, choice, "soft_vote_crf")
    ensemble = load_ensemble(out, trained.resources)
    assert ensemble.weights == choice.weights
    ballots = ballots_of(by_candidate(models), trained.dataset, trained.folds)
    photos = [ballot.photo for ballot in ballots]
    votes = vote(ensemble, [read_photo(photo.path) for photo in photos])
    same, moved = [], []
    for ballot, got, (_, masks) in zip(
        ballots, votes, predict_photos(ensemble, photos), strict=True
    ):
        expected = read_vote(ballot, choice.weights, choice.views)
        np.testing.assert_allclose(got.astype(np.float32), expected, atol=2e-3)
        kept = out_of_fold_masks(ballot, choice.weights, choice.views, crf, by_object=False)
        same.append((masks.final == kept.final).mean())
        np.testing.assert_allclose(masks.confidence, kept.confidence, atol=0.05)
        plain = out_of_fold_masks(ballot, (0.5, 0.5), choice.views, crf, by_object=False)
        moved.append((plain.final != kept.final).mean())
    assert np.mean(same) > 0.995  # votes on disk are rounded to 16 bits, and some pixels are ties
    assert np.mean(moved) > 0  # these weights were there
