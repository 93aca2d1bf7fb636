"""What helped: what is compared with what, what the page says, and a real one from end to end."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient

from search.ablation import (
    HAND,
    SEARCHED,
    TOGETHER,
    Effort,
    complete,
    longest_first,
    run_ablation,
)
from search.ablation_page import to_markdown
from search.ablation_results import Arm, Results, measure, reaches_goal
from search.config import load_search_config
from search.significance import TEST, Comparison
from search.study import load_study
from tests.tiny import TINY_LEARNER, as_settings
from trashseg.config import TrainConfig
from trashseg.fold_models import FoldModel
from trashseg.metrics import Scores

# --- what is compared with what ----------------------------------------------------------------


def arm(name: str, by_pair: dict[tuple[int, int], float], against: str | None = None) -> Arm:
    scores = {pair: {"miou": miou, "miou_image": 2 * miou} for pair, miou in by_pair.items()}
    return Arm(name, "", "training", scores, against)


HAND_SCORES = {(0, 0): 0.1, (1, 0): 0.2, (0, 1): 0.3, (1, 1): 0.4}


def test_an_arm_is_compared_on_the_folds_and_seeds_that_it_has() -> None:
    hand, flip = measure(
        [arm("hand", HAND_SCORES), arm("flip", {(0, 0): 0.12, (1, 0): 0.26}, "hand")], folds=5
    )
    assert hand.metrics["miou"] is not None
    assert hand.metrics["miou"].mean == pytest.approx(0.25)
    assert hand.metrics["miou"].compared is None
    # differences 0.02 and 0.06: mean 0.04, s = 0.02 sqrt 2; folds share: sqrt(1/2 + 1/4)
    for metric, factor in (("miou", 1), ("miou_image", 2)):
        measured = flip.metrics[metric]
        assert measured is not None
        assert measured.compared is not None
        assert measured.compared.pairs == 2
        assert measured.compared.difference == pytest.approx(factor * 0.04)
        error = factor * 0.02 * 2**0.5 * 0.75**0.5
        assert measured.compared.standard_error == pytest.approx(error)


def test_arms_against_the_same_are_corrected_together_and_others_apart() -> None:
    better = {pair: miou + 0.01 * (1 + pair[0]) for pair, miou in HAND_SCORES.items()}
    arms = [
        arm("hand", HAND_SCORES),
        arm("a", better, "hand"),
        arm("b", better, "hand"),
        arm("c", better, "a"),
        arm("d", {pair: miou + 0.01 * (1 + pair[0]) for pair, miou in better.items()}, "c"),
    ]
    p = {}
    for result in measure(arms, folds=5)[1:]:
        measured = result.metrics["miou"]
        assert measured is not None
        assert measured.compared is not None
        p[result.name] = (measured.compared.p, measured.compared.p_holm)
    assert p["a"][0] == pytest.approx(p["d"][0])
    assert p["a"][1] == pytest.approx(2 * p["a"][0])  # type: ignore[operator]
    assert p["d"][1] == p["d"][0]
    assert p["c"][1] == 1.0


def test_an_arm_whose_every_training_failed_has_no_numbers() -> None:
    _, broken = measure([arm("hand", HAND_SCORES), arm("broken", {}, "hand")], folds=5)
    assert broken.metrics == {"miou": None, "miou_image": None}


@pytest.mark.parametrize(
    ("difference", "error", "met"),
    [
        (0.05, 0.024, True),
        (0.05, 0.025, False),
        (0.049, 0.001, False),
        (0.05, None, False),
        (-0.2, 0.01, False),
    ],
)
def test_the_goal_is_a_twentieth_beyond_two_standard_errors(
    difference: float, error: float | None, met: bool
) -> None:
    compared = Comparison(5, difference, error, None, None, None, "undecided")
    assert reaches_goal(compared) == met


def test_only_seeds_with_every_fold_may_vote_and_a_configurations_seeds_are_one_candidate(
    tmp_path: Path,
) -> None:
    def model(name: str, fold: int, trained: bool = True, **settings: Any) -> FoldModel:
        config = TrainConfig.model_validate(settings)
        folder = tmp_path / name / str(fold)
        if trained:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text(json.dumps({"miou": 0.1}))
            (folder / "config.yaml").write_text(json.dumps(config.model_dump(mode="json")))
        return FoldModel(7, fold, folder, config)

    models = [
        *(model("best", 0, epochs=2), model("best", 1, epochs=2)),
        *(model("half", 0, epochs=3), model("half", 1, trained=False, epochs=3)),
        *(model("other", 0), model("other", 1), model("best", 0, epochs=2)),
        *(model("best_seed_1", 0, epochs=2, seed=1), model("best_seed_1", 1, epochs=2, seed=1)),
        *(model("other_seed_1", 0, seed=1), model("other_seed_1", 1, trained=False, seed=1)),
    ]
    found = [(m.candidate, m.folder.parent.name, m.fold) for m in complete(models)]
    assert found == [
        *((0, "best", 0), (0, "best", 1)),
        *((1, "other", 0), (1, "other", 1)),
        *((0, "best_seed_1", 0), (0, "best_seed_1", 1)),
    ]


def test_pseudo_labels_are_trained_first_and_the_others_in_their_order(tmp_path: Path) -> None:
    def model(name: str, **changes: Any) -> FoldModel:
        return FoldModel(0, 0, tmp_path / name, TrainConfig.model_validate(changes))

    models = [
        model("hand"),
        model("validation", pseudo={"name": "validation"}),
        model("searched", epochs=3),
        model("folder", pseudo={"name": "folder", "folder": str(tmp_path)}),
    ]
    order = [trained.folder.name for trained in longest_first(models)]
    assert order == ["validation", "folder", "hand", "searched"]


# --- the page ----------------------------------------------------------------------------------


def page(*arms: Arm) -> str:
    results = Results(
        photos=4,
        folds=5,
        seeds=(0, 1),
        epochs=2,
        image_size=64,
        architecture="fpn",
        encoder="tiny",
        trials={"finished": 3, "pruned": 1},
        test=TEST,
        arms=measure(arms, folds=5),
    )
    return to_markdown(results)


def whole(by_pair: dict[tuple[int, int], float]) -> Arm:
    scores = {pair: {"miou": miou, "miou_image": miou} for pair, miou in by_pair.items()}
    pooled: Scores = {"miou": 0.5, "miou_image": 0.25, "iou": {"Paper": 0.125, "Glass": None}}
    return Arm(TOGETHER, "all", "together", scores, HAND, pooled=pooled)


def test_what_helps_is_said_to_help_and_what_does_not_is_listed() -> None:
    hand = {(fold, seed): 0.1 * fold for fold in range(5) for seed in range(2)}
    text = page(
        arm(HAND, hand),
        arm("good", {(f, s): v + 0.1 + 0.001 * f for (f, s), v in hand.items()}, HAND),
        arm("bad", {(f, s): v - 0.1 - 0.001 * f for (f, s), v in hand.items()}, HAND),
        arm("noise", {(f, s): v + 0.1 * (-1) ** f for (f, s), v in hand.items()}, HAND),
        whole({pair: miou + 0.06 for pair, miou in hand.items()}),
    )
    lines = text.splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line[:2] == "| "}
    assert "| +0.1020 ± " in rows["good"]
    assert "helps" in rows["good"]
    assert "harms" in rows["bad"]
    assert "not shown to help" in rows["noise"]
    listed = [line.partition(":")[0] for line in lines if line.startswith("- ")]
    assert listed == ["- bad", "- noise"]
    assert "beyond two standard errors, is met: +0.0600 ± 0.0000 over 10 folds" in text
    assert "| 0.5000 | 0.2500 | 0.125 | - |" in text
    assert "The search ran 4 trials (3 finished, 1 pruned)" in text


def test_a_goal_that_is_missed_is_said_to_be_missed() -> None:
    text = page(arm(HAND, HAND_SCORES), whole(HAND_SCORES))
    assert "is not met: +0.0000 ± 0.0000" in text


# --- a real one --------------------------------------------------------------------------------

VOTERS = len(load_study("additions").variants) + 1
"""The additions, hand tuning, and the search's other trial: the final choice, of one of both, has
trained both on all folds."""


@pytest.mark.slow
def test_hand_tuning_search_and_additions_are_trained_once_and_compared(
    sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text("optim.decoder_lr: {float: [1.0e-4, 1.0e-2], log: true}\n")
    config = load_search_config(
        None,
        [
            *("epochs=1", "batch_size=5", "data.image_size=64", "data.folds=2"),
            *("loss.class_weights=none", "patience=0", *as_settings(TINY_LEARNER)),
            *("search.grace_period=1", "search.trials=2", "search.name=results"),
            *(f"search.space={tmp_path / 'space.yaml'}", "search.finalists=2"),
            *(f"search.data_dir={sample}", f"search.storage={tmp_path / 'runs'}"),
            *(f"search.tracking_uri=sqlite:///{tmp_path / 'mlflow.db'}", "search.min_free_gb=0"),
        ],
    )
    effort = Effort(seeds=2, top_k=1, post_trials=1, post_photos=4)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40
    )
    try:
        run, results = run_ablation(config, effort)
        written_at = {p: p.stat().st_mtime_ns for p in run.path.rglob("model.safetensors")}
        again, _ = run_ablation(config, effort)
        assert written_at == {
            p: p.stat().st_mtime_ns for p in again.path.rglob("model.safetensors")
        }
    finally:
        ray.shutdown()
    scored = {found.name: found.scored for found in results.arms}
    assert scored == {
        **{HAND: 4, SEARCHED: 4},
        **dict.fromkeys(load_study("additions").variants.keys() - {"hand"}, 2),
        **{"hand tuning, one seed": 2, "TTA": 2, "logit adjustment": 2, "by object": 2, "CRF": 2},
        **{f"{HAND}, seeds": 2, f"{SEARCHED}, seeds": 2},
        **{f"{what} of {VOTERS}": 2 for what in ("best", "equal vote", "selection")},
        TOGETHER: 2,
    }
    check_numbers(run.path, results)
    voters = json.loads((run.ensemble / "metrics.json").read_text())["voters"]
    assert len(voters) == VOTERS, "all that was trained may vote"
    assert len(voters["0"]) == 4, "both seeds of the best configuration, on both folds"
    tried = json.loads((run.ensemble / "post.json").read_text())["tried"]
    assert tried["start_with"] == 2, "the search's vote alike, without the additions"
    client = MlflowClient(config.search.tracking_uri)
    logged = {file.path for file in client.list_artifacts(run.mlflow_ids()["results"])}
    assert logged == {"results.md", "results.json"}


def check_numbers(run: Path, results: Results) -> None:
    """What is written is what the folds' own files say."""
    kept: dict[str, Any] = json.loads((run / "results.json").read_text())
    means = {found["name"]: found["metrics"]["miou"]["mean"] for found in kept["arms"]}
    folders = ("trial_000", "trial_000_seed_1")
    scores = [miou(run / "folds" / folder / str(fold)) for folder in folders for fold in (0, 1)]
    assert means[HAND] == pytest.approx(sum(scores) / 4)
    ema = [miou(run / "folds" / "trial_000_ema" / str(fold)) for fold in (0, 1)]
    assert means["ema"] == pytest.approx(sum(ema) / 2)
    compared = results.arm("ema").metrics["miou"]
    assert compared is not None
    assert compared.compared is not None
    expected = (ema[0] - scores[0] + ema[1] - scores[1]) / 2
    assert compared.compared.difference == pytest.approx(expected)
    one_seed = results.arm("hand tuning, one seed").metrics["miou"]
    assert one_seed is not None
    assert one_seed.mean == pytest.approx((scores[0] + scores[1]) / 2)
    nested = json.loads((run / "ensemble" / "metrics.json").read_text())["nested_by_fold"]
    assert means[TOGETHER] == pytest.approx((nested["0"]["miou"] + nested["1"]["miou"]) / 2)


def miou(member: Path) -> float:
    return float(json.loads((member / "metrics.json").read_text())["miou"])
