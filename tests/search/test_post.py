"""What is proposed for post-processing, and that it is chosen from cached votes without training."""

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import launch
from search.config import SearchConfig
from search.ledger import Ledger
from search.post import CRF_RANGES, propose_crf, propose_tta
from search.run_folder import RunFolder, new_run_folder
from search.space import load_space
from trashseg.config import CrfConfig, TtaConfig
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.device import Resources
from trashseg.manifest import read_manifest
from trashseg.member import train_member

HAND_TUNED = CrfConfig(iterations=4, max_side=300)


# --- proposals ---------------------------------------------------------------------------------


def test_the_hand_tuned_crf_comes_first_and_all_lie_in_their_ranges() -> None:
    proposals = propose_crf(HAND_TUNED, 16)
    assert proposals[0] == HAND_TUNED
    assert len(set(proposals)) == 16
    for crf in proposals:
        assert (crf.iterations, crf.max_side) == (4, 300)
        for name, (low, high) in CRF_RANGES.items():
            assert low <= getattr(crf, name) <= high


def test_crfs_are_spread_evenly_over_each_range() -> None:
    """Of 32 points of a Sobol sequence, 8 are in each quarter of each axis; chance gives 4 to 12."""
    drawn = propose_crf(HAND_TUNED, 33)[1:]
    for name, (low, high) in CRF_RANGES.items():
        places = [math.log(getattr(crf, name) / low) / math.log(high / low) for crf in drawn]
        quarters = [sum(int(place * 4) == quarter for place in places) for quarter in range(4)]
        assert max(quarters) <= 10, (name, quarters)
        assert min(quarters) >= 6, (name, quarters)


def test_more_trials_only_add_crfs_and_the_same_number_gives_the_same() -> None:
    assert propose_crf(HAND_TUNED, 9) == propose_crf(HAND_TUNED, 9)
    assert propose_crf(HAND_TUNED, 9)[:5] == propose_crf(HAND_TUNED, 5)


def test_a_single_trial_is_the_hand_tuned_crf() -> None:
    assert propose_crf(HAND_TUNED, 1) == (HAND_TUNED,)


def test_every_subset_of_views_and_scales_is_proposed_and_the_cheapest_comes_first() -> None:
    offered = TtaConfig(views=("identity", "horizontal_flip", "rotate_90"), scales=(1.0, 1.5))
    proposals = propose_tta(offered, 100)
    assert len(set(proposals)) == len(proposals) == 2**2 * 2
    assert proposals[0] == TtaConfig()
    assert proposals[-1] == offered
    costs = [len(tta.views) * len(tta.scales) for tta in proposals]
    assert costs == sorted(costs)


def test_no_more_sets_of_views_than_trials_are_proposed() -> None:
    offered = TtaConfig(views=("identity", "horizontal_flip", "vertical_flip"), scales=(1.0, 0.5))
    assert 1 <= len(propose_tta(offered, 3)) <= 3


def test_where_one_view_is_offered_it_alone_is_proposed() -> None:
    assert propose_tta(TtaConfig(), 5) == (TtaConfig(),)


# --- the command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A search that has ended, as its ledger and folder tell, with no fold trained."""
    folder = tmp_path_factory.mktemp("post")
    config = SearchConfig.model_validate(
        {
            "epochs": 3,
            "batch_size": 5,
            "data": {"image_size": 64, "folds": 2},
            "model": {"weights": "none"},
            "crf": {"iterations": 2},
            "search": {
                "name": "night",
                "data_dir": str(sample),
                "space": "optim",
                "storage": str(folder / "runs"),
                "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            },
        }
    )
    run, dataset, space = new_run_folder(config), load_coco(sample), load_space("optim")
    run.create(config, space, dataset, stratify(dataset, 2, 0))
    ledger = Ledger(run.study_db, config, space)
    name = ledger.propose()
    ledger.record_epoch(name, 3, 0.25)
    ledger.end(name, "finished", {"epoch": 3, "best_miou": 0.25})
    return run


def tune(run: RunFolder, *more: str) -> tuple[int, str, str]:
    arguments = ["tune-post", "--name", "night", "--storage", str(run.path.parent), *more]
    result = CliRunner().invoke(launch.app, [*arguments, "--top-k", "1"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.slow
def test_folds_that_are_not_trained_are_named_and_not_trained(run: RunFolder) -> None:
    code, _, error = tune(run)
    assert code == 2
    assert error.startswith(f"error: {run.fold('trial_000', 0)}: is not trained yet: run launch.py")
    assert not (run.path / "folds").exists()
    assert not run.ensemble.exists()


@pytest.mark.slow
def test_unknown_views_and_scales_are_refused(run: RunFolder) -> None:
    code, _, error = tune(run, "--views", "identity,mirror")
    assert code == 2
    assert error.startswith(
        "error: --views, --scales: views.1: unknown value 'mirror', choose one of"
    )
    code, _, error = tune(run, "--scales", "1,big")
    assert code == 2
    assert error.startswith("error: --views, --scales: scales.1: input should be a valid number")


@pytest.mark.slow
def test_the_ensemble_is_built_anew_with_the_best_of_what_was_tried(run: RunFolder) -> None:
    dataset = run.dataset()
    folds, config = run.folds(dataset), run.config.train
    for fold in range(2):
        out = run.fold("trial_000", fold)
        train_member(config, dataset, folds, fold, out, Resources(1, torch.device("cpu")))
    weights = [f.stat().st_mtime_ns for f in run.path.rglob("model.safetensors")]
    sizes = ("--trials", "4", "--photos", "5", "--scales", "1,1.5")
    code, output, _ = tune(run, *sizes, "--per-class")
    assert code == 0
    assert "quote the nested score" in output
    assert "not registered: MLflow" not in output
    assert "champion of trashseg: version 1, it is the first" in output
    assert [f.stat().st_mtime_ns for f in run.path.rglob("model.safetensors")] == weights
    report = json.loads((run.ensemble / "post.json").read_text())
    assert report["tried"]["selection_per_class"] > run.config.selection_per_class
    assert report["tried"]["logit_adjustment"] == list(run.config.logit_adjustment) == []
    assert report["tried"]["by_object"] is run.config.by_object is True
    assert len(report["tried"]["crf"]) == 4
    assert report["tried"]["crf"][0] == run.config.crf.model_dump()
    assert len(report["tried"]["tta"]) == 4  # with or without the flip and the larger photo
    # at most: all CRFs on five photos for each of two folds and for the final choice, and the final
    # check, and each fold's photos once more
    assert 4 * 5 <= report["tried"]["crf_runs"] <= 3 * 4 * 5 + 20 + 20
    manifest = read_manifest(run.ensemble)
    assert manifest.crf.model_dump() in report["tried"]["crf"]
    kept = {step["step"]: step["kept"] for step in report["chosen"]["steps"]}
    assert list(kept) == ["selection", "selection per class", "tta", "by object", "crf"]
    assert (manifest.chosen == "soft_vote_crf") == kept["crf"]
    assert (manifest.tta != TtaConfig()) == kept["tta"]
    assert manifest.by_object == kept["by object"]
    for fold in range(2):
        views = run.fold("trial_000", fold) / "oof_views"
        assert {folder.name for folder in views.iterdir()} == {
            *("horizontal_flip_1", "identity_1.5", "horizontal_flip_1.5")
        }
    metrics = json.loads((run.ensemble / "metrics.json").read_text())
    assert metrics["nested"] == report["nested"]["scores"]
    assert len(list((run.ensemble / "masks").rglob("*.png"))) == 20
