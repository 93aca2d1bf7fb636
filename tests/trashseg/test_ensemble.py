"""An ensemble at work: what its vote is, in which views, and what it is loaded from."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trashseg.trained_folds import Trained, enlarged
from trashseg.choice import Choice
from trashseg.config import CrfConfig, TtaConfig
from trashseg.data.coco import CocoDataset, read_photo
from trashseg.ensemble import (
    Ensemble,
    evaluate_ensemble,
    load_ensemble,
    predict_photos,
    vote,
)
from trashseg.errors import CheckpointError, DataError, ResourceError
from trashseg.fold_models import FoldModel, ballots_of, by_candidate, keep_missing_views
from trashseg.manifest import write_manifest
from trashseg.masks import out_of_fold_masks
from trashseg.member import load_member, probabilities
from trashseg.oof import read_oof, read_vote
from trashseg.views import View, views_of

pytestmark = pytest.mark.slow
SOFT_CRF = CrfConfig(iterations=2)
FLIP = TtaConfig(views=("identity", "horizontal_flip"))


def _ensemble(trained: Trained, weights: dict[int, float], tta: TtaConfig = FLIP) -> Ensemble:
    """Of models by their place in the list."""
    members = [load_member(trained.models[i].folder, trained.resources.device) for i in weights]
    return Ensemble(tuple(members), tuple(weights.values()), tta, False, None, trained.resources)


# --- the vote ----------------------------------------------------------------------------------


def test_a_soft_vote_is_the_weighted_mean_over_members_of_different_sizes_and_their_views(
    trained: Trained,
) -> None:
    device, weights = trained.resources.device, {0: 0.5, 2: 0.125, 3: 0.375}
    ensemble = _ensemble(trained, weights)
    photos = [read_photo(photo.path) for photo in trained.dataset.photos[:2]]
    votes = vote(ensemble, photos)
    assert votes.shape == (2, 12, 64, 64)
    assert votes.dtype == np.float16
    expected = np.zeros((2, 12, 64, 64))
    for member, weight in zip(ensemble.members, weights.values(), strict=True):
        for view in views_of(FLIP):
            for row, softmax in enumerate(probabilities(member, photos, device, view).numpy()):
                expected[row] += weight / 2 * enlarged(softmax, 64)
    np.testing.assert_allclose(votes, expected, atol=2e-3)
    np.testing.assert_allclose(votes.astype(float).sum(axis=1), 1, atol=5e-3)


def test_the_vote_of_one_member_is_its_softmax(trained: Trained) -> None:
    device = trained.resources.device
    member = load_member(trained.models[0].folder, device)
    photo = read_photo(trained.dataset.photos[0].path)
    alone = probabilities(member, [photo], device).half().numpy()
    ensemble = _ensemble(trained, {0: 1.0}, TtaConfig())
    np.testing.assert_array_equal(vote(ensemble, [photo]), alone)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_a_members_view_is_what_it_says_of_the_photo_that_is_seen_so(
    trained: Trained, scale: float
) -> None:
    device = trained.resources.device
    member = load_member(trained.models[0].folder, device)
    photo = read_photo(trained.dataset.photos[0].path)
    mirrored = np.ascontiguousarray(photo[:, ::-1])
    seen = probabilities(member, [photo], device, View("horizontal_flip", scale))
    plain = probabilities(member, [mirrored], device, View("identity", scale))
    assert seen.shape == (1, 12, 64, 64)
    np.testing.assert_allclose(seen.numpy(), plain.numpy()[..., ::-1], atol=1e-4)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.25, 2.0])
def test_a_scale_keeps_the_shape_and_the_sum_of_the_softmax(trained: Trained, scale: float) -> None:
    device = trained.resources.device
    member = load_member(trained.models[0].folder, device)
    photo = read_photo(trained.dataset.photos[0].path)
    softmax = probabilities(member, [photo], device, View("rotate_90", scale))
    assert softmax.shape == (1, 12, 64, 64)
    torch.testing.assert_close(softmax.sum(1), torch.ones(1, 64, 64))


def test_views_are_kept_once_beside_the_plain_votes(trained: Trained, tmp_path: Path) -> None:
    model = FoldModel(
        0, 0, Path(shutil.copytree(trained.models[0].folder, tmp_path / "0/0")), trained.models[0].config
    )  # fmt: skip
    views = (View(), View("rotate_90"), View("identity", 1.5))
    for _ in range(2):
        keep_missing_views([model], views, trained.dataset, trained.folds, trained.resources)
        kept = sorted((model.folder / "oof_views").rglob("*.npz"))
        times = [file.stat().st_mtime_ns for file in kept]
        assert len(kept) == 2 * 10
        assert {file.parent.name for file in kept} == {"rotate_90_1", "identity_1.5"}
    assert [file.stat().st_mtime_ns for file in kept] == times
    photo = trained.dataset.photos[int(trained.folds.split(0)[1][0])]
    member = load_member(model.folder, trained.resources.device)
    turned = probabilities(member, [read_photo(photo.path)], trained.resources.device, views[1])
    kept_vote = read_oof(model.folder, photo, "rotate_90_1").astype(np.float32)
    np.testing.assert_allclose(kept_vote, turned[0].numpy(), atol=2e-3)


def test_views_that_the_disk_has_no_room_for_are_refused_before_any_is_made(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained.models[3]
    plain = sum(file.stat().st_size for file in (model.folder / "oof").iterdir())
    full_disk = shutil.disk_usage("/")._replace(free=2 * plain - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full_disk)
    views = (View(), View("rotate_90", 2.0), View("rotate_270", 2.0))
    with pytest.raises(ResourceError, match=r"folds/1/1: votes in more views take .*: make room"):
        keep_missing_views([model], views, trained.dataset, trained.folds, trained.resources)
    assert not (model.folder / "oof_views/rotate_90_2").exists()


def test_predicting_out_of_the_manifest_gives_what_was_decided_out_of_fold(
    trained: Trained, tmp_path: Path
) -> None:
    """Members of fold 0 alone, so that its photos are new to all of them."""
    models = [model for model in trained.models if model.fold == 0]
    choice = Choice((0.25, 0.75), FLIP, SOFT_CRF)
    keep_missing_views(models, views_of(FLIP), trained.dataset, trained.folds, trained.resources)
    folders = {model.folder: weight for model, weight in zip(models, choice.weights, strict=True)}
    out = tmp_path / "ensemble"
    write_manifest(out, out, folders, trained.dataset.classes, choice, "soft_vote_crf")
    ensemble = load_ensemble(out, trained.resources)
    ballots = ballots_of(by_candidate(models), trained.dataset, trained.folds)
    assert len(ballots) == 10
    photos = [ballot.photo for ballot in ballots]
    votes = vote(ensemble, [read_photo(photo.path) for photo in photos])
    same, refined = [], []
    for ballot, average, (_, masks) in zip(
        ballots, votes, predict_photos(ensemble, photos), strict=True
    ):
        expected = read_vote(ballot, choice.weights, choice.views)
        np.testing.assert_allclose(average.astype(np.float32), expected, atol=2e-3)
        kept = out_of_fold_masks(ballot, choice.weights, choice.views, SOFT_CRF, by_object=False)
        same.append((masks.final == kept.final).mean())
        refined.append((kept.final != kept.soft_vote).mean())
    assert np.mean(same) > 0.995  # votes on disk are rounded to 16 bits, and some pixels are ties
    assert np.mean(refined) > 0  # the CRF was there


# --- what can be loaded ------------------------------------------------------------------------


def test_a_single_fold_is_an_ensemble_of_one_without_crf(trained: Trained) -> None:
    ensemble = load_ensemble(trained.models[3].folder, trained.resources)
    assert [member.folder for member in ensemble.members] == [trained.models[3].folder]
    assert (ensemble.weights, ensemble.tta, ensemble.crf) == ((1.0,), TtaConfig(), None)


def test_a_folder_that_holds_no_model_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds neither an ensemble nor a fold: give runs/"):
        load_ensemble(tmp_path, trained.resources)


def test_a_test_set_with_other_classes_is_not_evaluated(trained: Trained) -> None:
    ensemble = load_ensemble(trained.models[2].folder, trained.resources)
    other = CocoDataset(Path("other"), (), ("Background", "Can"), (1,), ())
    with pytest.raises(
        DataError, match="its classes are Background, Can; the ensemble was trained"
    ):
        evaluate_ensemble(ensemble, other)
