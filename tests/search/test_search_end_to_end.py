"""A real search on two Ray workers: seven trials of three epochs, then folds and an ensemble.

All proposals are random ones of a fixed seed. Trial 0 is the hand-tuned one and finishes, and another
does, because a rung passes its first two arrivals, whoever they are. Trial 3 has an absurd rate and
fails, trial 6 has a rate of nearly zero, comes last and is stopped at a rung.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
import ray
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState
from typer.testing import CliRunner

import launch
from search.config import SearchConfig
from search.driver import run_search
from search.ensemble import run_ensemble
from search.finals import retrain
from search.results import Row, read_standings
from search.retrain import is_trained, plan_folds
from search.run_folder import RunFolder
from tests.chromium import CHROMIUM, NOT_INSTALLED
from tests.search.report.pages import look_at, read_embedded
from tests.tiny import TINY_LEARNER
from trashseg.config_file import load_train_config
from trashseg.errors import ConfigError

pytestmark = pytest.mark.slow

SPACE = """
loss.name: {choice: [cross_entropy, dice]}
loss.label_smoothing: {float: [0.0, 0.1], when: {loss.name: [cross_entropy]}}
optim.decoder_lr: {choice: [1.0e-3, 3.0e-3, 1.0e-12, 1.0e+30]}
"""
SEED = 138  # gives these rates, an absurd one in the middle and a useless one at the end
RATES = [1e-3, 3e-3, 3e-3, 1e30, 1e-3, 3e-3, 1e-12]
TRIALS, EPOCHS = len(RATES), 3


@dataclass(frozen=True)
class Searched:
    run: RunFolder
    rows: list[Row]
    client: MlflowClient
    kept: set[str]
    """Trials with weights on the disk when the search had ended."""

    def row(self, number: int) -> Row:
        return next(row for row in self.rows if row.trial_id == f"trial_{number:03d}")

    def mlflow_run(self, what: str) -> Run:
        return self.client.get_run(self.run.mlflow_ids()[what])

    def trial_run(self, number: int) -> Run:
        return self.mlflow_run(f"trial/trial_{number:03d}")

    def history(self, number: int, metric: str) -> dict[int, float]:
        run_id = self.trial_run(number).info.run_id
        return {m.step: m.value for m in self.client.get_metric_history(run_id, metric)}

    def artifacts(self, run: Run, folder: str | None = None) -> list[str]:
        return [entry.path for entry in self.client.list_artifacts(run.info.run_id, folder)]


@pytest.fixture(scope="module")
def config(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchConfig:
    folder = tmp_path_factory.mktemp("search")
    (folder / "space.yaml").write_text(SPACE)
    return SearchConfig.model_validate(
        {
            "epochs": EPOCHS,
            "patience": 0,
            "batch_size": 4,
            "data": {"image_size": 64, "folds": 2},
            "model": TINY_LEARNER,
            "search": {
                "name": "night",
                "data_dir": str(sample),
                "space": str(folder / "space.yaml"),
                "trials": TRIALS,
                "startup_trials": 20,
                "grace_period": 1,
                "reduction_factor": 2,  # rungs at epochs 1 and 2
                "max_failures": 0,
                "finalists": 2,
                "final_rounds": 2,
                "seed": SEED,
                "storage": str(folder / "runs"),
                "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            },
        }
    )


@pytest.fixture(scope="module")
def searched(config: SearchConfig) -> Iterator[Searched]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run, rows = run_search(config)
        weights = run.path.glob("trials/**/*.safetensors")
        kept = {path.relative_to(run.path).parts[1] for path in weights}
        yield Searched(run, rows, MlflowClient(config.search.tracking_uri), kept)
    finally:
        ray.shutdown()


# --- trials ------------------------------------------------------------------------------------


def test_every_trial_ends_finished_pruned_or_failed(searched: Searched) -> None:
    assert [searched.row(number).point["optim.decoder_lr"] for number in range(TRIALS)] == RATES
    states = [searched.row(number).state for number in range(TRIALS)]
    assert states[0] == "finished"
    assert states[3] == "failed"
    assert states[6] == "pruned"
    assert states.count("failed") == 1
    assert states.count("finished") >= 2


def test_the_first_trial_is_the_hand_tuned_one(searched: Searched, config: SearchConfig) -> None:
    first = searched.row(0)
    assert first.hand_tuned
    assert [row.hand_tuned for row in searched.rows].count(True) == 1
    assert first.point == {
        "loss.name": "cross_entropy", "loss.label_smoothing": 0.0, "optim.decoder_lr": 1e-3
    }  # fmt: skip
    assert searched.run.space.apply(config.train, first.point) == config.train


def test_the_study_on_disk_has_the_states_and_every_epochs_score(searched: Searched) -> None:
    study = optuna.load_study(study_name="night", storage=f"sqlite:///{searched.run.study_db}")
    names = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    assert len(study.trials) == TRIALS
    for trial in study.trials:
        row = searched.row(trial.number)
        assert names[trial.state] == row.state
        assert list(trial.intermediate_values) == list(range(1, row.epochs + 1))
    assert study.trials[0].value == searched.row(0).miou


def test_finished_trials_have_all_epochs_and_pruned_ones_ended_at_a_rung(
    searched: Searched,
) -> None:
    for row in searched.rows:
        if row.state == "finished":
            assert row.epochs == EPOCHS
        if row.state == "pruned":
            assert row.epochs in (1, 2)


def test_the_leaderboard_file_has_each_trial_once_best_first(searched: Searched) -> None:
    with searched.run.leaderboard.open() as file:
        header, *lines = csv.reader(file)
    assert header == [
        "rank", "trial_id", "state", "epochs", "miou", "miou_image",
        "loss.name", "loss.label_smoothing", "optim.decoder_lr",
    ]  # fmt: skip
    assert [line[0] for line in lines] == [str(rank) for rank in range(TRIALS)]
    assert {line[1] for line in lines} == {f"trial_{number:03d}" for number in range(TRIALS)}
    states = [line[2] for line in lines]
    assert states == sorted(states, key=["finished", "pruned", "failed"].index)
    finished = [float(line[4]) for line in lines if line[2] == "finished"]
    assert finished == sorted(finished, reverse=True)
    for line in lines:
        assert (line[7] == "") == (line[6] == "dice")  # smoothing exists with cross entropy only


def test_the_best_configurations_are_those_of_the_finished_trials(
    searched: Searched, config: SearchConfig
) -> None:
    finished = [row for row in searched.rows if row.state == "finished"]
    files = sorted((searched.run.path / "best").iterdir())
    assert [file.name for file in files] == [f"{rank}.yaml" for rank in range(len(finished))]
    for file, row in zip(files, finished, strict=True):
        assert load_train_config(file) == searched.run.space.apply(config.train, row.point)


def test_the_run_folder_says_what_was_searched(searched: Searched, config: SearchConfig) -> None:
    assert searched.run.config == config
    assert yaml.safe_load(searched.run.space_yaml.read_text()) == yaml.safe_load(SPACE)
    with pytest.raises(ConfigError, match=r"night: a run of this name exists: add --resume"):
        run_search(config)


def test_worker_processes_are_used_for_one_trial_after_another(searched: Searched) -> None:
    attempts = [
        json.loads(file.read_text()) for file in searched.run.path.glob("trials/*/att*.json")
    ]
    assert [len(of_a_trial) for of_a_trial in attempts] == [1] * TRIALS
    assert len({attempt["pid"] for [attempt] in attempts}) == 2  # two at a time


# --- different trials are different ------------------------------------------------------------


def test_trials_train_with_the_rates_and_losses_that_they_were_given(searched: Searched) -> None:
    for number, rate in enumerate(RATES):
        run, row = searched.trial_run(number), searched.row(number)
        assert float(run.data.params["optim.decoder_lr"]) == rate
        assert run.data.params["loss.name"] == row.point["loss.name"]
        if row.state != "failed":
            assert set(searched.history(number, "lr_decoder").values()) == {rate}


def test_trials_of_different_points_have_different_loss_curves(searched: Searched) -> None:
    curves: dict[tuple[Any, ...], float] = {}
    for number in (0, 1, 2, 4, 5, 6):
        point = tuple(sorted(searched.row(number).point.items()))
        curves[point] = searched.history(number, "loss")[1]
    assert len(curves) >= 4
    assert len(set(curves.values())) == len(curves)


# --- MLflow ------------------------------------------------------------------------------------


def test_mlflow_has_one_parent_and_every_trial_under_it(searched: Searched) -> None:
    parent = searched.mlflow_run("parent")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["kind"] == "search"
    assert parent.data.tags["mlflow.runName"] == "night"
    assert "leaderboard.csv" in searched.artifacts(parent)
    experiment = searched.client.get_experiment_by_name("trashseg")
    runs = searched.client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    assert len(runs) == TRIALS
    for run in runs:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        first = run.data.tags["mlflow.runName"] == "trial_000"
        assert run.data.tags["hand_tuned"] == str(first).lower()
        assert run.data.tags["folds"] == "0"


def test_mlflow_states_are_those_of_the_leaderboard_and_none_runs_on(searched: Searched) -> None:
    status = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    for number in range(TRIALS):
        run, row = searched.trial_run(number), searched.row(number)
        assert run.info.status == status[row.state]
        assert run.data.tags["state"].split()[0] == row.state
        if row.state == "pruned":
            assert run.data.tags["state"] == f"pruned at epoch {row.epochs}"


def test_mlflow_has_the_metrics_of_each_epoch_by_step(searched: Searched) -> None:
    for number in range(TRIALS):
        epochs = list(range(1, searched.row(number).epochs + 1))
        for metric in ("loss", "val_loss", "miou", "miou_image", "best_miou", "lr_encoder"):
            assert sorted(searched.history(number, metric)) == epochs
    classes = {key for key in searched.trial_run(0).data.metrics if key.startswith("iou/")}
    assert "iou/Background" in {key.title().replace("Iou", "iou") for key in classes}
    assert len(classes) >= 3


def test_pictures_are_kept_and_weights_of_the_finalists_alone(searched: Searched) -> None:
    for number in range(TRIALS):
        run = searched.trial_run(number)
        pictures = searched.artifacts(run, "pictures")
        if searched.row(number).state == "finished":
            assert len(pictures) == 4
        assert all(name.endswith(".png") for name in pictures)
    assert searched.kept == {row.trial_id for row in searched.rows[:2]}


def test_a_failed_trial_keeps_its_traceback(searched: Searched) -> None:
    run = searched.trial_run(3)
    assert "traceback.txt" in searched.artifacts(run)
    text = Path(searched.client.download_artifacts(run.info.run_id, "traceback.txt")).read_text()
    assert ", in train_epoch" in text
    assert "NonFiniteError: epoch 1, step " in text
    assert "lower optim.decoder_lr" in text
    assert "NonFiniteError" in run.data.tags["state"]


# --- folds and ensemble ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensembled(searched: Searched) -> dict[str, Any]:
    """The better of two finalists, both trained on both folds to know it; then the ensemble of them."""
    models = retrain(searched.run, top_k=1, fold_count=2)
    best = read_standings(searched.run)[0].trial_id
    assert [model.folder for model in models] == [
        searched.run.fold(best, 0), searched.run.fold(best, 1)
    ]  # fmt: skip
    before = [written(model.folder) for model in models]
    assert retrain(searched.run, top_k=1, fold_count=2) == models
    metrics = run_ensemble(searched.run, top_k=2, seeds=1, test=None)
    return {"before": before, "after": [written(m.folder) for m in models], "metrics": metrics}


def written(folder: Path) -> tuple[int, ...]:
    return tuple(
        (folder / name).stat().st_mtime_ns for name in ("model.safetensors", "config.yaml")
    )


def test_the_best_of_the_search_met_again_on_both_folds(
    searched: Searched, ensembled: dict[str, Any]
) -> None:
    best, other = read_standings(searched.run)
    assert {best.trial_id, other.trial_id} == {row.trial_id for row in searched.rows[:2]}
    assert best.mean >= other.mean
    assert (best.runs, other.runs) == (2, 2)
    scores = ensembled["metrics"]["members"]
    mean = fmean(scores[f"{best.trial_id}/{fold}"]["miou"] for fold in (0, 1))
    assert best.mean == pytest.approx(mean)
    with searched.run.leaderboard.open() as file:
        first, second, third = list(csv.DictReader(file))[:3]
    assert (first["trial_id"], first["final_mean"]) == (best.trial_id, f"{best.mean:.6f}")
    assert (second["trial_id"], second["final_runs"]) == (other.trial_id, "2")
    assert third["final_mean"] == ""


def test_the_fold_that_the_search_has_trained_is_not_trained_again(
    searched: Searched, ensembled: dict[str, Any]
) -> None:
    """Its epochs took the very seconds that they took in the trial; the other fold's are its own."""
    for row in searched.rows[:2]:
        took = list(searched.history(int(row.trial_id[-3:]), "seconds").values())
        for fold, same in ((0, True), (1, False)):
            history = (searched.run.fold(row.trial_id, fold) / "history.jsonl").read_text()
            again = [json.loads(line)["seconds"] for line in history.splitlines()]
            assert (again == took) == same
    assert list(searched.run.path.glob("trials/*/fold_*")) == []


def test_a_fold_that_exists_is_not_trained_again(ensembled: dict[str, Any]) -> None:
    assert ensembled["after"] == ensembled["before"]


def test_the_ensemble_scores_every_candidate_and_fold(
    searched: Searched, ensembled: dict[str, Any], sample: Path
) -> None:
    metrics = ensembled["metrics"]
    assert set(metrics["oof"]) == {"soft_vote", "soft_vote_crf"}
    assert metrics["oof"]["soft_vote"]["images"] == 20
    assert metrics["nested"]["images"] == 20
    assert [step["step"] for step in metrics["steps"]] == ["selection", "tta", "by object", "crf"]
    assert set(metrics["candidates"]) == {"0", "1"}
    assert len(metrics["members"]) == 4
    assert len(list((searched.run.ensemble / "masks").rglob("*.png"))) == 20
    assert json.loads((searched.run.ensemble / "metrics.json").read_text()) == metrics


def test_mlflow_has_the_folds_and_the_ensemble_under_the_same_parent(
    searched: Searched, ensembled: dict[str, Any]
) -> None:
    parent = searched.mlflow_run("parent").info.run_id
    ids = searched.run.mlflow_ids()
    folds = [what for what in ids if what.startswith("fold/")]
    assert len(folds) == 4
    for what in folds:
        run = searched.mlflow_run(what)
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent
        steps = [m.step for m in searched.client.get_metric_history(run.info.run_id, "loss")]
        assert sorted(steps) == [1, 2, 3]
        assert "final/miou" in run.data.metrics
        assert searched.artifacts(run, "pictures")
    ensemble = searched.mlflow_run("ensemble")
    assert ensemble.info.status == "FINISHED"
    assert ensemble.data.tags["mlflow.parentRunId"] == parent
    logged = {"confusion.png", "metrics.json", "manifest.yaml", "post.json", "model_card.md"}
    assert logged <= set(searched.artifacts(ensemble))
    champion = searched.client.get_model_version_by_alias("trashseg", "champion")
    assert champion.run_id == ensemble.info.run_id
    assert float(champion.tags["score"]) == ensembled["metrics"]["nested"]["miou"]
    assert "oof/soft_vote/miou" in ensemble.data.metrics
    assert "nested/miou" in ensemble.data.metrics
    picture = searched.client.download_artifacts(ensemble.info.run_id, "confusion.png")
    assert Path(picture).read_bytes().startswith(b"\x89PNG")


# --- the report --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reported:
    page: Path
    facts: dict[str, Any]
    figures: dict[str, Any]


@pytest.fixture(scope="module")
def reported(searched: Searched, ensembled: dict[str, Any]) -> Reported:
    """With PNGs where there is a browser to draw them."""
    told = ["report", "--name", "night", "--storage", str(searched.run.path.parent)]
    result = CliRunner().invoke(launch.app, [*told, *(["--png"] if CHROMIUM else [])])
    assert result.exit_code == 0, result.output
    text = searched.run.report.read_text()
    return Reported(
        searched.run.report, read_embedded(text, "facts"), read_embedded(text, "figures")
    )


def test_the_report_has_the_numbers_of_the_leaderboard(
    searched: Searched, reported: Reported
) -> None:
    trials = {trial["name"]: trial for trial in reported.facts["trials"]}
    with searched.run.leaderboard.open() as file:
        lines = list(csv.DictReader(file))
    assert len(trials) == len(lines) == TRIALS
    contenders = {c["name"]: c for c in reported.facts["outcome"]["contenders"]}
    for line in lines:
        trial = trials[line["trial_id"]]
        assert (str(trial["rank"]), trial["state"]) == (line["rank"], line["state"])
        assert str(trial["epochs"]) == line["epochs"]
        for metric in ("miou", "miou_image"):
            score = trial[metric]
            assert ("" if score is None else f"{score:.6f}") == line[metric]
        if line["final_mean"]:
            contender = contenders[line["trial_id"]]
            assert f"{contender['mean']:.6f}" == line["final_mean"]
            assert f"{contender['standard_error']:.6f}" == line["final_se"]
            assert str(len(contender["scores"])) == line["final_runs"]


def test_the_report_has_the_curves_and_epochs_of_the_study(
    searched: Searched, reported: Reported
) -> None:
    study = optuna.load_study(study_name="night", storage=f"sqlite:///{searched.run.study_db}")
    for trial, told in zip(study.trials, reported.facts["trials"], strict=True):
        curve = {int(epoch): score for epoch, score in told["curve"].items()}
        assert curve == trial.intermediate_values
        assert told["point"] == trial.params
        if told["state"] != "failed":
            assert trial.user_attrs["hostname"]
            assert trial.user_attrs["device"]
    epochs = sum(row.epochs for row in searched.rows)
    left = sum(EPOCHS - row.epochs for row in searched.rows if row.state == "pruned")
    saved = reported.facts["saved"]
    assert saved["trained"] == epochs
    assert (saved["saved_by_rungs"], saved["saved_by_patience"]) == (left, 0)
    search, folds = reported.facts["times"]["work"]
    assert (search["trainings"], search["epochs"]) == (TRIALS, epochs)
    # two finalists on two folds, one of which the search had trained
    assert (folds["trainings"], folds["epochs"]) == (2, 2 * EPOCHS)
    assert search["machines"] == folds["machines"]
    assert len(search["machines"]) == 1


def test_the_report_has_the_scores_of_the_ensemble(
    searched: Searched, ensembled: dict[str, Any], reported: Reported
) -> None:
    metrics, told = ensembled["metrics"], reported.facts["ensemble"]
    for key in ("oof", "nested", "members", "test", "chosen"):
        assert told[key] == metrics[key]
    assert list(told["candidates"].values()) == list(metrics["candidates"].values())
    assert [step["gain"] for step in told["steps"]] == [step["gain"] for step in metrics["steps"]]
    with (searched.run.ensemble / "confusion.csv").open() as file:
        header, *rows = csv.reader(file)
    assert told["classes"] == header[1:]
    assert told["confusion"] == [[int(cell) for cell in row[1:]] for row in rows]
    hand = {
        fold: json.loads((searched.run.fold("trial_000", fold) / "metrics.json").read_text())[
            "miou"
        ]
        for fold in (0, 1)
    }
    gains = [metrics["nested_by_fold"][str(fold)]["miou"] - hand[fold] for fold in (0, 1)]
    assert told["against_hand"]["difference"] == pytest.approx(fmean(gains))


def test_the_report_scores_photos_as_the_ensemble_does(
    ensembled: dict[str, Any], reported: Reported
) -> None:
    photos = reported.facts["photos"]["photos"]
    metrics = ensembled["metrics"]
    chosen = metrics["oof"][metrics["chosen"]]
    assert len(photos) == 20
    assert fmean(p["scores"]["iou"] for p in photos) == pytest.approx(chosen["miou_image"])
    by_iou = sorted(photos, key=lambda photo: photo["scores"]["iou"])
    groups = reported.facts["photos"]["groups"]
    assert {len(names) for names in groups.values()} == {4}
    assert by_iou[0]["file_name"] == groups["worst"][0]
    assert by_iou[-1]["scores"]["iou"] == next(
        photo["scores"]["iou"] for photo in photos if photo["file_name"] == groups["best"][0]
    )


def test_the_report_is_attached_to_the_parent_in_mlflow(
    searched: Searched, reported: Reported
) -> None:
    parent = searched.mlflow_run("parent")
    assert parent.info.status == "FINISHED"
    kept = searched.client.download_artifacts(parent.info.run_id, "report.html")
    assert Path(kept).read_bytes() == reported.page.read_bytes()


@pytest.mark.skipif(not CHROMIUM, reason=NOT_INSTALLED)
def test_every_figure_is_drawn_and_nothing_is_asked_of_a_server(reported: Reported) -> None:
    for size in ((1280, 900), (390, 844)):
        seen = look_at(reported.page, size)
        assert seen.messages == []
        assert seen.elsewhere == []
        assert seen.width <= size[0]
        assert seen.drawn == dict.fromkeys(reported.figures, True)


@pytest.mark.skipif(not CHROMIUM, reason=NOT_INSTALLED)
def test_every_figure_is_a_png_too(searched: Searched, reported: Reported) -> None:
    files = sorted(searched.run.figures.iterdir())
    assert [file.stem for file in files] == sorted(reported.figures)
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")
    run_id = searched.mlflow_run("parent").info.run_id
    logged = {Path(entry.path).name for entry in searched.client.list_artifacts(run_id, "figures")}
    assert logged == {file.name for file in files}


# --- at the end --------------------------------------------------------------------------------


def test_with_a_further_seed_only_what_is_missing_is_trained(searched: Searched) -> None:
    own = retrain(searched.run, top_k=1, fold_count=1)
    before = [written(model.folder) for model in own]
    models = retrain(searched.run, top_k=1, fold_count=1, seeds=2)
    assert [(model.config.seed, model.fold) for model in models] == [
        (own[0].config.seed, 0), (own[0].config.seed + 1, 0)
    ]  # fmt: skip
    assert models[1].name == f"{own[0].name.removesuffix('/0')}_seed_{models[1].config.seed}/0"
    assert [written(model.folder) for model in own] == before
    assert is_trained(models[1])
    found = plan_folds(searched.run, top_k=1, fold_count=1)
    assert found == models, "a seed that is there votes without being asked for"
    assert {model.config.seed for model in plan_folds(searched.run, top_k=1)} == {
        own[0].config.seed
    }, "on all folds it is not there"


def test_asking_for_more_than_the_search_left_is_refused(searched: Searched) -> None:
    finished = sum(row.state == "finished" for row in searched.rows)
    with pytest.raises(ConfigError, match=rf"has {finished} finished trials, --top-k is 9: lower"):
        retrain(searched.run, top_k=9, fold_count=2)
    with pytest.raises(ConfigError, match="--folds 3: the run has 2 folds: ask for fewer"):
        retrain(searched.run, top_k=1, fold_count=3)
