"""One class for each object: what a region's pixels decide together, whether that is kept, and that the
deployed ensemble does the same."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.trashseg.untrained_folds import write_untrained
from tests.trashseg.written_votes import (
    CLASSES,
    assert_masks_are_the_truth,
    decided,
    decisions_beside_other_truths,
    gather,
    share_right,
    softmax,
    step,
    truth,
    write_votes,
)
from trashseg.assemble import build_ensemble
from trashseg.choice import Choice, Proposals, single
from trashseg.config import CrfConfig, TtaConfig
from trashseg.config_file import read_yaml, write_yaml
from trashseg.data.coco import CocoDataset, Photo, load_coco, rasterize
from trashseg.data.folds import Folds
from trashseg.device import Resources
from trashseg.ensemble import load_ensemble, predict_photos
from trashseg.fold_models import FoldModel
from trashseg.manifest import Manifest, ManifestMember, read_manifest
from trashseg.masks import decide, photo_masks
from trashseg.objects import one_class_per_object

NAME = "by object"
BY_OBJECT = Proposals(by_object=True, crf=())
ONE_CPU = Resources(1, torch.device("cpu"))


@pytest.fixture(scope="session")
def dataset(dataset: CocoDataset) -> CocoDataset:
    """One object a photo: in the scenes they touch."""
    photos = (replace(photo, annotations=photo.annotations[:1]) for photo in dataset.photos)
    return replace(dataset, photos=tuple(photos))


def torn(photo: Photo) -> NDArray[np.float16]:
    """Votes: 0.95 for background where it is; of an object 0.4 for background, 0.3 for the truth, and
    the other classes share the rest: pixel by pixel there is no object."""
    labels = rasterize(photo)
    objects = np.full((CLASSES, *labels.shape), 0.3 / (CLASSES - 2), dtype=np.float16)
    objects[0] = 0.4
    np.put_along_axis(objects, labels[None].astype(np.int64), np.float16(0.3), axis=0)
    return np.where(labels > 0, objects, softmax(labels, 0.95))


def litter_everywhere(photo: Photo) -> NDArray[np.float16]:
    """Votes: right, but for class 1 where background is: all of a photo is one region."""
    labels = rasterize(photo)
    return softmax(np.where(labels == 0, 1, labels))


# --- what is decided ---------------------------------------------------------------------------


def vote(*pixels: tuple[float, ...], width: int) -> NDArray[np.float32]:
    """(C, H, width) of votes pixel by pixel, row after row."""
    return np.array(pixels, dtype=np.float32).T.reshape(len(pixels[0]), -1, width)


def test_pixels_that_touch_take_the_class_that_they_say_most_for_in_sum() -> None:
    """Class 1 has 0.3 + 0.1 + 0.5, class 2 has 0.3 + 0.8 + 0.1."""
    said = vote((0.4, 0.3, 0.3), (0.1, 0.1, 0.8), (0.4, 0.5, 0.1), width=3)
    found = one_class_per_object(said)
    np.testing.assert_allclose(
        found, vote((0.4, 0, 0.6), (0.1, 0, 0.9), (0.4, 0, 0.6), width=3), atol=1e-6
    )
    assert decide(found).tolist() == [[2, 2, 2]]
    assert decide(said).tolist() == [[0, 2, 1]]


def test_regions_with_background_between_them_are_named_each_by_itself() -> None:
    said = vote((0.2, 0.7, 0.1), (0.9, 0.1, 0.0), (0.2, 0.1, 0.7), width=3)
    assert decide(one_class_per_object(said)).tolist() == [[1, 0, 2]]


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    nothing = (0.9, 0.05, 0.05)
    said = vote((0.2, 0.5, 0.3), nothing, nothing, (0.1, 0.0, 0.9), width=2)
    assert decide(one_class_per_object(said)).tolist() == [[2, 0], [0, 2]]


def test_half_of_the_vote_is_enough_for_the_background() -> None:
    said = vote((0.5, 0.25, 0.25), (0.499, 0.251, 0.25), width=2)
    assert decide(one_class_per_object(said)).tolist() == [[0, 1]]


def test_beyond_regions_a_pixels_litter_is_of_its_own_likeliest_class() -> None:
    found = one_class_per_object(vote((0.6, 0.1, 0.3), width=1))
    np.testing.assert_allclose(found, vote((0.6, 0, 0.4), width=1), atol=1e-6)


def test_of_equals_the_first_class_counts() -> None:
    assert decide(one_class_per_object(vote((0.2, 0.4, 0.4), width=1))).tolist() == [[1]]


@given(
    classes=st.integers(2, 6),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_what_is_litter_stays_litter_and_each_pixel_has_one_class_of_it(
    classes: int, height: int, width: int, seed: int
) -> None:
    drawn = np.random.default_rng(seed).random((classes, height, width)) ** 2 + 1e-3
    said = (drawn / drawn.sum(axis=0)).astype(np.float32)
    found = one_class_per_object(said)
    assert (found.shape, found.dtype) == (said.shape, np.float32)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(found[0], said[0])
    assert ((found[1:] > 0).sum(axis=0) == 1).all()
    np.testing.assert_array_equal(decide(found) > 0, said[0] < 0.5)
    np.testing.assert_array_equal(one_class_per_object(found), found)  # once is enough


def test_masks_by_object_are_decided_on_such_votes(dataset: CocoDataset) -> None:
    photo = dataset.photos[0]
    plain = photo_masks(torn(photo), photo.path, None, by_object=False)
    masks = photo_masks(torn(photo), photo.path, None, by_object=True)
    assert not plain.final.any()
    np.testing.assert_array_equal(masks.final, rasterize(photo))
    nothing = CrfConfig(gaussian_weight=0.0, bilateral_weight=0.0)
    refined = photo_masks(torn(photo), photo.path, nothing, by_object=True)
    np.testing.assert_array_equal(refined.final, masks.final)  # the CRF gets them as well


# --- whether it is kept ------------------------------------------------------------------------


@pytest.fixture
def torn_models(tmp_path: Path, dataset: CocoDataset, folds: Folds) -> list[FoldModel]:
    return write_votes(tmp_path, 0, dataset, folds, torn)


@pytest.mark.parametrize("metric", ["miou", "miou_image"])
def test_objects_whose_classes_share_out_their_pixels_are_found_again(
    torn_models: list[FoldModel],
    dataset: CocoDataset,
    folds: Folds,
    pool: ThreadPoolExecutor,
    metric: str,
) -> None:
    evidence = gather(pool, torn_models, dataset, folds)
    decision = decided(evidence, BY_OBJECT, metric)
    assert [step.name for step in decision.steps] == ["selection", "tta", NAME, "crf"]
    assert step(decision, NAME).kept
    assert decision.choice == Choice((1.0,), by_object=True)
    assert share_right(evidence, decision.choice) == 1


def test_it_is_not_kept_where_objects_run_into_each_other(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, litter_everywhere)
    decision = decided(gather(pool, models, dataset, folds), BY_OBJECT)
    taken = step(decision, NAME)
    assert taken.comparison is not None
    assert taken.comparison.gain < 0
    assert not taken.kept
    assert decision.choice == single(0, 1)


def test_votes_that_are_right_pixel_by_pixel_stay_so(
    tmp_path: Path, dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    models = write_votes(tmp_path, 0, dataset, folds, truth)
    decision = decided(gather(pool, models, dataset, folds), BY_OBJECT)
    assert step(decision, NAME).why == "the gain, +0.00000, is not more than its noise, 0.00000"
    assert decision.choice == single(0, 1)


def test_it_is_not_tried_unasked(
    torn_models: list[FoldModel], dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    decision = decided(gather(pool, torn_models, dataset, folds), Proposals(crf=()))
    assert [step.name for step in decision.steps] == ["selection", "tta", "crf"]


def test_the_truth_of_a_fold_has_no_part_in_whether_it_is_kept_there(
    torn_models: list[FoldModel], dataset: CocoDataset, folds: Folds, pool: ThreadPoolExecutor
) -> None:
    decisions_beside_other_truths(pool, torn_models, dataset, folds, BY_OBJECT)


# --- deployed ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_chosen_is_reported_deployed_and_in_the_masks(
    torn_models: list[FoldModel], dataset: CocoDataset, folds: Folds, tmp_path: Path
) -> None:
    out = tmp_path / "ensemble"
    nothing = CrfConfig(gaussian_weight=0.0, bilateral_weight=0.0)
    proposals = Proposals(by_object=True, crf=(nothing,))
    build_ensemble(torn_models, dataset, folds, out, proposals, "miou", ONE_CPU)
    report = json.loads((out / "post.json").read_text())
    assert report["tried"]["by_object"] is report["chosen"]["by_object"] is True
    metrics = json.loads((out / "metrics.json").read_text())
    assert {step["step"]: step["kept"] for step in metrics["steps"]} == {
        "selection": False, "tta": False, NAME: True, "crf": False
    }  # fmt: skip
    assert metrics["oof"]["soft_vote"]["miou"] == 1
    assert read_manifest(out).by_object
    assert_masks_are_the_truth(out, dataset)


@pytest.mark.parametrize("by_object", [False, True])
def test_photos_are_predicted_as_the_manifest_says(
    sample: Path, tmp_path: Path, by_object: bool
) -> None:
    dataset = load_coco(sample)
    write_untrained(tmp_path / "member", dataset, image_size=32, seed=0)
    write_manifest(tmp_path / "ensemble", dataset.classes, by_object)
    found = list(predict_photos(load_ensemble(tmp_path / "ensemble", ONE_CPU), dataset.photos[:4]))
    classes = [len(np.unique(masks.final[masks.final > 0])) for _, masks in found]
    # networks that know nothing see litter of many classes everywhere, which is one region
    assert (max(classes) == 1) is by_object


def test_an_ensemble_from_before_there_was_a_choice_is_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, ("Background", "Glass"), True)
    without = read_yaml(tmp_path / "manifest.yaml")
    del without["by_object"]
    write_yaml(tmp_path / "manifest.yaml", without)
    assert not read_manifest(tmp_path).by_object


def write_manifest(folder: Path, classes: tuple[str, ...], by_object: bool) -> None:
    manifest = Manifest(
        classes=classes,
        members=(ManifestMember(folder="../member", weight=1.0),),
        tta=TtaConfig(),
        by_object=by_object,
        chosen="soft_vote",
        crf=CrfConfig(),
    )
    folder.mkdir(exist_ok=True)
    write_yaml(folder / "manifest.yaml", manifest.model_dump(mode="json"))
