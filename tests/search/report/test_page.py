"""The page of runs in every state: what it says, that its figures are plotly's, that it is whole."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import plotly.graph_objects as go
import pytest
from typer.testing import CliRunner

import launch
from search.ablation import HAND
from search.ablation_results import Arm, Results, measure
from search.report import wording
from search.report.facts import Facts, read_facts
from search.report.figures import draw_all
from search.report.page import render
from search.report.png import check_png
from search.results import Standing
from search.run_folder import RunFolder
from search.significance import TEST
from tests.search.report.made_runs import make_run, train_fold
from tests.search.report.pages import read_embedded
from trashseg.errors import ConfigError, TrashSegError
from trashseg.files import write_json


def page_of(run: RunFolder) -> tuple[Facts, str]:
    """Every figure is one that plotly knows."""
    facts = read_facts(run)
    figures = draw_all(facts)
    for figure in figures.values():
        go.Figure(figure.spec)
        assert figure.title
        assert figure.note
    page = render(facts, figures, None, "")
    drawn = re.findall(r'id="figure-(\w+)"', page)
    assert sorted(drawn) == sorted(figures)
    return facts, page


# --- a search ----------------------------------------------------------------------------------


def test_a_search_that_is_under_way_is_reported(tmp_path: Path, sample: Path) -> None:
    run = make_run(tmp_path, sample, [("finished", 9, 0.5), (None, 4, 0.6), (None, 0, 0)], 10)
    with run.locked():
        facts, page = page_of(run)
    assert facts.active
    assert "1 of\n10 trials had ended" in page
    assert wording.verdicts(facts) == ["The hand-tuned settings won: the search found nothing better."
        , "Nothing here is better than hand tuning by more than the noise."]  # fmt: skip
    assert [trial["state"] for trial in read_embedded(page)["trials"]] == [
        "finished",
        "open",
        "open",
    ]


def test_a_first_trial_without_an_epoch_is_reported(tmp_path: Path, sample: Path) -> None:
    facts, page = page_of(make_run(tmp_path, sample, [(None, 0, 0)]))
    assert wording.verdicts(facts)[0] == "No trial has run to its end yet, so there is no winner."
    assert "Nothing here" not in page


def test_hand_tuning_among_stopped_and_failed_trials_is_reported(
    tmp_path: Path, sample: Path
) -> None:
    made = [("finished", 9, 0.5), ("pruned", 3, 0.2), ("failed", 0, 0), ("failed", 4, 0.1)]
    facts, page = page_of(make_run(tmp_path, sample, made))
    assert facts.saved.saved_by_rungs == 6
    assert [rung.cut for rung in facts.rungs] == [("trial_001",)]
    assert "</script><b>" not in page  # an error's text stays text
    assert read_embedded(page)["trials"][2]["error"].endswith("</script><b>inf</b>")


def test_a_trial_that_was_overtaken_between_two_rungs_was_stopped_from_the_first_on(
    tmp_path: Path, sample: Path
) -> None:
    made = [("finished", 20, 0.5), ("pruned", 4, 0.2), ("pruned", 9, 0.4), ("pruned", 11, 0.3)]
    facts, _ = page_of(make_run(tmp_path, sample, made, epochs=20))
    assert [(rung.epoch, rung.cut) for rung in facts.rungs] == [
        (3, ("trial_001",)), (9, ("trial_002", "trial_003")),
    ]  # fmt: skip


def test_hand_tuning_that_failed_is_said_to_have_no_score(tmp_path: Path, sample: Path) -> None:
    facts, _ = page_of(make_run(tmp_path, sample, [("failed", 0, 0), ("finished", 9, 0.25)]))
    assert wording.verdicts(facts)[0] == (
        "trial_001 won. The hand-tuned settings have no score to compare it with."
    )


def test_one_training_each_is_not_called_better(tmp_path: Path, sample: Path) -> None:
    run = make_run(tmp_path, sample, [("finished", 9, 0.5), ("finished", 9, 0.75)])
    facts, _ = page_of(run)
    [said, nothing] = wording.verdicts(facts)
    assert said.startswith("trial_001 has 0.750, the hand-tuned settings 0.500 (+0.250)")
    assert "how much of it is noise cannot be said" in said
    assert nothing.startswith("Nothing here is better than hand tuning")


def test_a_folder_without_trials_is_refused(tmp_path: Path, sample: Path) -> None:
    run = make_run(tmp_path, sample, [])
    with pytest.raises(ConfigError, match="has no trials: report on a run"):
        read_facts(run)
    assert not run.report.exists()


# --- the final choice --------------------------------------------------------------------------


@pytest.fixture
def chosen(tmp_path: Path, sample: Path) -> RunFolder:
    """trial_001 is better than hand tuning by 0.10, 0.12, 0.11, 0.09, 0.13 on folds 0 to 4, and was
    trained with another seed on fold 0; trial_002's last fold is under way."""
    run = make_run(tmp_path, sample, [("finished", 9, s) for s in (0.5, 0.75, 0.6)])
    for fold, gain in enumerate((0.10, 0.12, 0.11, 0.09, 0.13)):
        train_fold(run, "trial_000", fold, 0.3 + 0.02 * fold)
        train_fold(run, "trial_001", fold, 0.3 + 0.02 * fold + gain)
    train_fold(run, "trial_001_seed_1", 0, 0.9)
    train_fold(run, "trial_002", 0, 0.31)
    train_fold(run, "trial_002", 1, None, epochs=1)
    write_json(run.finals_json, [
        {"trial_id": name, "mean": mean, "standard_error": None, "runs": runs}
        for name, mean, runs in (("trial_001", 0.53, 6), ("trial_002", 0.31, 1))
    ])  # fmt: skip
    return run


def test_the_winner_is_compared_with_hand_tuning_on_the_same_folds(chosen: RunFolder) -> None:
    facts, _ = page_of(chosen)
    assert facts.outcome.winner == "trial_001"
    assert [each.name for each in facts.outcome.contenders] == [
        "trial_001", "trial_002", "trial_000"
    ]  # fmt: skip
    best = facts.outcome.contenders[0]
    assert best.scores["0/1"] == 0.9
    assert best.against_hand is not None
    assert best.against_hand.pairs == 5
    # mean of 0.10 .. 0.13 is 0.11; squares of -1 1 0 -2 2 hundredths sum to 10: s^2 = 10e-4 / 4
    # five folds share: sqrt((1/5 + 1/4) * 2.5e-4)
    assert best.against_hand.difference == pytest.approx(0.11)
    assert best.against_hand.standard_error == pytest.approx((0.45 * 2.5e-4) ** 0.5)
    assert best.against_hand.verdict == "better"
    # without fold 0: 0.12 0.11 0.09 0.13
    assert best.against_hand_unseen is not None
    assert best.against_hand_unseen.difference == pytest.approx(0.1125)
    first, second = wording.verdicts(facts)
    assert first.startswith(
        "trial_001 won. It is ahead of hand tuning by +0.110 ± 0.011 over 5 paired trainings: more"
    )
    assert second.startswith("Without fold 0, on which the search chose it, it is ahead")


def test_a_fold_under_way_has_epochs_and_no_score(chosen: RunFolder) -> None:
    facts, page = page_of(chosen)
    [open_] = [training for training in facts.trainings if training.scores is None]
    assert (open_.variant, open_.fold, open_.epochs, open_.seconds) == ("trial_002", 1, 1, 3.0)
    folds = read_embedded(page)["times"]["work"][1]
    assert (folds["trainings"], folds["epochs"], folds["seconds"]) == (13, 25, 75.0)


def test_a_winner_within_the_noise_is_said_to_be_that(chosen: RunFolder) -> None:
    for fold in range(5):  # now better on some folds, worse on others
        file = chosen.path / "folds" / "trial_001" / str(fold) / "metrics.json"
        scores = json.loads(file.read_text())
        write_json(file, scores | {"miou": 0.3 + 0.02 * fold + (-1) ** fold * 0.05})
    facts, _ = page_of(chosen)
    said = wording.verdicts(facts)
    assert "within the noise" in said[0]
    assert said[-1] == "Nothing here is better than hand tuning by more than the noise."


def test_the_additions_of_make_results_are_drawn(chosen: RunFolder) -> None:
    hand = {(fold, 0): {"miou": 0.1 * fold, "miou_image": 0.0} for fold in range(5)}
    ema = {
        pair: {"miou": s["miou"] + 0.01 * pair[0], "miou_image": 0.0} for pair, s in hand.items()
    }
    arms = [Arm(HAND, "", "training", hand), Arm("ema", "", "training", ema, HAND)]
    results = Results(
        4, 5, (0,), 2, 64, "fpn", "tiny", {"finished": 3}, TEST, measure(arms, folds=5)
    )
    write_json(chosen.results_json, asdict(results))
    facts, page = page_of(chosen)
    spec = read_embedded(page, "figures")["additions"]["data"][0]
    assert spec["y"] == ["ema"]
    assert spec["x"] == pytest.approx([0.02])  # mean of 0, 0.01, .. 0.04
    assert facts.additions is not None


def test_standings_without_folds_are_left_out(tmp_path: Path, sample: Path) -> None:
    """As on another machine, to which the folds were not copied."""
    run = make_run(tmp_path, sample, [("finished", 9, 0.5), ("finished", 9, 0.75)])
    write_json(run.finals_json, [vars(Standing("trial_001", 0.5, 0.1, 2))])
    facts, _ = page_of(run)
    assert facts.outcome.contenders == ()


# --- the command -------------------------------------------------------------------------------


def test_while_another_command_works_on_the_run_the_page_is_written_and_not_logged(
    tmp_path: Path, sample: Path
) -> None:
    run = make_run(tmp_path, sample, [("finished", 9, 0.5), (None, 4, 0.6)])
    told = ["report", "--name", "night", "--storage", str(run.path.parent)]
    with run.locked():
        result = CliRunner().invoke(launch.app, told)
    assert result.exit_code == 0, result.output
    assert "not logged to MLflow: another command works on the run" in result.output
    assert run.report.is_file()
    assert not (tmp_path / "mlflow.db").exists()


def test_png_without_a_browser_is_one_line_and_nothing_is_written(
    tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, sample, [("finished", 9, 0.5)])
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no_browser"))
    told = ["report", "--name", "night", "--storage", str(run.path.parent), "--png"]
    result = CliRunner().invoke(launch.app, told)
    assert result.exit_code == 2
    assert result.stderr.strip().endswith("no such file: name Chromium or Chrome")
    assert result.stderr.count("\n") == 1
    assert not run.report.exists()


def test_png_without_kaleido_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.report.png.find_spec", lambda name: None)
    with pytest.raises(TrashSegError, match=r'needs kaleido: pip install "trashseg\[figures\]"'):
        check_png()


def test_photos_that_are_gone_are_said_to_be_gone(tmp_path: Path, sample: Path) -> None:
    run = make_run(tmp_path, sample, [("finished", 9, 0.5)])
    facts = read_facts(run)
    page = render(facts, draw_all(facts), None, "DIR: no such folder: check --data")
    assert "Not shown: DIR: no such folder: check --data" in page
    assert read_embedded(page)["photos"] is None
