"""How often a choice's votes say what is where: on every pixel, and on a sample of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.trashseg.written_votes import gather, noisy, truth, write_votes
from trashseg.choice import Choice, single
from trashseg.config import CrfConfig, TtaConfig
from trashseg.data.coco import CocoDataset, rasterize
from trashseg.data.folds import Folds
from trashseg.evidence import PixelSample, draw_sample
from trashseg.fold_models import ballots_of, by_candidate
from trashseg.masks import out_of_fold_masks
from trashseg.metrics import mean_iou

SMOOTH = CrfConfig(bilateral_weight=0.0, gaussian_sxy=2.0)


def test_where_every_pixel_is_sampled_both_kinds_of_evidence_count_the_same(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = [
        *write_votes(tmp_path, 0, dataset, folds, noisy(0.3, seed=1)),
        *write_votes(tmp_path, 1, dataset, folds, noisy(0.3, seed=2)),
    ]
    evidence = gather(pool, models, dataset, folds)  # photos and networks have 64 pixels a side
    choice, photos = Choice((0.25, 0.75)), np.arange(20)
    sampled, full = evidence.sampled(choice, photos), evidence.full.counts(choice, photos)
    np.testing.assert_array_equal(sampled, full)
    assert full.sum(axis=(1, 2)).tolist() == [64 * 64] * 20
    for photo, counts in zip(dataset.photos, full, strict=True):
        pixels = np.bincount(rasterize(photo).ravel(), minlength=12)
        assert counts.sum(axis=1).tolist() == pixels.tolist()


def test_a_sample_keeps_to_its_memory_and_is_about_as_right_as_the_whole(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, noisy(0.3))
    ballots = ballots_of(by_candidate(models), dataset, folds)
    budget = 20 * 12 * 2 * 500  # 500 pixels of each of 20 photos, 12 classes, 2 bytes
    some, every = (
        draw_sample(pool, ballots, ["identity_1"], 12, budget=bytes_)  # type: ignore[arg-type]
        for bytes_ in (budget, 2**30)
    )
    assert some._votes.nbytes == budget
    assert some.counts(single(0, 1)).sum(axis=(1, 2)).tolist() == [500] * 20
    shares = [
        float(np.trace(s.counts(single(0, 1)).sum(axis=0)) / s.counts(single(0, 1)).sum())
        for s in (some, every)
    ]
    # 10000 pixels drawn of which about 0.725 are right: standard error 0.0045
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_a_vote_is_the_weighted_mean_over_all_views_whatever_other_photos_there_are() -> None:
    rng = np.random.default_rng(0)
    votes = rng.random((7, 2, 2, 3, 11)).astype(np.float16)
    labels = rng.integers(0, 3, (7, 11), dtype=np.uint8)
    views = ["identity_1", "vertical_flip_1"]
    choice = Choice((0.3, 0.7), TtaConfig(views=("identity", "vertical_flip")))
    counts = PixelSample(votes, labels, views).counts(choice)
    parts = [
        PixelSample(votes[part], labels[part], views).counts(choice)
        for part in (slice(2), slice(2, 7))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), counts)
    mean = (votes.astype(np.float64).mean(axis=2) * np.array([0.3, 0.7])[:, None, None]).sum(axis=1)
    hits = (mean.argmax(axis=1) == labels).sum(axis=1)  # (7,)
    assert counts.trace(axis1=1, axis2=2).tolist() == hits.tolist()


def test_masks_are_those_that_were_counted_remembered_or_not(
    tmp_path: Path,
    dataset: CocoDataset,
    folds: Folds,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, noisy(0.1))
    choice, photos = Choice((1.0,), crf=SMOOTH), np.arange(20)
    for room, runs in ((2**20, 20), (0, 40)):
        monkeypatch.setattr("trashseg.evidence.MASK_BYTES", room)
        full = gather(pool, models, dataset, folds).full
        counts = full.counts(choice, photos)
        for (ballot, png), expected in zip(full.masks(choice), counts, strict=True):
            mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
            assert mask is not None
            by_hand = np.zeros((12, 12), dtype=np.int64)
            np.add.at(by_hand, (rasterize(ballot.photo), mask), 1)
            np.testing.assert_array_equal(by_hand, expected)
            whole = out_of_fold_masks(ballot, choice.weights, choice.views, SMOOTH, by_object=False)
            np.testing.assert_array_equal(mask, whole.final)
        assert full.refinements == runs


def test_the_score_of_evidence_is_that_of_the_metric(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    evidence = gather(pool, write_votes(tmp_path, 0, dataset, folds, truth), dataset, folds)
    counts = evidence.full.counts(single(0, 1), np.arange(20))
    assert mean_iou(torch.from_numpy(counts)).tolist() == [1.0] * 20
