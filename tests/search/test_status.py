"""What another terminal is told of a search, while it runs and after."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import launch
from search.config import SearchConfig
from search.ledger import Ledger
from search.progress import Curve, Open, Pace, Rung
from search.run_folder import RunFolder, new_run_folder
from search.space import load_space
from search.status import read_status
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.files import write_json


@pytest.fixture
def run(tmp_path: Path, sample: Path) -> RunFolder:
    """Ten trials of nine epochs; five are proposed: 9, 3 and 0 epochs long ones ended, two are open."""
    settings = {
        "name": "night", "storage": str(tmp_path), "data_dir": str(sample), "space": "optim",
        "trials": 10, "grace_period": 3, "reduction_factor": 3,
    }  # fmt: skip
    config = SearchConfig.model_validate({"epochs": 9, "search": settings})
    run, dataset, space = new_run_folder(config), load_coco(sample), load_space("optim")
    run.create(config, space, dataset, stratify(dataset, 5, 0))
    ledger = Ledger(run.study_db, config, space)
    names = [ledger.propose() for _ in range(5)]
    arrivals = 0
    for name, epochs, best in zip(names, (9, 3, 0, 4, 0), (0.5, 0.25, 0, 0.75, 0), strict=True):
        for epoch in range(1, epochs + 1):
            ledger.record_epoch(name, epoch, best * epoch / epochs)
            if epoch == 3:
                ledger.record_arrival(name, 3, before=arrivals)
                arrivals += 1
    ledger.end(names[0], "finished", {"epoch": 9})
    ledger.end(names[1], "pruned", {"epoch": 3})
    ledger.end(names[2], "failed", {"error": "ValueError"})
    return run


def test_trials_are_counted_by_state(run: RunFolder) -> None:
    assert read_status(run).counts == {
        "open": 2, "finished": 1, "pruned": 1, "failed": 1, "to come": 5
    }  # fmt: skip


def test_open_trials_have_their_epoch_and_best_score(run: RunFolder) -> None:
    status = read_status(run)
    assert status.open == [Open("trial_003", 4, 0.75), Open("trial_004", 0, None)]
    assert status.best == Curve("trial_003", (0.1875, 0.375, 0.5625, 0.75))
    assert status.hand_tuned is not None
    assert (status.hand_tuned.name, status.hand_tuned.score) == ("trial_000", 0.5)


def test_the_search_itself_sees_what_another_terminal_reads(run: RunFolder) -> None:
    """The one counts events, also those before its last start; the other reads the file."""
    ledger = Ledger(run.study_db, run.config, run.space)
    ledger.record_epoch("trial_004", 1, 0.75)  # as good as trial_003, and later
    ledger.record_epoch("trial_004", 2, 0.75)
    ledger.record_epoch("trial_004", 3, 0.75)
    ledger.record_arrival("trial_004", 3, before=3)
    ledger.end("trial_003", "pruned", {"epoch": 4})
    ledger.propose()
    seen, read = (replace(status, pace=Pace(0, 0)) for status in
                  (ledger.progress.status(active=False), read_status(run)))  # fmt: skip
    assert seen == read
    assert seen.rungs == [Rung(epoch=3, arrived=4, went_on=4, best=0.75)]
    assert seen.counts["pruned"] == 2
    assert seen.best is not None
    assert seen.best.name == "trial_003"


def test_a_rung_says_how_many_arrived_and_how_many_went_on(run: RunFolder) -> None:
    """At epoch 3: hand-tuned 0.1667, then 0.25, then 0.5625: the third is judged, and is the best."""
    assert read_status(run).rungs == [Rung(epoch=3, arrived=3, went_on=3, best=0.5625)]


def test_the_time_to_go_is_that_of_trials_as_long_as_those_that_ended(run: RunFolder) -> None:
    write_json(run.pace_json, {"started": 1000.0, "last": 1000.0 + 3600.0, "epochs": 20})
    status = read_status(run)
    # 9, 3 and 0 epochs: 4 on average; 5 trials to come, one of 4 epochs has 1 left, one of 0 has 4
    assert status.epochs_left == 5 * 4 + 1 + 4
    assert status.hours_left == pytest.approx(25 / 20)


def test_without_an_epoch_nothing_is_said_about_time(run: RunFolder) -> None:
    assert read_status(run).hours_left is None
    write_json(run.pace_json, {"started": 1000.0, "last": 1000.0, "epochs": 0})
    assert read_status(run).hours_left is None


def test_the_pace_is_kept_with_each_epoch(tmp_path: Path) -> None:
    pace = Pace(started=0.0, last=0.0)
    for _ in range(3):
        pace.epoch(tmp_path / "pace.json")
    assert '"epochs": 3' in (tmp_path / "pace.json").read_text()


def test_the_command_tells_whether_a_search_runs_and_writes_nothing(run: RunFolder) -> None:
    write_json(run.pace_json, {"started": 1000.0, "last": 1000.0 + 3600.0, "epochs": 20})
    before = sorted(run.path.parent.rglob("*"))
    arguments = ["status", "--name", "night", "--storage", str(run.path.parent)]
    idle = CliRunner().invoke(launch.app, arguments)
    assert idle.exit_code == 0
    assert "night: not running; add --resume to its command and it goes on" in idle.stdout
    assert "2 open, 1 finished, 1 pruned, 1 failed, 5 to come" in idle.stdout
    words = " ".join(idle.stdout.split())
    assert "best so far trial_003 0.75" in words
    assert "hand-tuned trial_000 0.5" in words
    assert sorted(run.path.parent.rglob("*")) == before
    with run.locked():
        active = CliRunner().invoke(launch.app, arguments)
    assert "night: running, 20 epochs an hour, about 1 h 15 min to go" in active.stdout
    assert "2 running, 1 finished, 1 pruned, 1 failed, 5 to come" in active.stdout
