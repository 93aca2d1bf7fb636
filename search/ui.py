"""MLflow and optuna-dashboard on a run, in the browser of this machine, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from search.config import SQLITE
from search.ledger import read_trials
from search.mlflow_store import PARENT, few_retries, first_line
from search.run_folder import RunFolder
from trashseg.errors import TrashSegError

HOST = "127.0.0.1"
MLFLOW_PORT, OPTUNA_PORT = 5000, 8080  # or the next that are free
START_SECONDS = 180.0
END_SECONDS = 10.0
POLL_SECONDS = 0.2
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # they evaluate language models
AS_TRAINING = "workflowType=machine_learning"  # MLflow's pages otherwise are those for chat bots
STUDY_PAGE = "/dashboard/studies/1"  # a run's file holds one study

Say = Callable[[str], None]


def run_ui(run: RunFolder, say: Say) -> None:
    """Start what is missing, print the addresses, wait.

    Returns at Ctrl-C (or SIGTERM, or when the terminal closes). Raises TrashSegError where there is
    nothing to show, where a server does not come up, and when none is left.
    """
    uri = run.config.search.tracking_uri
    check_store_is_there(run, uri)
    # undoes what a killed search may have half-written: optuna-dashboard, which only reads, cannot
    read_trials(run.study_db, run.config.search.name)
    with suppress(KeyboardInterrupt), interrupted_by_signals(), ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trashseg-ui-")))
        servers = []
        if not is_server(uri):
            servers.append(start_mlflow(uri, logs))
            stack.callback(servers[-1].end)
        servers.append(start_optuna(run, logs))
        stack.callback(servers[-1].end)
        for server in servers:
            server.await_page()
        mlflow = uri.rstrip("/") if is_server(uri) else servers[0].address
        say(f"MLflow            {mlflow}{mlflow_page(run, uri, say)}")
        say(f"optuna-dashboard  {servers[-1].address}{STUDY_PAGE}")
        say("Ctrl-C ends " + ("both" if len(servers) > 1 else "optuna-dashboard"))
        watch(servers, say)


def check_store_is_there(run: RunFolder, uri: str) -> None:
    """MLflow would make an empty one."""
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        raise TrashSegError(
            f"{run.search_yaml}: search.tracking_uri: {uri} is not there: put the file back, or change "
            "the line to where it is now"
        )


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def mlflow_page(run: RunFolder, uri: str, say: Say) -> str:
    """Path of the search's parent run; the start page's where MLflow does not have it."""
    parent = run.mlflow_ids().get(PARENT)
    if parent is None:
        return "/"
    try:
        with few_retries():
            experiment = MlflowClient(uri).get_run(parent).info.experiment_id
    except MlflowException as error:
        say(f"warning: MLflow has no run {parent} to show ({first_line(error)})")
        return "/"
    return f"/#/experiments/{experiment}/runs/{parent}?{AS_TRAINING}"


# --- the two servers -----------------------------------------------------------------------------


def start_mlflow(uri: str, logs: Path) -> "Server":
    port = free_port(MLFLOW_PORT)
    command = ["mlflow", "ui", "--backend-store-uri", uri, "--workers", "1"]
    return start("MLflow", [*command, *at(port)], port, "/health", logs, WITHOUT_JOBS)


def start_optuna(run: RunFolder, logs: Path) -> "Server":
    """On the study, for reading alone: one process may write it, the search, which does not see what
    another one writes. A reader holds the file for no longer than a query takes, and the search waits
    for that (sqlite's busy timeout, 5 s in Python)."""
    port = free_port(OPTUNA_PORT)
    command = ["optuna_dashboard._cli", read_only(run.study_db), "--server", "wsgiref"]
    return start("optuna-dashboard", [*command, *at(port)], port, "/dashboard", logs)


def at(port: int) -> list[str]:
    return ["--host", HOST, "--port", str(port)]


def read_only(study: Path) -> str:
    """SQLAlchemy's address of an sqlite file that it may only read."""
    return f"{SQLITE}file:{quote(str(study))}?mode=ro&uri=true"


def free_port(first: int) -> int:
    """The first port from `first` on at which nothing listens on the loopback."""
    for port in range(first, first + 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one in TIME_WAIT is free
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise TrashSegError(f"{HOST}: no port from {first} to {first + 999} is free: free one")


@dataclass(frozen=True)
class Server:
    """A process that serves pages at `address`, and writes what it has to say into `log`."""

    name: str
    process: subprocess.Popen[bytes]
    address: str
    probe: str
    """Path of a page that is there once it serves."""
    log: Path

    def await_page(self) -> None:
        """TrashSegError where it ends first, or needs too long."""
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.address + self.probe):
            if self.has_ended():
                raise TrashSegError(f"{self.name} did not start: {self.last_words()}")
            if time.monotonic() > deadline:
                raise TrashSegError(
                    f"{self.name} did not answer at {self.address} in {START_SECONDS:.0f} s: "
                    f"{self.last_words()}"
                )
            time.sleep(POLL_SECONDS)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "it said nothing")[:300]

    def end(self) -> None:
        """It and the processes that it started."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):  # they have ended
                os.killpg(self.process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)


def start(
    name: str,
    command: list[str],
    port: int,
    probe: str,
    logs: Path,
    environment: dict[str, str] | None = None,
) -> Server:
    """Run a module of this Python, apart from the terminal's Ctrl-C, which is for this command alone."""
    log = logs / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    return Server(name, process, f"http://{HOST}:{port}", probe, log)


def answers(page: str) -> bool:
    """Whether the page is there; asked for without a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(page, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:  # URLError and HTTPError are such
        return False


# --- waiting -------------------------------------------------------------------------------------


def watch(servers: list[Server], say: Say) -> None:
    """Until Ctrl-C, or until all have ended by themselves: that is a TrashSegError."""
    alive = list(servers)
    while True:
        for server in [server for server in alive if server.has_ended()]:
            alive.remove(server)
            problem = f"{server.name} has ended: {server.last_words()}"
            if not alive:
                raise TrashSegError(f"{problem}: start this command again")
            say(f"{problem}; {alive[0].name} goes on")
        time.sleep(POLL_SECONDS)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Being told to end, or losing the terminal, is as Ctrl-C: no server is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
