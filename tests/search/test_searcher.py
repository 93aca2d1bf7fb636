"""Proposals and states with a real study on disk."""

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.config import SearchConfig
from search.searcher import OptunaSearcher, open_study
from search.space import Point, Space, load_space

CONFIG = SearchConfig.model_validate(
    {"epochs": 9, "search": {"name": "night", "startup_trials": 3, "seed": 4}}
)


@pytest.fixture
def space(tmp_path: Path) -> Space:
    """A small one, because every parameter is a transaction."""
    (tmp_path / "space.yaml").write_text(
        "loss.name: {choice: [cross_entropy, focal]}\n"
        "loss.gamma: {float: [0.5, 4.0], when: {loss.name: [focal]}}\n"
        "optim.decoder_lr: {float: [1.0e-4, 5.0e-3], log: true}\n"
    )
    return load_space(str(tmp_path / "space.yaml"))


def make_searcher(path: Path, space: Space, config: SearchConfig = CONFIG) -> OptunaSearcher:
    study = open_study(path, config)
    return OptunaSearcher(study, space, space.point_of(config.train), config.score_key)


def result(epoch: int, score: float, finished: bool = False) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "best_epoch": epoch,
        "best_miou": score,
        "best_miou_image": score / 2,
        "finished": finished,
    }


def score_of(point: Point) -> float:
    """Some landscape for the sampler to learn."""
    return 1.0 - abs(float(point["optim.decoder_lr"]) - 2e-3)


def run(searcher: OptunaSearcher, first: int, count: int) -> list[Point]:
    """Ask for trials and end each: every third is stopped early, every fifth fails."""
    points = []
    for number in range(first, first + count):
        point = searcher.suggest(f"tune{number}")
        points.append(point)
        searcher.on_trial_result(f"tune{number}", result(3, score_of(point) / 2))
        if number % 5 == 4:
            searcher.on_trial_complete(f"tune{number}", error=True)
        elif number % 3 == 2:
            searcher.on_trial_complete(f"tune{number}", result(4, score_of(point) * 0.6))
        else:
            searcher.on_trial_complete(f"tune{number}", result(9, score_of(point), finished=True))
    return points


# --- the first trial ---------------------------------------------------------------------------


def test_the_first_proposal_is_the_hand_tuned_point(tmp_path: Path, space: Space) -> None:
    searcher = make_searcher(tmp_path / "study.db", space)
    assert searcher.suggest("x") == space.point_of(CONFIG.train)
    assert searcher.suggest("y") != space.point_of(CONFIG.train)
    first, second = open_study(tmp_path / "study.db", CONFIG).trials
    assert first.user_attrs == {"hand_tuned": True, "trial_id": "trial_000"}
    assert second.user_attrs == {"trial_id": "trial_001"}
    assert searcher.hand_tuned == "trial_000"


@pytest.mark.parametrize("name", ["aug_loss", "full", "model", "optim"])
def test_the_first_proposal_is_the_hand_tuned_point_of_conditional_spaces_too(
    tmp_path: Path, name: str
) -> None:
    space = load_space(name)
    searcher = make_searcher(tmp_path / "study.db", space)
    assert searcher.suggest("x") == space.point_of(CONFIG.train)


# --- states ------------------------------------------------------------------------------------


def test_a_trial_that_ran_to_its_end_is_complete_with_its_best_score(
    tmp_path: Path, space: Space
) -> None:
    searcher = make_searcher(tmp_path / "study.db", space)
    searcher.suggest("x")
    searcher.on_trial_result("x", result(1, 0.25))
    searcher.on_trial_result("x", result(2, 0.5))
    searcher.on_trial_complete("x", result(3, 0.75, finished=True))
    [trial] = open_study(tmp_path / "study.db", CONFIG).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.75)
    assert trial.intermediate_values == {1: 0.25, 2: 0.5}
    assert {key: trial.user_attrs[key] for key in ("epoch", "best_epoch")} == {
        "epoch": 3, "best_epoch": 3
    }  # fmt: skip
    assert (trial.user_attrs["best_miou"], trial.user_attrs["best_miou_image"]) == (0.75, 0.375)


def test_a_stopped_trial_is_pruned_with_the_scores_of_all_its_epochs(
    tmp_path: Path, space: Space
) -> None:
    searcher = make_searcher(tmp_path / "study.db", space)
    searcher.suggest("x")
    searcher.on_trial_result("x", result(1, 0.25))
    searcher.on_trial_result("x", result(2, 0.5))
    searcher.on_trial_complete("x", result(3, 0.625))  # Tune reports the last epoch only here
    [trial] = open_study(tmp_path / "study.db", CONFIG).trials
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.25, 2: 0.5, 3: 0.625}
    assert trial.user_attrs["epoch"] == 3


@pytest.mark.parametrize(
    "ending",
    [
        {"error": True},
        {"result": result(2, 0.5), "error": True},
        {"result": None},
        {"result": {}},
        {"result": {"pid": 1}},
    ],
    ids=str,
)
def test_a_trial_that_failed_or_reported_nothing_is_failed(
    tmp_path: Path, space: Space, ending: dict[str, Any]
) -> None:
    searcher = make_searcher(tmp_path / "study.db", space)
    searcher.suggest("x")
    searcher.on_trial_result("x", result(1, 0.25))
    searcher.on_trial_complete("x", **ending)
    [trial] = open_study(tmp_path / "study.db", CONFIG).trials
    assert trial.state == TrialState.FAIL
    assert trial.intermediate_values == {1: 0.25}


def test_a_score_of_zero_counts(tmp_path: Path, space: Space) -> None:
    searcher = make_searcher(tmp_path / "study.db", space)
    searcher.suggest("x")
    searcher.on_trial_complete("x", result(9, 0.0, finished=True))
    [trial] = open_study(tmp_path / "study.db", CONFIG).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)


def test_the_metric_that_is_searched_for_is_the_studys_value(tmp_path: Path, space: Space) -> None:
    config = CONFIG.model_copy(update={"metric": "miou_image"})
    searcher = make_searcher(tmp_path / "study.db", space, config)
    searcher.suggest("x")
    searcher.on_trial_complete("x", result(9, 0.5, finished=True))
    assert open_study(tmp_path / "study.db", config).best_value == 0.25


# --- seeds -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_proposals_when_told_the_same(
    tmp_path: Path, space: Space
) -> None:
    once = run(make_searcher(tmp_path / "a.db", space), 0, 8)
    again = run(make_searcher(tmp_path / "b.db", space), 0, 8)
    assert once == again
    assert all(one != other for one, other in pairwise(once))


def test_another_seed_gives_other_proposals_after_the_hand_tuned_one(
    tmp_path: Path, space: Space
) -> None:
    other = CONFIG.model_copy(update={"search": CONFIG.search.model_copy(update={"seed": 5})})
    once = run(make_searcher(tmp_path / "a.db", space), 0, 4)
    again = run(make_searcher(tmp_path / "b.db", space, other), 0, 4)
    assert once[0] == again[0]
    assert all(one != two for one, two in zip(once[1:], again[1:], strict=True))


def test_proposals_after_the_start_up_depend_on_the_results(tmp_path: Path, space: Space) -> None:
    proposals = []
    for sign in (1, -1):
        searcher = make_searcher(tmp_path / f"{sign}.db", space)
        for number in range(8):
            point = searcher.suggest(f"tune{number}")
            score = 0.5 + sign * 100 * float(point["optim.decoder_lr"])
            searcher.on_trial_complete(f"tune{number}", result(9, score, finished=True))
        proposals.append(searcher.suggest("next"))
    assert proposals[0] != proposals[1]


# --- crash and continue ------------------------------------------------------------------------


def test_a_restored_searcher_goes_on_with_the_same_proposals(tmp_path: Path, space: Space) -> None:
    """Tune unpickles the searcher as it was at the start, then restores its saved state."""
    straight = make_searcher(tmp_path / "a.db", space)
    expected = run(straight, 0, 8)

    interrupted = make_searcher(tmp_path / "b.db", space)
    pickled = pickle.dumps(interrupted)
    before = run(interrupted, 0, 5)
    interrupted.save(str(tmp_path / "searcher.pkl"))
    del interrupted
    restored = pickle.loads(pickled)
    restored.restore(str(tmp_path / "searcher.pkl"))
    assert before + run(restored, 5, 3) == expected


def test_a_restored_searcher_knows_the_trials_under_way(tmp_path: Path, space: Space) -> None:
    searcher = make_searcher(tmp_path / "study.db", space)
    pickled = pickle.dumps(searcher)
    searcher.suggest("x")
    searcher.suggest("y")
    searcher.on_trial_result("y", result(1, 0.25))
    searcher.save(str(tmp_path / "searcher.pkl"))
    restored = pickle.loads(pickled)
    restored.restore(str(tmp_path / "searcher.pkl"))
    restored.on_trial_result("y", result(2, 0.5))
    restored.on_trial_complete("y", result(3, 0.75))
    restored.on_trial_complete("x", result(9, 0.5, finished=True))
    study = open_study(tmp_path / "study.db", CONFIG)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert study.trials[1].intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75}
    assert study.trials[1].user_attrs["trial_id"] == "trial_001"


def test_a_new_searcher_on_a_study_that_has_trials_does_not_enqueue_the_first_again(
    tmp_path: Path, space: Space
) -> None:
    run(make_searcher(tmp_path / "study.db", space), 0, 2)
    make_searcher(tmp_path / "study.db", space)
    study = optuna.load_study(study_name="night", storage=f"sqlite:///{tmp_path}/study.db")
    assert [trial.user_attrs.get("hand_tuned", False) for trial in study.trials] == [True, False]
