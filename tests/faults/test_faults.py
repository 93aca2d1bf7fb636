"""A short fault campaign; `make faults` is the long one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from search.results import best_trials
from tests.faults.campaign import (
    PATIENCE,
    ROOT,
    TARGETS,
    Search,
    check,
    kill_hard,
    leaderboard_left_alone,
    prepare,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_search_killed_at_random_moments_gives_the_leaderboard_of_one_left_alone(
    tmp_path: Path,
) -> None:
    prepare(tmp_path)
    expected = leaderboard_left_alone(tmp_path, trials=4)
    search = Search(tmp_path, "killed", trials=4, held=True, seed=1)
    for target in TARGETS:
        search.strike(1, (target,))
    assert search.kills == dict.fromkeys(TARGETS, 1)
    search.finish()
    check(search)
    assert search.run.leaderboard.read_text() == expected
    retraining_that_is_killed_goes_on(search)


def retraining_that_is_killed_goes_on(search: Search) -> None:
    """From the last epoch of each fold, in the same MLflow runs; here, because it needs a search."""
    [(best, _)] = best_trials(search.run, 1)
    histories = [search.run.fold(best, fold) / "history.jsonl" for fold in (0, 1)]
    retraining = start_retraining(search)
    while not histories[1].is_file():  # the search has trained the other one
        assert retraining.poll() is None
        time.sleep(0.02)
    kill_family(retraining)
    trained = {file: file.read_text() for file in histories if file.is_file()}
    assert start_retraining(search).wait(PATIENCE) == 0
    for history, before in trained.items():
        assert history.read_text().startswith(before), "an epoch was trained again"
    client = MlflowClient(search.run.config.search.tracking_uri)
    for fold, history in enumerate(histories):
        run = client.get_run(search.run.mlflow_ids()[f"fold/{best}/{fold}"])
        assert run.info.status == "FINISHED"
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "miou")]
        assert sorted(steps) == [1, 2, 3, 4]
        assert len(history.read_text().splitlines()) == 4


def start_retraining(search: Search) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(ROOT / "launch.py"), "retrain", "--name", search.name,
               "--storage", str(search.run.path.parent), "--top-k", "1"]  # fmt: skip
    environment = {**os.environ, "TRASHSEG_CACHE": str(search.folder / "cache")}
    return subprocess.Popen(command, env=environment, start_new_session=True)


def kill_family(process: "subprocess.Popen[bytes]") -> None:
    driver = psutil.Process(process.pid)
    family = [driver, *driver.children(recursive=True)]
    for member in family:
        kill_hard(member)
    process.wait()
    psutil.wait_procs(family, timeout=PATIENCE)


def test_two_trials_at_a_time_are_neither_lost_nor_repeated_when_everything_is_killed(
    tmp_path: Path,
) -> None:
    prepare(tmp_path)
    search = Search(tmp_path, "pair", trials=4, at_a_time=2, held=True, seed=2)
    search.strike(1, ("everything",))
    assert search.kills == {"everything": 1}
    search.finish()
    check(search)
