"""What goes wrong inside a search, with real Ray and MLflow: crashes, memory, NaN, time, folds."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient
from mlflow.entities import Run

from search import driver
from search.attempts import DIED
from search.config import SearchConfig, load_search_config
from search.driver import run_search
from search.results import Row
from search.run_folder import RunFolder
from search.ui import WITHOUT_JOBS
from tests.search import faulty
from tests.tiny import TINY_MODEL, as_settings
from trashseg.errors import TrashSegError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parent.parent.parent
EPOCHS = 3


def make_config(folder: Path, data: Path, *overrides: str) -> SearchConfig:
    (folder / "space.yaml").write_text("optim.decoder_lr: {float: [1.0e-4, 3.0e-3], log: true}\n")
    return load_search_config(None, [*settings(folder, data), *overrides])


def settings(folder: Path, data: Path) -> list[str]:
    return [
        f"epochs={EPOCHS}", "batch_size=8", "patience=0", "data.image_size=64", "data.folds=2",
        "search.name=night", f"search.data_dir={data}", f"search.space={folder}/space.yaml",
        f"search.grace_period={EPOCHS}", f"search.storage={folder}/runs", "search.min_free_gb=0",
        f"search.tracking_uri=sqlite:///{folder}/mlflow.db", "search.cpus_per_trial=1",
        *as_settings(TINY_MODEL),
    ]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Night:
    """A search that ended."""

    def __init__(self, config: SearchConfig) -> None:
        self.run, self.rows = run_search(config)
        self.client = MlflowClient(config.search.tracking_uri)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.trial_id == name)

    def mlflow(self, name: str) -> Run:
        return self.client.get_run(self.run.mlflow_ids()[f"trial/{name}"])

    def steps(self, name: str, metric: str = "miou") -> list[int]:
        points = self.client.get_metric_history(self.mlflow(name).info.run_id, metric)
        return sorted(point.step for point in points)

    def traceback(self, name: str) -> str:
        file = self.client.download_artifacts(self.mlflow(name).info.run_id, "traceback.txt")
        return Path(file).read_text()

    def crashes(self, name: str) -> list[str]:
        attempts = json.loads((self.run.trial(name) / "attempts.json").read_text())
        return [attempt["crash"] for attempt in attempts]


# --- crashes and memory ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty_night(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    config = make_config(
        tmp_path_factory.mktemp("faulty"), sample, "search.trials=6", "search.max_failures=1"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "run_trial", faulty.faulty_trial)
        return Night(config)


def test_a_trial_that_crashed_goes_on_from_its_checkpoint(faulty_night: Night) -> None:
    name = faulty.CRASHES_ONCE
    assert (faulty_night.row(name).state, faulty_night.row(name).epochs) == ("finished", EPOCHS)
    first, second = faulty_night.crashes(name)
    assert first.endswith("RuntimeError: the loader broke\n")
    assert second == ""
    assert faulty_night.steps(name) == [1, 2, 3]


def test_a_trial_whose_worker_died_goes_on_from_its_checkpoint(faulty_night: Night) -> None:
    name = faulty.DIES_ONCE
    assert (faulty_night.row(name).state, faulty_night.row(name).epochs) == ("finished", EPOCHS)
    assert faulty_night.crashes(name) == [DIED, ""]
    assert faulty_night.steps(name) == [1, 2, 3]


def test_a_trial_that_keeps_crashing_fails_with_its_traceback_and_the_search_goes_on(
    faulty_night: Night,
) -> None:
    name = faulty.CRASHES
    assert faulty_night.row(name).state == "failed"
    assert len(faulty_night.crashes(name)) == 2  # the first, and one more start
    run = faulty_night.mlflow(name)
    assert run.info.status == "FAILED"
    assert run.data.tags["state"] == "failed RuntimeError: the loader broke"
    assert ", in faulty_epoch" in faulty_night.traceback(name)
    assert [row.state for row in faulty_night.rows].count("finished") == 5


def test_a_trial_that_ran_out_of_memory_goes_on_with_a_smaller_micro_batch(
    faulty_night: Night,
) -> None:
    name = faulty.SHORT_OF_MEMORY
    assert faulty_night.row(name).state == "finished"
    assert faulty_night.mlflow(name).data.metrics["micro_batch"] == 4
    assert faulty_night.mlflow(name).data.params["batch_size"] == "8"
    assert faulty_night.mlflow("trial_000").data.metrics["micro_batch"] == 8


def test_of_ended_trials_the_weights_of_the_finalists_are_left(faulty_night: Night) -> None:
    kept = {path.parent.name for path in faulty_night.run.path.glob("trials/*/fold_*")}
    finished = [row.trial_id for row in faulty_night.rows if row.state == "finished"]
    assert kept == set(finished[: faulty_night.run.config.search.finalists])
    assert len(kept) < len(finished)


# --- more than half fail -----------------------------------------------------------------------


def test_a_search_whose_trials_all_fail_ends_early_with_the_common_cause(
    sample: Path, tmp_path: Path
) -> None:
    config = make_config(
        tmp_path, sample, "search.trials=9", "optim.decoder_lr=1e30", "search.cpus_per_trial=2"
    )
    (tmp_path / "space.yaml").write_text("optim.decoder_lr: {choice: [1.0e+30, 2.0e+30]}\n")
    message = (
        r"night: ended early, \d of \d trials failed, \d of them like: NonFiniteError: epoch \d, "
        r"step \d: the loss is .* \(last finite: .*\): lower optim\.decoder_lr .*: mend that and"
    )
    with pytest.raises(TrashSegError, match=message):
        run_search(config)
    run = RunFolder(tmp_path / "runs" / "night")
    assert len(run.leaderboard.read_text().splitlines()) < 9
    client = MlflowClient(config.search.tracking_uri)
    statuses = {what: client.get_run(i).info.status for what, i in run.mlflow_ids().items()}
    assert statuses["parent"] == "FAILED"
    assert "RUNNING" not in statuses.values()


# --- time and folds ----------------------------------------------------------------------------


def test_a_search_with_little_time_proposes_no_more_than_it_can_finish_and_can_go_on(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night = Night(make_config(tmp_path, sample, "search.trials=20", "search.time_budget=1s"))
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"time budget of 1s used up after {len(night.rows)} of 20 trials; "
        "started again (search with --resume) it goes on"
    ) in said
    assert 1 <= len(night.rows) < 20
    assert {row.state for row in night.rows} == {"finished"}
    more = [*settings(tmp_path, sample), f"search.trials={len(night.rows) + 1}"]
    run, rows = run_search(load_search_config(None, more), resume=True)
    assert len(rows) == len(night.rows) + 1
    assert run.config.search.trials == len(rows)


def test_several_folds_are_one_trial_with_the_mean_and_the_spread(
    sample: Path, tmp_path: Path
) -> None:
    night = Night(make_config(tmp_path, sample, "search.trials=1", "search.folds=[0, 1]"))
    metrics = night.mlflow("trial_000").data.metrics
    mean = (metrics["fold_0_miou"] + metrics["fold_1_miou"]) / 2
    assert metrics["miou"] == pytest.approx(mean)
    spread = abs(metrics["fold_0_miou"] - metrics["fold_1_miou"]) / 2**0.5
    assert metrics["miou_std"] == pytest.approx(spread)
    assert night.steps("trial_000", "miou_std") == [1, 2, 3]
    assert night.mlflow("trial_000").data.tags["folds"] == "0,1"
    assert night.row("trial_000").miou == metrics["best_miou"]


# --- a command of its own, watched -------------------------------------------------------------


class Command:
    """launch.py search, and what it has printed so far."""

    def __init__(self, folder: Path, data: Path, *overrides: str, resume: bool = False) -> None:
        make_config(folder, data)  # for its space
        self._log = folder / "log.txt"
        given = [*settings(folder, data), *overrides]
        command = [sys.executable, str(ROOT / "launch.py"), "search"]
        command += [f"--set={setting}" for setting in given]
        if resume:
            command += ["--resume", "--name", "night", "--storage", str(folder / "runs")]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)

    def output(self) -> str:
        return " ".join(self._log.read_text().split())

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 300
        while text not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It does nothing meanwhile, however long that takes."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def finish(self) -> None:
        assert self.process.wait(300) == 0, self.output()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 MB: a checkpoint of the network takes some 60."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_pauses_the_search_and_loses_nothing(
    small_disk: Path, tmp_path: Path, sample: Path
) -> None:
    command = Command(
        tmp_path, sample, f"search.storage={small_disk}", "search.trials=2",
        "search.min_free_gb=0.15", "search.cpus_per_trial=2",
        "model.encoder=timm-tf_efficientnet_lite0",  # whose checkpoints fill it
    )  # fmt: skip
    command.wait_for("trial_000 started")
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.write(b"x" * (shutil.disk_usage(small_disk).free - 40_000_000))
    command.wait_for("search.min_free_gb is 0.15: free some space and the search goes on; nothing")
    assert command.process.poll() is None
    filler.unlink()
    command.wait_for("going on: 0.")
    command.finish()
    leaderboard = (small_disk / "night" / "leaderboard.csv").read_text()
    assert leaderboard.count(f"finished,{EPOCHS},") == 2


class Server:
    """`mlflow server` on loopback, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri, self._folder = f"http://127.0.0.1:{self.port}", folder
        self.start()

    def start(self) -> None:
        with (self._folder / "server.txt").open("a") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "mlflow", "server", "--port", str(self.port),
                    "--backend-store-uri", f"sqlite:///{self._folder}/server.db",
                    "--artifacts-destination", str(self._folder / "artifacts"), "--workers", "1",
                ],
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, **WITHOUT_JOBS},
            )  # fmt: skip
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self._folder / "server.txt").read_text())

    def stop(self) -> None:
        os.killpg(self._process.pid, 9)
        self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.stop()


def test_a_lost_mlflow_server_holds_nothing_up_and_gets_everything_once_it_is_back(
    server: Server, tmp_path: Path, sample: Path
) -> None:
    command = Command(
        tmp_path, sample, f"search.tracking_uri={server.uri}", "search.trials=3",
        "search.cpus_per_trial=2",
    )  # fmt: skip
    command.wait_for("trial_000 started")
    server.stop()
    command.wait_for(f"MLflow at {server.uri} does not answer (")
    command.wait_for("trial_001 finished")
    with command.paused():  # else the search might end before a slow machine has the server up
        server.start()
    command.wait_for(f"MLflow at {server.uri} is back, ")
    command.finish()
    check_all_is_there(server, RunFolder(tmp_path / "runs" / "night"), trials=3)


@contextmanager
def stopped_once_there_is(path: Path, server: Server) -> Iterator[None]:
    def watch() -> None:
        while not path.exists():
            time.sleep(0.05)
        server.stop()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    watcher.join()


def test_what_an_mlflow_server_missed_is_sent_by_the_next_command(
    server: Server, tmp_path: Path, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path, sample, f"search.tracking_uri={server.uri}", "search.trials=1")
    with stopped_once_there_is(tmp_path / "runs" / "night" / "trials" / "trial_000", server):
        run, _ = run_search(config)
    said = " ".join(capsys.readouterr().out.split())
    assert f"MLflow at {server.uri} does not answer (" in said
    assert "the next command on this run sends them" in said
    server.start()
    run_search(config, resume=True)
    check_all_is_there(server, run, trials=1)


def check_all_is_there(server: Server, run: RunFolder, trials: int) -> None:
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("trashseg")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + trials
    assert {logged.info.status for logged in runs} == {"FINISHED"}
    assert {logged.info.run_id for logged in runs} == set(run.mlflow_ids().values())
    for logged in runs:
        if logged.data.tags["kind"] == "trial":
            points: list[Any] = client.get_metric_history(logged.info.run_id, "miou")
            assert sorted(point.step for point in points) == [1, 2, 3]
            artifacts = client.list_artifacts(logged.info.run_id)
            assert {"config.yaml", "pictures"} <= {artifact.path for artifact in artifacts}
    assert list((run.mlflow / "files").iterdir()) == []
