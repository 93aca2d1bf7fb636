"""Soft voting: who votes on which photo, what the vote is, and whether the CRF is kept."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trashseg.trained_folds import Trained
from trashseg.config import CrfConfig
from trashseg.data.coco import CocoDataset, Photo, load_coco_test, rasterize, read_photo
from trashseg.data.sample import write_sample
from trashseg.ensemble import (
    FoldModel,
    build_ensemble,
    evaluate_ensemble,
    load_ensemble,
    predict_photos,
    vote,
)
from trashseg.errors import CheckpointError, DataError
from trashseg.member import load_member, probabilities, read_oof

pytestmark = pytest.mark.slow
SOFT_CRF = CrfConfig(iterations=2)


def _mask(folder: Path, photo: Photo) -> NDArray[np.uint8]:
    mask = cv2.imread(str(folder / Path(photo.file_name).with_suffix(".png")), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    return np.asarray(mask, dtype=np.uint8)


def _soft_vote_folder(ensemble: Path) -> Path:
    """Where the vote without CRF lies, chosen or not."""
    beside = ensemble / "masks_soft_vote"
    return beside if beside.is_dir() else ensemble / "masks"


def _enlarged(softmax: NDArray[Any], size: int) -> NDArray[np.float32]:
    planes = softmax.astype(np.float32)
    return np.stack([cv2.resize(p, (size, size), interpolation=cv2.INTER_LINEAR) for p in planes])


def _build(trained: Trained, out: Path, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "models": trained.models,
        "dataset": trained.dataset,
        "folds": trained.folds,
        "out": out,
        "crf": SOFT_CRF,
        "metric": "miou",
        "resources": trained.resources,
    }
    return build_ensemble(**{**arguments, **changes})


@pytest.fixture(scope="module")
def test_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("test") / "scenes"
    write_sample(folder, images=5, size=48, seed=9)
    return folder


@pytest.fixture(scope="module")
def built(trained: Trained, test_folder: Path) -> Path:
    out = trained.run / "ensemble"
    _build(trained, out, test=load_coco_test(test_folder))
    return out


def _metrics(ensemble: Path) -> dict[str, Any]:
    return dict(json.loads((ensemble / "metrics.json").read_text()))


# --- who votes ---------------------------------------------------------------------------------


def test_a_photos_vote_is_the_average_of_the_two_models_that_had_it_in_validation(
    trained: Trained, built: Path
) -> None:
    seen = set()
    for photo, fold in zip(trained.dataset.photos, trained.folds.fold_of, strict=True):
        at_64, at_32 = (read_oof(trained.run / f"folds/{rank}/{fold}", photo) for rank in (0, 1))
        small_enlarged = _enlarged(at_32, 64).astype(np.float16)
        average = (at_64.astype(np.float32) + small_enlarged.astype(np.float32)) / 2
        mask = _mask(_soft_vote_folder(built), photo)  # 64 pixels, as the photos
        np.testing.assert_array_equal(mask, average.argmax(axis=0))
        seen |= set(np.unique(mask))
    assert len(seen) >= 3  # equal to something


def test_a_vote_of_a_model_that_was_trained_on_the_photo_is_never_read(
    trained: Trained, built: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained.run / "folds", tmp_path / "folds"))
    models = [
        FoldModel(m.candidate, m.fold, run / str(m.candidate) / str(m.fold), m.config)
        for m in trained.models
    ]
    perfect = np.zeros((12, 64, 64), np.float16)
    leaks = 0
    for model in models:
        for position in trained.folds.split(model.fold)[0]:  # what it was trained on
            file = model.folder / "oof" / f"{trained.dataset.photos[position].id}.npz"
            assert not file.exists()
            np.savez_compressed(file, perfect)
            leaks += 1
    assert leaks == 4 * 10
    assert _build(trained, tmp_path / "ensemble", models=models)["oof"] == _metrics(built)["oof"]


def test_models_of_one_fold_alone_vote_on_that_folds_photos_alone(
    trained: Trained, tmp_path: Path
) -> None:
    metrics = _build(trained, tmp_path / "out", models=[m for m in trained.models if m.fold == 1])
    assert metrics["oof"]["soft_vote"]["images"] == (trained.folds.fold_of == 1).sum() == 10
    assert len(list((tmp_path / "out/masks").rglob("*.png"))) == 10


# --- the vote ----------------------------------------------------------------------------------


def test_a_soft_vote_is_the_mean_of_the_softmax_of_members_of_different_sizes(
    trained: Trained,
) -> None:
    device = trained.resources.device
    members = [load_member(trained.models[index].folder, device) for index in (0, 2, 3)]
    photos = [read_photo(photo.path) for photo in trained.dataset.photos[:2]]
    votes = vote(members, photos, trained.resources)
    assert votes.shape == (2, 12, 64, 64)
    assert votes.dtype == np.float16
    for row in range(2):
        softmax = [probabilities(m, photos, device)[row].numpy() for m in members]
        assert [s.shape[-1] for s in softmax] == [64, 32, 32]
        expected = np.mean([_enlarged(s, 64) for s in softmax], axis=0)
        np.testing.assert_allclose(votes[row], expected, atol=2e-3)
    np.testing.assert_allclose(votes.astype(float).sum(axis=1), 1, atol=5e-3)


def test_the_vote_of_one_member_is_its_softmax(trained: Trained) -> None:
    device = trained.resources.device
    member = load_member(trained.models[0].folder, device)
    photo = read_photo(trained.dataset.photos[0].path)
    alone = probabilities(member, [photo], device).half().numpy()
    np.testing.assert_array_equal(vote([member], [photo], trained.resources), alone)


# --- scores and the choice ---------------------------------------------------------------------


def test_metrics_json_has_out_of_fold_test_member_and_candidate_scores(built: Path) -> None:
    metrics = _metrics(built)
    assert set(metrics) == {"oof", "test", "chosen", "members", "candidates"}
    assert set(metrics["oof"]) == set(metrics["test"]) == {"soft_vote", "soft_vote_crf"}
    assert metrics["oof"]["soft_vote"]["images"] == 20
    assert metrics["test"]["soft_vote"]["images"] == 5
    assert set(metrics["members"]) == {"0/0", "0/1", "1/0", "1/1"}
    assert set(metrics["candidates"]) == {"0", "1"}
    for candidate in ("0", "1"):
        assert metrics["candidates"][candidate]["images"] == 20


def test_a_candidates_score_is_that_of_its_own_votes(trained: Trained, built: Path) -> None:
    hits = 0
    for photo, fold in zip(trained.dataset.photos, trained.folds.fold_of, strict=True):
        softmax = read_oof(trained.run / f"folds/1/{fold}", photo)
        votes = _enlarged(softmax, 64).astype(np.float16)  # as they are kept
        hits += (votes.argmax(axis=0) == rasterize(photo)).sum()
    accuracy = _metrics(built)["candidates"]["1"]["pixel_accuracy"]
    assert accuracy == pytest.approx(hits / (20 * 64 * 64))


def test_confusion_csv_counts_the_chosen_masks(trained: Trained, built: Path) -> None:
    with (built / "confusion.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["truth", *trained.dataset.classes]
    assert [row[0] for row in rows] == list(trained.dataset.classes)
    expected = np.zeros((12, 12), dtype=int)
    for photo in trained.dataset.photos:
        np.add.at(expected, (rasterize(photo), _mask(built / "masks", photo)), 1)
    assert [[int(cell) for cell in row[1:]] for row in rows] == expected.tolist()


@pytest.mark.parametrize(
    ("kind", "crf", "chosen"),
    [
        ("noisy", CrfConfig(bilateral_weight=0.0, gaussian_sxy=2.0), "soft_vote_crf"),
        ("perfect", CrfConfig(bilateral_weight=0.0, gaussian_sxy=8.0), "soft_vote"),
        ("perfect", CrfConfig(bilateral_weight=0.0, gaussian_weight=0.0), "soft_vote"),
    ],
    ids=["it cleans up noise", "it wipes small objects away", "it changes nothing"],
)
@pytest.mark.parametrize("metric", ["miou", "miou_image"])
def test_the_crf_is_kept_only_where_it_raises_the_metric_out_of_fold(
    trained: Trained, tmp_path: Path, kind: str, crf: CrfConfig, chosen: str, metric: str
) -> None:
    rng = np.random.default_rng(0)
    folder = Path(shutil.copytree(trained.models[0].folder, tmp_path / "fold"))
    for position in trained.folds.split(0)[1]:
        photo = trained.dataset.photos[position]
        labels = rasterize(photo)
        if kind == "noisy":
            noise = rng.random(labels.shape) < 0.1
            labels = np.where(noise, rng.integers(0, 12, labels.shape), labels)
        softmax = np.full((12, 64, 64), 0.4 / 11, dtype=np.float16)
        np.put_along_axis(softmax, labels[None].astype(int), np.float16(0.6), axis=0)
        np.savez_compressed(folder / "oof" / f"{photo.id}.npz", softmax)
    model = FoldModel(0, 0, folder, trained.models[0].config)
    metrics = _build(trained, tmp_path / "out", models=[model], crf=crf, metric=metric)
    plain, refined = (metrics["oof"][k][metric] for k in ("soft_vote", "soft_vote_crf"))
    assert plain == (pytest.approx(1.0) if kind == "perfect" else pytest.approx(0.5, abs=0.45))
    assert metrics["chosen"] == chosen == ("soft_vote_crf" if refined > plain else "soft_vote")
    other = {"soft_vote", "soft_vote_crf"} - {chosen}
    assert sorted(path.name for path in (tmp_path / "out").glob("masks*")) == [
        "masks", f"masks_{other.pop()}"
    ]  # fmt: skip
    truth = np.stack([rasterize(trained.dataset.photos[i]) for i in trained.folds.split(0)[1]])
    masks = [_mask(tmp_path / "out/masks", trained.dataset.photos[i])
             for i in trained.folds.split(0)[1]]  # fmt: skip
    accuracy = metrics["oof"][chosen]["pixel_accuracy"]
    assert (np.stack(masks) == truth).mean() == pytest.approx(accuracy)


# --- the test folder ---------------------------------------------------------------------------


def test_a_labelled_test_folder_is_voted_on_by_all_members_and_scored(
    trained: Trained, built: Path, test_folder: Path
) -> None:
    test, chosen = load_coco_test(test_folder), _metrics(built)["chosen"]
    predicted = list(predict_photos(load_ensemble(built, trained.resources), test.photos))
    hits = 0
    for photo, masks in predicted:
        np.testing.assert_array_equal(_mask(built / "test_masks", photo), masks.final)
        hits += (masks.final == rasterize(photo)).sum()
    accuracy = _metrics(built)["test"][chosen]["pixel_accuracy"]
    assert accuracy == pytest.approx(hits / (5 * 48 * 48))


def test_a_test_folder_without_annotations_gets_masks_and_no_scores(
    trained: Trained, test_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(test_folder, tmp_path / "test"))
    tree = json.loads((folder / "train_all.json").read_text())
    del tree["annotations"]
    (folder / "test.json").write_text(json.dumps(tree))
    models = trained.models[:1]
    metrics = _build(trained, tmp_path / "out", models=models, test=load_coco_test(folder))
    assert metrics["test"] is None
    assert len(list((tmp_path / "out/test_masks").rglob("*.png"))) == 5


def test_without_a_test_folder_there_are_no_test_masks(trained: Trained, tmp_path: Path) -> None:
    assert _build(trained, tmp_path / "out", models=trained.models[:1])["test"] is None
    assert not (tmp_path / "out/test_masks").exists()


# --- on disk -----------------------------------------------------------------------------------


def test_the_manifest_still_leads_to_the_members_when_the_run_has_moved(
    trained: Trained, built: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(trained.run, tmp_path / "elsewhere" / "renamed"))
    here, there = (
        load_ensemble(folder, trained.resources) for folder in (built, moved / "ensemble")
    )
    assert [m.folder.resolve() for m in there.members] == [
        (moved / "folds" / name).resolve() for name in ("0/0", "0/1", "1/0", "1/1")
    ]
    assert here.crf == there.crf
    first, second = (
        next(predict_photos(e, trained.dataset.photos[:1]))[1].final for e in (here, there)
    )
    np.testing.assert_array_equal(first, second)


def test_a_failed_ensemble_leaves_the_one_before_as_it_was(
    trained: Trained, tmp_path: Path
) -> None:
    folder, out = Path(shutil.copytree(trained.models[0].folder, tmp_path / "fold")), tmp_path / "o"
    model = FoldModel(0, 0, folder, trained.models[0].config)
    _build(trained, out, models=[model])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    photo = trained.dataset.photos[int(trained.folds.split(0)[1][-1])]
    (folder / "oof" / f"{photo.id}.npz").unlink()
    with pytest.raises(CheckpointError, match=rf"{photo.id}.npz: cannot be read"):
        _build(trained, out, models=[model])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold", "o"]


def test_a_single_fold_is_an_ensemble_of_one_without_crf(trained: Trained) -> None:
    ensemble = load_ensemble(trained.models[3].folder, trained.resources)
    assert [member.folder for member in ensemble.members] == [trained.models[3].folder]
    assert ensemble.crf is None


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
