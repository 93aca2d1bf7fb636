"""The leaderboard: its order, its file, and the configurations of the best."""

import csv
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from search.config import SearchConfig
from search.ledger import Ledger
from search.results import Row, Standing, best_trials, leaderboard, summary, to_csv, write_results
from search.run_folder import RunFolder, new_run_folder
from search.space import Space, load_space
from tests.search.ledgers import open_ledger
from trashseg.config_file import load_train_config
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.errors import ConfigError

C, P, F, R = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING


def trial(
    number: int, state: TrialState, epochs: int = 9, score: float | None = 0.5, **attrs: Any
) -> FrozenTrial:
    """A trial as the searcher leaves it: a failed one has its epochs' scores only."""
    told = {"epoch": epochs, "best_miou": score, "best_miou_image": score and score / 2}
    return optuna.trial.create_trial(
        state=state,
        value=score if state == C else None,
        params={"loss.name": "dice", "optim.decoder_lr": 0.01},
        distributions={
            "loss.name": CategoricalDistribution(("dice", "focal")),
            "optim.decoder_lr": FloatDistribution(0.001, 0.1),
        },
        intermediate_values=dict.fromkeys(range(1, epochs + 1), 0.1),
        user_attrs={
            "trial_id": f"trial_{number:03d}",
            **(told if state in (C, P) else {}),
            **attrs,
        },
    )


def ids(rows: list[Row]) -> list[int]:
    return [int(row.trial_id.removeprefix("trial_")) for row in rows]


# --- order -------------------------------------------------------------------------------------


def test_finished_outrank_pruned_outrank_failed_whatever_the_score() -> None:
    rows = leaderboard([trial(0, F), trial(1, P, 8, 0.99), trial(2, C, 9, 0.01)], "miou")
    assert ids(rows) == [2, 1, 0]
    assert [row.state for row in rows] == ["finished", "pruned", "failed"]


def test_finished_ones_are_ranked_by_their_score() -> None:
    rows = leaderboard([trial(0, C, 9, 0.3), trial(1, C, 9, 0.6), trial(2, C, 4, 0.5)], "miou")
    assert ids(rows) == [1, 2, 0]


def test_pruned_ones_are_ranked_by_how_far_they_got_then_by_their_score() -> None:
    rows = leaderboard(
        [trial(0, P, 3, 0.9), trial(1, P, 9, 0.1), trial(2, P, 9, 0.2), trial(3, P, 3, 0.95)],
        "miou",
    )
    assert ids(rows) == [2, 1, 3, 0]


def test_a_score_of_zero_outranks_no_score() -> None:
    rows = leaderboard([trial(0, C, best_miou=None), trial(1, C, 9, 0.0)], "miou")
    assert ids(rows) == [1, 0]


def test_the_searchs_metric_ranks() -> None:
    first = trial(0, C, 9, 0.5, best_miou_image=0.1)
    second = trial(1, C, 9, 0.4, best_miou_image=0.2)
    assert ids(leaderboard([first, second], "miou")) == [0, 1]
    assert ids(leaderboard([first, second], "miou_image")) == [1, 0]


def test_trials_that_are_not_over_are_left_out() -> None:
    assert leaderboard([trial(0, R), trial(1, TrialState.WAITING)], "miou") == []


def test_a_failed_trial_has_no_score_but_the_epochs_it_reported() -> None:
    [row] = leaderboard([trial(0, F, epochs=2)], "miou")
    assert (row.epochs, row.miou, row.miou_image) == (2, None, None)
    [row] = leaderboard([trial(0, F, epochs=0)], "miou")
    assert row.epochs == 0


def test_a_row_says_what_was_tried_and_whether_by_hand() -> None:
    rows = leaderboard([trial(0, C, hand_tuned=True), trial(1, C)], "miou")
    assert [row.hand_tuned for row in rows] == [True, False]
    assert rows[0].point == {"loss.name": "dice", "optim.decoder_lr": 0.01}


@given(
    st.lists(
        st.tuples(st.sampled_from([C, P, F]), st.integers(1, 9), st.floats(0, 1, allow_nan=False)),
        max_size=12,
    )
)
def test_no_stopped_trial_is_ever_above_a_finished_one(
    trials: list[tuple[TrialState, int, float]],
) -> None:
    rows = leaderboard(
        [
            trial(number, state, epochs, score)
            for number, (state, epochs, score) in enumerate(trials)
        ],
        "miou",
    )
    assert sorted(ids(rows)) == list(range(len(trials)))
    order = [["finished", "pruned", "failed"].index(row.state) for row in rows]
    assert order == sorted(order)


# --- leaderboard.csv ---------------------------------------------------------------------------


@pytest.fixture
def space(tmp_path: Path) -> Space:
    (tmp_path / "space.yaml").write_text(
        "loss.name: {choice: [cross_entropy, dice, focal]}\n"
        "loss.gamma: {float: [0.5, 4.0], when: {loss.name: [focal]}}\n"
        "optim.decoder_lr: {float: [1.0e-4, 0.1], log: true}\n"
    )
    return load_space(str(tmp_path / "space.yaml"))


def test_after_the_final_choice_finalists_rank_first_in_its_order_with_mean_and_error(
    space: Space,
) -> None:
    """1 leads on the search's fold, 0 over more; 2 did not meet them; 3 was stopped."""
    trials = [trial(0, C, 9, 0.5), trial(1, C, 9, 0.6), trial(2, C, 9, 0.4), trial(3, P, 8, 0.9)]
    standings = [Standing("trial_000", 0.45, 0.01, 5), Standing("trial_001", 0.3, None, 1)]
    rows = leaderboard(trials, "miou", standings)
    assert ids(rows) == [0, 1, 2, 3]
    header, *lines = to_csv(rows, space).splitlines()
    assert header.endswith(",optim.decoder_lr,final_mean,final_se,final_runs")
    assert [line.split(",")[-3:] for line in lines] == [
        ["0.450000", "0.010000", "5"],
        ["0.300000", "", "1"],
        ["", "", ""],
        ["", "", ""],
    ]


def test_the_file_has_exactly_these_columns_and_empty_cells_for_what_is_not_there(
    space: Space,
) -> None:
    rows = leaderboard([trial(0, C, 9, 0.123456789), trial(1, F, 2)], "miou")
    assert to_csv(rows, space) == (
        "rank,trial_id,state,epochs,miou,miou_image,loss.name,loss.gamma,optim.decoder_lr\n"
        "0,trial_000,finished,9,0.123457,0.061728,dice,,0.01\n"
        "1,trial_001,failed,2,,,dice,,0.01\n"
    )


def test_a_key_that_the_space_gives_twice_is_one_column(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "model.arch: {choice: [unet, dpt]}\n"
        "model.encoder: {choice: [resnet18], when: {model.arch: [unet]}}\n"
        "model.encoder@vit: {choice: [tu-vit_tiny_patch16_224], when: {model.arch: [dpt]}}\n"
    )
    space = load_space(str(tmp_path / "space.yaml"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"model.arch": "dpt", "model.encoder@vit": "tu-vit_tiny_patch16_224"})
    asked = study.ask()
    space.sample(asked)
    asked.set_user_attr("trial_id", "trial_000")
    study.tell(asked, 0.5)
    rows = leaderboard(study.trials, "miou")
    assert rows[0].point == {"model.arch": "dpt", "model.encoder": "tu-vit_tiny_patch16_224"}
    header, line, _ = to_csv(rows, space).split("\n")
    assert header.endswith("miou_image,model.arch,model.encoder")
    assert line.endswith(",dpt,tu-vit_tiny_patch16_224")


def test_without_trials_the_file_is_its_header(space: Space) -> None:
    assert to_csv([], space).count("\n") == 1


# --- what a run leaves -------------------------------------------------------------------------


def test_a_run_leaves_the_leaderboard_and_the_finished_configurations(
    space: Space, tmp_path: Path
) -> None:
    config = SearchConfig.model_validate({"epochs": 9})
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    ledger = open_ledger(run.study_db, config, space)
    endings = [("finished", 9, 0.2), ("finished", 9, 0.6), ("pruned", 3, 0.9)]
    for state, epoch, score in endings:
        name = ledger.propose()
        ledger.record_epoch(name, epoch, score)
        ledger.end(name, state, {"epoch": epoch, "best_miou": score, "best_miou_image": 0.1})
    ledger.end(ledger.propose(), "failed", {"error": "ValueError: ..."})
    ledger.propose()  # still open: not a row
    rows = write_results(run, ledger.trials, config, space)
    assert ids(rows) == [1, 0, 2, 3]
    with run.leaderboard.open() as file:
        lines = list(csv.DictReader(file))
    assert [line["trial_id"] for line in lines] == [row.trial_id for row in rows]
    assert [float(line["optim.decoder_lr"]) for line in lines] == [
        row.point["optim.decoder_lr"] for row in rows
    ]
    assert sorted(file.name for file in (run.path / "best").iterdir()) == ["0.yaml", "1.yaml"]
    best = load_train_config(run.best(0))
    assert best == space.apply(config.train, rows[0].point)
    assert best.optim.decoder_lr == rows[0].point["optim.decoder_lr"]
    assert load_train_config(run.best(1)) == config.train  # the hand-tuned one


def test_the_best_trials_come_in_order_and_too_many_are_refused(
    tmp_path: Path, sample: Path
) -> None:
    config = SearchConfig.model_validate({"epochs": 9, "search": {"name": "night"}})
    config = config.model_copy(
        update={"search": config.search.model_copy(update={"storage": str(tmp_path)})}
    )
    run, dataset, optim = new_run_folder(config), load_coco(sample), load_space("optim")
    run.create(config, optim, dataset, stratify(dataset, 5, 0))
    ledger = Ledger(run.study_db, config, optim)
    for score in (0.25, 0.5, 0.125):
        name = ledger.propose()
        ledger.record_epoch(name, 9, score)
        ledger.end(name, "finished", {"epoch": 9, "best_miou": score})
    [(best, first), (second, hand_tuned)] = best_trials(run, 2)
    assert (best, second) == ("trial_001", "trial_000")
    assert hand_tuned == config.train != first
    with pytest.raises(ConfigError, match=r"night: has 3 finished trials, --top-k is 4: lower it"):
        best_trials(run, 4)


def test_the_summary_counts_states_and_shows_the_best_and_the_hand_tuned_trial() -> None:
    rows = leaderboard(
        [trial(0, C, 9, 0.4, hand_tuned=True), trial(1, C, 9, 0.6), trial(2, P), trial(3, F)],
        "miou",
    )
    assert summary(rows) == {
        "finished": 2.0, "pruned": 1.0, "failed": 1.0,
        "best/miou": 0.6, "best/miou_image": 0.3,
        "hand_tuned/miou": 0.4, "hand_tuned/miou_image": 0.2,
    }  # fmt: skip
    assert summary([]) == {"finished": 0.0, "pruned": 0.0, "failed": 0.0}
