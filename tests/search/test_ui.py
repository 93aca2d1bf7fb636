"""`launch.py ui`: the two servers, their addresses, their end, and their pages in Chromium."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.config import SearchConfig
from search.ledger import Ledger, read_trials
from search.run_folder import RunFolder, new_run_folder
from search.space import load_space
from search.tracking import Tracker
from search.ui import HOST, Server, answers, free_port, mlflow_page, run_ui, start, watch
from tests.chromium import CHROMIUM, chromium
from tests.conftest import ROOT
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.errors import TrashSegError

SECONDS = 180.0  # that a busy machine may need to start MLflow


@pytest.fixture
def run(tmp_path: Path, sample: Path) -> RunFolder:
    """Two trials, in a folder whose name needs quoting; nothing is in MLflow."""
    folder = tmp_path / "100% mine"
    config = SearchConfig.model_validate(
        {
            "epochs": 9,
            "search": {
                "name": "night", "storage": str(folder), "data_dir": str(sample),
                "space": "optim", "trials": 4, "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            },
        }
    )  # fmt: skip
    run, dataset, space = new_run_folder(config), load_coco(sample), load_space("optim")
    run.create(config, space, dataset, stratify(dataset, 5, 0))
    ledger = Ledger(run.study_db, config, space)
    for score in (0.25, 0.5):
        ledger.record_epoch(ledger.propose(), 1, score)
    return run


def tell_mlflow(run: RunFolder) -> None:
    """The parent run and its two trials."""
    with Tracker(run, run.config.search.tracking_uri).closing() as tracker:
        tracker.start("parent", "night", run.config.train, {"kind": "search"})
        for name in ("trial_000", "trial_001"):
            tracker.start(f"trial/{name}", name, run.config.train, {"kind": "trial"})
            tracker.log_epoch(f"trial/{name}", {"epoch": 1, "miou": 0.25})
            tracker.end(f"trial/{name}", "finished")
        tracker.end("parent", "finished")


def serve_files(folder: Path, *, port: int | None = None) -> Server:
    port = port or free_port(18000)
    command = ["http.server", str(port), "--bind", HOST, "--directory", str(folder)]
    return start("files", command, port, "/", folder)


# --- what there is to show ---------------------------------------------------------------------


def test_a_store_that_is_gone_is_not_made_anew(run: RunFolder) -> None:
    with pytest.raises(TrashSegError, match=r"search.tracking_uri: .*mlflow.db is not there"):
        run_ui(run, say=print)
    assert not (run.path.parent / "mlflow.db").exists()


def test_mlflow_opens_at_the_parent_run(run: RunFolder) -> None:
    uri = run.config.search.tracking_uri
    assert mlflow_page(run, uri, say=print) == "/"  # it has heard of nothing yet
    tell_mlflow(run)
    parent = run.mlflow_ids()["parent"]
    assert (
        mlflow_page(run, uri, say=print)
        == f"/#/experiments/1/runs/{parent}?workflowType=machine_learning"
    )


def test_a_run_that_mlflow_does_not_have_is_said(run: RunFolder) -> None:
    tell_mlflow(run)
    run.mlflow_runs.write_text('{"parent": "0123"}\n')
    said: list[str] = []
    assert mlflow_page(run, run.config.search.tracking_uri, said.append) == "/"
    assert said[0].startswith("warning: MLflow has no run 0123 to show")


# --- servers -----------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) > port
    assert free_port(port) == port


def test_a_server_is_awaited_and_ended(tmp_path: Path) -> None:
    server = serve_files(tmp_path)
    try:
        server.await_page()
        assert answers(f"{server.address}/")
        assert not answers(f"{server.address}/none.html")
    finally:
        server.end()
    assert server.has_ended()
    assert not answers(f"{server.address}/")


def test_a_server_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        server = serve_files(tmp_path, port=taken.getsockname()[1])
        server.process.wait(60)
    with pytest.raises(TrashSegError, match=r"files did not start: .*in use"):
        server.await_page()


def test_a_server_that_dies_is_said_in_a_line_and_the_last_one_is_an_error(tmp_path: Path) -> None:
    servers = [serve_files(tmp_path, port=free_port(first)) for first in (18000, 18500)]
    for server in servers:
        server.await_page()
    servers[0].end()
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        servers[1].end()

    with pytest.raises(TrashSegError, match=r"files has ended: .*: start this command again"):
        watch(servers, hear)
    assert len(said) == 1
    assert said[0].endswith("; files goes on")


# --- all of it ---------------------------------------------------------------------------------


class Shown:
    """`launch.py ui` at work."""

    def __init__(self, run: RunFolder) -> None:
        arguments = ["ui", "--name", "night", "--storage", str(run.path.parent)]
        # what a shell has in the background ignores Ctrl-C, and so would what it starts
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            [sys.executable, "launch.py", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        signal.signal(signal.SIGINT, before)
        assert self.process.stdout
        lines = [self.process.stdout.readline() for _ in range(3)]
        assert lines[2] == "Ctrl-C ends both\n", (lines, self.process.communicate())
        self.mlflow, self.optuna = (line.split()[1] for line in lines[:2])

    def study(self) -> Any:
        page = self.optuna.replace("/dashboard/", "/api/")
        with urllib.request.urlopen(page, timeout=SECONDS) as response:
            return json.load(response)


@pytest.fixture
def shown(run: RunFolder) -> Iterator[Shown]:
    tell_mlflow(run)
    shown = Shown(run)
    try:
        yield shown
    finally:
        if shown.process.poll() is None:
            shown.process.send_signal(signal.SIGINT)
        shown.process.communicate(timeout=SECONDS)


@pytest.mark.slow
def test_both_are_shown_until_ctrl_c_and_the_search_goes_on_writing(
    run: RunFolder, shown: Shown
) -> None:
    assert re.match(r"http://127\.0\.0\.1:\d+/#/experiments/1/runs/[0-9a-f]{32}\?", shown.mlflow)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard/studies/1", shown.optuna)
    ledger = Ledger(run.study_db, run.config, run.space)
    while ledger.proposed < 4:
        name = ledger.propose()
        for epoch in range(1, 10):
            ledger.record_epoch(name, epoch, 0.5)
            assert shown.study()["name"] == "night"
        ledger.end(name, "finished", {"epoch": 9})
    delete = urllib.request.Request(shown.optuna.replace("dashboard", "api"), method="DELETE")
    with pytest.raises(urllib.error.HTTPError):  # the dashboard may only read
        urllib.request.urlopen(delete, timeout=SECONDS)
    assert len(read_trials(run.study_db, "night")) == 4
    see_in_chromium(shown)
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(SECONDS) == 0
    assert not answers(shown.mlflow)
    assert not answers(shown.optuna)


def see_in_chromium(shown: Shown) -> None:
    """The nested runs in the parent run's page, and the study; nothing where there is no Chromium."""
    from playwright.sync_api import expect

    if not CHROMIUM:
        return
    with chromium() as browser:
        page = browser.new_page()
        expect.set_options(timeout=SECONDS * 1000)
        page.goto(shown.mlflow)
        for name in ("trial_000", "trial_001"):
            expect(page.get_by_text(name).first).to_be_visible()
        page.goto(shown.optuna)
        expect(page.get_by_text("night").first).to_be_visible()
