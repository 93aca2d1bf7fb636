"""Studies: what a file may say, which trainings it means, and a real one on Ray from end to end."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient
from typer.testing import CliRunner

import launch
from search.config import SearchConfig, load_search_config
from search.run_folder import RunFolder
from search.significance import Comparison, Verdict
from search.study import STUDIES, StudyFile, folds_of, load_study, plan, run_study
from search.study_results import StudyResults, Training, VariantResult, summarise, to_csv
from search.tables import print_study
from tests.tiny import TINY_MODEL, as_settings
from trashseg.config import TrainConfig
from trashseg.errors import ConfigError
from trashseg.fold_models import FoldModel

NAMES = sorted(file.stem for file in STUDIES.glob("*.yaml"))

STUDY = """
baseline: cross_entropy
variants:
  cross_entropy: {loss.name: cross_entropy}
  focal: {loss.name: focal}
  absurd: {optim.decoder_lr: 1.0e+30}
"""


def written(tmp_path: Path, text: str) -> StudyFile:
    (tmp_path / "mine.yaml").write_text(text)
    return load_study(str(tmp_path / "mine.yaml"))


# --- the files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("config", [None, "demo", "taco_cpu", "gpu", "recipes/deeplabv3"])
def test_every_study_has_different_variants_of_every_configuration(
    name: str, config: str | None
) -> None:
    path = STUDIES.parent / f"{config}.yaml" if config else None
    base = load_search_config(path).train
    variants = load_study(name).configs(base, where=name)
    assert set(variants) == set(load_study(name).variants)


def test_the_losses_are_the_teams_seven() -> None:
    variants = load_study("losses").configs(TrainConfig(), where="losses")
    assert load_study("losses").baseline == "cross_entropy"
    assert {name: config.loss.name for name, config in variants.items()} == {
        name: name
        for name in (
            *("cross_entropy", "focal", "ce_l1", "dice", "dice_topk", "dice_focal", "dice_bce"),
        )
    }


def test_the_augmentations_are_the_teams_ten_each_alone() -> None:
    variants = load_study("augmentations").configs(TrainConfig(), where="augmentations")
    used = {
        name: [key for key, section in config.augment if section.p > 0]
        for name, config in variants.items()
    }
    assert used.pop("none") == []
    assert used == {name: [name] for name in used}
    assert set(used) == {
        *("horizontal_flip", "channel_shuffle", "clahe", "vertical_flip", "brightness_contrast"),
        *("cutout", "elastic_transform", "grid_distortion", "shift_scale_rotate"),
        "random_resized_crop",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("baseline: a\nvariants: {b: {}, c: {}}", "baseline 'a', choose one of b, c"),
        ("baseline: a\nvariants: {a: {}}", "needs two variants at least"),
        ("baseline: a/b\nvariants: {a/b: {}, c: {}}", "'a/b': use letters, digits"),
        ("variants: {a: {}, b: {}}", "baseline: field required"),
        ("baseline: a\nvariant: {a: {}}", "variant: unknown key, did you mean 'variants'?"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_an_unknown_study_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"study loses: unknown value, did you mean 'losses'\?"):
        load_study("loses")


def test_a_key_that_does_not_exist_is_named_with_its_variant(tmp_path: Path) -> None:
    study = written(tmp_path, "baseline: a\nvariants: {a: {}, b: {loss.nam: dice}}")
    with pytest.raises(ConfigError, match=r"mine, variant b: loss\.nam: unknown key, did you mean"):
        study.configs(TrainConfig(), where="mine")


def test_two_variants_that_are_one_are_refused(tmp_path: Path) -> None:
    study = written(tmp_path, "baseline: a\nvariants: {a: {}, b: {seed: 0}}")
    with pytest.raises(ConfigError, match="a and b are the same configuration"):
        study.configs(TrainConfig(), where="mine")


# --- the plan ----------------------------------------------------------------------------------


def test_all_variants_train_on_a_fold_before_the_next_fold_and_seed(tmp_path: Path) -> None:
    variants = {"a": TrainConfig(seed=5), "b": TrainConfig(seed=5, epochs=3)}
    planned = plan(RunFolder(tmp_path), variants, range(2), range(5, 7))
    assert [(t.variant, t.model.fold, t.seed) for t in planned] == [
        *(("a", 0, 5), ("b", 0, 5), ("a", 1, 5), ("b", 1, 5)),
        *(("a", 0, 6), ("b", 0, 6), ("a", 1, 6), ("b", 1, 6)),
    ]
    assert planned[-1].model.config == TrainConfig(seed=6, epochs=3)
    assert planned[-1].model.folder == tmp_path / "folds" / "b_seed_6" / "1"
    assert len({training.model.folder for training in planned}) == 8


def test_more_folds_than_there_are_is_refused() -> None:
    assert folds_of(TrainConfig(), None) == range(5)
    with pytest.raises(ConfigError, match=r"--folds 6: data\.folds is 5: ask for fewer"):
        folds_of(TrainConfig(), 6)


def test_the_summary_is_of_the_configurations_metric_and_corrected_for_its_folds() -> None:
    def training(variant: str, fold: int, miou: float) -> tuple[Training, dict[str, Any]]:
        model = FoldModel(0, fold, Path(variant) / str(fold), TrainConfig())
        return Training(variant, 0, model), {"miou": miou, "miou_image": 0.9, "best_epoch": 1}

    done = [training("a", fold, 0.1 * fold) for fold in range(3)]
    done += [training("b", fold, 0.1 * fold + 0.01 * (fold + 1)) for fold in range(3)]
    results = summarise(done, "a", TrainConfig())
    assert (results.metric, results.folds, results.seeds) == ("miou", (0, 1, 2), (0,))
    a, b = results.variants
    assert (a.name, a.trainings, a.mean, a.compared) == ("a", 3, pytest.approx(0.1), None)
    assert a.spread == pytest.approx(0.1)
    assert b.compared is not None
    # differences 0.01, 0.02, 0.03: s = 0.01; folds share: sqrt(1/3 + 1/4)
    assert b.compared.difference == pytest.approx(0.02)
    assert b.compared.standard_error == pytest.approx(0.01 * (7 / 12) ** 0.5)


def test_the_table_shows_the_best_first_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    def comparison(verdict: Verdict) -> Comparison:
        return Comparison(4, 0.0123, 0.002, (0.005, 0.0196), 0.001, 0.002, verdict)

    results = StudyResults(
        *("miou", "plain", "a stated test", (0, 1), (0, 1)),
        (
            VariantResult("plain", 4, 0, 0.3, 0.01, None),
            VariantResult("flipped", 4, 2, 0.3123, 0.02, comparison("better")),
            VariantResult("single", 1, 0, 0.2, None, Comparison(1, -0.1, *[None] * 4, "undecided")),
            VariantResult("diverged", 0, 4, None, None, None),
        ),
    )
    print_study(Path("runs/mine"), results)
    text = capsys.readouterr().out
    cells = [[c.strip() for c in line.split("│")] for line in text.splitlines() if "│" in line]
    assert [row[1] for row in cells] == ["flipped", "plain", "single", "diverged"]
    assert cells[0][2:-1] == [
        *(
            "4 (2 failed)",
            "0.3123",
            "0.02",
            "+0.0123",
            "0.002",
            "+0.0050 to +0.0196",
            "0.002",
            "better",
        ),
    ]
    assert cells[1][2:-1] == ["4", "0.3", "0.01", "baseline", "-", "-", "-", "-"]
    assert cells[2][2:-1] == ["1", "0.2", "-", "-0.1000", "-", "-", "-", "undecided"]
    assert cells[3][2:-1] == ["0 (4 failed)", *"-------"]
    assert "mine: miou on 2 folds with 2 seeds" in text
    assert "a stated test" in text


def test_a_training_that_failed_is_counted_and_its_pair_left_out() -> None:
    def training(variant: str, fold: int, miou: float | None) -> Any:
        model = FoldModel(0, fold, Path(variant) / str(fold), TrainConfig())
        scores = None if miou is None else {"miou": miou, "miou_image": miou, "best_epoch": 7}
        return Training(variant, 3, model), scores

    ended = [training("a", fold, 0.1) for fold in (0, 1, 2)]
    ended += [training("b", 0, 0.2), training("b", 1, None), training("b", 2, 0.4)]
    ended += [training("c", fold, None) for fold in (0, 1, 2)]
    a, b, c = summarise(ended, "a", TrainConfig()).variants
    assert (a.trainings, a.failed) == (3, 0)
    assert (b.trainings, b.failed, b.mean) == (2, 1, pytest.approx(0.3))
    assert b.compared is not None
    # differences 0.1 and 0.3 of the folds that both have
    assert (b.compared.pairs, b.compared.difference) == (2, pytest.approx(0.2))
    assert (c.trainings, c.failed, c.mean, c.spread, c.compared) == (0, 3, None, None, None)
    assert to_csv(ended).splitlines()[3:6] == [
        "a,3,2,7,0.100000,0.100000",
        "b,3,0,7,0.200000,0.200000",
        "b,3,1,,,",
    ]


# --- a real one --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_trains_compares_and_goes_on_with_what_is_missing(
    sample: Path, tmp_path: Path
) -> None:
    """Two losses and a rate that breaks every training, first on one fold with one seed, then on two
    folds with two seeds."""
    study = written(tmp_path, STUDY)
    config = load_search_config(
        None,
        [
            *("epochs=1", "batch_size=5", "data.image_size=64", "data.folds=2"),
            "loss.class_weights=inverse",  # else an epoch finds the background alone
            *(
                "search.grace_period=1",
                "optim.decoder_lr=0.01",
                "search.name=mine",
                *as_settings(TINY_MODEL),
            ),
            *(f"search.data_dir={sample}", f"search.storage={tmp_path / 'runs'}"),
            f"search.tracking_uri=sqlite:///{tmp_path / 'mlflow.db'}",
        ],
    )
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=40
    )
    try:
        run, first = run_study(study, config, fold_count=1, seeds=1)
        assert [(v.trainings, v.failed) for v in first.variants] == [(1, 0), (1, 0), (0, 1)]
        compared = first.variants[1].compared
        assert compared is not None
        assert (compared.pairs, compared.p, compared.verdict) == (1, None, "undecided")
        written_at = {p: p.stat().st_mtime_ns for p in run.path.rglob("model.safetensors")}
        assert len(written_at) == 2

        _, results = run_study(study, config, fold_count=None, seeds=2)
        again = {p: p.stat().st_mtime_ns for p in run.path.rglob("model.safetensors")}
        assert len(again) == 8
        assert written_at.items() <= again.items(), "what exists is not trained again"
        assert [(v.trainings, v.failed) for v in results.variants] == [(4, 0), (4, 0), (0, 4)]
        check_results(run.path, results.variants)
        check_mlflow(config, run)
        with pytest.raises(
            ConfigError, match="mine: holds a study in which cross_entropy, focal, absurd had other"
        ):
            run_study(study, longer(config), fold_count=1, seeds=1)
    finally:
        ray.shutdown()


def longer(config: SearchConfig) -> SearchConfig:
    return config.model_copy(update={"epochs": 2})


def check_results(folder: Path, variants: Any) -> None:
    with (folder / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert [row["variant"] for row in rows if not row["miou"]] == ["absurd"] * 4
    rows = [row for row in rows if row["miou"]]
    by_pair: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        member = folder / "folds" / f"{row['variant']}_seed_{row['seed']}" / row["fold"]
        metrics = json.loads((member / "metrics.json").read_text())
        assert float(row["miou"]) == pytest.approx(metrics["miou"], abs=1e-6)
        by_pair.setdefault((row["fold"], row["seed"]), {})[row["variant"]] = metrics["miou"]
    assert len({row["miou"] for row in rows}) > 4, "folds and seeds differ"
    differences = [pair["focal"] - pair["cross_entropy"] for pair in by_pair.values()]
    compared = next(variant.compared for variant in variants if variant.name == "focal")
    assert compared.pairs == 4
    assert compared.difference == pytest.approx(sum(differences) / 4)
    kept = json.loads((folder / "study.json").read_text())
    assert kept["variants"][1]["compared"]["p_holm"] == pytest.approx(compared.p_holm)


def check_mlflow(config: SearchConfig, run: RunFolder) -> None:
    client, ids = MlflowClient(config.search.tracking_uri), run.mlflow_ids()
    assert len(ids) == 13
    parent = client.get_run(ids["parent"])
    assert parent.info.status == "FINISHED"
    assert {"study.csv", "study.json"} <= {f.path for f in client.list_artifacts(ids["parent"])}
    assert client.get_run(ids["fold/absurd_seed_1/1"]).info.status == "FAILED"
    one = client.get_run(ids["fold/focal_seed_1/1"])
    assert one.data.tags["mlflow.parentRunId"] == ids["parent"]
    assert one.data.params["seed"] == "1"
    assert one.data.params["loss.name"] == "focal"


def test_a_study_of_a_folder_that_is_none_is_refused(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "losses").mkdir(parents=True)
    arguments = ["study", "losses", "--data", str(sample), "--storage", str(tmp_path / "runs")]
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    result = CliRunner().invoke(launch.app, [*arguments, "--tracking-uri", uri])
    assert result.exit_code == 2
    assert "runs/losses: exists and is no study: choose another --name" in result.stderr
