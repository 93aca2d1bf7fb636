"""Building an ensemble: who votes on which photo, what is kept, and what is written about it."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.trashseg.trained_folds import Trained, enlarged
from tests.trashseg.written_votes import softmax
from trashseg.assemble import build_ensemble
from trashseg.choice import Proposals, single
from trashseg.config import CrfConfig, TtaConfig
from trashseg.data.coco import Photo, load_coco_test, rasterize
from trashseg.data.sample import write_sample
from trashseg.ensemble import (
    load_ensemble,
    predict_photos,
)
from trashseg.errors import CheckpointError, ConfigError
from trashseg.fold_models import FoldModel, ballots_of, by_candidate
from trashseg.manifest import read_manifest
from trashseg.masks import out_of_fold_masks
from trashseg.metrics import scores_of
from trashseg.oof import oof_file, read_oof, read_vote
from trashseg.views import PLAIN

pytestmark = pytest.mark.slow
SOFT_CRF = CrfConfig(iterations=2)
FLIP = TtaConfig(views=("identity", "horizontal_flip"))


def _mask(folder: Path, photo: Photo) -> NDArray[np.uint8]:
    mask = cv2.imread(str(folder / Path(photo.file_name).with_suffix(".png")), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    return np.asarray(mask, dtype=np.uint8)


def _soft_vote_folder(ensemble: Path) -> Path:
    """Where the vote without CRF lies, chosen or not."""
    beside = ensemble / "masks_soft_vote"
    return beside if beside.is_dir() else ensemble / "masks"


def _build(trained: Trained, out: Path, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "models": trained.models,
        "dataset": trained.dataset,
        "folds": trained.folds,
        "out": out,
        "proposals": Proposals(crf=(SOFT_CRF,)),
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


def _post(ensemble: Path) -> dict[str, Any]:
    return dict(json.loads((ensemble / "post.json").read_text()))


# --- who votes ---------------------------------------------------------------------------------


def test_a_photos_vote_is_the_weighted_mean_of_the_two_models_that_had_it_in_validation(
    trained: Trained,
) -> None:
    seen = set()
    ballots = ballots_of(by_candidate(trained.models), trained.dataset, trained.folds)
    assert [ballot.photo for ballot in ballots] == list(trained.dataset.photos)
    for ballot, fold in zip(ballots, trained.folds.fold_of, strict=True):
        at_64, at_32 = (
            read_oof(trained.run / f"folds/{rank}/{fold}", ballot.photo) for rank in (0, 1)
        )
        expected = 0.25 * at_64.astype(np.float32) + 0.75 * enlarged(at_32, 64)
        average = read_vote(ballot, (0.25, 0.75), ["identity_1"])
        np.testing.assert_allclose(average, expected, atol=1e-6)
        seen |= set(np.unique(average.argmax(axis=0)))
    assert len(seen) >= 3  # equal to something


def test_the_masks_are_those_of_the_choice(trained: Trained, built: Path) -> None:
    weights = _post(built)["chosen"]["weights"]
    for ballot in ballots_of(by_candidate(trained.models), trained.dataset, trained.folds):
        masks = out_of_fold_masks(ballot, tuple(weights), ("identity_1",), None, by_object=False)
        written = _mask(_soft_vote_folder(built), ballot.photo)
        np.testing.assert_array_equal(written, masks.final)


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


# --- scores and the choice ---------------------------------------------------------------------


def test_metrics_json_has_out_of_fold_test_member_and_candidate_scores(built: Path) -> None:
    metrics = _metrics(built)
    assert set(metrics) == {
        *("oof", "test", "chosen", "members", "candidates"),
        *("nested", "nested_by_fold", "steps", "voters"),
    }
    assert metrics["nested"]["images"] == 20
    assert [step["step"] for step in metrics["steps"]] == ["selection", "tta", "crf"]
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
        votes = enlarged(read_oof(trained.run / f"folds/1/{fold}", photo), 64)
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
    ids=["it cleans up noise", "it wipes small objects away", "it changes wrong_vote"],
)
@pytest.mark.parametrize("metric", ["miou", "miou_image"])
def test_the_crf_is_kept_only_where_it_raises_the_metric_out_of_fold_by_more_than_its_noise(
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
    proposals = Proposals(crf=(crf,))
    metrics = _build(trained, tmp_path / "out", models=[model], proposals=proposals, metric=metric)
    plain, refined = (metrics["oof"][k][metric] for k in ("soft_vote", "soft_vote_crf"))
    assert plain == (pytest.approx(1.0) if kind == "perfect" else pytest.approx(0.5, abs=0.45))
    step = metrics["steps"][-1]
    assert (step["without"], step["with"]) == pytest.approx((plain, refined))
    helps = refined - plain > step["noise"]
    assert metrics["chosen"] == chosen == ("soft_vote_crf" if helps else "soft_vote")
    other = {"soft_vote", "soft_vote_crf"} - {chosen}
    assert sorted(path.name for path in (tmp_path / "out").glob("masks*")) == [
        "masks", f"masks_{other.pop()}"
    ]  # fmt: skip
    truth = np.stack([rasterize(trained.dataset.photos[i]) for i in trained.folds.split(0)[1]])
    masks = [_mask(tmp_path / "out/masks", trained.dataset.photos[i])
             for i in trained.folds.split(0)[1]]  # fmt: skip
    accuracy = metrics["oof"][chosen]["pixel_accuracy"]
    assert (np.stack(masks) == truth).mean() == pytest.approx(accuracy)


def test_the_nested_score_is_of_masks_that_were_chosen_on_the_other_fold(
    trained: Trained, built: Path
) -> None:
    folds = _post(built)["nested"]["folds"]
    assert set(folds) == {"0", "1"}
    counts = np.zeros((20, 12, 12), dtype=np.int64)
    ballots = ballots_of(by_candidate(trained.models), trained.dataset, trained.folds)
    for row, ballot in enumerate(ballots):
        chosen = folds[str(ballot.fold)]
        crf = CrfConfig(**chosen["crf"]) if chosen["crf"] else None
        masks = out_of_fold_masks(
            ballot, tuple(chosen["weights"]), ("identity_1",), crf, by_object=chosen["by_object"]
        )
        np.add.at(counts[row], (rasterize(ballot.photo), masks.final), 1)
    expected = scores_of(torch.from_numpy(counts), trained.dataset.classes)
    nested = _metrics(built)["nested"]
    assert nested["miou_image"] == pytest.approx(expected.pop("miou_image"))
    assert {**nested, "miou_image": None} == {**expected, "miou_image": None}


def test_members_without_weight_are_not_in_the_manifest(trained: Trained, tmp_path: Path) -> None:
    """The first candidate's votes are made the truth, the second's useless: one object everywhere, and
    sure of it."""
    run = Path(shutil.copytree(trained.run / "folds", tmp_path / "folds"))
    models = [
        FoldModel(m.candidate, m.fold, run / str(m.candidate) / str(m.fold), m.config)
        for m in trained.models
    ]
    for ballot in ballots_of(by_candidate(models), trained.dataset, trained.folds):
        file = oof_file(run / "0" / str(ballot.fold), ballot.photo, PLAIN.name)
        assert file.is_file()
        np.savez_compressed(file, softmax(rasterize(ballot.photo)))
    wrong_vote = np.zeros((12, 32, 32), np.float16)
    wrong_vote[11] = 1
    for file in (run / "1").rglob("*.npz"):
        np.savez_compressed(file, wrong_vote)
    _build(trained, tmp_path / "ensemble", models=models)
    members = read_manifest(tmp_path / "ensemble").members
    assert [(m.folder, m.weight) for m in members] == [("../folds/0/0", 0.5), ("../folds/0/1", 0.5)]
    assert _post(tmp_path / "ensemble")["chosen"]["weights"] == list(single(0, 2).weights)


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
    names = [Path(m.folder).parts[-2:] for m in read_manifest(built).members]
    assert len(names) >= 2
    assert [m.folder.resolve() for m in there.members] == [
        (moved / "folds").joinpath(*name).resolve() for name in names
    ]
    assert (here.weights, here.tta, here.crf) == (there.weights, there.tta, there.crf)
    first, second = (
        next(predict_photos(e, trained.dataset.photos[:1]))[1].final for e in (here, there)
    )
    np.testing.assert_array_equal(first, second)


def test_a_damaged_manifest_is_refused(built: Path, trained: Trained, tmp_path: Path) -> None:
    text = (built / "manifest.yaml").read_text()
    (tmp_path / "manifest.yaml").write_text(text.replace("weight: ", "weight: -"))
    with pytest.raises(ConfigError, match=r"manifest.yaml: members.0.weight: .*greater than 0"):
        load_ensemble(tmp_path, trained.resources)


def test_candidates_of_different_folds_are_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"folds/1: is trained on other folds than .*folds/0:"
    ):
        _build(trained, tmp_path / "out", models=trained.models[:3])
    assert list(tmp_path.iterdir()) == []


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
